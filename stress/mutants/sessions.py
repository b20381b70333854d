"""Sessions, broken: who is alive, what the dead leave, what a forked child inherits."""

from kvsync import session
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
