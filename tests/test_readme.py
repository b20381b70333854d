"""README's Python blocks run, one after the other, as a reader would run them."""

from pathlib import Path

import pytest
from sybil import Sybil
from sybil.document import Document
from sybil.parsers.markdown import PythonCodeBlockParser

README = Path(__file__).parent.parent / "README.md"


def test_every_python_block_of_the_readme_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a folder of its own, for it names files."""
    suite = Sybil(parsers=[PythonCodeBlockParser()], document_types={".md": Document})
    document = suite.parse(README)
    monkeypatch.chdir(tmp_path)
    blocks = list(document.examples())
    for block in blocks:
        block.evaluate()
    assert len(blocks) == README.read_text().count("```python")


def test_the_readme_has_its_two_commands() -> None:
    """Each makes its own venv and needs nothing but Python."""
    commands = [line for line in README.read_text().splitlines() if "python3 -m venv" in line]
    assert [command.rsplit("/", 1)[1] for command in commands] == ["kvsync demo", "tox"]
