"""Counters and dicts, broken."""

from kvsync.primitives.counter import Counter
from kvsync.primitives.mapping import Dict
from stress.mutants.breaking import edit
from stress.mutants.mutant import caught_by


@caught_by("counter")
def add_in_two_steps() -> None:
    """A counter adds by a read and a write."""
    edit(
        Counter.add,
        "rows = self._engine.write(_ADD, self._add_one)",
        "self.set(value := self.value + 1)\n            rows = [(value,)]",
    )


@caught_by("dict_cas")
def compare_before_set() -> None:
    """compare_and_set compares with what it has read before its transaction."""
    read = "rows = self._alive(transaction.execute(_GET, here))"
    edit(Dict.compare_and_set, f"            {read}\n", "")
    edit(
        Dict.compare_and_set,
        "        def work(transaction: Transaction)",
        "        rows = self._alive(self._engine.read(_GET, here))\n\n"
        "        def work(transaction: Transaction)",
    )


@caught_by("dict_cas")
def increment_in_two_steps() -> None:
    """A dict's increment adds to what it has read before its transaction."""
    edit(
        Dict.increment_many,
        "        def work(transaction: Transaction)",
        "        old = {here['key']: self._alive(self._engine.read(_GET, here))"
        " for here, _ in entries}\n\n"
        "        def work(transaction: Transaction)",
    )
    edit(
        Dict.increment_many,
        "self._increment(transaction, here, by)",
        "self._increment(transaction, here, by, old[here['key']])",
    )
    edit(
        Dict._increment,
        "here: dict[str, Any], by: float) -> Any:\n"
        "        rows = self._alive(transaction.execute(_GET, here))",
        "here: dict[str, Any], by: float, rows: Any) -> Any:\n        pass",
    )
