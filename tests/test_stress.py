"""The stress program: it passes on kvsync, catches every broken twin, and cleans up."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from stress.scenarios import ALL, invariant, twins
from tests.processes import PATIENCE

pytestmark = pytest.mark.suite

ROOT = Path(__file__).parent.parent

SOME = ["counter", "first_open", "fork", "lock", "recovery", "queue", "lease", "io", "hostile"]
"""One for each of several kinds of goals."""

SHORT = """--processes=4 --kills=4 --rounds=2 --forks=5 --increments=2000 --stops=5 --acquires=200
    --interrupts=100 --samples=2 --faults=12 --fillings=2 --failures=2 --steps=5
    --files=20 --examples=20""".split()
LONG_ENOUGH = """--kills=6 --rounds=200 --forks=20 --increments=8000 --stops=20 --acquires=1700
    --interrupts=2000 --samples=2 --faults=200 --fillings=40 --failures=4 --steps=300
    --files=60 --examples=2000""".split()
"""Goals within which a twin is caught; most runs end sooner, at the first violation."""

HANGS = {("fork", "plain-sqlite3"), ("clock", "leases-by-wall-clock")}
"""Twins whose children hang, until the program's patience is over: too long for here."""

FEW = {
    "idle": ["--processes=4", "--samples=1"],
    "leaks": ["--rounds=1000"],
    "recovery": ["--kills=12"],
}
"""For twins that a few processes show just as well, and some that need more than others."""

TWINS = [
    (name, twin)
    for name, scenario in ALL.items()
    for twin in twins(scenario)
    if (name, twin) not in HANGS
]

RECORDED = [
    each
    for each in TWINS
    if each[0] in {"counter", "dict_cas", "lock", "queue_get", "queue_order"}
    and each != ("lock", "no-lock")
]
"""Twins whose histories show it; of the others somebody has ended before the first window."""

WITH_HISTORIES = sorted(
    {name for name, _ in RECORDED}
    | {"election", "queue", "rate_limiter", "rlock", "rwlock", "semaphore"}
)

WITH_LONG_HISTORIES = ["counter", "election", "lock", "queue_get"]

CHANCES = 4
"""Runs: on a busy machine one may be over before anybody met anybody, or was recorded."""

ALL_RECORDED = ["--seconds=60", "--histories=1200"]
"""Windows as long as their period, for longer than the goal takes."""


def stress(
    folder: Path, *arguments: str, patience: float = 2 * PATIENCE
) -> subprocess.CompletedProcess[str]:
    """Run `python -m stress` with all its files below `folder`."""
    return subprocess.run(
        [sys.executable, "-m", "stress", *arguments],
        cwd=ROOT,
        env=os.environ | {"TMPDIR": str(folder)},
        capture_output=True,
        text=True,
        timeout=patience,
        check=False,
    )


def wrong(done: subprocess.CompletedProcess[str]) -> str:
    """What a failing run printed, less what went well: of much, only the end may be seen."""
    well = re.compile(r"\w+ +ok |recovery: ")
    told = [each for each in done.stdout.splitlines() if not well.match(each)]
    return "\n".join([*told, done.stderr])


@pytest.mark.timeout(4 * PATIENCE)
def test_a_short_run_finds_no_violation(tmp_path: Path) -> None:
    """It says how to repeat it, what it found for each scenario, and leaves no file behind.

    All scenarios are what `tox -e stress` runs after these tests.
    """
    chosen = [f"--scenario={name}" for name in SOME]
    done = stress(tmp_path, "--seed", "7", *chosen, *SHORT, patience=3 * PATIENCE)
    assert done.returncode == 0, wrong(done)
    assert "repeat with: python -m stress --seed 7 --scenario=counter" in done.stdout
    assert all(f"\n{name} " in done.stdout for name in SOME)
    assert "\nrecovery: holder killed 4 times: " in done.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.twins
@pytest.mark.parametrize(("scenario", "twin"), TWINS)
def test_a_broken_twin_is_caught(tmp_path: Path, scenario: str, twin: str) -> None:
    """A checker that says yes to a broken twin is broken itself."""
    goals = [*LONG_ENOUGH, *FEW.get(scenario, [])]
    for _ in range(CHANCES):
        done = stress(tmp_path, "--scenario", scenario, "--twin", twin, *goals)
        if done.returncode:
            break
    if done.returncode == 2 and "1 SKIPPED" in done.stdout:
        pytest.skip(done.stdout.splitlines()[-2])
    assert done.returncode == 1, done.stdout + done.stderr
    assert "VIOLATED" in done.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("scenario", WITH_HISTORIES)
def test_recorded_histories_are_checked_and_counted(tmp_path: Path, scenario: str) -> None:
    """A checker that was shown nothing has nothing to say."""
    counted = r"histories [1-9].*checked operations [1-9].*checked, outcome unknown "
    for _ in range(CHANCES):  # one strike may kill both before the first window is over
        done = stress(tmp_path, "--scenario", scenario, "--kills=2", *ALL_RECORDED)
        assert done.returncode == 0, done.stdout + done.stderr
        if found := re.search(counted, done.stdout):
            break
    assert found, done.stdout


