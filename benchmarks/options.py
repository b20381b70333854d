"""How thorough a run is."""

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Options:
    """What all benchmarks need to know; `folder` is theirs, on disk."""

    folder: str
    rounds: int = 5
    seconds: float = 3.0
    processes: tuple[int, ...] = (1, 8, 32)
    few_keys: int = 1_000
    many_keys: int = 1_000_000
    contenders: int = 8
    handoffs: int = 20
    producers: tuple[int, ...] = (1, 4)
    wakeups: int = 100

    def quick(self) -> "Options":
        """A rehearsal: every line runs, no figure means anything."""
        return replace(
            self,
            rounds=1,
            seconds=0.1,
            processes=(1, 2),
            many_keys=5_000,
            contenders=2,
            handoffs=2,
            producers=(1,),
            wakeups=2,
        )
