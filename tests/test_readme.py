"""The Python blocks of README and docs run, one after the other, as a reader would run them."""

import re
from pathlib import Path

import pytest
from sybil import Sybil
from sybil.document import Document
from sybil.parsers.markdown import PythonCodeBlockParser

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_python_block_of_a_page_runs(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a folder of its own, for it names files."""
    suite = Sybil(parsers=[PythonCodeBlockParser()], document_types={".md": Document})
    document = suite.parse(page)
    monkeypatch.chdir(tmp_path)
    blocks = list(document.examples())
    for block in blocks:
        block.evaluate()
    assert len(blocks) == page.read_text().count("```python")


def test_the_readme_has_its_two_commands() -> None:
    """Each makes its own venv and needs nothing but Python."""
    commands = [line for line in README.read_text().splitlines() if "python3 -m venv" in line]
    assert [command.rsplit("/", 1)[1] for command in commands] == ["kvsync demo", "tox"]


def test_the_pages_link_to_what_is_there() -> None:
    """By paths from the page."""
    for page in PAGES:
        for link in re.findall(r"\]\(([^):#]+)\)", page.read_text()):
            assert (page.parent / link).exists(), f"{page.name}: {link}"
