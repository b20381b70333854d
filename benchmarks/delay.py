"""How late a waiting `get` of kvsync has an item that was put with a delay: from when it is due."""

import os
from functools import partial
from typing import Any

import kvsync
from benchmarks import handoff
from benchmarks.options import Options
from benchmarks.rounds import Measured, Round, in_turn

_DELAY = 0.05
"""Seconds."""


def measure(options: Options) -> Measured:
    path = os.path.join(options.folder, "delay.db")
    one_round = partial(_one_round, path, options.wakeups)
    return in_turn({"kvsync": one_round}, options.rounds)["kvsync"]


def _one_round(path: str, times: int) -> Round:
    return handoff.round_of(handoff.between_two(partial(_steps, path), _one, times))


def _steps(path: str) -> dict[str, Any]:
    jobs = kvsync.open(path).queue("jobs")
    return {"put": partial(jobs.put, 1, delay=_DELAY), "get": jobs.get}


def _one(getter: Any, putter: Any) -> int:
    """Nanoseconds from `_DELAY` after `put` began to after the `get`."""
    getter.send("get")
    began, _ = handoff.ask(putter, "put")
    _, got = handoff.receive(getter)
    return int(got - began - _DELAY * 1e9)
