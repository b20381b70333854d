"""The models of the protocols: Spin finds the sound ones sound, and refutes the broken ones."""

import platform
import re
import subprocess
import sys
from pathlib import Path

import pytest

from stress import version
from stress.models.catalogue import MODELS, Model
from stress.models.spin import missing
from tests.processes import PATIENCE

pytestmark = pytest.mark.suite

ROOT = Path(__file__).parent.parent

needs_spin = pytest.mark.skipif(
    bool(missing()), reason=f"SKIPPED: the models need {' and '.join(missing())}"
)


def models(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `python -m stress.models`."""
    return subprocess.run(
        [sys.executable, "-m", "stress.models", *arguments],
        cwd=ROOT,
        env=environment or None,
        capture_output=True,
        text=True,
        timeout=2 * PATIENCE,
        check=False,
    )


@needs_spin
@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
def test_spin_finds_the_model_sound_and_refutes_its_broken_variants(model: Model) -> None:
    """In small; each exploration has a line of its own."""
    done = models("--quick", "--model", model.name)
    assert done.returncode == 0, done.stdout + done.stderr
    verdicts = re.findall(rf"^{model.name} .* (sound|refuted) +(sound|refuted) ", done.stdout, re.M)
    assert verdicts == [("sound", "sound")] + [("refuted", "refuted")] * len(model.variants)


@needs_spin
def test_an_exploration_that_does_not_end_in_time_is_a_wrong_verdict() -> None:
    done = models("--model", "lease", "--minutes", "0.00001")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "UNFINISHED" in done.stdout


@needs_spin
def test_a_run_says_of_what_it_is_and_how_to_repeat_it() -> None:
    told = dict(
        re.findall(r"^([\w ]+): +(.+)$", models("--model", "lease", "--minutes", "0").stdout, re.M)
    )
    assert told["Python"].startswith(platform.python_version())
    assert re.match(r"Spin Version \d", told["Spin"])
    assert re.match(r"gcc.* \d", told["gcc"])
    assert told["code"] == version.told()
    assert len(told["models"]) == len(version.code())
    assert told["repeat with"] == "python -m stress.models --model lease --minutes 0"


def test_where_spin_is_missing_the_program_says_skipped(tmp_path: Path) -> None:
    done = models("--quick", PATH=str(tmp_path))
    assert done.returncode == 2, done.stdout + done.stderr
    assert "SKIPPED" in done.stdout
