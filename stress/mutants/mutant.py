"""What a mutant is."""

from collections.abc import Callable
from dataclasses import dataclass

Break = Callable[[], None]


@dataclass(frozen=True)
class Mutant:
    """A broken twin of kvsync; `caught_by` are scenarios that must see it, the quickest first."""

    name: str
    broken: str
    caught_by: tuple[str, ...]
    apply: Break


def caught_by(*scenarios: str) -> Callable[[Break], Mutant]:
    """Makes a mutant of a function that breaks kvsync; its docstring says what is broken."""

    def mutant(apply: Break) -> Mutant:
        broken = " ".join((apply.__doc__ or "").split())
        return Mutant(apply.__name__.replace("_", "-"), broken, scenarios, apply)

    return mutant
