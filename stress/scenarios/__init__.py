"""The scenarios, in the order in which they run."""

from types import ModuleType

from stress.scenarios import (
    bank,
    clock,
    counter,
    counters_in_transactions,
    dict_cas,
    disk_full,
    fairness,
    first_open,
    fork,
    hostile,
    idle,
    interrupts,
    io,
    lease,
    limits,
    lock,
    power,
    queue,
    queue_get,
    queue_order,
    queue_transactions,
    recovery,
    wal,
)

ALL: dict[str, ModuleType] = {
    module.__name__.rpartition(".")[2]: module
    for module in (
        counter,
        counters_in_transactions,
        dict_cas,
        bank,
        first_open,
        fork,
        lock,
        recovery,
        fairness,
        queue,
        queue_get,
        queue_transactions,
        queue_order,
        lease,
        interrupts,
        idle,
        wal,
        io,
        limits,
        disk_full,
        power,
        clock,
        hostile,
    )
}


def invariant(scenario: ModuleType) -> str:
    """The sentence at the top of its file."""
    return " ".join((scenario.__doc__ or "").split("\n\n")[0].split())


def twins(scenario: ModuleType) -> list[str]:
    """The broken ways that it must catch."""
    return list(scenario.WAYS)[1:]
