"""Broken twins of kvsync itself, each a few lines, which the scenarios must catch.

    catalogue    all of them, by name
    mutant       what one is: what is broken, and which scenarios are to catch it
    breaking     how it is done: a few words of a function or a constant, in this process alone
    engine, locks, sessions, waiting, state, queues, signals
                 the mutants themselves, by the layer that they break
    cells        one mutant under one scenario, in processes of its own
    kept         cells of a run that was cut off
    command      `python -m stress mutants`

A process of the suite breaks its kvsync before it uses it, if the environment names a mutant; and
so do those that it starts. kvsync itself knows nothing of all this.
"""

import os

VARIABLE = "KVSYNC_STRESS_MUTANT"


def break_if_told() -> None:
    """Become the mutant that the environment names, if it names one. Each process, once."""
    name = os.environ.get(VARIABLE)
    if name:
        from stress.mutants.catalogue import ALL

        ALL[name].apply()
