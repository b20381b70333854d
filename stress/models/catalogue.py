"""Which models there are, how large they are explored, and the broken variants to be refuted."""

from collections.abc import Iterator
from dataclasses import dataclass, field

Sizes = dict[str, int]


@dataclass(frozen=True)
class Model:
    """One Promela file. Each variant is a macro, `BROKEN_...`, and the sizes that it needs."""

    name: str
    quick: Sizes
    full: Sizes
    variants: dict[str, Sizes]
    large_variants: dict[str, Sizes] = field(default_factory=dict)
    other_full: tuple[Sizes, ...] = ()
    """Other full sizes, of what would not fit into one."""

    def explorations(self, quick: bool) -> Iterator[tuple[str | None, Sizes]]:
        """The sound model under None, then its broken variants; `quick` leaves out the large."""
        for sizes in (self.quick,) if quick else (self.full, *self.other_full):
            yield None, sizes
        yield from self.variants.items()
        if not quick:
            yield from self.large_variants.items()


def _line(
    workers: int, kills: int, stops: int, slows: int, timeouts: int, fails: int = 0, rounds: int = 1
) -> Sizes:
    return {
        "WORKERS": workers,
        "ROUNDS": rounds,
        "KILLS": kills,
        "STOPS": stops,
        "SLOWS": slows,
        "TIMEOUTS": timeouts,
        "FAILS": fails,
    }


_NO_FAULT = _line(3, 0, 0, 0, 0)
_ONE_KILL = _line(3, 1, 0, 0, 0)
_ONE_STOP = _line(3, 0, 1, 0, 0)
_LEASE = {"THREADS": 4, "ROUNDS": 2, "KILLS": 1, "POWER": 1, "ACTS": 2}
_LEASE_FORGOTTEN = {"THREADS": 3, "ROUNDS": 2, "KILLS": 1, "POWER": 0, "ACTS": 1, "FORGETS": 1}
_QUEUE = {"WORKERS": 2, "ITEMS": 2, "MOST": 2, "KILLS": 1, "SLOWS": 1}

MODELS = (
    Model(
        "lease",
        quick={"THREADS": 3, "ROUNDS": 1, "KILLS": 1, "POWER": 0, "ACTS": 1, "FORGETS": 1},
        full={"THREADS": 3, "ROUNDS": 2, "KILLS": 1, "POWER": 1, "ACTS": 1},
        other_full=(_LEASE_FORGOTTEN,),
        variants={
            "NO_GUARD": _LEASE,
            "CHECK_THEN_WRITE": _LEASE,
            "GUARD_BY_NAME": _LEASE,
            "GUARD_BY_SESSION": _LEASE,
            "RELEASE_BY_NAME": _LEASE,
            "TOKEN_RESTARTS": _LEASE,
            "FLOOR_FORGOTTEN": _LEASE | {"FORGETS": 1},
            "NO_EPOCH": _LEASE,
            "RESOURCE_TAKES_ALL": _LEASE,
        },
    ),
    Model(
        "ticket_queue",
        quick=_line(3, 1, 1, 0, 0, fails=1),
        full=_line(3, 2, 2, 1, 1, fails=1),
        other_full=(_line(3, 1, 0, 1, 1, fails=1, rounds=2),),
        variants={
            "RING_BEFORE_COMMIT": _ONE_KILL,
            "FREES_THEN_SERVES": _ONE_KILL,
            "FORGETS_RINGS_LATE": _ONE_KILL,
            "NO_REAP": _ONE_KILL,
            "NO_WATCH": _ONE_KILL,
            "STOPPED_IS_DEAD": _ONE_STOP,
            "NO_CLAIM_TIME": _ONE_STOP,
            "ONLY_HEAD_MENDS": _line(3, 1, 1, 0, 0),
            "WORD_BEFORE_COMMIT": _NO_FAULT,
            "WORD_TWICE": _ONE_STOP,
            "ANY_WORD": _line(2, 0, 0, 0, 1, rounds=2),
            "TAKEN_BACK_UNREAD": _NO_FAULT,
            "NOT_TAKEN_BACK": _ONE_STOP,
            "CLAIMED_IS_FORGOTTEN": _ONE_STOP,
        },
        large_variants={"SUCCESSOR_NOT_RUNG": _line(4, 2, 0, 0, 1)},
    ),
    Model(
        "rwlock",
        quick=_NO_FAULT,
        full=_line(3, 1, 1, 0, 1, fails=1),
        variants={
            "BARGE": _NO_FAULT,
            "NOT_RUNG_ON": _ONE_KILL,
            "RING_BEFORE_COMMIT": _ONE_KILL,
            "STOPPED_IS_DEAD": _ONE_STOP,
            "TAKEN_BACK_UNREAD": _NO_FAULT,
        },
    ),
    Model(
        "work_queue",
        quick=_QUEUE,
        full=_QUEUE | {"WORKERS": 3, "RETURNS": 1},
        variants={
            "ACK_BY_ID": _QUEUE,
            "ACK_WHATEVER_STATE": _QUEUE,
            "SAME_RECEIPT": _QUEUE,
            "CLAIMS_WHOEVERS": _QUEUE,
            "NO_REAP": _QUEUE,
            "DEATH_DOES_NOT_COUNT": _QUEUE,
            "RESULT_BEFORE_ACK": _QUEUE,
            "ACK_BEFORE_WORK": _QUEUE,
            "READ_THEN_TAKE": _QUEUE,
            "GIVES_BACK_WITHOUT_A_LOOK": _QUEUE,
        },
    ),
)
