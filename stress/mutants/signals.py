"""Events, conditions, barriers, elections, rates, and what is done once, broken."""

from kvsync.primitives import condition
from kvsync.primitives.barrier import Barrier
from kvsync.primitives.election import Election
from kvsync.primitives.event import Event
from kvsync.primitives.once import Once
from kvsync.primitives.rate import RateLimiter
from stress.mutants.breaking import edit
from stress.mutants.mutant import caught_by


@caught_by("event")
def set_between_look_and_wait() -> None:
    """Who begins to wait for an event does not look, in the line, whether it is set by now."""
    edit(Event._enter, "None if self.is_set() else enter", "enter")


@caught_by("condition")
def notified_and_dead() -> None:
    """A notification whose receiver dies goes with it."""
    edit(condition._mend, "_notify(tickets, transaction, len(broken))", "pass")


@caught_by("barrier")
def one_party_too_early() -> None:
    """A barrier opens when one party is still missing."""
    edit(Barrier._choose, "if len(there) < self._parties:", "if len(there) < self._parties - 1:")


@caught_by("election")
def leader_for_ever() -> None:
    """Who was elected takes itself for the leader, whatever the store says."""
    edit(
        Election.is_leader,
        "any(self._is_current(grant) for grant in ([mine] if mine else self._ours()))",
        "bool(self._ours())",
    )


@caught_by("rate_limiter")
def rate_in_two_steps() -> None:
    """What a rate limiter adds to was read before its transaction."""
    read = '(_SELECT, {"name": self._name})'
    work = "work = partial(self._take, "
    edit(RateLimiter.acquire, work, f"self._seen = self._engine.read{read}\n            {work}")
    edit(RateLimiter._take, f"transaction.execute{read}", "self._seen")


@caught_by("once")
def once_and_again() -> None:
    """Who has waited for another's run does not look whether that came to its end."""
    edit(Once._run_in_turn, "mark = self._last()", "mark = before")
