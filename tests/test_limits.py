"""A process that has run out of what the system gives it."""

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import kvsync
from kvsync.engine.process import Process, lives, this_process
from tests.processes import run_all


@contextmanager
def no_descriptor_to_spare() -> Iterator[None]:
    """Every `open` of this process fails meanwhile."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken: list[int] = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
    try:
        with pytest.raises(OSError, match="Too many open files"):
            while True:
                taken.append(os.open("/dev/null", os.O_RDONLY))
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for descriptor in taken:
            os.close(descriptor)


def test_without_a_descriptor_a_call_raises_storage_error_and_works_again_later(
    tmp_path: Path,
) -> None:
    run_all(use_without_descriptors, [(str(tmp_path / "store.db"), name) for name in USES])


USES: dict[str, Any] = {
    "lock": lambda store: store.lock("it").acquire(timeout=0),
    "rate limiter": lambda store: store.rate_limiter("it", 99, per=1).try_acquire(),
    "queue": lambda store: store.queue("it").shutdown(),
}


def use_without_descriptors(path: str, name: str) -> None:
    with kvsync.open(path) as store:
        store.counter("before").add()
        with no_descriptor_to_spare(), pytest.raises(kvsync.StorageError) as raised:
            USES[name](store)
        assert raised.value.errno is not None
        USES[name](store)


def test_without_a_descriptor_nobody_can_tell_who_is_dead() -> None:
    """Unknown counts as alive."""
    ours = this_process()
    run_all(look_without_descriptors, [(ours,), (ours._replace(pid_namespace=1),)])


def look_without_descriptors(recorded: Process) -> None:
    this_process()
    with no_descriptor_to_spare():
        assert lives(recorded) is None
