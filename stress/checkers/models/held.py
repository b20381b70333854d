"""What processes hold: a lock with a fencing token, a lock that its holder may take again, permits.

A process frees what it holds with `release()`, or by its end, which is `end()`. Who is killed
writes nothing of that, so that these models add it themselves: what a process holds may be freed at
any time after the last thing that it wrote. So a process must not leave a history while it holds.
"""

from collections.abc import Collection, Hashable

from stress.checkers.models import State
from stress.history import History, Operation, Outcome

END = "end"


class Held:
    """A model in which it matters who calls, and whether they live."""

    def completed(self, history: History) -> History:
        """With the end of each process."""
        last: dict[int, int] = {}
        for each in history:
            last[each.process] = max(last.get(each.process, 0), each.returned or each.invoked)
        return [*history, *(_end(process, moment) for process, moment in last.items())]

    def likeness(self, operation: Operation) -> Hashable:
        return operation.function, operation.argument, operation.process


def _end(process: int, moment: int) -> Operation:
    return Operation(process, END, None, Outcome.UNKNOWN, None, moment, None)


class FencedMutex(Held):
    """`acquire() -> token, or None where it is not told`, `release()`.

    The state is the holder, and a number that every token granted later is above.
    """

    initial = (None, -1)

    def after(self, state: State, operation: Operation) -> Collection[State]:
        holder, last = state
        if operation.function == "acquire":
            return self._acquired(holder, last, operation)
        if operation.function == END or holder == operation.process:
            return [(None if holder == operation.process else holder, last)]
        return []

    def _acquired(self, holder: int | None, last: int, operation: Operation) -> Collection[State]:
        token = last + 1 if operation.result is None else operation.result
        return [(operation.process, token)] if holder is None and token > last else []


class ReentrantMutex(Held):
    """`acquire()`, `release()`; who holds it may acquire it again. The state: who, how often."""

    initial = (None, 0)

    def after(self, state: State, operation: Operation) -> Collection[State]:
        holder, depth = state
        if operation.function == "acquire":
            free = holder in (None, operation.process)
            return [(operation.process, depth + 1)] if free else []
        if operation.function == END:
            return [self.initial if holder == operation.process else state]
        if holder != operation.process:
            return []
        return [(holder, depth - 1) if depth > 1 else self.initial]


class Semaphore(Held):
    """`acquire()`, `release()`; a process may hold several permits. The state: who holds them."""

    initial = ()

    def __init__(self, limit: int) -> None:
        self._limit = limit

    def after(self, state: State, operation: Operation) -> Collection[State]:
        who = operation.process
        if operation.function == "acquire":
            return [tuple(sorted((*state, who)))] if len(state) < self._limit else []
        if operation.function == END:
            return [tuple(each for each in state if each != who)]
        if who not in state:
            return []
        at = state.index(who)
        return [state[:at] + state[at + 1 :]]
