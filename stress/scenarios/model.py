"""Whatever several processes call in turn, and whichever of them is killed by SIGKILL, idle or in
the middle of a call, each answer and all that there is afterwards are what a plain model in memory
says; of a call that was killed, that it was done whole, or not at all.

Hypothesis draws the calls, and makes those fewer that show a violation. Whatever the dead had is
free as soon as their death is looked for.
"""

import time
from collections.abc import Callable
from contextlib import suppress
from copy import deepcopy
from itertools import chain
from queue import Empty
from typing import TYPE_CHECKING, Any

import kvsync
from stress.crew import Broken, Crew, Member, Worker
from stress.model import ATTEMPTS, EMPTY, PERMITS, REFUSED, Call, Model
from stress.stage import SOUND, Skipped, Stage

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

UNIT = "examples"
PROCESSES = 3
PRIMITIVES = ("dict", "counter", "transaction", "lock", "semaphore", "event", "queue")
NEMESES = ("kill",)

_AT_ONCE = 100
"""Examples between two looks at the clock."""

_LONGEST_LIFE = 0.0003
"""Seconds of a call that is killed."""

Step = tuple[Any, ...]
"""A call by a process: `("call", process, call)`; a process that is killed: `("kill", process)`; or
both at once, after a share of the longest time: `("strike", process, call, share)`."""


class Aborted(Exception):
    """Ends a transaction."""


class Real:
    """The methods of `Model`, on a store."""

    def __init__(self, store: kvsync.Store, example: int) -> None:
        name = str(example)
        self.store = store
        self.entries, self.count = store.dict(name), store.counter(name)
        self.mutex, self.permits = store.lock(name), store.semaphore(name, PERMITS)
        self.event = store.event(name)
        self.jobs = store.queue(name, max_attempts=ATTEMPTS)
        self.tasks: list[kvsync.Task] = []

    def call(self, call: Call) -> Any:
        name, *arguments = call
        try:
            return getattr(self, name)(*arguments)
        except kvsync.NotOwnedError:
            return REFUSED
        except Exception as error:
            return repr(error)  # which no model says

    def seen(self) -> list[Any]:
        stats = self.jobs.stats()
        return [
            dict(self.entries),
            self.count.value,
            self.mutex.locked(),
            PERMITS - self.permits.free(),
            self.event.is_set(),
            [(item.item, item.attempts) for item in self.jobs.peek(stats.depth + 1)],
            stats.in_flight,
            sorted((letter.item, letter.attempts) for letter in self.jobs.dead),
        ]

    def end(self) -> None:
        """Nothing is left in its hands."""
        if self.mutex.owned():
            self.mutex.release()
        with suppress(kvsync.NotOwnedError):
            while True:
                self.permits.release()
        for task in self.tasks:
            with suppress(kvsync.StaleReceiptError):
                task.ack()

    def transaction(self, calls: list[Call], aborts: bool) -> list[Any]:
        before, results = list(self.tasks), []
        try:
            with self.store.transaction():
                results = [self.call(call) for call in calls]
                if aborts:
                    raise Aborted
        except Aborted:
            self.tasks = before
        return results

    def set(self, key: str, value: int) -> None:
        self.entries[key] = value

    def pop(self, key: str) -> Any:
        return self.entries.pop(key, None)

    def swap(self, key: str, expected: int, new: int) -> bool:
        return self.entries.compare_and_set(key, expected, new)

    def increment(self, key: str, by: int) -> Any:
        return self.entries.increment(key, by)

    def read(self) -> dict[str, Any]:
        return dict(self.entries)

    def add(self, by: int) -> int:
        return self.count.add(by)

    def raise_flag(self) -> None:
        self.event.set()

    def lower_flag(self) -> None:
        self.event.clear()

    def flag(self) -> bool:
        return self.event.is_set()

    def lock(self) -> bool:
        return self.mutex.acquire(blocking=False)

    def unlock(self) -> None:
        self.mutex.release()

    def take_permit(self) -> bool:
        return self.permits.acquire(blocking=False)

    def give_permit(self) -> None:
        self.permits.release()

    def put(self, value: int) -> None:
        self.jobs.put(value)

    def get(self) -> Any:
        try:
            return self.jobs.get_nowait()
        except Empty:
            return EMPTY

    def reserve(self) -> Any:
        try:
            self.tasks.append(self.jobs.reserve(timeout=0))
        except Empty:
            return EMPTY
        return self.tasks[-1].item, self.tasks[-1].attempts

    def ack(self) -> Any:
        return self._settle(lambda task: task.ack())

    def retry(self) -> Any:
        return self._settle(lambda task: task.retry(delay=0))

    def give_back(self) -> Any:
        return self._settle(lambda task: task.give_back())

    def bury(self) -> Any:
        return self._settle(lambda task: task.bury())

    def _settle(self, how: Callable[[kvsync.Task], Any]) -> Any:
        return how(self.tasks.pop(0)) if self.tasks else REFUSED


class _InNoTransaction(Real):
    def transaction(self, calls: list[Call], _aborts: bool) -> list[Any]:
        return [self.call(call) for call in calls]


class _ReadsItsOwnCopy(Real):
    _copy: dict[str, Any] | None = None

    def read(self) -> dict[str, Any]:
        self._copy = dict(self.entries) if self._copy is None else self._copy
        return self._copy


class _GoneWithItsGetter(Real):
    """Who reserves takes the item away, and puts it back if it is not done."""

    def reserve(self) -> Any:
        found = super().reserve()
        if found != EMPTY:
            self.tasks[-1].ack()
        return found


