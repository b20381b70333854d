"""CPython's own tests of `queue.Queue`, run on kvsync's."""

import itertools
import queue
import unittest
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

import kvsync
from kvsync import session
from tests.cpython import differs, own_tests, parameters
from tests.processes import PATIENCE

suite = own_tests("test.test_queue")

DIFFERS = {
    "test_shrinking_queue": differs(
        "the size is the same for all processes: it is told to `store.queue`"
    ),
}
"""Each test that does not apply, and why. All the others pass, and these do not."""

_numbers = itertools.count()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[kvsync.Store]:
    """One store for all, in which nobody may be left waiting.

    Among many writers a try ends in BusyError after a second, of which those tests know nothing: on
    a busy machine it has more time here.
    """
    path = tmp_path_factory.mktemp("queue") / "store.db"
    with pytest.MonkeyPatch.context() as patch, kvsync.open(path) as store:
        patch.setattr(session, "GATE_PATIENCE", PATIENCE)
        yield store
        assert store.engine.read("select * from kvsync_ticket") == []
        assert store.check().damage == ()


def all_tests() -> list[str]:
    return list(unittest.TestLoader().getTestCaseNames(suite.BaseQueueTestMixin))


@pytest.mark.parametrize("name", parameters(all_tests(), DIFFERS))
def test_it_passes_what_the_standard_library_does(shared: kvsync.Store, name: str) -> None:
    """Or stands in the list of those that do not apply, and does not."""

    class Case(suite.BaseQueueTestMixin, unittest.TestCase):  # type: ignore[misc]  # no stubs
        queue = SimpleNamespace(Empty=queue.Empty, Full=queue.Full, ShutDown=kvsync.ShutDown)

        @staticmethod
        def type2test(maxsize: int = 0) -> Any:
            return shared.queue(f"queue {next(_numbers)}", maxsize)

    result = Case(name).run()
    assert result is not None
    assert not result.errors + result.failures, (result.errors + result.failures)[0][1]
