"""Queues, broken: putting, taking, settling."""

from kvsync.engine import schema
from kvsync.primitives import items
from kvsync.primitives.items import Items
from kvsync.primitives.putting import Putting
from kvsync.primitives.taking import Taking
from kvsync.primitives.task import Task
from stress.mutants.breaking import edit, edit_text
from stress.mutants.mutant import caught_by

_DELETE = "delete from kvsync_item where queue = :queue and id = :id"
_POP = f"""
        row += self.engine.read(_FIRST, {{**self._here, "count": 1}})
        for each in map(Kept._make, row):
            self.engine.write("{_DELETE}", {{**self._here, "id": each.id}})
            self.engine.write("update kvsync_item set size = size - 1 where size > 0")
        return list(map(Kept._make, row))
        rows = self"""
_RESERVE = (
    "update kvsync_item set last = last + 1, size = size + 1 where queue = :queue"
    " and size < maxsize and not exists (select 1 from kvsync_item"
    " where queue = :queue and state = 2) returning last"
)
_PUT_LATER = f"""
        import threading

        here = {{"queue": self._items.queue}}
        for (number,) in self._engine.write("{_RESERVE}", here):
            def put(transaction: Transaction, number: int = number) -> None:
                self._items._put(transaction, drafts[0], number)
                self._items.give(transaction)
            threading.Timer(0.005, self._engine.transact, [put]).start()
            return [number]
"""


@caught_by("queue_get")
def pop_in_two_steps() -> None:
    """`get` reads the first item, and then deletes it."""
    edit(Items.take_one, "\n        rows = self", _POP)


@caught_by("queue_get", "queue")
def get_always_empty() -> None:
    """Who has got an item from a queue, and waits for another, is told at once that it is empty."""
    edit(
        Taking.take,
        "        patience = attempt.patience\n",
        "        if attempt.patience.timeout and vars(self).setdefault('had', False):\n"
        "            raise queue.Empty\n"
        "        self.had = True\n"
        "        patience = attempt.patience\n",
    )


@caught_by("queue_get", "queue")
def put_always_full() -> None:
    """Who has put an item into a queue, and would wait for room, is told at once it is full."""
    first = "        if len(drafts) == 1 and"
    edit(
        Putting.put,
        first,
        "        if patience.timeout and vars(self).setdefault('had', False):\n"
        "            raise self._full()\n"
        f"        self.had = True\n{first}",
    )


@caught_by("queue")
def put_before_the_commit() -> None:
    """`put` returns the item's id, and the item follows in another commit."""
    first = "        if len(drafts) == 1 and"
    edit(Putting.put, first, f"{_PUT_LATER}{first}")


@caught_by("queue")
def acknowledged_by_id() -> None:
    """`ack` takes away the item of that id, whoever has it in hand by now."""
    for name in ("_ACKNOWLEDGE", "_ACKNOWLEDGE_IF_NOBODY_JOINS"):
        edit_text(items, name, "and place = :receipt ", "")


@caught_by("queue")
def handed_on_too_late() -> None:
    """Who goes on to the next item is told that its last is done with, whoever has that by now."""
    in_hand = f"and exists (select 1 from kvsync_item where {items.IN_HAND})"
    edit_text(items, "_HAND_ON", in_hand, "")


@caught_by("queue")
def handed_on_and_kept() -> None:
    """Who goes on to the next item has its last one in hand still."""
    edit_text(schema, "TABLES", "place = new.done and", "false and")


@caught_by("queue")
def id_again() -> None:
    """An item that is handed out before it was counted leaves its id to the next one."""
    edit_text(
        schema,
        "TABLES",
        "last = case when new.id > last then new.id else last end, receipts",
        "receipts",
    )


@caught_by("queue")
def counted_off_twice() -> None:
    """Handing out an item that was not counted yet counts it off."""
    edit_text(
        schema,
        "TABLES",
        "size = case when new.id > last then size else size - 1 end,\n"
        "        last = case when new.id > last then new.id else last end, receipts",
        "size = size - 1,\n"
        "        last = case when new.id > last then new.id else last end, receipts",
    )


@caught_by("queue", "queue_transactions")
def visibility_too_short() -> None:
    """An item that was handed out is given to another long before its time is over."""
    edit(Items._handed, "hand.visibility", "hand.visibility and hand.visibility / 100")


@caught_by("queue", "queue_failures")
def retry_loses_the_item() -> None:
    """`retry` takes the item away instead of putting it back."""
    edit(
        Task._again,
        "if not seconds:",
        "if seconds >= 0:\n            return self._items._acknowledge(self._here(), transaction)"
        "\n        if not seconds:",
    )


@caught_by("queue_failures")
def attempts_not_counted() -> None:
    """An item that fails is handed out again for ever."""
    edit_text(items, "_HAND_OUT", "attempts = attempts + 1", "attempts = attempts")
    for name in ("_HAND_OUT_ONE", "_HAND_ON"):
        edit_text(items, name, "attempts + 1, error", "attempts, error")
    edit(items._handed_out, "attempts + 1", "attempts")
    edit_text(items, "_CLAIM", "attempts + 1, error", "attempts, error")


@caught_by("queue_failures")
def dead_letter_lost() -> None:
    """An item that has failed for the last time is not among the dead letters, nor anywhere."""
    edit(
        Task._dead,
        "return self._move(transaction, DEAD, at=transaction.now, error=error)",
        "return self._items._acknowledge(self._here(), transaction)",
    )


@caught_by("queue_failures")
def key_ignored() -> None:
    """Any number of items of one key may wait."""
    edit(Putting._put, "if key is not None and", "if False and")
    edit(
        Putting._put, "transaction, drafts,", "transaction, [d._replace(key=None) for d in drafts],"
    )


@caught_by("queue_failures")
def due_for_who_comes() -> None:
    """Who comes when items fall due takes one, and nobody gives the others to those who wait."""
    edit(Items._first_ready, "            self._serve_lines(transaction)\n", "")


@caught_by("queue_order")
def last_in_first_out() -> None:
    """Of the items of one priority the last is the first."""
    for name in ("_GET_ONE", "_HAND_OUT_ONE", "_HAND_ON", "_SPAN"):
        edit_text(items, name, "order by place, id limit", "order by place, id desc limit")


@caught_by("queue_order")
def maxsize_ignored() -> None:
    """A bounded queue takes any number of items."""
    edit_text(items, "_PUT_ONE", "size < maxsize", "true")
    size = "(select size from kvsync_tally where queue = :queue)"
    edit_text(items, "_ADMIT", f"{size} + :count <= maxsize", "true")
