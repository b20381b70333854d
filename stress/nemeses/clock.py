"""The wall clock of the children steps, forth or back by up to a day, most often by little."""

from typing import TYPE_CHECKING

from stress.history import now
from stress.record import EVERYBODY, Fault

if TYPE_CHECKING:
    from stress.crew import Crew
    from stress.faults.wall import Wall

_DAY = 86_400.0


class Clock:
    """Moves a wall clock that the children live by."""

    WEIGHT = 1

    def __init__(self, wall: "Wall") -> None:
        self._wall = wall

    def strike(self, crew: "Crew") -> None:
        self._wall.set(crew.chance.choice((-1, 1)) * _DAY * crew.chance.random() ** 4)
        crew.note(Fault("clock", EVERYBODY, now()))
