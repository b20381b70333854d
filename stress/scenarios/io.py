"""Whatever becomes of any one write, sync or truncation of any public call (its process is killed
there, it fails once, it fails from there on), the file is sound, what was acknowledged is in it,
what was not is there as a whole or not at all, and every call works afterwards.

Each k-th `pwrite64`, `fdatasync`, `fsync` and `ftruncate` of each call is faulted by strace. Left
alone, the run ends when all of them were. A fault counts if strace tells that it struck, or if its
process died of it; some come too late, when the call is over and the fault is lifted.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from multiprocessing import connection
from typing import NamedTuple

from stress.crew import Crew, Worker
from stress.faults import calls, strace
from stress.faults.spell import Spell
from stress.faults.strace import Injection, counted, counting
from stress.faults.trial import Stores, Trial, Victim, failure
from stress.record import Fault
from stress.stage import Stage

UNIT = "faults"
PROCESSES = 2
PRIMITIVES = calls.PRIMITIVES
NEMESES = ("io",)

WAYS = calls.WAYS

_AT_ONCE = 8
"""Calls of which a worker faults every system call before it goes on to more of them."""

_MOST_IN_VAIN = 20
"""Faults that do not strike, after which a run that was to be over is given up."""

_POSSIBLE, _IN_VAIN = "possible faults", "tried in vain"


class Rehearsed(NamedTuple):
    """A call without a fault: what others see before and after, and its system calls."""

    trial: Trial
    expected: tuple[object, object]
    made: Counter[str]

    @property
    def faults(self) -> int:
        """All that it can meet."""
        return self.made.total() * len(strace.KINDS)


class News(NamedTuple):
    """What a worker tells the master of: calls rehearsed, or one of them faulted."""

    calls: int = 0
    possible: int = 0
    """Faults that these can meet."""
    faults: int = 0
    in_vain: int = 0
    """What was to be a fault, and did not strike."""
    outcome: str = ""
    complaint: str = ""
    fault: Fault | None = None
    """It, if it struck."""


def _fault_all(worker: Worker, names: list[str]) -> None:
    stores = Stores(f"{worker.path}-{worker.number}")
    worker.ready()
    with Victim() as victim:
        while names:
            batch, names = names[:_AT_ONCE], names[_AT_ONCE:]
            trials = [Trial(stores, name, worker.way) for name in batch]
            for news in _fault(worker, victim, trials):
                worker.pipe.send(news)
                if not worker.going_on():
                    return
    worker.pipe.send(None)


def _fault(worker: Worker, victim: Victim, trials: list[Trial]) -> Iterator[News]:
    rehearsed = _rehearse(victim, worker.path + f"-log-{worker.number}", trials)
    yield News(calls=len(rehearsed), possible=sum(each.faults for each in rehearsed))
    for injection in _injections(worker, rehearsed):
        for each in rehearsed:
            if each.made[injection.syscall] >= injection.k:
                yield _fault_once(victim, each, injection, worker.number)


def _rehearse(victim: Victim, log: str, trials: list[Trial]) -> list[Rehearsed]:
    """Raises: AssertionError if one of them makes no system call that could be faulted."""
    with counting(victim.pid, log):
        seen = [(trial, trial.rehearse(victim), victim.child) for trial in trials]
    made = counted(log)
    unseen = [trial.name for trial, _, process in seen if not made.get(process)]
    assert not unseen, f"no system call was seen of {', '.join(unseen)}"
    return [Rehearsed(trial, expected, made[process]) for trial, expected, process in seen]


def _injections(worker: Worker, rehearsed: list[Rehearsed]) -> list[Injection]:
    found = [
        Injection(kind, syscall, k)
        for syscall in strace.CALLS
        for k in range(1, max(each.made[syscall] for each in rehearsed) + 1)
        for kind in strace.KINDS
    ]
    worker.chance.shuffle(found)
    return found


def _fault_once(victim: Victim, each: Rehearsed, injection: Injection, process: int) -> News:
    """What passes is lifted, for in a thread that is started later it would come again."""
    try:
        with ExitStack() as fault:
            strike = fault.enter_context(injection.into(victim.pid))
            spell = fault.enter_context(Spell("io", process))
            outcome = each.trial.run(
                victim, each.expected, passes=injection.passes, lift=fault.close
            )
    except Exception as error:
        return News(faults=1, complaint=f"{each.trial.name}, {injection}: {failure(error)}")
    if not strike.struck(outcome):
        return News(in_vain=1)
    return News(faults=1, outcome=outcome, fault=spell.fault)


def run(stage: Stage) -> None:
    strace.require()
    names = sorted(WAYS[stage.way])
    stage.chance.shuffle(names)
    tally: Counter[str] = Counter()
    with Crew(stage) as crew:
        for number in range(stage.processes):
            crew.start(_fault_all, 1, names[number :: stage.processes], may_end=True)
        crew.assemble()
        at_work = {member.pipe: member for member in crew.members}
        while at_work and not (stage.enough(tally[UNIT]) and _is_tried(stage, tally)):
            heard = connection.wait(list(at_work), 1.0)
            for pipe in [each for each in at_work if each in heard]:
                if not _hear(stage, tally, crew.receive(at_work[pipe])):
                    del at_work[pipe]
    stage.figures |= {"calls": 0, UNIT: 0, _IN_VAIN: 0} | tally
    stage.remarks.append(
        f"{tally[UNIT]:,} of {tally[_POSSIBLE]:,} possible faults struck, "
        f"of {tally['calls']} of {len(names)} calls; {tally[_IN_VAIN]:,} were tried in vain"
    )
    stage.expect_some(UNIT)


def _is_tried(stage: Stage, tally: Counter[str]) -> bool:
    """Whether a fault struck, or so many did not that none will: a rehearsal shows nothing."""
    return bool(tally[UNIT] or tally[_IN_VAIN] >= _MOST_IN_VAIN or stage.violations)


def _hear(stage: Stage, tally: Counter[str], news: News | None) -> bool:
    """Whether more is to come."""
    if news is None:
        return False
    tally.update({"calls": news.calls, _POSSIBLE: news.possible})
    tally.update({UNIT: news.faults, _IN_VAIN: news.in_vain})
    if news.outcome:
        tally[news.outcome] += 1
    if news.fault:
        stage.struck(news.fault)
    stage.expect(not news.complaint, news.complaint)
    return True
