"""Whatever lies at its path, and whatever is in it, each call on a store gives right data or an
error of kvsync's own; none hangs or crashes, runs code, or touches a file that is not the store's.

Where the file itself was changed, SQLite has no checksums by which anybody could tell; there, any
data is right that is of the right kind. Where the log was, what comes out is what once was.
"""

import os
import random
import resource
import shutil
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import connection
from pathlib import Path
from typing import NamedTuple

from stress.crew import Crew, Member, Worker
from stress.faults import calls
from stress.faults.hostile import (
    IN_FULL,
    IN_PART,
    KINDS,
    LAST,
    LOGGED,
    SHARE,
    Target,
    make_originals,
    victim_of,
)
from stress.faults.probe import Probe, watch_for_code
from stress.stage import SOUND, Stage

UNIT = "files"
PROCESSES = 2
PRIMITIVES = calls.PRIMITIVES
FAULTS = ("file",)

WAYS = {SOUND: "json", "pickle": "pickle"}
"""The codec by which values are read."""

_PATIENCE = 60.0
"""Seconds after which the calls on one file are taken to hang."""

_MEMORY = 4 << 30
"""Bytes of address space, so that a file that asks for more gets an error."""

_NOBODY = 65534
_NAMES = [name for name in KINDS for _ in range(SHARE.get(name, 1))]


class News(NamedTuple):
    """What a worker tells the master of a file: that it begins, or what came of it."""

    number: int
    kind: str
    tally: Counter[str] | None = None
    wrong: tuple[str, ...] = ()


def _open_all(worker: Worker, seed: str, originals: str, step: int) -> None:
    watch_for_code()
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    number = worker.number
    while worker.going_on():
        chance = random.Random(f"{seed}/{number}")
        kind = chance.choice(_NAMES)
        worker.pipe.send(News(number, kind))
        folder = os.path.join(os.path.dirname(worker.path), f"file-{number}")
        with _case(folder) as path:
            KINDS[kind](Target(originals, path, chance))
            tally, wrong = _open(path, kind, WAYS[worker.way])
        worker.pipe.send(News(number, kind, tally, tuple(wrong)))
        number += step
    worker.pipe.send(None)


@contextmanager
def _case(folder: str) -> Iterator[str]:
    """The path for a hostile file, in a folder with somebody else's file in it."""
    os.mkdir(folder)
    path = os.path.join(folder, "store.db")
    Path(victim_of(path)).write_text("untouched")
    try:
        yield path
    finally:
        os.chmod(folder, 0o700)
        for place, folders, _ in os.walk(folder):
            for each in folders:
                os.chmod(os.path.join(place, each), 0o700)
        shutil.rmtree(folder)


def _open(path: str, kind: str, codec: str) -> tuple[Counter[str], list[str]]:
    probe = Probe(path, codec)
    with _rights_that_count(os.path.dirname(path), kind):
        probe.run()
    wrong = probe.wrong + _wrong_commits(kind, probe.commits)
    victim = Path(victim_of(path))
    if not victim.exists() or victim.read_text() != "untouched":
        wrong.append("a file was touched that is not the store's")
    return probe.tally, wrong


def _wrong_commits(kind: str, commits: list[int] | None) -> list[str]:
    least = LAST if kind in IN_FULL else LAST - LOGGED
    right = [list(range(1, last + 1)) for last in range(least, LAST + 1)]
    found = None if commits is None else sorted(commits)
    return [] if kind not in IN_FULL | IN_PART or found in right else [f"the commits are {found}"]


@contextmanager
def _rights_that_count(folder: str, kind: str) -> Iterator[None]:
    """Root may do everything; so be nobody where rights are what the file is about."""
    if os.geteuid() or kind != "forbidden":
        yield
        return
    mode = os.stat(folder).st_mode
    for path in (folder, *(each.path for each in os.scandir(folder))):
        os.chown(path, _NOBODY, _NOBODY)
    os.chmod(folder, mode)
    os.seteuid(_NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


def run(stage: Stage) -> None:
    os.chmod(stage.folder, 0o711)
    originals = os.path.join(stage.folder, "originals")
    os.mkdir(originals)
    make_originals(originals)
    with Crew(stage) as crew:
        crew.start(_open_all, stage.processes, stage.seed, originals, stage.processes, may_end=True)
        stage.begin()
        _follow(stage, crew.members)
    stage.expect(not os.path.exists("/nowhere"), "code was run: /nowhere exists")


class Progress(NamedTuple):
    """The last file that a worker began with, and when."""

    since: float
    news: News | None


def _follow(stage: Stage, members: list[Member]) -> None:
    done = 0
    tally: Counter[str] = Counter()
    at_work = {member: Progress(time.monotonic(), None) for member in members}
    while at_work and not stage.enough(done):
        heard = connection.wait([member.pipe for member in at_work], 1.0)
        for member, progress in list(at_work.items()):
            if member.pipe in heard:
                news = _receive(stage, member, progress)
                at_work[member] = Progress(time.monotonic(), news)
                if news is None:
                    del at_work[member]
                elif news.tally is not None:
                    done += 1
                    tally.update(news.tally)
                    _note(stage, news)
            elif time.monotonic() > progress.since + _PATIENCE:
                del at_work[member]
                stage.expect(False, f"it hangs: {progress.news}")
                member.kill()
    stage.figures |= {UNIT: done, "calls": tally.total()} | tally
    stage.expect_some(UNIT)


def _receive(stage: Stage, member: Member, progress: Progress) -> News | None:
    try:
        news: News | None = member.pipe.recv()
    except EOFError:
        stage.expect(False, f"it crashes: {progress.news}")
        return None
    return news


def _note(stage: Stage, news: News) -> None:
    for wrong in news.wrong:
        stage.expect(False, f"file {news.number}, {news.kind}: {wrong}")
