"""The benchmarks run and report what they promise; how fast anything is, is not asserted here."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.suite

_ROOT = Path(__file__).parent.parent
_PATIENCE = 240


def _run(*arguments: str) -> str:
    ran = subprocess.run(
        [sys.executable, "-m", "benchmarks", *arguments],
        cwd=_ROOT,
        capture_output=True,
        text=True,
        timeout=_PATIENCE,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What one rehearsal of the counter benchmark writes as JSON."""
    return _rehearse("counter", tmp_path_factory.mktemp("benchmarks"))


def _rehearse(name: str, folder: Path) -> dict[str, Any]:
    files = ["--json", str(folder / "figures.json"), "--markdown", str(folder / "figures.md")]
    printed = _run("--quick", "--only", name, "--seconds", "0.05", *files)
    assert (folder / "figures.md").read_text(encoding="utf-8") in printed
    found: dict[str, Any] = json.loads((folder / "figures.json").read_text())
    return found | {"printed": printed}


def test_the_list_names_every_benchmark() -> None:
    assert _run("--list").split() == ["counter", "dict", "scale", "lock", "queue"]


def test_a_report_says_what_it_was_made_on(report: dict[str, Any]) -> None:
    wanted = {"date", "command", "python", "sqlite", "kernel", "cpus", "file system"}
    assert wanted <= set(report["machine"])


def test_each_side_is_measured_or_skipped_with_its_reason(report: dict[str, Any]) -> None:
    (counter,) = report["benchmarks"]
    measured = {name.rsplit(",", 1)[0] for name in counter["measured"]}
    assert {"kvsync", "kvsync buffered", "raw sqlite3"} <= measured
    for name in ("diskcache", "redis", "keyvalue_sqlite"):
        assert name in measured or counter["skipped"][name]


def test_a_round_has_a_rate_waits_and_a_share(report: dict[str, Any]) -> None:
    (counter,) = report["benchmarks"]
    for rounds in counter["measured"].values():
        (one,) = rounds
        assert set(one) == {"rate", "mean", "p50", "p99", "unluckiest", "worst", "share"}


def test_each_target_has_a_verdict(report: dict[str, Any]) -> None:
    (counter,) = report["benchmarks"]
    assert len(counter["targets"]) == 6
    for target in counter["targets"]:
        assert target["verdict"] in {"reached", "MISSED", "not measured"}
        assert (target["found"] is None) == (target["verdict"] == "not measured")
        assert target["what"] in report["printed"]


def test_each_side_of_the_queue_benchmark_works_off_items_or_says_why_not(tmp_path: Path) -> None:
    """All in one run: the rates, who waits, a backlog and its purge."""
    report = _rehearse("queue", tmp_path)
    (queue,) = report["benchmarks"]
    rows = [f"{what}, 1 x" for what in ("put", "get", "put + reserve + ack")]
    rows += [f"{row}, batches of 100" for row in rows]
    for name in ("kvsync", "litequeue", "persist-queue", "huey", "diskcache", "honker", "redis"):
        missing = [row for row in rows if f"{name}, {row}" not in queue["measured"]]
        assert not missing or name in " ".join(queue["skipped"]), missing
    assert {"kvsync, wake-up", "kvsync, delayed", "ack, 1,000", "purge"} <= set(queue["measured"])
    for target in queue["targets"]:
        assert target["what"] in report["printed"]
        assert target["verdict"] in {"reached", "MISSED", "not measured"}


def test_each_side_of_the_lock_benchmark_is_held_in_every_way_or_says_why_not(
    tmp_path: Path,
) -> None:
    """Alone, among others, handed over, and after a kill where its holder's death frees it."""
    report = _rehearse("lock", tmp_path)
    (lock,) = report["benchmarks"]
    measured, ways = set(lock["measured"]), ("alone", "crowd", "hand-off")
    for name in ("kvsync", "filelock", "diskcache", "redis", "fasteners", "portalocker"):
        recovers = ("recovery",) if name not in ("diskcache", "redis") else ()
        missing = {f"{name}, {way}" for way in (*ways, *recovers)} - measured
        assert not missing or lock["skipped"].get(name), missing
    assert "floor, hand-off" in measured
    assert {f"kvsync, {way}" for way in (*ways, "recovery")} <= measured
    tables = _tables(report["printed"])
    for title, way in LOCK_TABLES.items():
        sides = {name for name, of in (each.rsplit(", ", 1) for each in measured) if of == way}
        assert set(tables[title]) == sides
    assert {"kvsync", "redis", "floor"} <= set(tables["Lock, the sides"])
    assert len(lock["targets"]) == len(tables["Targets"]) == 6
    for target in lock["targets"]:
        assert target["what"] in tables["Targets"]
        assert target["verdict"] in {"reached", "MISSED", "not measured"}
        assert (target["found"] is None) == (target["verdict"] == "not measured")


LOCK_TABLES = {
    "Lock, uncontended": "alone",
    "Lock, 2 processes, 1 ms held": "crowd",
    "From `release` of a long holder to the next grant": "hand-off",
    "From SIGKILL of the holder to the next grant": "recovery",
}
"""By their titles, what each table shows of its sides."""


def _tables(text: str) -> dict[str, list[str]]:
    """The first cell of each row, by the title of the table."""
    found: dict[str, list[str]] = {}
    for part in text.split("### ")[1:]:
        title, *lines = part.splitlines()
        rows = [line.split("|")[1].strip() for line in lines if line.startswith("|")]
        found[title] = rows[2:]  # below the headings and the rule
    return found