@pytest.mark.parametrize("scenario", WITH_LONG_HISTORIES)
def test_long_histories_are_checked_and_counted(tmp_path: Path, scenario: str) -> None:
    """Of what is done between the windows, which has its own object in each span of them."""
    counted = r", histories [1-9].*long histories [1-9].*operations in long histories [1-9]"
    for _ in range(CHANCES):  # on a busy machine the time may be over before anybody had any
        done = stress(tmp_path, "--scenario", scenario, "--seconds=8")
        assert done.returncode == 0, done.stdout + done.stderr
        if found := re.search(counted, done.stdout):
            break
    assert found, done.stdout


@pytest.mark.twins
@pytest.mark.parametrize(("scenario", "twin"), RECORDED)
def test_the_history_of_a_broken_twin_is_illegal(tmp_path: Path, scenario: str, twin: str) -> None:
    """Whatever else catches it, its history does, and shows why."""
    for _ in range(CHANCES):  # on a busy machine it is caught otherwise, before it is recorded
        done = stress(tmp_path, "--scenario", scenario, "--twin", twin, "--kills=6", *ALL_RECORDED)
        assert done.returncode == 1, done.stdout + done.stderr
        if found := re.search(r"the history of [\w-]+: .+:\n  process \d", done.stdout):
            break
    assert found, done.stdout


def test_what_a_machine_lacks_is_skipped_aloud(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is counted, and proves nothing."""
    monkeypatch.setenv("PATH", str(tmp_path))
    done = stress(tmp_path, "--scenario=io", "--scenario=first_open", "--rounds=1", "--processes=4")
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"^io +SKIPPED .*strace is not installed$", done.stdout, re.MULTILINE)
    assert "1 ok, 0 VIOLATED, 1 SKIPPED" in done.stdout
    assert stress(tmp_path, "--scenario", "io").returncode == 2


def test_a_run_says_how_many_of_the_possible_faults_it_tried(tmp_path: Path) -> None:
    """A short run must not read as if every k had struck."""
    done = stress(tmp_path, "--scenario", "io", "--faults=2", "--processes=1")
    if done.returncode == 2:
        pytest.skip(done.stdout.splitlines()[-2])
    assert done.returncode == 0, done.stdout + done.stderr
    told = r"^io: 2 of (\S+) possible faults struck, of 8 of \d\d calls; \d+ were tried in vain$"
    (possible,) = re.findall(told, done.stdout, re.MULTILINE)
    assert f"possible faults {possible}," in done.stdout


def test_the_list_has_every_scenario_with_its_invariant(tmp_path: Path) -> None:
    done = stress(tmp_path, "--list")
    assert done.returncode == 0
    for name, scenario in ALL.items():
        assert f"{name}: {invariant(scenario)}" in done.stdout
        assert ". " not in invariant(scenario), "one sentence"
    assert "counts rounds; 64 processes" in done.stdout, "that open a fresh file at once"


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(["--scenario", "unheard-of"], id="unknown scenario"),
        pytest.param(["--scenario", "bank", "--twin", "get-and-set"], id="unknown twin"),
        pytest.param(["--kills", "0"], id="no kills"),
        pytest.param(["--kills", "many"], id="no number"),
        pytest.param(["--minutes", "nan"], id="no time"),
        pytest.param(["--nemesis", "kill,flood"], id="unknown nemesis"),
        pytest.param(["--nemesis", "clock", "--scenario", "lock"], id="nemesis of none"),
        pytest.param(["--nemesis", "stop", "--kills", "3"], id="kills without kill"),
        pytest.param(["--scenario", "wal", "--nemesis", "kill"], id="no faults at all"),
        pytest.param(["--store", "/dev/null"], id="no folder"),
        pytest.param(["--store", "/not/there"], id="no such folder"),
        pytest.param(["--store", "/proc"], id="not writable"),
        pytest.param(["--report", "/not/there/report.html"], id="no place for the report"),
        pytest.param(["--processes", "100000"], id="too many processes"),
    ],
)
def test_what_cannot_run_ends_with_status_2_and_says_why(
    tmp_path: Path, arguments: list[str]
) -> None:
    done = stress(tmp_path, *arguments)
    assert done.returncode == 2
    assert re.fullmatch(r"stress: .+\n", done.stderr), done.stderr


def test_a_report_without_a_folder_is_refused_by_its_name(tmp_path: Path) -> None:
    """Before the run, and nothing is said of the folder of the stores."""
    done = stress(tmp_path, "--report", f"{tmp_path}/not-there/report.html")
    assert (done.returncode, done.stdout) == (2, "")
    assert f"argument --report: there is no folder {tmp_path}/not-there" in done.stderr
