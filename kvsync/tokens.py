"""Fencing tokens: each is larger than every earlier one of its name.

The rows of a name in `kvsync_unit` remember its last token. Where they are gone, the row of the
boot stands in for them, and a name begins above both its numbers:

- The epoch, in a token's high bits. A power failure may take commits, and with them the memory of
  the last tokens given out; so each boot has an epoch of its own, which is on the disk before any
  of its tokens is given out.
- The floor: the largest token that was forgotten. A name is often made for one thing alone
  ("order-1234"), so names that nobody has taken for a while are forgotten now and then; or the
  file would grow until the next boot, which forgets them all.

A name is forgotten as a whole or not at all: each row that stays counts on the others.
"""

from functools import partial
from typing import Any, NamedTuple

from kvsync.engine import Engine, Transaction
from kvsync.errors import BusyError, KvsyncError
from kvsync.resting import REST, near

EPOCH = 1 << 40
"""Tokens in one epoch."""

EVERY = 256
"""Attempts of a session from one look at names that may be forgotten to the next."""

ROWS = 2 * EVERY
"""Rows that one looks at: more than can have been added meanwhile, so that the looks catch up."""

WORTH = ROWS // 8
"""Rows to be had among them for which it is worth a write; a few that rest stay as they are."""

_LAST_EPOCH = "select coalesce(max(epoch), 0) from kvsync_boot"
_NEXT = """
    select space, name from kvsync_unit where (space, name) > (:space, :name)
    order by space, name limit 1 offset :rows
"""
_AMONG = "(space, name) > (:space, :name) and (space, name) <= (:last_space, :last_name)"
_RESTING = f"""
    from kvsync_unit where {_AMONG} and session = 0 and (since <= :before or since > :now)
    and (space, name) not in (
        select space, name from kvsync_unit
        where {_AMONG} and (session <> 0 or since > :before and since <= :now))
"""
_COUNT = f"select count(*) {_RESTING}"
_FORGET = f"delete {_RESTING} returning token"


class Place(NamedTuple):
    """Where a look at the names begins: behind this one."""

    space: str = ""
    name: str = ""


_END = Place("\U0010ffff")
"""Behind all names."""


def begin_epoch(engine: Engine, boot: str, patience: float | None = None) -> None:
    """Once for each boot. Who made it may have been killed before it was on the disk.

    Raises: what a write raises; BusyError after `patience` seconds.
    """
    found = engine.read("select synced from kvsync_boot where boot = :boot", {"boot": boot})
    if found and found[0][0]:
        return
    if not found:
        engine.transact(partial(_add_epoch, boot), patience=patience)
    engine.sync()
    engine.write(
        "update kvsync_boot set synced = 1 where boot = :boot", {"boot": boot}, patience=patience
    )


def _add_epoch(boot: str, transaction: Transaction) -> None:
    ((last,),) = transaction.execute(_LAST_EPOCH)
    if transaction.execute(
        "insert into kvsync_boot (boot, epoch) values (:boot, :epoch) on conflict do nothing"
        " returning epoch",
        {"boot": boot, "epoch": last + 1},
    ):
        # What they remember, the tokens of earlier boots, the new epoch is above anyway.
        transaction.execute("delete from kvsync_unit where session = 0")


class Forgetting:
    """What one session does to forget names: a look at some of them each so many attempts."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._left = 1  # attempts until the next look
        self._behind: Place | None = None

    def now_and_then(self, space: str, name: str) -> None:
        """Call it before each attempt at a grant of that name; in WAL mode it waits for nobody.

        The first look of a session, which may be its only one, begins anywhere near that name.
        """
        self._left -= 1
        if self._left > 0:
            return
        self._left = EVERY
        if self._behind is None:
            self._behind = Place(space, near(name))
        try:
            self._look()
        except BusyError:
            self._left = EVERY // 8
        except KvsyncError:
            self._behind = None  # it may be damaged there, which is no matter of the attempt

    def _look(self) -> None:
        assert self._behind is not None
        begun, self._behind = self._behind, forget_some(self._engine, self._behind)
        if self._behind == Place() and begun != Place():
            self._behind = forget_some(self._engine, self._behind)


def forget_some(engine: Engine, behind: Place, *, worth: int = WORTH, rest: float = REST) -> Place:
    """Forget the next names that are free and were last taken more than `rest` seconds ago.

    They go if they have `worth` rows. Returns where the next look begins. Raises: BusyError, in WAL
    mode at once.
    """
    here, now = behind._asdict(), engine.now()
    next = engine.read(_NEXT, {**here, "rows": ROWS - 1})
    last = Place(*next[0]) if next else _END
    # A time to come is of a clock that was wrong.
    among = {**here, "last_space": last.space, "last_name": last.name}
    among |= {"before": now - rest, "now": now}
    ((resting,),) = engine.read(_COUNT, among)
    if resting >= worth:
        engine.transact(partial(_forget, among), patience=0)
    return last if next else Place()


def _forget(among: dict[str, Any], transaction: Transaction) -> None:
    ((epoch,),) = transaction.execute(_LAST_EPOCH)
    tokens = [token for (token,) in transaction.execute(_FORGET, among)]
    # A larger one than was ever given out is damage, and would become every new name's.
    floor = max((token for token in tokens if token < (epoch + 1) * EPOCH), default=0)
    transaction.execute(
        "update kvsync_boot set floor = :floor where floor < :floor", {"floor": floor}
    )
