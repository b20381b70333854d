"""Which process this is: a number that no forked child has, however it was forked."""

import mmap
import os
import sys
from collections.abc import Callable

import pytest

from kvsync import forks
from tests.processes import in_child, in_raw_child

linux = pytest.mark.skipif(sys.platform != "linux", reason="the page is Linux's")


@pytest.mark.parametrize("fork", [in_child, in_raw_child])
def test_a_forked_child_has_another_number(fork: Callable[[Callable[[], object]], str]) -> None:
    here = forks.incarnation()
    assert forks.incarnation() == here
    child = int(fork(forks.incarnation))
    grandchild = int(fork(lambda: fork(forks.incarnation)))
    assert len({here, child, grandchild}) == 3
    assert forks.incarnation() == here


@pytest.mark.parametrize("fork", [in_child, in_raw_child])
def test_what_was_asked_for_before_is_no_forked_childs(
    fork: Callable[[Callable[[], object]], str],
) -> None:
    here = forks.incarnation()
    assert forks.asked_before() == here
    assert int(fork(forks.asked_before)) != here
    assert fork(lambda: forks.incarnation() == forks.asked_before()) == "True"
    assert forks.asked_before() == here


def test_a_forked_child_of_the_same_pid_has_another_number(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As in a pid namespace of its own."""
    here, pid = forks.incarnation(), os.getpid()
    monkeypatch.setattr(os, "getpid", lambda: pid)
    assert int(in_child(forks.incarnation)) != here


def test_a_child_that_was_asked_before_its_fork_was_counted_forgets_what_it_said() -> None:
    """By a fork hook of somebody else, that is: those of earlier imports run first."""
    program = """if True:
        import os
        said = []
        os.register_at_fork(after_in_child=lambda: said.append(forks.incarnation()))
        os.getpid = lambda: 1
        from kvsync import forks
        here = forks.incarnation()
        if not (pid := os.fork()):
            os._exit(0 if len(said) == 1 and forks.incarnation() != here else 1)
        raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    """
    assert os.spawnv(os.P_WAIT, sys.executable, [sys.executable, "-c", program]) == 0


@linux
def test_a_handler_that_forks_while_the_number_is_found_out_leaves_the_child_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """After the pid was asked for, before it is kept: where a handler can come in."""
    getpid = os.getpid
    forked: list[int] = []
    read, write = os.pipe()

    def forking() -> int:
        pid = getpid()
        if not forked:
            forked.append(-1)  # before: hooks of the fork ask, too
            forked.append(os.fork())
        return pid

    assert forks._page is not None
    forks._page[0] = 0
    monkeypatch.setattr(os, "getpid", forking)
    try:
        number = forks.incarnation()
        if forked[1] == 0:
            os.write(write, f"{forks.incarnation()} {forks.incarnation()}".encode())
    finally:
        if forked[-1] == 0:
            os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        first, second = map(int, pipe.read().split())
    os.waitpid(forked[1], 0)
    assert number == forks.incarnation()
    assert first == second != number


@linux
@pytest.mark.parametrize("refused", [set[int](), {forks._WIPE_ON_FORK, forks._NO_ADVICE}])
def test_without_a_page_that_forks_wipe_the_pid_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, refused: set[int]
) -> None:
    """A system that takes any advice, and one that takes none."""

    class Page(mmap.mmap):
        def madvise(self, option: int, *_: object) -> None:
            if option in refused:
                raise OSError("Invalid argument")

    assert forks._wiped_page() is not None
    monkeypatch.setattr(mmap, "mmap", Page)
    assert forks._wiped_page() is None
    here = forks._number()
    assert {int(fork(forks._number)) for fork in (in_child, in_raw_child)}.isdisjoint({here})
