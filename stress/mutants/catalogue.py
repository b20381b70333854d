"""All mutants, by name, layer after layer."""

from stress.mutants import engine, locks, queues, sessions, signals, state, waiting
from stress.mutants.mutant import Mutant

ALL: dict[str, Mutant] = {
    each.name: each
    for layer in (engine, sessions, waiting, locks, state, signals, queues)
    for each in vars(layer).values()
    if isinstance(each, Mutant)
}
