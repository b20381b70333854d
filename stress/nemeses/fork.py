"""A process forks in the middle of its work, from a thread that its work knows nothing of.

It is told by a signal that is blocked in all its threads, so that no call is interrupted. The child
ends at once, or goes on a little: it takes a lock in a session of its own. Nothing else is done to
the crew until the child is reaped, so none outlives the run.
"""

import os
import random
import signal
import threading
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING

import kvsync
from stress import children
from stress.history import now
from stress.record import Fault
from stress.tally import Column

if TYPE_CHECKING:
    from stress.crew import Crew

_SIGNAL = signal.SIGUSR1
_GOES_ON = 0.5


class Fork:
    """Has one fork, and waits for its child."""

    WEIGHT = 1

    def strike(self, crew: "Crew") -> None:
        victim = crew.chance.choice(crew.at_work(crew.awake()))
        before, began = crew.tally.read(victim.number, Column.FORKS), now()
        if not (victim.works() and _is_told(victim.pid)):
            return  # it ended of itself, which the crew will notice
        crew.until(lambda: crew.tally.read(victim.number, Column.FORKS) > before)
        crew.note(Fault("fork", victim.number, began, now()))


def _is_told(pid: int) -> bool:
    try:
        os.kill(pid, _SIGNAL)
    except ProcessLookupError:
        return False
    return True


def obey(
    seed: str, store: kvsync.Store, done: Callable[[], None], explain: Callable[[], None]
) -> None:
    """In a worker, before it has any other thread: fork from now on whenever it is told to."""
    warnings.filterwarnings("ignore", category=DeprecationWarning)  # it is what we are here for
    signal.pthread_sigmask(signal.SIG_BLOCK, {_SIGNAL})
    chance = random.Random(seed)

    def wait() -> None:
        while True:
            signal.sigwait({_SIGNAL})
            _fork_once(store if chance.random() < _GOES_ON else None, explain)
            done()

    threading.Thread(target=wait, daemon=True).start()


def _fork_once(store: kvsync.Store | None, explain: Callable[[], None]) -> None:
    """What is wrong with the child is left for the master to read."""
    try:
        children.run(lambda: _live_as_child(store), explain)
    except BaseException:
        explain()


def _live_as_child(store: kvsync.Store | None) -> None:
    if store is not None:
        with store.lock("of forked children"):
            pass
