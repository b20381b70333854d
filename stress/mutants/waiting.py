"""Waiting, broken: rings that come too early, or not at all."""

from kvsync import waiting
from kvsync.engine.doorbell import Doorbells
from kvsync.engine.transaction import SqliteTransaction
from kvsync.primitives import grants
from stress.mutants.breaking import edit, edit_text, put
from stress.mutants.mutant import caught_by

_NEVER = 1e6


def _without_safety_net() -> None:
    """Else a ring that is lost costs time, and nothing else: that is what the net is for."""
    put(waiting, "HEAD_NETS", (_NEVER, _NEVER))
    put(waiting, "_NETS", (_NEVER,))
    put(waiting, "_GLANCES", (_NEVER, _NEVER))


@caught_by("lock")
def no_rings() -> None:
    """Nobody rings; and no safety net wakes who was not rung."""
    _without_safety_net()
    edit(
        Doorbells.ring,
        "send(self._beginning + name.encode(), _OPEN_LISTENING, once)",
        "pass",
    )
    edit(Doorbells.saying, "map(_first, rows)", "()")


@caught_by("lock")
def rings_before_the_commit() -> None:
    """Who is served is rung before the commit, looks, sees nothing and sleeps on; and no safety
    net wakes it, nor does the ring say that it was served, which would let it wait for the gate."""
    _without_safety_net()
    edit_text(grants, "HAND_OVER", "state = 'waiting')", "state = 'nobody')")
    edit(SqliteTransaction.after_commit, "self._after_commit.append(call)", "call()")
    edit(waiting.Wait._hear, "SERVED in rings or", "")


def _little_time_to_claim() -> None:
    edit_text(grants, "HAND_OVER", f":boot + {grants.CLAIM_TIME}", ":boot + 0.001")


@caught_by("lock")
def passes_on_what_was_read() -> None:
    """Who has read that it has the lock loses it, as if it were stopped before it could."""
    _little_time_to_claim()
    edit(grants.end, "engine.doorbells.take_back(doorbell, ticket, transaction.on_undo)", "True")


@caught_by("lock")
def says_it_twice() -> None:
    """The second word lies there unread, so the lock seems not to be taken up."""
    _little_time_to_claim()
    edit(
        Doorbells.saying,
        "map(c_write, opened, words, lengths)",
        "map(c_write, opened, (each * 2 for each in words), (each * 2 for each in lengths))",
    )


@caught_by("recovery")
def takes_no_word_back() -> None:
    """Who is stopped when it is given something has it until it goes on."""
    edit(Doorbells.take_back, "found is not None", "False")
