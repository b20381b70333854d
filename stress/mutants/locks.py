"""What is held, broken: units, tokens, leases, the line of those who want them."""

from kvsync import session, tokens
from kvsync.engine.sqlite import SqliteEngine
from kvsync.primitives import grants
from kvsync.primitives.lock import RLock
from kvsync.primitives.units import Units
from kvsync.store import Store
from kvsync.waiting import Wait
from stress.mutants.breaking import edit, edit_text
from stress.mutants.mutant import caught_by


@caught_by("lease")
def release_by_name() -> None:
    """Releasing frees the lock, whoever has it now: neither token nor session is compared."""
    ours = "and slot = :slot and token = :token\n    and session = :session"
    edit_text(grants, "FREE", ours, "")
    edit_text(grants, "FREE_IF_NOBODY_WAITS", ours, "")


@caught_by("lock")
def token_stays() -> None:
    """A new grant has the token of the one before it."""
    edit_text(grants, "TAKE_ALL", "set token = token + 1", "set token = token")
    edit_text(grants, "HAND_OVER", "kvsync_unit.token + 1", "kvsync_unit.token")
    edit_text(grants, "_GIVE", "1 + (select max(token)", "0 + (select max(token)")


@caught_by("lock")
def token_forgotten() -> None:
    """The row that remembers a lock's last token goes when the lock is released."""
    for name in ("FREE", "FREE_IF_NOBODY_WAITS"):
        edit_text(grants, name, "update kvsync_unit set session = 0", "delete from kvsync_unit")


@caught_by("lock")
def floor_forgotten() -> None:
    """What was the largest token of the names that are forgotten is forgotten with them."""
    edit(tokens._forget, '{"floor": floor}', '{"floor": 0}')


@caught_by("fairness")
def last_come_first_served() -> None:
    """Who came last is served first."""
    edit_text(grants, "HAND_OVER", "select min(id)", "select max(id)")
    edit_text(grants, "_TICKETS", "order by id limit", "order by id desc limit")


@caught_by("fairness")
def line_passed_by() -> None:
    """Who releases a lock wakes the head of the line, which takes it, if nobody who came meanwhile
    was faster."""
    nobody_waits = " (select 1 from kvsync_ticket where space = :space and name = :name)"
    edit_text(grants, "TAKE_ALL", f"and not exists{nobody_waits}", "")
    edit_text(grants, "HAND_OVER", "state = 'waiting')", "state = 'nobody')")
    head = '{**self._here, "ticket": 0}'
    edit(
        Units._drop,
        "self._serve(transaction)",
        f"ring_next(self._engine, transaction, {head})",
    )
    woken = "quiet = slept = self._sleep(view, now)"
    edit(Wait.until_served, woken, f"{woken}\n            self._engine.transact(self._mend)")


@caught_by("lease")
def guard_not_asked() -> None:
    """A guarded transaction commits whether its guard is held or not."""
    edit(Store.transaction, "guard.ensure_held()", "pass")


@caught_by("lease")
def lost_lease_extended() -> None:
    """Extending a lease succeeds, though the lock was lost before."""
    edit(Units.extend, "raise self.lost(grant)", "pass")


@caught_by("rlock")
def inner_release_frees() -> None:
    """The first release of an rlock frees it, however often it was taken."""
    edit(RLock.release, "if grant.depth > 1:", "if grant.depth < 1:")


@caught_by("lease")
def lease_without_end() -> None:
    """A lease does not end."""
    edit(Units._wish, "units, capacity, lease,", "units, capacity, None,")


@caught_by("lease")
def lease_too_short() -> None:
    """A lease that was claimed from the line ends after a tenth of its time."""
    edit_text(grants, "CLAIM", ":boot + lease", ":boot + lease / 10")
    edit_text(grants, "CLAIM_HANDED", ":boot + lease", ":boot + lease / 10")


@caught_by("lease")
def lease_over_at_once() -> None:
    """A lease is over before its holder can do anything."""
    edit_text(grants, "CLAIM", ":boot + lease", ":boot + lease / 10000")
    edit_text(grants, "CLAIM_HANDED", ":boot + lease", ":boot + lease / 10000")
    edit(Units._take, "end_of(wish.lease", "end_of(wish.lease and wish.lease / 10000")


@caught_by("lease")
def lease_cut_short() -> None:
    """Who waits takes a lease for over before it is."""
    edit(grants.is_over, "end <= boot", "end - 0.02 <= boot")
    edit(Wait._look, "(end for end in ends", "(end - 0.02 for end in ends")


@caught_by("clock")
def lease_by_the_wall_clock() -> None:
    """Leases and waits go by the wall clock, which may be set, instead of the boot clock."""
    edit(SqliteEngine.__init__, "clock.wall, clock.boot", "clock.wall, clock.wall")


@caught_by("interrupts")
def ticket_left_behind() -> None:
    """Who is interrupted in the line leaves its ticket there."""
    edit(
        Units._undo, "delete from kvsync_ticket {_OF_ATTEMPT}", "delete from kvsync_ticket where 0"
    )


@caught_by("semaphore")
def one_permit_more() -> None:
    """Past an empty line a semaphore gives one permit more than it has."""
    edit_text(grants, "TAKE", ") <= :capacity", ") <= :capacity + (:space = 'semaphore')")


@caught_by("semaphore")
def try_always_fails() -> None:
    """Who would not wait at all gets no permit of a semaphore, whether any is free or not."""
    take = "self._take(wish, patience) or"
    tries = "patience.timeout == 0 and self.space == 'semaphore'"
    edit(Units._acquire, f"grant = {take}", f"grant = None if {tries} else {take}")


@caught_by("semaphore")
def permits_of_the_dead() -> None:
    """A semaphore's permits are a number: those of the dead do not come back."""
    edit(session._end, "for take_away in _TAKE_AWAY:", "for take_away in _TAKE_AWAY[1:]:")
    edit(
        session._end,
        "rows = transaction.execute(take_away, {",
        'transaction.execute("update kvsync_unit set session = 0 where session = :session'
        ' and space <> \'semaphore\'", {"session": session})\n'
        "            rows = transaction.execute(take_away, {",
    )


@caught_by("rwlock")
def writer_beside_readers() -> None:
    """A writer at the head of the line gets in beside readers."""
    fits = "fits = used + units <= capacity"
    edit(grants.serve, fits, f"{fits} or used < capacity == units")
