"""What processes hold: a lock with a fencing token, one that its holder may take again, permits,
a side of a read-write lock.

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
    after = moment + 1  # else its last call could have been made after its end
    return Operation(process, END, None, Outcome.UNKNOWN, None, after, None)


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
    """`acquire() -> token, or None where it is not told`, `release()`.

    Who holds it may acquire it again, under the same token. The state: who, how often, a number
    that every token granted later is above, and whether that is the holder's token.
    """

    initial = (None, 0, -1, False)

    def after(self, state: State, operation: Operation) -> Collection[State]:
        holder, depth, last, _ = state
        if operation.function == "acquire":
            return self._acquired(state, operation)
        if operation.function == END:
            return [(None, 0, last, False) if holder == operation.process else state]
        if holder != operation.process:
            return []
        return [(holder, depth - 1, *state[2:]) if depth > 1 else (None, 0, last, False)]

    def _acquired(self, state: State, operation: Operation) -> Collection[State]:
        holder, depth, last, told = state
        who, token = operation.process, operation.result
        if holder is None:
            first = last + 1 if token is None else token
            return [(who, 1, first, token is not None)] if first > last else []
        if holder != who:
            return []
        if token is None:
            return [(who, depth + 1, last, told)]
        fits = token == last if told else token >= last
        return [(who, depth + 1, token, True)] if fits else []


class Semaphore(Held):
    """`acquire(n) -> False where none were to be had in time`, `try(n)` without waiting,
    `release(n)`; n is 1 if left out.

    A process may hold several permits. The state: who holds them.
    """

    initial = ()

    def __init__(self, limit: int) -> None:
        self.limit = limit

    def after(self, state: State, operation: Operation) -> Collection[State]:
        who, n = operation.process, operation.argument or 1
        if operation.function in ("acquire", "try"):
            return self._acquired(state, operation, n)
        if operation.function == END:
            return [tuple(each for each in state if each != who)]
        if state.count(who) < n:
            return []
        at = state.index(who)
        return [state[:at] + state[at + n :]]

    def _acquired(self, state: State, operation: Operation, n: int) -> Collection[State]:
        if operation.result is False:  # it waited in a line, so that others need not hold them all
            return [state]
        fits = len(state) + n <= self.limit
        return [tuple(sorted((*state, *[operation.process] * n)))] if fits else []


class ReadWriteLock(Held):
    """`read()`, `write()`, `downgrade()` of what is written, `release()`; one at a time of each.

    The state: who writes, who read.
    """

    initial = (None, ())

    def after(self, state: State, operation: Operation) -> Collection[State]:
        (writer, readers), who = state, operation.process
        match operation.function:
            case "read":
                return [(None, tuple(sorted((*readers, who))))] if writer is None else []
            case "write":
                return [(who, ())] if state == self.initial else []
            case "downgrade":
                return [(None, (who,))] if writer == who else []
        left = None if writer == who else writer, tuple(each for each in readers if each != who)
        return [left] if operation.function == END or left != state else []
