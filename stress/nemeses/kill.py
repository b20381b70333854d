"""SIGKILL at any instant, of one or of a few at nearly the same time, and of some as they start."""

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stress.crew import Crew, Member

_MOST = 3
"""Victims of a strike."""

_LONGEST = 0.02
"""Seconds that a strike takes."""

_UNREADY = 0.1
"""Of the strikes, as many are at those who only start, if there are any."""


class Kill:
    """Kills some, each at an instant of its own; then others come in their places."""

    WEIGHT = 12

    def strike(self, crew: "Crew") -> None:
        candidates, chance = _candidates(crew), crew.chance
        victims = chance.sample(candidates, chance.randint(1, min(_MOST, len(candidates))))
        began = time.monotonic()
        instants = sorted(chance.uniform(0, _LONGEST) for _ in victims)
        for victim, instant in zip(victims, instants, strict=True):
            time.sleep(max(0.0, began + instant - time.monotonic()))
            crew.kill(victim)
        crew.replace_soon(victims)


def _candidates(crew: "Crew") -> "list[Member]":
    mortals = crew.mortals
    starting = [each for each in mortals if not each.has_begun()]
    if starting and crew.chance.random() < _UNREADY:
        return starting
    return crew.at_work(mortals)
