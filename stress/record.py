"""What a run of the suite came to, as data: what the page, and whoever reads JSON, is made from.

Moments are ns of the boot clock, durations seconds.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

EVERYBODY = 0
"""The number that no process has: for what is done to all of them."""


@dataclass(frozen=True)
class Fault:
    """Something that was done to a process; what lasts, as a stop does, is over at `ended`."""

    kind: str  # kill, stop, fork, clock, io, ...
    process: int  # its number within the scenario, or EVERYBODY
    at: int
    ended: int | None = None


@dataclass(frozen=True)
class Span:
    """A stay inside of what a lock protects."""

    key: str
    process: int
    token: int | None
    began: int
    ended: int | None  # None: killed inside
    refused: tuple[int, ...] = ()  # moments at which a stale holder was refused
    side: str = ""  # read or write, where there are these two
    thread: int = 0  # of the process


@dataclass(frozen=True)
class Latency:
    """How long the calls of one operation took; `quantiles` maps 0.5, 0.99, 1.0 and so on to s."""

    operation: str
    calls: int
    quantiles: Mapping[float, float]


@dataclass(frozen=True)
class Rate:
    """Operations that were done in each slice of `width` seconds since `began`."""

    began: int
    width: float
    counts: tuple[int, ...]


@dataclass(frozen=True)
class Books:
    """The books kept outside of the store, against what was in it at the end; None: not kept."""

    acknowledged: int | None = None
    lost: int | None = None
    recovered: int | None = None  # what the dead, or the stopped, had in hand, and others had then
    unknown: int | None = None  # calls whose callers were killed before they noted what they heard
    unheard: int | None = None  # of these, and of those that were refused: done all the same
    cut_off: int | None = None  # callers that were killed, or refused


@dataclass(frozen=True)
class ScenarioResult:
    """One scenario's part of a run."""

    name: str
    invariant: str
    primitives: tuple[str, ...]  # what of kvsync it is about: lock, queue, dict, ...
    faults_used: tuple[str, ...]  # kinds: kill, stop, fork, clock, io, power, ...
    verdict: str  # ok, VIOLATED, SKIPPED
    seconds: float
    processes: int
    figures: Mapping[str, float] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()
    violations: tuple[str, ...] = ()
    skipped: str = ""
    repeat: str = ""  # the command that repeats it
    books: Books | None = None
    faults: tuple[Fault, ...] = ()
    spans: tuple[Span, ...] = ()
    latencies: tuple[Latency, ...] = ()
    rate: Rate | None = None


@dataclass(frozen=True)
class MutantRow:
    """A broken twin of kvsync, and which scenarios caught it."""

    name: str
    broken: str  # one sentence
    caught: Mapping[str, bool | None]  # by scenario; None: not tried
    seconds: float = 0.0


@dataclass(frozen=True)
class Matrix:
    """Mutants by scenarios, and the run that it is of."""

    scenarios: tuple[str, ...]
    rows: tuple[MutantRow, ...]
    command: str
    seed: int
    date: str  # as that of a `Run`
    facts: Mapping[str, str]  # as those of a `Run`


@dataclass(frozen=True)
class Run:
    """A whole run."""

    command: str
    seed: int
    date: str  # ISO 8601, UTC
    seconds: float
    facts: Mapping[str, str]  # Python, SQLite, kvsync, file system, kernel, CPUs, memory, ...
    scenarios: tuple[ScenarioResult, ...]
    matrix: Matrix | None = None
