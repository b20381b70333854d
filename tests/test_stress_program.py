"""The stress program itself: its goals, its faults, how it ends, and what it writes down."""

import errno
import io
import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import psutil
import pytest

import stress.__main__ as program
from stress import ground, options, report, windows
from stress.journal import Journal
from stress.record import Books, MutantRow, ScenarioResult
from stress.scenarios import counter
from stress.stage import Stage, Terms
from tests.made_runs import matrix_of, result
from tests.processes import PATIENCE
from tests.test_stress import ALL_RECORDED, ROOT, stress

pytestmark = pytest.mark.suite


def recorded(folder: Path, *arguments: str) -> tuple[subprocess.CompletedProcess[str], Any]:
    """Run it with its data written down; returns that too."""
    folder.joinpath("tmp").mkdir()
    done = stress(folder / "tmp", *arguments, "--report", str(folder / "run.json"))
    return done, json.loads((folder / "run.json").read_text())


def figures(run: Any) -> dict[str, dict[str, float]]:
    return {each["name"]: each["figures"] for each in run["scenarios"]}


def test_each_scenario_goes_on_until_so_many_operations_are_done(tmp_path: Path) -> None:
    """Whether it counts kills or something else."""
    chosen = ["--scenario=queue", "--scenario=recovery", "--scenario=fork", "--scenario=bank"]
    done, run = recorded(tmp_path, "--ops=500", "--processes=4", *chosen[:1], *chosen[2:])
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(run["scenarios"]) == 3
    assert all(each["operations"] >= 500 for each in figures(run).values())


