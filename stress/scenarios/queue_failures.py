"""An item that fails at every attempt is handed out as often as it may be, and then is a dead
letter, as it was put; all others are done with, though workers are killed by SIGKILL at any
instant; of a key there is never more than one item in a queue; and none that is due is ever left
while somebody waits for one.

Items fall due several at once, and others come in that moment.

A hand-out counts as an attempt even if its worker dies at once, so who dies may make a dead letter
of what another would have done: at most one for each consumer that is killed.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from queue import Empty, Full

import kvsync
from stress.backlog import in_hand, numbers, recovered
from stress.crew import PATIENCE, Crew, Worker
from stress.journal import acknowledged
from stress.record import Books
from stress.stage import SOUND, Stage

UNIT = "kills"
PROCESSES = 6
PRIMITIVES = ("queue",)

_MOST = 3
"""Attempts."""

_SHORTLY = 0.05
"""Seconds after which who waits looks whether to go on."""

_WORKS_FOR = 0.002
"""Seconds."""

_MAXSIZE = 200
_POISON = 3
"""One item of so many fails at every attempt; of the others' early attempts as many fail, too."""

_KEYS = 100
_KEYED = 0.1
_DAY = 86_400

_SOON = 0.3
"""Part of the rounds in which some items are put that fall due shortly; who put them comes again
and again for one of them, while others wait."""

_FEW = 3

_UNSERVED = """
    select count(*) from kvsync_item where queue = 'soon' and state = 0 and exists (
        select 1 from kvsync_ticket where space = 'queue' and name = 'soon' and state = 'waiting')
"""


def _put_anew(task: kvsync.Task) -> None:
    """Nobody knows that it is the same."""
    task._items.engine.write(
        "update kvsync_item set attempts = 0 where queue = 'failing' and id = :id", {"id": task.id}
    )
    kvsync.Task.give_back(task)


def _done_with(task: kvsync.Task) -> None:
    """What fails is thrown away."""
    task.ack()


WAYS: dict[str, Callable[[kvsync.Task], object]] = {
    SOUND: lambda task: task.retry(delay=0, error="it failed"),
    "attempts-reset": _put_anew,
    "failed-is-done": _done_with,
}


def _failing(store: kvsync.Store) -> kvsync.Queue:
    return store.queue("failing", _MAXSIZE, max_attempts=_MOST)


def _produce(worker: Worker) -> None:
    failing, late = _failing(worker.store), worker.store.queue("late")
    for number in numbers(worker):
        with suppress(Full, kvsync.BusyError):
            with worker.in_doubt():
                failing.put(number, timeout=_SHORTLY)
                worker.journal.note("put", number)
            worker.ready()
        if worker.chance.random() < _KEYED:
            key = f"key-{worker.chance.randrange(_KEYS)}"
            with suppress(kvsync.BusyError), worker.in_doubt():
                if late.put(key, delay=_DAY, key=key) is not None:
                    worker.journal.note(key, number)
        if worker.chance.random() < _SOON:
            with suppress(kvsync.BusyError):
                _come_when_they_fall_due(worker, number)


def _come_when_they_fall_due(worker: Worker, number: int) -> None:
    """Take one as soon as that can be, and look how that leaves those who wait."""
    soon, end = worker.store.queue("soon"), time.monotonic() + _SHORTLY
    with worker.in_doubt():
        soon.put_many([number] * _FEW, delay=_SHORTLY / 5)
    while time.monotonic() < end:
        with suppress(Empty):
            with worker.in_doubt():
                soon.get_nowait()
            ((unserved,),) = worker.store.engine.read(_UNSERVED)
            if unserved:
                worker.journal.note("unserved", unserved)
            return


def _await(worker: Worker) -> None:
    """As one of the line."""
    soon = worker.store.queue("soon")
    while worker.going_on():
        with suppress(Empty, kvsync.BusyError), worker.in_doubt():
            soon.get(timeout=_SHORTLY)
        worker.ready()


