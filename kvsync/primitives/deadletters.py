"""Dead letters: the items of a queue that failed too often, or that somebody buried."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from operator import attrgetter
from typing import Any

from kvsync.codec import Codec, decode
from kvsync.engine import Transaction
from kvsync.errors import DecodeError
from kvsync.primitives.arguments import check_whole
from kvsync.primitives.items import DEAD, READY, Items, Kept
from kvsync.primitives.primitive import Primitive

_CHUNK = 500
_SELECT = """
    select place, id, priority, value, key, since, attempts, error from kvsync_item
    where queue = :queue and state = 3 and (place, id) > (:place, :id)
    and (place, id) <= (:last_place, :last_id)
    order by place, id limit :count
"""
_LAST = """
    select place, id from kvsync_item where queue = :queue and state = 3
    order by place desc, id desc limit 1
"""

_Step = Callable[[Items, Transaction, Kept], bool]


@dataclass(frozen=True)
class DeadLetter:
    """An item that died; `died_at` and `enqueued_at` are wall time."""

    id: int
    item: Any
    """None if the queue's codec cannot read it: then `error` says so."""
    error: str | None
    attempts: int
    enqueued_at: float
    died_at: float
    priority: float
    key: str | None


class DeadLetters:
    """The dead letters of one queue, the oldest death first."""

    def __init__(
        self, queue: Primitive, items: Items, codec: Codec, look: Callable[[], None]
    ) -> None:
        """`look` sees to what the dead have in hand, and may be a dead letter by now."""
        self._queue = queue
        self._look = look
        self._items = items
        self._engine = items.engine
        self._codec = codec

    def __reduce__(self) -> tuple[Any, ...]:
        return attrgetter("dead"), (self._queue,)

    def __repr__(self) -> str:
        return f"<kvsync.DeadLetters of {self._queue!r}>"

    def __len__(self) -> int:
        self._look()
        ((number,),) = self._engine.read(
            "select count(*) from kvsync_item where queue = :queue and state = 3",
            {"queue": self._items.queue},
        )
        return int(number)

    def __iter__(self) -> Iterator[DeadLetter]:
        return map(self._letter, self._kept())

    def list(self, limit: int | None = None) -> "list[DeadLetter]":
        """All of them, or the first `limit`.

        Raises: TypeError for a limit that is no int, ValueError for a negative one.
        """
        if limit not in (None, 0):
            check_whole("limit", limit)
        return list(islice(self, limit))

    def redrive(self, ids: Iterable[int] | None = None) -> int:
        """Put those, or all, back into the queue, their attempts at 0; returns how many.

        They keep their ids and priorities, so they are in their old places. A bounded queue may
        then hold more than its `maxsize`. What dies after the call stays a dead letter. Ids that
        no dead letter has are ignored. It goes on by five hundred at a time, so that others can
        write in between.

        Raises: TypeError for an id that is no int; BusyError as any call, and what is done by then
        stays done.
        """
        return sum(self._each(_redrive, _check_ids(ids)))

    def purge(self, ids: Iterable[int] | None = None) -> int:
        """Remove those, or all, for good; returns how many. What dies after the call stays.

        Raises: as `redrive`.
        """
        return sum(self._each(_remove, _check_ids(ids)))

    def _each(self, work: _Step, wanted: set[int] | None) -> Iterator[int]:
        chunk = []
        for kept in self._kept():
            if wanted is None or kept.id in wanted:
                chunk.append(kept)
            if len(chunk) == _CHUNK:
                yield self._commit(work, chunk)
                chunk = []
        yield self._commit(work, chunk)

    def _commit(self, work: _Step, chunk: Sequence[Kept]) -> int:
        def all_of_them(transaction: Transaction) -> int:
            done = sum([work(self._items, transaction, kept) for kept in chunk])
            self._items.serve(transaction)
            return done

        return self._engine.transact(all_of_them, bulk=True) if chunk else 0

    def _kept(self) -> Iterator[Kept]:
        """Those that are there now. What dies from now on, perhaps once more, comes after them."""
        self._look()
        here = {"queue": self._items.queue}
        for last_place, last_id in self._engine.read(_LAST, here):
            bounds = {**here, "last_place": last_place, "last_id": last_id, "count": _CHUNK}
            place, number = -1.0, 0
            while rows := self._engine.read(_SELECT, {**bounds, "place": place, "id": number}):
                yield from map(Kept._make, rows)
                place, number = rows[-1][:2]

    def _letter(self, kept: Kept) -> DeadLetter:
        item, error = None, kept.error
        try:
            item = decode(self._codec, kept.value)
        except DecodeError as problem:
            if str(problem) not in (error or ""):
                error = "\n".join(filter(None, (error, str(problem))))
        return DeadLetter(
            kept.id,
            item,
            error,
            kept.attempts,
            kept.since,
            kept.place,
            kept.priority,
            kept.key,
        )


def _check_ids(ids: Iterable[int] | None) -> set[int] | None:
    wanted = None if ids is None else set(ids)
    for each in wanted or ():
        if isinstance(each, bool) or not isinstance(each, int):
            raise TypeError(f"an id is an int, not {each!r}")
    return wanted


def _redrive(items: Items, transaction: Transaction, kept: Kept) -> bool:
    return items.move(transaction, kept, READY, was=DEAD, attempts=0)


def _remove(items: Items, transaction: Transaction, kept: Kept) -> bool:
    return bool(
        transaction.execute(
            "delete from kvsync_item where queue = :queue and state = 3 and place = :place"
            " and id = :id returning 1",
            {"queue": items.queue, "place": kept.place, "id": kept.id},
        )
    )
