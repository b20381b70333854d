"""The scenarios, in the order in which they run."""

from types import ModuleType

from stress.scenarios import (
    bank,
    barrier,
    clock,
    condition,
    counter,
    counters_in_transactions,
    dict_cas,
    disk_full,
    election,
    event,
    everything,
    fairness,
    first_open,
    fork,
    hostile,
    idle,
    interrupts,
    io,
    leaks,
    lease,
    limits,
    lock,
    model,
    once,
    power,
    queue,
    queue_failures,
    queue_get,
    queue_order,
    queue_transactions,
    rate_limiter,
    recovery,
    rlock,
    rwlock,
    semaphore,
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
        rlock,
        semaphore,
        rwlock,
        event,
        condition,
        barrier,
        election,
        rate_limiter,
        once,
        recovery,
        fairness,
        model,
        queue,
        queue_get,
        queue_failures,
        queue_transactions,
        queue_order,
        lease,
        interrupts,
        idle,
        wal,
        leaks,
        io,
        limits,
        disk_full,
        power,
        clock,
        hostile,
        everything,
    )
}


def invariant(scenario: ModuleType) -> str:
    """The sentence at the top of its file."""
    return " ".join((scenario.__doc__ or "").split("\n\n")[0].split())


def twins(scenario: ModuleType) -> list[str]:
    """The broken ways that it must catch."""
    return list(scenario.WAYS)[1:]