WAYS: dict[str, type[Real]] = {
    SOUND: Real,
    "in-no-transaction": _InNoTransaction,
    "reads-its-own-copy": _ReadsItsOwnCopy,
    "gone-with-its-getter": _GoneWithItsGetter,
}


def _obey(worker: Worker) -> None:
    """Do what the master says, and answer."""
    worker.ready()
    latest, real = 0, None
    with suppress(EOFError):
        while worker.going_on():
            if worker.pipe.poll(0.05):
                example, call = worker.pipe.recv()
                if real is None or latest != example:
                    if real is not None:
                        real.end()
                    latest, real = example, WAYS[worker.way](worker.store, example)
                worker.pipe.send(real.call(call))
                worker.ready()


class Examples:
    """One list of steps after the other, each in new objects."""

    def __init__(self, stage: Stage, crew: Crew, store: kvsync.Store) -> None:
        self.done = 0
        self._stage, self._crew, self._store = stage, crew, store
        self._members: list[Member] = list(crew.members)

    def play(self, steps: list[Step]) -> None:
        """Raises: AssertionError if anything is not as the model says; Broken."""
        if self._stage.violations:
            raise Broken
        self.done += 1
        self._real, self._model = Real(self._store, self.done), Model()
        for what, *arguments in steps:
            getattr(self, f"_{what}")(*arguments)
        self._compare([self._model])

    def _call(self, me: int, call: Call) -> None:
        member = self._members[me]
        member.pipe.send((self.done, call))
        expected, found = self._model.call(me, call), self._crew.receive(member)
        assert found == expected, f"{call} of process {me} gave {found}, not {expected}"

    def _kill(self, me: int) -> None:
        if self._may_die(me):
            self._replace(me)
            self._model.die(me)
            self._compare([self._model])

    def _strike(self, me: int, call: Call, share: float) -> None:
        """Kill it in the middle of the call."""
        if not self._may_die(me):
            self._call(me, call)
            return
        self._members[me].pipe.send((self.done, call))
        end = time.monotonic() + share * _LONGEST_LIFE
        while time.monotonic() < end:
            pass
        self._replace(me)
        done = deepcopy(self._model)
        done.call(me, call)
        for model in (self._model, done):
            model.die(me)
        self._compare([self._model, done])

    def _may_die(self, me: int) -> bool:
        return bool(self._stage.nemeses) and self._members[me] in self._crew.mortals

    def _replace(self, me: int) -> None:
        new = self._members[me] = self._crew.replace(self._members[me])
        if not new.works():
            raise Broken
        self._store.session.reap_all()

    def _compare(self, models: list[Model]) -> None:
        """Go on with the one that is right."""
        found = self._real.seen()
        for self._model in models:
            if self._model.seen() == found:
                return
        allowed = " or ".join(str(model.seen()) for model in models)
        raise AssertionError(f"there is {found}, not {allowed}")


def _steps(processes: int) -> "SearchStrategy[list[Step]]":
    from hypothesis import strategies as st

    def calls(names: str, *arguments: "SearchStrategy[Any]") -> "SearchStrategy[Call]":
        return st.tuples(st.sampled_from(names.split()), *arguments)

    key, number, me = st.sampled_from("ab"), st.integers(0, 2), st.integers(0, processes - 1)
    shared = st.one_of(
        calls("set increment", key, number),
        calls("pop", key),
        calls("swap", key, number, number),
        calls("read raise_flag lower_flag flag"),
        calls("add put", number),
        calls("get ack retry give_back bury"),
    )
    many = st.tuples(st.just("transaction"), st.lists(shared, max_size=4), st.booleans())
    held = calls("lock unlock take_permit give_permit reserve")
    call = st.one_of(shared, held, many)
    rare = st.one_of(
        st.tuples(st.just("kill"), me), st.tuples(st.just("strike"), me, call, st.floats(0, 1))
    )
    usual = st.tuples(st.just("call"), me, call)
    step = st.integers(0, 9).flatmap(lambda n: usual if n else rare)
    # Some dozens: of lists alone Hypothesis draws short ones.
    return st.lists(st.lists(step, max_size=8), max_size=8).map(lambda some: [*chain(*some)])


def run(stage: Stage) -> None:
    try:
        import hypothesis
    except ImportError:
        raise Skipped("hypothesis is not installed") from None
    stage.processes = max(stage.processes, 2)
    with stage.open() as store, Crew(stage) as crew:
        crew.start(_obey, stage.processes)
        crew.assemble()
        examples = Examples(stage, crew, store)
        while not stage.enough(examples.done):
            _try(hypothesis, stage, examples)
        stage.operations = crew.operations()
    stage.expect_some(UNIT)
    stage.expect_sound_file()


def _try(hypothesis: Any, stage: Stage, examples: Examples) -> None:
    """Some more. Raises: Broken."""
    settings = hypothesis.settings(
        max_examples=_AT_ONCE,
        deadline=None,
        database=None,
        phases=[hypothesis.Phase.generate, hypothesis.Phase.shrink],
        report_multiple_bugs=False,
        suppress_health_check=list(hypothesis.HealthCheck),
    )

    def example(steps: list[Step]) -> None:
        examples.play(steps)

    given = hypothesis.given(steps=_steps(stage.processes))(example)
    try:
        hypothesis.seed(stage.chance.getrandbits(64))(settings(given))()
    except (AssertionError, ExceptionGroup) as error:  # a group: it came but once
        stage.expect(False, _told(error))


def _told(error: Exception) -> str:
    parts = [_told(each) for each in getattr(error, "exceptions", ())]
    return "\n".join([str(error), *getattr(error, "__notes__", []), *parts])