def test_who_takes_a_killed_ones_place_is_forked_where_paths_are_short() -> None:
    """Many can be killed then; no file is left, for all its processes end with the program."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        done = stress(Path(folder), "--scenario=lock", "--kills=20", "--nemesis=kill")
        assert done.returncode == 0, done.stdout + done.stderr
        assert re.search(r"kills 2\d", done.stdout)  # the last strike may be at several
        assert list(Path(folder).iterdir()) == []


@pytest.mark.parametrize("nemesis", ["kill", "stop", "fork"])
def test_a_run_uses_the_faults_that_it_was_told_and_no_others(tmp_path: Path, nemesis: str) -> None:
    """They are counted, noted with their times, and the sound way bears them."""
    scenarios = ["--scenario=lock", "--scenario=counter"]
    done, run = recorded(tmp_path, "--ops=1500", f"--nemesis={nemesis}", *scenarios)
    assert done.returncode == 0, done.stdout + done.stderr
    for scenario in run["scenarios"]:
        assert scenario["faults_used"] == [nemesis]
        assert scenario["faults"]
        assert all(fault["kind"] == nemesis for fault in scenario["faults"])
        assert scenario["figures"][f"{nemesis}s"] == len(scenario["faults"])
        lasts = [
            fault["ended"] is not None and fault["ended"] >= fault["at"]
            for fault in scenario["faults"]
        ]
        assert all(lasts) == (nemesis != "kill")


def test_a_nemesis_chooses_the_scenarios_that_bear_it(tmp_path: Path) -> None:
    done, run = recorded(tmp_path, "--nemesis=clock", "--steps=2")
    assert done.returncode in (0, 2), done.stdout + done.stderr  # libfaketime may be missing
    assert [each["name"] for each in run["scenarios"]] == ["clock"]


def test_a_scenario_that_is_about_another_fault_is_skipped_aloud(tmp_path: Path) -> None:
    chosen = ["--scenario=lease", "--scenario=counter", "--scenario=first_open"]
    done, run = recorded(tmp_path, "--nemesis=kill", "--seconds=0.1", "--processes=2", *chosen)
    assert done.returncode == 0, done.stdout + done.stderr
    told = {each["name"]: (each["verdict"], each["faults_used"]) for each in run["scenarios"]}
    assert told == {"lease": ("SKIPPED", []), "counter": ("ok", ["kill"]), "first_open": ("ok", [])}
    assert "it needs the nemesis stop" in done.stdout
    assert "first_open: it does not bear kill\n" in done.stdout


def test_a_violation_comes_with_its_seed_and_the_command_that_repeats_it(tmp_path: Path) -> None:
    """And that command, given to the shell, finds it again."""
    twin = ["--scenario=bank", "--twin=separate-commits", "--seed=5", "--ops=100000"]
    done, run = recorded(tmp_path, *twin)
    assert done.returncode == 1, done.stdout + done.stderr
    (bank,) = run["scenarios"]
    assert f"bank: seed 5, repeat with: {bank['repeat']}" in done.stdout
    assert bank["violations"]
    words = bank["repeat"].split()
    assert words[:3] == ["python", "-m", "stress"]
    assert {"--seed", "5", "--ops", "100000", "--twin", "separate-commits"} <= {*words}
    assert stress(tmp_path / "tmp", *words[3:]).returncode == 1


def _is_at_work(folder: Path) -> bool:
    with suppress(FileNotFoundError):  # a folder that was there a moment ago, such as a rehearsal's
        return any(folder.glob("*/journal-*"))
    return False


def test_an_interrupt_ends_all_processes_and_tells_what_was_done_so_far(tmp_path: Path) -> None:
    """As Ctrl-C does it: the whole group gets the signal."""
    command = [sys.executable, "-m", "stress", "--scenario=counter", "--scenario=bank"]
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    child = subprocess.Popen(
        [*command, "--seconds=600"],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        while not _is_at_work(tmp_path):
            assert child.poll() is None
        begun = psutil.Process(child.pid).children(recursive=True)
        os.killpg(child.pid, signal.SIGINT)
        output, errors = child.communicate(timeout=PATIENCE)
    finally:
        child.kill()
        child.wait()
    assert child.returncode == 130
    assert errors.splitlines()[-1] == "stress: interrupted"
    assert "counter   SKIPPED" in output
    assert "interrupted" in output
    assert "bank" not in output.partition("scenario  ")[2]
    assert not psutil.wait_procs(begun, PATIENCE)[1]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("violations", "status"), [((), 130), (("lost",), 1)])
def test_an_interrupt_does_not_hide_what_was_violated(
    monkeypatch: pytest.MonkeyPatch, violations: tuple[str, ...], status: int
) -> None:
    def results(_: object) -> Iterator[ScenarioResult]:
        verdict = "VIOLATED" if violations else "ok"
        yield result("counter", verdict=verdict, violations=violations)
        raise KeyboardInterrupt

    monkeypatch.setattr(program, "_results", results)
    monkeypatch.setattr(program.signal, "signal", lambda *_: None)
    assert program.main(["--scenario", "counter"]) == status


@pytest.fixture
def performed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """No scenario runs: each finds the violations that are in this list."""
    violations: list[str] = []

    def perform(_: object, stage: Stage) -> str:
        stage.violations += violations
        return ""

    monkeypatch.setattr(program, "_perform", perform)
    monkeypatch.setattr(program.signal, "signal", lambda *_: None)
    return violations


VERDICTS = pytest.mark.parametrize(("found", "status"), [([], 3), (["lost"], 1)])


@VERDICTS
def test_a_report_that_cannot_be_written_hides_no_verdict(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    performed: list[str],
    found: list[str],
    status: int,
) -> None:
    """It is no success either."""

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, "no room")

    performed += found
    monkeypatch.setattr(program.pages, "write", refuse)
    given = ["--scenario=counter", f"--store={tmp_path}", f"--report={tmp_path}/run.json"]
    assert program.main(given) == status
    told = capsys.readouterr()
    assert "no room" in told.err
    assert "cannot run" not in told.err
    assert f"{len(found)} VIOLATED" in told.out


@VERDICTS
def test_what_fails_between_two_scenarios_hides_no_verdict(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    performed: list[str],
    found: list[str],
    status: int,
) -> None:
    """A folder that cannot be removed: the scenario that it belonged to is in the summary."""
    remove = shutil.rmtree

    def refuse(folder: str) -> None:
        if os.path.exists(f"{folder}/probe.db"):
            return remove(folder)
        raise OSError(errno.ENOTEMPTY, "it is not empty", folder)

    performed += found
    monkeypatch.setattr(ground.shutil, "rmtree", refuse)
    both = ["--scenario=counter", "--scenario=bank"]
    assert program.main([*both, f"--store={tmp_path}"]) == status
    told = capsys.readouterr()
    assert "it is not empty" in told.err
    assert "cannot run" not in told.err
    assert f"\n{1 - len(found)} ok, {len(found)} VIOLATED, 0 SKIPPED" in told.out


def test_an_interrupt_while_the_report_is_written_hides_no_verdict(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, performed: list[str]
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    performed.append("lost")
    monkeypatch.setattr(program.pages, "write", interrupt)
    given = ["--scenario=counter", f"--store={tmp_path}", f"--report={tmp_path}/run.json"]
    assert program.main(given) == 1


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full")
def test_a_screen_that_takes_nothing_keeps_no_report_from_being_written(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "stress", "--scenario=first_open", "--rounds=1"]
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [*command, "--processes=2", f"--store={tmp_path}", f"--report={tmp_path}/run.json"],
            cwd=ROOT,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
    assert done.returncode == 3, done.stderr
    assert "No space left" in done.stderr
    assert json.loads((tmp_path / "run.json").read_text())["facts"]


@pytest.mark.parametrize(
    ("given", "told"), [([], True), (["--scenario=counter"], False), (["--nemesis=kill"], False)]
)
def test_scenarios_that_are_left_out_for_their_time_are_named(
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    performed: list[str],
    given: list[str],
    told: bool,
) -> None:
    """Unless others were asked for: nobody is to think that all have run."""
    assert program.main([*given, f"--store={tmp_path}"]) == 0
    assert performed == []
    output = capsys.readouterr().out
    assert ("left out, for it takes long: idle (run it with --scenario idle)\n" in output) == told
    assert "\nidle " not in output


def test_more_acknowledged_than_counted_is_lost_and_not_unheard(tmp_path: Path) -> None:
    terms = Terms(1, 1)
    stage = Stage(counter, terms, str(tmp_path), lambda _: None)
    with Journal(str(tmp_path), 1) as journal:
        for number in range(1, 4):
            journal.note("hits", number)
    stage.expect_accounted({"hits": 1})
    assert stage.figures == {"acknowledged": 3, "unheard": 0}
    assert stage.books == Books(acknowledged=3, lost=2, unheard=0, cut_off=0)
    assert stage.violations


def test_a_full_file_system_is_said_to_be_full(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before anything is made there."""
    monkeypatch.setattr(ground.shutil, "disk_usage", lambda _: SimpleNamespace(free=5 << 20))
    assert program.main(["--scenario", "bank"]) == 2
    assert "5 MB are free there, 64 are needed" in capsys.readouterr().err


