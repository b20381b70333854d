"""SIGKILL at any instant, now and then while a process starts."""

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stress.crew import Crew

_LONGEST_LIFE = 0.03
_UNREADY = 0.1


class Kill:
    """Kills one, and has it replaced."""

    WEIGHT = 8

    def strike(self, crew: "Crew") -> None:
        victim = crew.chance.choice(crew.mortals)
        if crew.chance.random() >= _UNREADY and victim.works():
            time.sleep(crew.chance.uniform(0, _LONGEST_LIFE))
        crew.replace(victim)
