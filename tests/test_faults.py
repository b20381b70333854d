"""Which faults the suite brings about in the system calls of a call."""

import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from stress.faults import strace
from stress.faults.strace import Injection, counted
from stress.faults.trial import Stores, Trial, Victim
from stress.history import now
from stress.scenarios import ALL as SCENARIOS
from stress.scenarios import io, limits
from stress.stage import SOUND
from tests.in_turn import staged
from tests.test_stress import stress

pytestmark = pytest.mark.suite

THREADS = """\
10  clone(child_stack=NULL, flags=CLONE_CHILD_CLEARTID|CLONE_CHILD_SETTID|SIGCHLD) = 20
20  pwrite64(4, "", 32, 0) = 32
20  clone3({flags=CLONE_VM|CLONE_FILES|CLONE_THREAD, stack=0x7f}, 88) = 21
21  pwrite64(4, "", 32, 0) = 32
21  clone3({flags=CLONE_VM|CLONE_FILES|CLONE_THREAD, stack=0x7f} <unfinished ...>
22  pwrite64(4, "", 32, 0 <unfinished ...>
22  <... pwrite64 resumed>) = 32
22  pwrite64(4, "", 32, 0) = 32
21  <... clone3 resumed> => {parent_tid=[22]}, 88) = 22
22  fdatasync(4) = 0
10  clone(child_stack=NULL, flags=CLONE_CHILD_CLEARTID|CLONE_CHILD_SETTID|SIGCHLD) = 30
30  fsync(4) = 0
"""
"""A child whose thread starts another one, and a child with none."""


@pytest.fixture
def victim() -> Iterator[Victim]:
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    strace.require()
    with Victim() as victim:
        yield victim


def buffered(folder: Path) -> Trial:
    """Its writes are those of a thread."""
    return Trial(Stores(str(folder)), "counter.buffered", SOUND)


def test_what_the_threads_of_a_process_do_is_counted_as_its_own(tmp_path: Path) -> None:
    """An injection counts in each thread by itself, so that the most of one of them is reached."""
    log = tmp_path / "log"
    log.write_text(THREADS)
    assert counted(str(log)) == {20: Counter(pwrite64=2, fdatasync=1), 30: Counter(fsync=1)}


def test_a_call_that_writes_in_a_thread_is_faulted_there(tmp_path: Path, victim: Victim) -> None:
    """At its last write too, and nowhere after it."""
    (each,) = io._rehearse(victim, str(tmp_path / "log"), [buffered(tmp_path)])
    writes = each.made["pwrite64"]
    assert writes > 0
    for k, outcome in ((1, "killed"), (writes, "killed"), (writes + 1, "ok")):
        with Injection("KILL", "pwrite64", k).into(victim.pid):
            assert each.trial.run(victim, each.expected, passes=True) == outcome


def test_what_passes_does_not_come_again_in_the_next_thread(tmp_path: Path, victim: Victim) -> None:
    """The same call is made once more, which begins a thread of its own."""
    (each,) = io._rehearse(victim, str(tmp_path / "log"), [buffered(tmp_path)])
    news = io._fault_once(victim, each, Injection("EIO", "pwrite64", each.made["pwrite64"]), 3)
    assert not news.complaint
    assert news.outcome == "StorageError"


@pytest.mark.parametrize(
    "fault",
    [
        Injection("KILL", "pwrite64", 60_000),
        Injection("EIO", "pwrite64", 60_000),
        Injection("EIO from there on", "fdatasync", 60_000),
    ],
    ids=str,
)
def test_a_fault_that_does_not_strike_is_none(
    tmp_path: Path, victim: Victim, fault: Injection
) -> None:
    (each,) = io._rehearse(victim, str(tmp_path / "log"), [buffered(tmp_path)])
    assert io._fault_once(victim, each, fault, 3) == io.News(in_vain=1)


@pytest.mark.parametrize("kind", strace.KINDS)
def test_a_fault_that_strikes_is_one(tmp_path: Path, victim: Victim, kind: str) -> None:
    (each,) = io._rehearse(victim, str(tmp_path / "log"), [buffered(tmp_path)])
    began = now()
    news = io._fault_once(victim, each, Injection(kind, "pwrite64", 1), 3)
    assert (news.faults, news.in_vain, news.complaint) == (1, 0, "")
    assert news.fault is not None
    assert (news.fault.kind, news.fault.process) == ("io", 3)
    assert began < news.fault.at < (news.fault.ended or 0) < now()


@pytest.mark.parametrize(
    ("kills", "was_told", "outcome", "struck"),
    [
        (True, False, "killed", True),
        (True, True, "ok", False),
        (False, True, "ok", True),
        (False, False, "ok", False),
        (False, False, "StorageError", False),
    ],
)
def test_a_fault_struck_if_strace_tells_so_and_a_kill_if_its_process_died(
    kills: bool, was_told: bool, outcome: str, struck: bool
) -> None:
    assert strace.Strike(kills, was_told).struck(outcome) == struck


def test_a_limit_is_on_until_it_is_lifted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What others look at afterwards is behind it; who dies of it has it until then."""
    moments: list[int] = []

    def run(*_: object, lift: Callable[[], None], **__: object) -> str:
        lift()
        moments.append(now())
        return "OpenError"

    monkeypatch.setattr(Trial, "rehearse", lambda *_: (0, 1))
    monkeypatch.setattr(Trial, "run", run)
    worker = SimpleNamespace(number=3, path=str(tmp_path / "store.db"), way=SOUND)
    trials = limits.Trials(worker)  # type: ignore[arg-type]
    news = trials.run(SimpleNamespace(), "counter.add", {})  # type: ignore[arg-type]
    assert news.fault is not None
    assert (news.outcome, news.fault.process) == ("OpenError", 3)
    assert news.fault.at < (news.fault.ended or 0) <= moments[0]


@pytest.mark.parametrize(
    ("scenario", "kind"), [("io", "io"), ("limits", "io"), ("disk_full", "io"), ("power", "power")]
)
def test_a_run_tells_when_its_faults_were_on(tmp_path: Path, scenario: str, kind: str) -> None:
    """All that it counts, in its own unit and no other."""
    unit, data = SCENARIOS[scenario].UNIT, tmp_path / "run.json"
    done = stress(tmp_path, f"--scenario={scenario}", f"--{unit}=2", f"--report={data}")
    if done.returncode == 2:
        pytest.skip(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
    (told,) = json.loads(data.read_text())["scenarios"]
    assert told["faults"]
    assert {each["kind"] for each in told["faults"]} == {kind}
    assert all(each["at"] < each["ended"] for each in told["faults"])
    assert len(told["faults"]) == told["figures"][unit]
    assert f"{kind}s" not in told["figures"]


def test_a_run_in_which_no_fault_struck_is_not_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with an strace that does nothing."""
    monkeypatch.setattr(strace, "require", lambda: None)
    with staged(io, tmp_path) as stage:
        monkeypatch.setattr(io, "_fault_all", lambda *_: None)
        io.run(stage)
    assert stage.violations == ["nothing was done: faults stayed at 0"]


def test_a_call_that_no_fault_could_meet_is_no_rehearsal(
    tmp_path: Path, victim: Victim, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(io, "counted", lambda _log: {})
    with pytest.raises(AssertionError, match=r"no system call was seen of counter\.buffered"):
        io._rehearse(victim, str(tmp_path / "log"), [buffered(tmp_path)])
