"""What is done to the processes of a scenario while they work, one file for each.

    kill     SIGKILL to one or a few, and other processes in their places
    stop     SIGSTOP, and SIGCONT a moment later
    fork     the process forks in the middle of its work
    clock    the wall clock steps, by libfaketime

A scenario says in `NEMESES` which of them it bears. `kill`, `stop` and `fork` strike any crew that
bears them; the others, and `io` and `power`, belong to the scenarios that are about them, which
bring them about themselves: see `stress/faults/`. What a scenario does of itself, always, and
nobody can ask for, it says in `FAULTS`.
"""

from types import ModuleType
from typing import TYPE_CHECKING, Protocol

from stress.nemeses.fork import Fork
from stress.nemeses.kill import Kill
from stress.nemeses.stop import Stop

if TYPE_CHECKING:
    from stress.crew import Crew

NAMES = ("kill", "stop", "clock", "io", "fork", "power")


class Nemesis(Protocol):
    """Something that is done again and again."""

    WEIGHT: int
    """How often, beside others."""

    def strike(self, crew: "Crew") -> None:
        """Do it to one of them, or to a few, at random instants."""


STRIKERS: dict[str, Nemesis] = {"kill": Kill(), "stop": Stop(), "fork": Fork()}
"""Those that strike any crew."""


def borne(scenario: ModuleType) -> tuple[str, ...]:
    """Those that a scenario bears: if it says nothing, all strikers where it counts kills."""
    default = STRIKERS if scenario.UNIT == "kills" else ()
    return tuple(getattr(scenario, "NEMESES", default))


def own(scenario: ModuleType) -> tuple[str, ...]:
    """The faults that are in a scenario whatever the run is asked for: it counts them."""
    return tuple(getattr(scenario, "FAULTS", ()))
