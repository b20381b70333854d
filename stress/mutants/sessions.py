"""Sessions, broken: who is alive, what the dead leave, what a forked child inherits."""

from kvsync import session
from kvsync.engine import process
from kvsync.engine.doorbell import Doorbells
from kvsync.engine.links import Pool
from kvsync.session import Session
from stress.mutants.breaking import edit
from stress.mutants.mutant import caught_by


@caught_by("recovery", "lock")
def dead_not_reaped() -> None:
    """What the dead held stays taken."""
    edit(Session.reap, "self._end(dead, patience)\n        return dead", "return []")


@caught_by("lock", "recovery")
def living_reaped() -> None:
    """Whoever is in the way is taken for dead."""
    answers = "if answers:\n            return"
    edit(Session.is_dead, f"{answers} False", f"{answers} True")


def _doorbells_of_the_living_say(answers: str) -> None:
    """In place of True; those of the dead say what they always do. That alone breaks no promise: it
    makes all rest upon a rule that seldom has to decide, and that the mutant then takes away."""
    edit(Doorbells.answers, "        return True", f"        return {answers}")


@caught_by("lock", "recovery")
def unknown_taken_for_dead() -> None:
    """Nothing tells that a living process lives, and what is unknown counts as dead."""
    _doorbells_of_the_living_say("None")
    same_stack = "not (start_stack and recorded.start_stack) or start_stack == recorded.start_stack"
    edit(process._lives, same_stack, "None")
    edit(Session.is_dead, "alive is False", "alive is not True")


@caught_by("lock", "recovery")
def silent_taken_for_dead() -> None:
    """Nobody listens at any doorbell, as if all had closed their descriptors; and that alone counts
    as death, whether the process lives or not."""
    _doorbells_of_the_living_say("False")
    edit(Session.is_dead, "return alive is not True or", "return True or")


@caught_by("fork")
def fork_rule_off() -> None:
    """Connections stay open across a fork, and the child goes on with its parent's."""
    edit(Pool.drain, "        self.close()\n", "        return\n")
    edit(Pool.begin_anew, "if self.links:\n            self._abandon()\n        else:", "if True:")
    edit(Pool.begin_anew, "self.places = {}", "pass")
    edit(Pool.begin_anew, 'self._here = _real("_thread", "_local")()', "pass")


@caught_by("fork")
def session_of_the_parent() -> None:
    """A forked child goes on with the session of its parent."""
    edit(
        session._after_fork_in_child,
        "session._lives.clear()",
        "session._lives = {generation(): life for life in session._lives.values()}",
    )
