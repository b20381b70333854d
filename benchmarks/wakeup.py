"""How long an item is on its way: from before its `put` to after a `get` that waited for it.

Both ends are taken from the machine's one monotonic clock, in two processes.
"""

import random
import time
from functools import partial
from typing import Any

from benchmarks import handoff
from benchmarks.field import Field
from benchmarks.options import Options
from benchmarks.peers.queuers import Queuer
from benchmarks.rounds import Measured, Round, in_turn

_WAITED = (0.02, 0.12)
"""Seconds for which the one waits before the other puts: at random, so no side's polls meet it."""


def measure(field: Field, options: Options) -> dict[str, Measured]:
    """The sides in turn."""
    sides = {}
    for name, peer in field.ready.items():
        assert isinstance(peer, Queuer)
        if peer.wakes:
            folder = field.folder(peer)
            peer.prepare(folder, "wake-up")
            sides[name] = partial(_one_round, peer, folder, options.wakeups)
    return in_turn(sides, options.rounds)


def _one_round(peer: Queuer, folder: str, times: int) -> Round:
    return handoff.round_of(handoff.between_two(partial(_steps, peer, folder), _one, times))


def _steps(peer: Queuer, folder: str) -> dict[str, Any]:
    line = peer.line(folder, "wake-up")
    line.put()
    line.wait()
    return {"put": line.put, "wait": line.wait}


def _one(getter: Any, putter: Any) -> int:
    """Nanoseconds from before the `put` to after the `get`."""
    getter.send("wait")
    time.sleep(random.uniform(*_WAITED))
    put, _ = handoff.ask(putter, "put")
    _, got = handoff.receive(getter)
    return int(got - put)
