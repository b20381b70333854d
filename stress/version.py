"""Which code a run is of."""

import hashlib
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from types import ModuleType

import kvsync
import stress


def told() -> str:
    """The code in short, and its commit if it lies in a checkout."""
    commit = _commit(_folder(kvsync))
    return f"{code()}, commit {commit}" if commit else code()


def code() -> str:
    """Another text for any other code of kvsync, or of its suite but the models.

    It is the same in a wheel, which has the suite below kvsync, and no models.
    """
    return digest([*_sources(kvsync, but="suite"), *_sources(stress, but="models")])


def digest(files: Iterable[tuple[str, Path]]) -> str:
    """Of their texts, under these names."""
    texts = hashlib.sha256()
    for name, path in files:
        text = path.read_bytes()
        texts.update(f"{name} {len(text)} ".encode() + text)
    return texts.hexdigest()[:16]


def _sources(package: ModuleType, but: str) -> Iterator[tuple[str, Path]]:
    folder = _folder(package)
    for path in sorted(folder.rglob("*.py")):
        inside = path.relative_to(folder)
        if inside.parts[0] != but:
            yield f"{package.__name__}/{inside}", path


def _folder(package: ModuleType) -> Path:
    return Path(str(package.__file__)).parent


def _commit(folder: Path) -> str:
    """As `git describe` has it; empty if git does not keep what is there."""
    with suppress(OSError, subprocess.CalledProcessError):
        _git(folder, "ls-files", "--error-unmatch", "__init__.py")
        return _git(folder, "describe", "--always", "--dirty", "--exclude=*").strip()
    return ""


def _git(folder: Path, *words: str) -> str:
    command = ["git", "--no-optional-locks", "-C", str(folder), *words]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout
