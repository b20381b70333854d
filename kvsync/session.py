"""Sessions: who we are, whether another is alive, and what becomes of what the dead held.

A session is one store handle in one process, from its first grant or wait until the handle is
closed or the process ends. Grants and tickets carry its id. It proves its life by a doorbell, see
`engine/doorbell.py`.

Never taken for dead is who may live. The proof of death is that nobody listens at the very doorbell
that the session recorded, and that no process lives which has its pid, start time and stack (for a
program may have closed all its descriptors). Where the doorbell tells nothing, only who sees the
same pids can tell: then the pid, start time and stack decide.

Whoever is obstructed by a dead session reaps it: its grants and tickets go, in one transaction,
and what they held up moves on.

Garbage collection frees nothing. A handle that is collected while something is held through it
leaves its doorbell open, see `_kept`; one that has nothing loses it, and is dead. But its process
lives, so that only those in it can tell: they know the doorbells that are still somebody's.

At the normal end of a process, too, it is the proof of death that frees what is held still: until
then other threads may be at work with it, and exit handlers that come later. Only who has nothing
takes its session away itself.
"""

import itertools
import os
import sys
import threading
import weakref
from collections.abc import Callable, Collection, Iterable, Sized
from contextlib import suppress
from functools import lru_cache, partial
from typing import Any

from kvsync.engine import Engine, Row, Transaction
from kvsync.engine.doorbell import Doorbell, Mark, Watch
from kvsync.engine.process import Process, lives, this_process
from kvsync.errors import (
    BusyError,
    ClosedError,
    CorruptError,
    ForkError,
    KvsyncError,
    StoreReplacedError,
)
from kvsync.exits import at_exit
from kvsync.forks import generation
from kvsync.leftovers import Leftovers, Step, with_cleanup
from kvsync.threads import Thread, is_alone, this_thread
from kvsync.tokens import Forgetting, begin_epoch

_INSERT = """
    insert into kvsync_session (doorbell, device, inode, host, boot, clock, pid_namespace,
        time_namespace, pid, start_ticks, start_stack, command, since)
    values (:name, :device, :inode, :host, :boot, :clock, :pid_namespace,
        :time_namespace, :pid, :start_ticks, :start_stack, :command, :since)
    returning id
"""
_NO_MARK = Mark(None, None, None)
_SELECT = """
    select id, doorbell, device, inode, host, boot, pid_namespace, time_namespace, pid,
        start_ticks, start_stack, command
    from kvsync_session
"""
_TAKE_AWAY = (
    "update kvsync_unit set session = 0 where session = :session returning space, name, doorbell",
    "delete from kvsync_ticket where session = :session returning space, name, doorbell",
    # Who mends the queue sees that its taker is no more.
    "select distinct 'queue', queue, null from kvsync_item where session = :session"
    " and (queue, state) in (select name, -1 from kvsync_queue_past)",
)
_HAS = """
    select 1 from kvsync_unit where session = :session
    union all
    select 1 from kvsync_ticket where session = :session
    union all
    select 1 from kvsync_item where session = :session
    and (queue, state) in (select name, -1 from kvsync_queue_past)
    limit 1
"""
_NAMED = """
    select doorbell from kvsync_session
    union
    select doorbell from kvsync_ticket
    union
    select doorbell from kvsync_grant
"""
_NAMED_BY = """
    select doorbell, id from kvsync_session
    union
    select doorbell, session from kvsync_ticket
    union
    select doorbell, session from kvsync_grant
"""
GATE_PATIENCE = 1.0
"""Seconds for which a call with a shorter timeout waits for SQLite's write lock all the same, so
that one try has its turn among many writers; and a call that is cut short, to undo its part."""

_LOOKED_AT = 8
"""Sessions that a new one looks at, so that what the dead left behind does not pile up."""

_SWEEPS = 16
"""One of so many new sessions sweeps up the doorbells of the dead."""

_OLD = 300.0
"""Seconds after which a doorbell that was never open is swept up: its maker is long gone."""

Mend = Callable[[Engine, Transaction, str], None]
"""Moves on what the end of a grant or a ticket of that name may have held up."""

MEND: dict[str, Mend] = {}
"""By the space of the names; the primitives enter theirs."""


def patience_of(timeout: float | None) -> float | None:
    """Seconds for which a call with that timeout waits for SQLite's write lock; None: as always."""
    return None if timeout is None else max(timeout, GATE_PATIENCE)


def patience_until(deadline: float | None, boot: float) -> float | None:
    """The same, at that moment of the boot clock, for a call whose time ends at that deadline."""
    return patience_of(None if deadline is None else deadline - boot)


class Patience:
    """How long a call waits: until its `deadline`; and how long for SQLite's write lock.

    All that it does before it stands in a line has one time together, a second at least.
    """

    def __init__(self, timeout: float | None, boot: Callable[[], float]) -> None:
        self.timeout = timeout
        self.deadline: float | None = None
        self._boot = boot
        if timeout is not None:
            self.deadline = boot() + timeout
            self._end = self.deadline + max(0.0, GATE_PATIENCE - timeout)

    def left(self) -> float | None:
        """Seconds for which the next step may wait for the write lock; None: as always."""
        return None if self.deadline is None else max(0.0, self._end - self._boot())


class Session:
    """What one store handle is to other processes. Begun by its first use in each process."""

    def __init__(self, engine: Engine, *, detect_deadlocks: bool = True) -> None:
        self.engine = engine
        self.detects_deadlocks = detect_deadlocks
        self._lives: dict[int, _Life] = {}
        self._attempts = itertools.count(1)  # of whichever life: who waited through its end goes on
        self._is_closed = False
        self.reentrant: dict[tuple[str, int, Thread], Any] = {}  # by name, process and thread
        self._leftovers = Leftovers()
        self._waited_at: Waited = set()
        self._rest_numbers = itertools.count()
        _register(self)

    @property
    def id(self) -> int:
        """Ours, begun if need be. Raises: what a write raises."""
        return self._life().id

    def _life(self, patience: float | None = None) -> "_Life":
        """Begun if need be. Raises: what a write raises; BusyError after `patience` seconds."""
        life = self._lives.get(generation())
        if life is not None:
            return life
        self._refuse_if_closed()
        begun = _Life(self.engine, patience)
        life = self._lives.setdefault(generation(), begun)  # atomic: threads agree on one
        if life is not begun:
            begun.silence()
            with suppress(BusyError):  # its row goes with this process at the latest
                begun.end(patience=0)
        if self._is_closed:  # by another thread, which may have seen no life to end
            self.end()
            self._refuse_if_closed()
        at_exit(_leave_all)
        self._tidy_up(life)
        return life

    def _tidy_up(self, life: "_Life") -> None:
        """See to a few of the dead; while the store is busy, another session will."""
        others = self.engine.read(
            "select id from kvsync_session order by random() limit :limit", {"limit": _LOOKED_AT}
        )
        with suppress(BusyError):
            self._end([other for (other,) in others if self.is_dead(other)], patience=0)
        if life.id % _SWEEPS == 0:
            self.sweep()

    def patience(self, timeout: float | None) -> Patience:
        """Of a call that begins now, and waits for up to `timeout` seconds; None: for ever."""
        return Patience(timeout, self.engine.boot)

    def begin(self, patience: float | None) -> None:
        """Before a call with a timeout, which must not wait for longer than that for the session.

        Not inside a transaction, with which the session would go. Raises: what a write raises;
        BusyError after `patience` seconds, and never after more than the `busy_timeout`.
        """
        self._life(patience)

    @property
    def has_begun(self) -> bool:
        """Whether it was used in this process."""
        return generation() in self._lives

    @property
    def thread(self) -> str:
        """Names the calling thread, the same in all sessions of its process; to compare only.

        "" if its waits are not to be looked at for deadlocks.
        """
        if not self.detects_deadlocks:
            return ""
        return _thread_name(generation(), this_thread())

    def next_attempt(self) -> int:
        """A number that no other attempt of this session has."""
        self._life()
        return next(self._attempts)

    def undo(self, step: Step) -> None:
        """Take back what a call left in the store whose exception is being handled.

        What cannot be done now is done as soon as it can be; where the store was just found busy,
        nothing else is tried. That it is its parent's to take back the step says by a ForkError.
        """
        if isinstance(sys.exception(), BusyError):
            self.undo_later(step)
            return
        try:
            try:
                step(GATE_PATIENCE)
            except KvsyncError:
                raise
            except BaseException:
                step(GATE_PATIENCE)
                raise
        except ForkError:
            pass
        except KvsyncError:
            self.undo_later(step)

    def undo_later(self, step: Step) -> None:
        """The same, but without waiting for it."""
        self._leftovers.add(step)

    def undo_before_next(self, step: Step) -> None:
        """The same, but not before this session's next attempt: it may be settled by hand."""
        self._leftovers.note(step)

    def forget(self, step: Step) -> None:
        """There is nothing to take back for it any more."""
        self._leftovers.drop(step)

    def has_leftovers(self) -> bool:
        """Whether there is anything that earlier calls have left."""
        return not self._leftovers.are_none()

    def undo_leftovers(self, patience: float | None = None) -> None:
        """Wait until what earlier calls have left is taken back.

        Inside a transaction it is begun, and not waited for: it needs the write lock, which that
        has until it ends.

        Raises: BusyError after `patience` seconds, and never after more than the `busy_timeout`.
        """
        if not self.has_leftovers():
            return
        if self.engine.is_in_transaction():
            self._leftovers.begin()
            return
        longest = self.engine.busy_timeout
        self._leftovers.settle(longest if patience is None else min(patience, longest))

    def keep(self, held: Sized) -> None:
        """Count as alive while `held`, a list of what is held under this session, is not empty.

        Even if this handle is collected meanwhile. Call it after each addition.
        """
        proof = self._life().proof
        if proof is not None:
            _kept[id(held)] = held, proof
            if len(_kept) >= _most_kept[0]:
                _drop_what_holds_nothing()

    def forget_now_and_then(self, space: str, name: str) -> None:
        """Before an attempt at a grant of that name: see `Forgetting`."""
        self._life().forgetting.now_and_then(space, name)

    def doorbell(self) -> "Listening":
        """One to wait at, as a `with` block; None where the system has none."""
        return Listening(self._life(), self._waited_at)

    def rest(self, give_back: Step) -> "Rest":
        """One to sleep at until a moment that was reserved, which `give_back` undoes.

        Called in the transaction that reserves it: either its commit comes before `close` gives it
        back, or this sees that it is closed. Raises: ClosedError.
        """
        rest = Rest(next(self._rest_numbers), give_back)
        self._waited_at.add(weakref.ref(rest, self._waited_at.discard))
        self._refuse_if_closed()
        return rest

    def wake(self) -> None:
        """Let those threads look that wait here: the engine was closed."""
        for reference in self._waited_at.copy():
            if bell := reference():
                bell.stir()

    def _refuse_if_closed(self) -> None:
        if self._is_closed:
            raise ClosedError("this store is closed")

    def close(self) -> None:
        """End for good; idempotent. Raises: what a write raises, and then it is not closed."""
        was_closed = self._is_closed
        self._is_closed = True  # before it ends: who is woken by that may not begin anew
        try:
            self.end()
        except BaseException:
            self._is_closed = was_closed
            raise
        self._end_rests()

    def _end_rests(self) -> None:
        """Give back what they have reserved; while the store is busy, what is left is spent.

        The last one first: only who is the last in its line can give something back.
        """
        rests = [rest for each in self._waited_at.copy() if isinstance(rest := each(), Rest)]
        with suppress(KvsyncError):
            for rest in sorted(rests, key=lambda rest: rest.number, reverse=True):
                if give_back := rest.end():
                    give_back(GATE_PATIENCE)

    def end(self) -> None:
        """Give up all that is held and waited for. Raises: what a write raises."""
        life = self._lives.get(generation())
        if life is not None:
            with_cleanup(partial(self._end_life, life), partial(self._forget_if_ended, life))

    def leave(self) -> None:
        """End, if nothing is held or waited for. Raises: what a write raises.

        No other thread may be about to acquire something: it would belong to nobody.
        """
        life = self._lives.get(generation())
        if life is not None:
            with_cleanup(partial(self._leave_life, life), partial(self._forget_if_ended, life))

    def _end_life(self, life: "_Life") -> None:
        with suppress(StoreReplacedError):  # what it held there is gone with the file
            life.end()
        self._forget(life)

    def _leave_life(self, life: "_Life") -> None:
        if life.leave():
            self._forget(life)

    def _forget_if_ended(self, life: "_Life") -> None:
        """A signal may have come right after: what it had from now on would be taken for a dead
        one's.
        """
        with suppress(KvsyncError):
            if self._row(life.id) is None:
                self._forget(life)

    def _forget(self, life: "_Life") -> None:
        """It has ended."""
        life.silence()
        self._lives.pop(generation(), None)
        self._leftovers.forget()  # all that it had is gone

    # --- the others ---------------------------------------------------------------------------

    def watch(self, session: int) -> Watch | None:
        """A watch on that session's process; None where it cannot be had."""
        row = self._row(session)
        mark = _mark(row) if row else None
        return self.engine.doorbells.watch(mark) if mark else None

    def process(self, session: int) -> Process | None:
        """The process that recorded that session, dead or alive."""
        row = self._row(session)
        return _process(row) if row else None

    def _row(self, session: int) -> Row | None:
        rows = self.engine.read(f"{_SELECT} where id = :id", {"id": session})
        return rows[0] if rows else None

    def reap(self, sessions: Iterable[int], patience: float | None = None) -> list[int]:
        """End those of the sessions that are dead; returns them. `patience` is as in `transact`."""
        dead = [each for each in set(sessions) if self.is_dead(each)]
        self._end(dead, patience)
        return dead

    def reap_all(self) -> list[Process]:
        """End every dead session; returns their processes."""
        dead = self.dead()
        self._end(dead)
        return list(dead.values())

    def dead(self) -> dict[int, Process]:
        """The dead sessions, and the processes that they were."""
        rows = self.engine.read(f"{_SELECT} order by id")
        return {row[0]: _process(row) for row in rows if self.is_dead(row[0])}

    def strays(self) -> list[str]:
        """Doorbells that the dead left behind, and that no row names."""
        doorbells = self.engine.doorbells
        # Who is silent is dead, and names it no more; so the rows are read after that.
        silent = doorbells.silent(self.engine.now() - _OLD)
        named = {name for (name,) in self.engine.read(_NAMED)} if silent else set()
        return [name for name in silent if name.removesuffix("~") not in named]

    def left_behind(self) -> list[str]:
        """These, and those that only the rows of the dead name: they go as these are reaped."""
        silent = self.engine.doorbells.silent(self.engine.now() - _OLD)
        rows = self.engine.read(_NAMED_BY) if silent else ()
        living = {name for name, session in rows if not self.is_dead(session)}
        return [name for name in silent if name.removesuffix("~") not in living]

    def sweep(self) -> int:
        """Take the strays away; returns how many there were."""
        strays = self.strays()
        self.engine.doorbells.sweep(strays)
        return len(strays)

    def _end(self, sessions: Collection[int], patience: float | None = None) -> None:
        if sessions:
            self.engine.transact(
                lambda transaction: _end(self.engine, transaction, sessions), patience=patience
            )

    def is_dead(self, session: int) -> bool:
        """Whether that is proven."""
        life = self._lives.get(generation())
        if life is not None and life.id == session:
            return False
        row = self._row(session)
        if row is None:
            return True  # it has ended: what still bears its number is nobody's
        mark = _mark(row)
        answers = self.engine.doorbells.answers(mark) if mark else None
        if answers:
            return False
        process = _process(row)
        alive = lives(process)
        if answers is None:
            return alive is False
        return alive is not True or (process == this_process() and not _is_ours(row[1]))


class Listening:
    """A `with` block that has a doorbell for itself, which is given back at its end.

    Where a signal's exception skips that, the doorbell goes with the block, and out of the set of
    those that are waited at. (A generator would give it back then too, and take longer, while
    others wait.)
    """

    def __init__(self, life: "_Life", waited_at: "Waited") -> None:
        self._life = life
        self._waited_at = waited_at
        self._bell: Doorbell | None = None

    def __enter__(self) -> Doorbell | None:
        self._bell = self._life.take_bell()
        if self._bell is not None:
            # In one line: a reference that is kept, and was never in a set, cannot be looked for.
            self._waited_at.add(weakref.ref(self._bell, self._waited_at.discard))
        return self._bell

    def __exit__(self, *_: object) -> None:
        if self._bell is not None:
            self._waited_at.discard(weakref.ref(self._bell))
            self._life.bells.append(self._bell)


class Rest:
    """Where somebody sleeps whom nobody rings, for the moment is known: only a close wakes it.

    Whoever ends it first decides: its owner, that it was slept through, and what was reserved is
    used; or the close, that it is given back.
    """

    def __init__(self, number: int, give_back: Step) -> None:
        self.number = number
        self._give_back = [give_back]
        self._bell = threading.Lock()  # looked up each time: gevent puts its own in its place
        self._bell.acquire()

    def sleep(self, seconds: float) -> None:
        """Until it is stirred, or that is over."""
        self._bell.acquire(timeout=seconds)

    def stir(self) -> None:
        """Wake who sleeps at it, or is about to."""
        with suppress(RuntimeError):  # it was, before
            self._bell.release()

    def end(self) -> Step | None:
        """What gives back what was reserved; None if it was ended before."""
        try:
            return self._give_back.pop()  # atomic: one has it
        except IndexError:
            return None


Waited = set[weakref.ref[Doorbell] | weakref.ref[Rest]]


class _Life:
    """A session that has begun, in the process that began it."""

    def __init__(self, engine: Engine, patience: float | None) -> None:
        self._engine = engine
        self.id: int
        self.forgetting = Forgetting(engine)
        self.bells: list[Doorbell] = []
        process = this_process()
        begin_epoch(engine, process.boot, patience)
        self.proof = self._install()  # before others can read of it
        _note_proof(self.proof)
        mark = self.proof.mark if self.proof else _NO_MARK
        row = {**process._asdict(), **mark._asdict(), "clock": process.clock, "since": engine.now()}
        try:
            ((self.id,),) = engine.transact(
                lambda transaction: transaction.execute(_INSERT, row), patience=patience
            )
        except BaseException:
            self.silence()
            raise

    def _install(self) -> Doorbell | None:
        _drop_what_holds_nothing()  # so that to install one closes what is lost
        try:
            return self._engine.doorbells.install()
        except OSError:
            return None

    def take_bell(self) -> Doorbell | None:
        try:
            return self.bells.pop()
        except IndexError:
            return self._install()

    def end(self, patience: float | None = None) -> None:
        self._engine.transact(
            lambda transaction: _end(self._engine, transaction, [self.id]), patience=patience
        )

    def leave(self) -> bool:
        """End, unless it has something; returns whether it has ended."""
        return self._engine.transact(self._leave, patience=GATE_PATIENCE)

    def _leave(self, transaction: Transaction) -> bool:
        if transaction.execute(_HAS, {"session": self.id}):
            return False
        _end(self._engine, transaction, [self.id])
        return True

    def silence(self) -> None:
        for key, (_, proof) in list(_kept.items()):
            if proof is self.proof:
                _kept.pop(key, None)
        for bell in (self.proof, *self.bells):
            if bell is not None:
                bell.close()
        self._engine.doorbells.tidy()


def _end(engine: Engine, transaction: Transaction, sessions: Iterable[int]) -> None:
    """Take away all that the sessions have, and move on what that held up."""
    lines: set[tuple[str, str]] = set()
    doorbells: set[str | None] = set()
    for session in sessions:
        for take_away in _TAKE_AWAY:
            rows = transaction.execute(take_away, {"session": session})
            for space, name, doorbell in rows:
                lines.add((space, name))
                doorbells.add(doorbell)
        for (doorbell,) in transaction.execute(
            "delete from kvsync_session where id = :session returning doorbell",
            {"session": session},
        ):
            doorbells.add(doorbell)
    for doorbell in doorbells:
        if doorbell is not None:
            transaction.after_commit(partial(engine.doorbells.remove, doorbell))
    for space, name in sorted(lines):
        _mend(engine, transaction, space, name)


def _mend(engine: Engine, transaction: Transaction, space: str, name: str) -> None:
    """A damaged line holds up nobody else; who stands in it finds out."""
    with suppress(CorruptError):
        transaction.nested(lambda nested: mend(engine, nested, space, name))


def mend(engine: Engine, transaction: Transaction, space: str, name: str) -> None:
    """Serve a line in which something has changed, unless nobody of ours can stand in it."""
    if space in MEND:
        MEND[space](engine, transaction, name)


def _mark(row: Row) -> Mark | None:
    return Mark(*row[1:4]) if row[1] is not None else None


def _process(row: Row) -> Process:
    return Process(*row[4:])


@lru_cache(maxsize=64)
def _thread_name(_: int, thread: Thread) -> str:
    here = this_process()
    return f"{here.pid_namespace}.{here.pid}.{here.start_ticks}/{thread.number}/{thread.ident}"


_sessions: dict[int, weakref.ref[Session]] = {}
"""By their ids. No callback takes a dead one out: it would swallow a signal's exception."""


_proofs: dict[str | None, weakref.ref[Doorbell]] = {}
"""By their names, what proves sessions of this process alive: whoever has a session has its proof.

The program may have closed them all. One that nobody has any more was lost with its handle.
"""


def _note_proof(proof: Doorbell | None) -> None:
    for name, each in list(_proofs.items()):
        if each() is None:
            _proofs.pop(name, None)
    if proof is not None:
        _proofs[proof.mark.name] = weakref.ref(proof)


def _is_ours(name: str) -> bool:
    """Whether somebody in this process has the doorbell of that name as a proof."""
    proof = _proofs.get(name)
    return proof is not None and proof() is not None


_kept: dict[int, tuple[Sized, Doorbell]] = {}
"""By their ids, the lists of what is held in this process, and what proves it alive."""

_FEW_KEPT = 64
_most_kept = [_FEW_KEPT]
"""So many there may be until those are looked for that are empty."""


def _drop_what_holds_nothing() -> None:
    _most_kept[0] = max(_FEW_KEPT, 2 * len(_kept))  # though this be cut short: not again soon
    for key, (held, proof) in list(_kept.items()):
        if not held:
            _kept.pop(key, None)
            if held:  # another thread has just added something
                _kept[key] = held, proof
    _most_kept[0] = max(_FEW_KEPT, 2 * len(_kept))


def _register(session: Session) -> None:
    for key, each in list(_sessions.items()):
        if each() is None:
            _sessions.pop(key, None)
    _sessions[id(session)] = weakref.ref(session)


def _all() -> list[Session]:
    return [session for each in list(_sessions.values()) if (session := each()) is not None]


def _leave_all() -> None:
    """At the end of this process. In `multiprocessing` children other threads may run on."""
    if is_alone():
        for session in _all():
            with suppress(KvsyncError):  # the death of the process says as much
                session.leave()


def _after_fork_in_child() -> None:
    _kept.clear()  # the parent's
    _proofs.clear()
    for session in _all():
        session._lives.clear()  # the parent's; and its pid may come again
        session._leftovers = Leftovers()
        session._waited_at.clear()


os.register_at_fork(after_in_child=_after_fork_in_child)
