"""work: run a command for each item of a queue."""

import json
import logging
import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any, NoReturn

import click

import kvsync
from kvsync.cli import stores
from kvsync.cli.options import Asked, Verb, at_most, not_negative, pass_asked, positive, with_store
from kvsync.cli.output import jsonable, loaded, reason, remark
from kvsync.cli.queue import named
from kvsync.cli.queue.child import Child
from kvsync.printable import printable

_STOP = (signal.SIGTERM, signal.SIGINT)
"""What `Queue.work` listens to."""


@click.command(cls=Verb)
@click.argument("name")
@click.argument("command", nargs=-1, required=True, metavar="-- COMMAND...")
@click.option(
    "--visibility",
    type=float,
    metavar="SECONDS",
    callback=positive,
    help="After which an item goes to another worker, though the command still runs.",
)
@click.option(
    "--max-attempts",
    type=at_most,
    default=5,
    show_default=True,
    help="After which it is a dead letter.",
)
@click.option(
    "--retry-delay",
    type=float,
    default=1.0,
    show_default=True,
    metavar="SECONDS",
    callback=not_negative,
    help="Before the second attempt; then it doubles.",
)
@click.option("--drain", is_flag=True, help="End when there is nothing to take.")
@with_store
@pass_asked
def work(
    asked: Asked, /, name: str, command: tuple[str, ...], drain: bool, **options: float | None
) -> int:
    """Run a command for each item.

    It gets the item as JSON on its stdin, $KVSYNC_ITEM_ID and $KVSYNC_ATTEMPT. Exit status 0 means
    that the item is done. After any other it is tried again, later and later, with the end of what
    the command wrote to stderr as its error.

    Goes on until the queue is shut down and empty: exit status 0. Ctrl-C, or SIGTERM, lets the
    command come to its end first; the second one ends it, and gives the item back. Exit status 130
    or 143 then, 129 after a hang-up. Should this process be killed, its item goes to another worker
    at once, though the command may go on.
    """
    _check(command)
    with stores.made(asked) as store, _told_of_the_late(), _heard() as heard:
        _look_for(store, name)
        jobs = named.as_stored(store, name, **options)
        jobs.work(_Runner(command, options["max_attempts"]), timeout=0 if drain else None)
        return heard()


def _check(command: tuple[str, ...]) -> None:
    if shutil.which(command[0]) is None:
        raise click.UsageError(f"there is no command {command[0]!r}")


def _look_for(store: kvsync.Store, name: str) -> None:
    if not named.is_there(store, name):
        _say(f"there is no queue called {name!r} yet")


class _Runner:
    """Handles one item after the other, by a run of the command for each."""

    def __init__(self, command: tuple[str, ...], max_attempts: float | None) -> None:
        self._command = command
        self._max_attempts = max_attempts

    def __call__(self, task: kvsync.Task) -> None:
        with _Answer(task) as answer, self._start(task) as child:
            status = child.wait(answer.pass_on, answer.hold)
        if status:
            self._retry(task, _told(status), child.last_words)

    def _start(self, task: kvsync.Task) -> Child:
        names = {"KVSYNC_ITEM_ID": str(task.id), "KVSYNC_ATTEMPT": str(task.attempts)}
        item = _as_json(task.item)
        try:
            return Child(self._command, item, names)
        except (OSError, RuntimeError) as error:
            _stop(task, f"{self._command[0]} cannot be started: {reason(error)}")

    def _retry(self, task: kvsync.Task, how: str, error: str) -> None:
        try:
            again = task.retry(error=f"{how}\n{error}".strip())
        except kvsync.StaleReceiptError:
            return  # which leaving its block will say
        then = "it is going to be tried again" if again else "it is a dead letter now"
        _say(f"item {task.id}, attempt {task.attempts} of {self._max_attempts}: {how}; {then}")


def _told(status: int) -> str:
    return f"exit status {status}" if status > 0 else f"ended by signal {-status}"


def _stop(task: kvsync.Task, sentence: str) -> NoReturn:
    """It is not the item's fault: it goes back as if never handed out, unless the store is busy."""
    _say(sentence)
    with suppress(kvsync.KvsyncError):  # what is still in hand is settled as we leave its block
        task.give_back()
    raise SystemExit(1)


def _say(sentence: str) -> None:
    remark(f"kvsync: {printable(sentence)}")


def _as_json(stored: Any) -> bytes:
    text = json.dumps(jsonable(loaded(stored)), ensure_ascii=False)
    return text.encode(errors="backslashreplace") + b"\n"  # a lone surrogate, as JSON writes it


@contextmanager
def _told_of_the_late() -> Iterator[None]:
    """What the library logs, of items that were given to another meanwhile, is one line each."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("kvsync: %(message)s"))
    logger = logging.getLogger("kvsync")
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


class _Answer:
    """Says so when a signal asks to stop and has to wait for the command; the second does not.

    All of them wait until they are passed on, and again when they are held: a command that is just
    being started, or looked at, could not be ended. In the end they are passed on in any case.
    """

    def __init__(self, task: kvsync.Task) -> None:
        self._sentence = f"item {task.id} is brought to its end; ask again to give it back"
        handlers: dict[int, Any] = {number: signal.getsignal(number) for number in _STOP}
        self._before = {number: old for number, old in handlers.items() if callable(old)}
        self._waiting: list[int] | None = []
        self._has_answered = False

    def __enter__(self) -> "_Answer":
        for number in self._before:
            signal.signal(number, self._hear)
        return self

    def _hear(self, number: int, frame: FrameType | None) -> None:
        has_answered, self._has_answered = self._has_answered, True
        if self._waiting is None:
            self._before[number](number, frame)
        else:
            self._waiting.append(number)
        if not has_answered:  # last: whoever is to read it may hold us up
            _say(self._sentence)

    def hold(self) -> None:
        """Have them wait from now on."""
        self._waiting = []

    def pass_on(self) -> None:
        """Pass on what has come, and from now on at once."""
        waiting, self._waiting = self._waiting or [], None
        for number in waiting:
            self._before[number](number, None)

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self.pass_on()


@contextmanager
def _heard() -> Iterator[Callable[[], int]]:
    """The exit status that tells which signal has stopped us, or 0. A hang-up stops us too."""
    reading, writing = os.pipe()
    for descriptor in (reading, writing):
        os.set_blocking(descriptor, False)
    with os.fdopen(reading, "rb", buffering=0) as numbers, os.fdopen(writing, "wb"):
        before = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        hang_up = signal.getsignal(signal.SIGHUP)
        if hang_up is not signal.SIG_IGN:
            signal.signal(signal.SIGHUP, _pass_on)
        try:
            yield lambda: 128 + said[0] if (said := numbers.read(1)) else 0
        finally:
            signal.signal(signal.SIGHUP, hang_up)
            signal.set_wakeup_fd(before)


def _pass_on(_number: int, _frame: FrameType | None) -> None:
    signal.raise_signal(signal.SIGTERM)