def test_the_data_of_a_run_says_how_long_how_many_and_who_was_inside(tmp_path: Path) -> None:
    """From the histories of a lock: the page is drawn from these."""
    done, run = recorded(tmp_path, "--scenario=lock", "--kills=2", *ALL_RECORDED)
    assert done.returncode == 0, done.stdout + done.stderr
    (lock,) = run["scenarios"]
    assert [each["operation"] for each in lock["latencies"]] == ["acquire", "release"]
    assert all(each["calls"] and each["quantiles"]["1.0"] > 0 for each in lock["latencies"])
    assert sum(lock["rate"]["counts"]) == lock["figures"]["operations"]
    assert lock["spans"]
    assert all(each["token"] and each["began"] <= each["ended"] for each in lock["spans"][:1])
    assert run["command"].startswith("python -m stress --scenario=lock ")
    assert run["command"].endswith(f" --seed {run['seed']}")
    assert {"Python", "SQLite", "kvsync", "file system", "machine"} <= run["facts"].keys()
    assert (lock["verdict"], lock["primitives"], lock["processes"]) == ("ok", ["lock"], 6)


def test_the_data_of_a_run_has_the_books(tmp_path: Path) -> None:
    """What was acknowledged against what was found."""
    done, run = recorded(tmp_path, "--scenario=counter", "--kills=3")
    assert done.returncode == 0, done.stdout + done.stderr
    (counter,) = run["scenarios"]
    books, figures = counter["books"], counter["figures"]
    assert (books["acknowledged"], books["lost"]) == (figures["acknowledged"], 0)
    assert books["unheard"] == figures["unheard"] <= books["unknown"] <= books["cut_off"]
    assert books["cut_off"] == figures["kills"] >= 3  # a strike may kill more than are wanted
    assert books["recovered"] is None
    assert "unknown" not in figures


