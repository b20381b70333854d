"""Fencing tokens: each is larger than every earlier one of its name.

The rows of a name in `kvsync_unit` remember its last token. Where they are gone, the row of the
boot stands in for them, and a name begins above both its numbers:

- The epoch, in a token's high bits. A power failure may take commits, and with them the memory of
  the last tokens given out; so each boot has an epoch of its own, which is on the disk before any
  of its tokens is given out.
- The floor: the largest token that was forgotten. A name is often made for one thing alone
  ("order-1234"), so names that have not been held for a while are forgotten now and then; or the
  file would grow until the next boot, which forgets them all.

A name is forgotten as a whole or not at all: each row that stays counts on the others.
"""

import secrets
from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple

from kvsync.engine import Engine, Transaction
from kvsync.errors import KvsyncError

EPOCH = 1 << 40
"""Tokens in one epoch."""

EVERY = 256
"""Attempts of a session from one look at names that may be forgotten to the next."""

ROWS = 2 * EVERY
"""Rows that one looks at: more than can have been added meanwhile, so that the looks catch up."""

WORTH = ROWS // 8
"""Rows to be had among them for which it is worth a write; a few that rest stay as they are."""

REST = 30.0
"""Seconds since its last grant after which a name may go: to come again costs it a detour."""

_NEXT = """
    select space, name from kvsync_unit where (space, name) > (:space, :name)
    order by space, name limit 1 offset :rows
"""
_AMONG = "(space, name) > (:space, :name) and (space, name) <= (:last_space, :last_name)"
_RESTING = f"""
    from kvsync_unit where {_AMONG} and session = 0 and since <= :before
    and (space, name) not in (
        select space, name from kvsync_unit where {_AMONG} and (session <> 0 or since > :before))
"""
_COUNT = f"select count(*) {_RESTING}"
_FORGET = f"delete {_RESTING} returning token"


class Place(NamedTuple):
    """Where a look at the names begins: behind this one."""

    space: str = ""
    name: str = ""


_END = Place("\U0010ffff")
"""Behind all names."""


def begin_epoch(engine: Engine, boot: str) -> None:
    """Once for each boot. Who made it may have been killed before it was on the disk."""
    found = engine.read("select synced from kvsync_boot where boot = :boot", {"boot": boot})
    if found and found[0][0]:
        return
    if not found:
        engine.transact(partial(_add_epoch, boot))
    engine.sync()
    engine.write("update kvsync_boot set synced = 1 where boot = :boot", {"boot": boot})


def _add_epoch(boot: str, transaction: Transaction) -> None:
    ((last,),) = transaction.execute("select coalesce(max(epoch), 0) from kvsync_boot")
    transaction.execute(
        "insert into kvsync_boot (boot, epoch) values (:boot, :epoch) on conflict do nothing",
        {"boot": boot, "epoch": last + 1},
    )
    # What they remember, the tokens given out so far, the new epoch is above anyway.
    transaction.execute("delete from kvsync_unit where session = 0")


class Forgetting:
    """What one session does to forget names: a look at some of them each so many attempts."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._attempts = 0
        self._behind: Place | None = None

    def now_and_then(self, space: str, name: str) -> None:
        """Call it before each attempt at a grant of that name; it waits for nobody.

        The first look of a session, which may be its only one, begins anywhere near that name.
        """
        attempts, self._attempts = self._attempts, self._attempts + 1
        if attempts % EVERY:
            return
        behind, self._behind = self._behind, None
        if behind is None:
            behind = Place(space, name[: secrets.randbelow(len(name) + 1)])
        # A store that is busy or damaged there is no matter of the attempt.
        with suppress(KvsyncError):
            behind = forget_some(self._engine, behind)
            self._behind = forget_some(self._engine, behind) if behind == Place() else behind


def forget_some(engine: Engine, behind: Place, *, worth: int = WORTH, rest: float = REST) -> Place:
    """Forget the next names that nobody has held for `rest` seconds, if they have `worth` rows.

    Returns where the next look begins. Raises: BusyError at once.
    """
    next = engine.read(_NEXT, {**behind._asdict(), "rows": ROWS - 1})
    last = Place(*next[0]) if next else _END
    among = {**behind._asdict(), "last_space": last.space, "last_name": last.name}
    among["before"] = engine.now() - rest
    ((resting,),) = engine.read(_COUNT, among)
    if resting >= worth:
        engine.transact(partial(_forget, among), patience=0)
    return last if next else Place()


def _forget(among: dict[str, Any], transaction: Transaction) -> None:
    tokens = [token for (token,) in transaction.execute(_FORGET, among)]
    transaction.execute(
        "update kvsync_boot set floor = :floor where floor < :floor",
        {"floor": max(tokens, default=0)},
    )