def _consume(worker: Worker) -> None:
    failing = _failing(worker.store)
    while worker.going_on():
        with suppress(Empty, kvsync.BusyError):
            with worker.in_doubt():
                task = failing.reserve(_SHORTLY)
                worker.journal.note("tried", task.item)
            with in_hand(worker, task):
                time.sleep(worker.chance.uniform(0, _WORKS_FOR))
            with worker.in_doubt():
                _settle(worker, task)
            worker.ready()


def _settle(worker: Worker, task: kvsync.Task) -> None:
    early = task.attempts < _MOST and not worker.chance.randrange(_POISON)
    if early or _is_poison(task.item):
        WAYS[worker.way](task)
    else:
        task.ack()
        worker.journal.note("done", task.item)


def _is_poison(number: int) -> bool:
    return number % _POISON == 0


def run(stage: Stage) -> None:
    stage.processes = max(stage.processes, 3)
    with Crew(stage) as crew:
        crew.start(_await, 1)
        crew.start(_produce, (stage.processes - 1) // 2)
        crew.start(_consume, stage.processes // 2)
        crew.be_struck()
    with stage.open() as store:
        left = [*_drain(_failing(store))] if not stage.violations else []
        dead = _failing(store).dead.list()
    notes = acknowledged(stage.folder)
    stage.figures["tried by workers"] = len(notes["tried"])
    _judge_attempts(stage, Counter(notes["tried"] + left), dead)
    done, died = {*notes["done"], *left}, {letter.item for letter in dead}
    back = recovered(notes, left)
    _judge_ends(stage, {*notes["put"]}, done, died, crew, back)
    unserved = len(notes["unserved"])
    stage.expect(not unserved, f"{unserved} times items were left while somebody waited for one")
    stage.expect_some("tried by workers")
    _judge_keys(stage, {key: len(ids) for key, ids in notes.items() if key.startswith("key-")})
    stage.expect_sound_file()


def _drain(failing: kvsync.Queue) -> Iterator[int]:
    """What is left when all workers have gone; those that can be done are done here."""
    while failing.unfinished_tasks:
        task = failing.reserve(PATIENCE)
        if _is_poison(task.item):
            task.retry(delay=0, error="it failed")
        else:
            task.ack()
            yield task.item


def _judge_attempts(
    stage: Stage, tried: Counter[int], dead: list[kvsync.primitives.deadletters.DeadLetter]
) -> None:
    often = [number for number, times in tried.items() if times > _MOST]
    stage.expect(not often, f"{len(often)} items were handed out more than {_MOST} times")
    early = [letter.item for letter in dead if letter.attempts != _MOST or not letter.error]
    stage.expect(not early, f"{len(early)} died before their last attempt, or without a reason")


def _judge_ends(
    stage: Stage, put: set[int], done: set[int], died: set[int], crew: Crew, back: int
) -> None:
    """An ack of which nobody knows was cut off by the kill of a consumer."""
    killed = crew.killed_at[_consume]
    both = done & died
    stage.expect(not both, f"{len(both)} items are done, and dead letters: {sorted(both)[:5]}")
    lost = put - done - died
    poison = [number for number in lost if _is_poison(number)]
    stage.expect(not poison, f"{len(poison)} failed, and are no dead letters: {poison[:5]}")
    stage.expect(len(lost) <= killed, f"{len(lost)} items are lost, {killed} consumers were killed")
    wronged = [number for number in died if not _is_poison(number)]
    stage.expect(len(wronged) <= killed, f"{len(wronged)} died without need, {killed} were killed")
    acks, puts = min(len(lost), killed), len((done | died) - put)
    unknown, unheard = crew.unknown, acks + puts
    stage.expect_heard(unheard, unknown)
    stage.books = Books(len(put), len(lost) - acks, back, unknown, unheard, crew.killed)
    stage.figures |= {
        "put": len(put),
        "done": len(done),
        "dead letters": len(died),
        "unheard acks": acks,
        "unheard puts": puts,
    }


def _judge_keys(stage: Stage, times: dict[str, int]) -> None:
    twice = [key for key, count in times.items() if count > 1]
    stage.expect(not twice, f"{len(twice)} keys are in the queue more than once: {twice[:5]}")
    stage.figures["keys"] = len(times)