def test_what_is_done_until_the_end_is_among_the_operations(tmp_path: Path) -> None:
    """All but the first of each process, by which it says that it works, and what a kill cut off
    between the note in the books and the count.
    """
    done, run = recorded(tmp_path, "--scenario=counter", "--kills=3")
    assert done.returncode == 0, done.stdout + done.stderr
    (counter,) = run["scenarios"]
    figures = counter["figures"]
    uncounted = counter["processes"] + 2 * figures["kills"]
    assert 0 <= figures["acknowledged"] - figures["operations"] <= uncounted
    assert sum(counter["rate"]["counts"]) == figures["operations"]


def test_stale_holders_are_told_of_one_by_one(tmp_path: Path) -> None:
    """When each was stopped, and when it was refused."""
    done, run = recorded(tmp_path, "--scenario=lease", "--stops=4")
    assert done.returncode == 0, done.stdout + done.stderr
    (lease,) = run["scenarios"]
    assert len(lease["spans"]) == len(lease["faults"]) >= 4
    assert all(len(span["refused"]) == 3 for span in lease["spans"])
    for span in lease["spans"]:
        (stop,) = [
            each
            for each in lease["faults"]
            if span["began"] < each["at"] < span["refused"][0]
            and each["process"] == span["process"]
        ]
        assert stop["ended"] < span["refused"][0]


def test_a_terminal_is_told_how_far_the_run_is(tmp_path: Path) -> None:
    """One line, written over again."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "stress", "--scenario=bank", "--scenario=counter"]
    with open(ours, "rb", buffering=0) as screen:
        child = subprocess.Popen(
            [*command, "--seconds=1", "--processes=2"],
            cwd=ROOT,
            env=os.environ | {"TMPDIR": str(tmp_path)},
            stdout=subprocess.DEVNULL,
            stderr=theirs,
        )
        os.close(theirs)
        shown = b"".join(_until_closed(screen)).decode()
        assert child.wait(PATIENCE) == 0
    line = r"{}/2 {}: [\d,]+ operations, \d+ kills[^\r\n]*, 0 violations, \d+ s left"
    for number, name in enumerate(("bank", "counter"), 1):
        assert re.search(line.format(number, name), shown), shown
    assert "\n" not in shown


def test_a_file_is_told_of_each_scenario_that_is_finished(tmp_path: Path) -> None:
    """In a line of its own; what is printed at the end is the same."""
    chosen = ["--scenario=bank", "--scenario=counter"]
    done = stress(tmp_path, *chosen, "--seconds=1", "--processes=2")
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.fullmatch(r"1/2 bank ok [\d.]+ s\n2/2 counter ok [\d.]+ s\n", done.stderr)
    assert "1/2" not in done.stdout


def test_a_file_is_told_of_the_progress_of_a_long_scenario(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Now and then, so that the lines can be read."""
    stage = SimpleNamespace(
        name="io", left=90.0, operations=1234, strikes={"stop": 2}, violations=[]
    )
    tell = partial(report.progress, 1, 2, 10.0, cast(Stage, stage))
    began = time.monotonic()
    monkeypatch.setattr(report._Pace, "shown", began)
    tell()
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(report._Pace, "shown", began - report.EVERY_IN_A_FILE)
    tell()
    tell()
    told = "1/2 io: 1,234 operations, 0 kills, 2 stops, 0 violations, 100 s left\n"
    assert capsys.readouterr().err == told


