"""The command `kvsync` in a process of its own, but without the start of an interpreter.

It is forked, see `tests.processes`.
"""

import multiprocessing
import os
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

from kvsync import cli
from tests.processes import PATIENCE, end

_forking = multiprocessing.get_context("forkserver")


def run_command(
    words: Sequence[str], env: Mapping[str, str], cwd: Path, stdin: str = ""
) -> subprocess.CompletedProcess[str]:
    """What `subprocess.run` says of it; warnings are errors. Raises: AssertionError if it hangs."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        streams = [folder / stream for stream in ("stdin", "stdout", "stderr")]
        for stream in streams:
            stream.touch()
        streams[0].write_bytes(stdin.encode())
        child = _forking.Process(target=_perform, args=(words, dict(env), cwd, streams))
        child.start()
        try:
            child.join(PATIENCE)
            assert child.exitcode is not None, f"kvsync {words} hangs"
        finally:
            end(child)
        stdout, stderr = (stream.read_bytes().decode() for stream in streams[1:])
        return subprocess.CompletedProcess(words, child.exitcode, stdout, stderr)


def _perform(words: Sequence[str], env: Mapping[str, str], cwd: Path, streams: list[Path]) -> None:
    for number, stream in enumerate(streams):
        descriptor = os.open(stream, os.O_RDWR | os.O_APPEND)
        os.dup2(descriptor, number)
        os.close(descriptor)
    sys.stdin = os.fdopen(0)  # which a child of `multiprocessing` has closed
    os.environ.clear()
    os.environ.update(env)
    os.chdir(cwd)
    warnings.simplefilter("error")
    sys.exit(cli.main(words))
