"""What the objects of a store do, in the plainest way: for one call after the other."""

from collections import Counter
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

PERMITS = 2
ATTEMPTS = 3

EMPTY, REFUSED = "empty", "refused"
"""What a call came to that raised: there is no item; what it would give up is not its own."""

Call = tuple[Any, ...]
"""A method of `Model`, and its arguments but for the first."""


@dataclass
class Item:
    """Of the queue. Its id says where its place is."""

    id: int
    value: int
    attempts: int = 0


class Model:
    """A dict, a counter, a lock, a semaphore, an event and a queue; `me` is the process that calls.

    Each method returns what the real call does, as plain data.
    """

    def __init__(self) -> None:
        self.entries: dict[str, int] = {}
        self.count = 0
        self.holder: int | None = None
        self.permits: Counter[int] = Counter()
        self.is_set = False
        self.last = 0
        self.ready: list[Item] = []
        self.hands: list[tuple[int, Item]] = []
        self.dead: list[Item] = []

    def call(self, me: int, call: Call) -> Any:
        name, *arguments = call
        return getattr(self, name)(me, *arguments)

    def seen(self) -> list[Any]:
        """All that anybody can see."""
        return [
            self.entries,
            self.count,
            self.holder is not None,
            sum(self.permits.values()),
            self.is_set,
            [(item.value, item.attempts) for item in self.ready],
            len(self.hands),
            sorted((item.value, item.attempts) for item in self.dead),
        ]

    def die(self, me: int) -> None:
        """What it had is free, and goes back."""
        if self.holder == me:
            self.holder = None
        del self.permits[me]
        for owner, item in list(self.hands):
            if owner == me:
                self._put_back(owner, item)

    def transaction(self, me: int, calls: list[Call], aborts: bool) -> list[Any]:
        before = deepcopy(vars(self))
        results = [self.call(me, call) for call in calls]
        if aborts:
            vars(self).update(before)
        return results

    # --- dict, counter, event -----------------------------------------------------------------

    def set(self, _: int, key: str, value: int) -> None:
        self.entries[key] = value

    def pop(self, _: int, key: str) -> int | None:
        return self.entries.pop(key, None)

    def swap(self, _: int, key: str, expected: int, new: int) -> bool:
        if self.entries.get(key) != expected:
            return False
        self.entries[key] = new
        return True

    def increment(self, _: int, key: str, by: int) -> int:
        self.entries[key] = self.entries.get(key, 0) + by
        return self.entries[key]

    def read(self, _: int) -> dict[str, int]:
        return dict(self.entries)

    def add(self, _: int, by: int) -> int:
        self.count += by
        return self.count

    def raise_flag(self, _: int) -> None:
        self.is_set = True

    def lower_flag(self, _: int) -> None:
        self.is_set = False

    def flag(self, _: int) -> bool:
        return self.is_set

    # --- lock, semaphore ----------------------------------------------------------------------

    def lock(self, me: int) -> bool:
        if self.holder is not None:
            return False
        self.holder = me
        return True

    def unlock(self, me: int) -> str | None:
        if self.holder != me:
            return REFUSED
        self.holder = None
        return None

    def take_permit(self, me: int) -> bool:
        if sum(self.permits.values()) == PERMITS:
            return False
        self.permits[me] += 1
        return True

    def give_permit(self, me: int) -> str | None:
        if not self.permits[me]:
            return REFUSED
        self.permits[me] -= 1
        return None

    # --- queue --------------------------------------------------------------------------------

    def put(self, _: int, value: int) -> None:
        self.last += 1
        self.ready.append(Item(self.last, value))

    def get(self, _: int) -> int | str:
        return self.ready.pop(0).value if self.ready else EMPTY

    def reserve(self, me: int) -> tuple[int, int] | str:
        if not self.ready:
            return EMPTY
        item = self.ready.pop(0)
        item.attempts += 1
        self.hands.append((me, item))
        return item.value, item.attempts

    def ack(self, me: int) -> str | None:
        """The first that it has in hand; so do the others."""
        return REFUSED if self._settled(me) is None else None

    def retry(self, me: int) -> bool | str:
        item = self._settled(me)
        return REFUSED if item is None else self._again(item)

    def give_back(self, me: int) -> str | None:
        if (item := self._settled(me)) is None:
            return REFUSED
        item.attempts -= 1
        self._again(item)
        return None

    def bury(self, me: int) -> str | None:
        if (item := self._settled(me)) is None:
            return REFUSED
        self.dead.append(item)
        return None

    def _settled(self, me: int) -> Item | None:
        for each in self.hands:
            if each[0] == me:
                self.hands.remove(each)
                return each[1]
        return None

    def _put_back(self, me: int, item: Item) -> None:
        self.hands.remove((me, item))
        self._again(item)

    def _again(self, item: Item) -> bool:
        """In its old place; or it is dead, after its last attempt."""
        if item.attempts == ATTEMPTS:
            self.dead.append(item)
            return False
        self.ready = sorted([*self.ready, item], key=lambda each: each.id)
        return True