@pytest.mark.parametrize(
    ("arguments", "histories"),
    [
        ([], 40),
        (["--minutes=3"], 40),
        (["--minutes=60"], 780),
        (["--minutes=60", "--scenario=lock"], 780),
        (["--seconds=120", "--scenario=lock", "--scenario=bank"], 52),
        (["--minutes=60", "--histories=5"], 5),
        (["--histories=5"], 5),
        (["--seconds=0.01"], 10),
        (["--seconds=0.01", "--histories=3"], 3),
        (["--seconds=1e-12"], 1),
    ],
)
def test_a_long_run_has_more_windows(arguments: list[str], histories: int) -> None:
    assert options.parse(arguments, "stress").histories == histories


@pytest.mark.parametrize(
    ("arguments", "room"),
    [
        (["--seconds=1", "--histories=2000000000"], "1 seconds have no room for more than 1,000"),
        (["--minutes=1", "--scenario=lock", "--histories=60001"], "more than 60,000"),
        (["--seconds=1e-12", "--histories=2"], "more than 1 "),
    ],
)
def test_windows_that_there_is_no_room_for_are_refused(
    capsys: pytest.CaptureFixture[str], arguments: list[str], room: str
) -> None:
    with pytest.raises(SystemExit, match="2"):
        options.parse(arguments, "stress")
    assert room in capsys.readouterr().err


@pytest.mark.parametrize("seconds", [60.0, 1.0, 0.0015, 1e-12])
def test_as_many_windows_as_there_is_room_for_can_be_opened(tmp_path: Path, seconds: float) -> None:
    terms = Terms(1, seconds, histories=windows.most(seconds))
    opened = Stage(counter, terms, str(tmp_path), lambda _: None).windows
    opened.begin()
    assert opened.open() in (*range(opened.count), None)
    assert opened.due(0) == 0


@pytest.mark.parametrize("seed", [0, 1])
def test_the_command_for_one_scenario_has_its_seed(seed: int) -> None:
    """0 is one too."""
    asked = options.parse([f"--seed={seed}"], "stress")
    again = options.command_for(asked, "lock").split()[1:]
    assert options.parse(again, "stress").seed == seed
    assert options.command(asked).split()[1:] == [f"--seed={seed}"]


@pytest.mark.parametrize(
    "arguments", [["--minutes=60"], ["--minutes=1"], ["--seconds=600"], ["--histories=7"]]
)
def test_the_command_for_one_scenario_has_as_many_windows(arguments: list[str]) -> None:
    """Alone it would be a shorter run."""
    asked = options.parse([*arguments, "--seed=1"], "stress")
    again = options.command_for(asked, "lock").split()[1:]
    assert options.parse(again, "stress").histories == asked.histories


def _until_closed(screen: io.FileIO) -> Iterator[bytes]:
    """A terminal whose last writer is gone gives an error on Linux, and nothing on macOS."""
    with suppress(OSError):
        while some := screen.read(4096):
            yield some


def test_a_run_can_be_written_as_a_page(tmp_path: Path) -> None:
    """With the command that repeats it, and what the mutants came to."""
    page, mutants = tmp_path / "report.html", tmp_path / "mutants.json"
    row = MutantRow("fairness-off", "The last who comes is served first.", {"lease": True}, 1.5)
    mutants.write_text(json.dumps(asdict(matrix_of(("lease",), row))))
    folder = tmp_path / "tmp"
    folder.mkdir()
    run = ["--scenario=lease", "--stops=2", "--seed=9"]
    done = stress(folder, *run, f"--report={page}", f"--mutants={mutants}")
    assert done.returncode == 0, done.stdout + done.stderr
    text = page.read_text()
    assert text.lower().startswith("<!doctype html>")
    assert "--scenario=lease --stops=2 --seed=9" in text
    assert "fairness-off" in text


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"scenarios": [], "rows": [{"name": "a"}]}'])
def test_what_is_no_matrix_of_mutants_is_refused_before_the_run(tmp_path: Path, text: str) -> None:
    mutants = tmp_path / "mutants.json"
    mutants.write_text(text)
    done = stress(tmp_path, "--scenario=lease", "--report=page.html", f"--mutants={mutants}")
    assert done.returncode == 2
    assert "is not what `mutants --json` writes" in done.stderr
    assert done.stdout == ""
