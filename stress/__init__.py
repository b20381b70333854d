"""Long, hard use of kvsync by many processes: `python -m stress --help`.

    __main__     the options, and one scenario after the other
    report       what is printed: how to repeat it, progress, the table at the end
    stage        one run of a scenario: its chance, its goal, its store, what it found
    crew         its processes: started, killed at random, stopped, always reaped
    timing       percentiles, and how busy the machine was with other work meanwhile
    journal      what processes were told is done, kept outside of the store
    history      what they called, when, and what came of it
    windows      when they write that down
    checkers/    whether a history is legal
    judge        puts the histories of a run before the checkers
    witness      a file that one process at a time can have, for locks
    backlog      the queue of the scenarios of queues
    plain        a counter by `sqlite3` alone, for the broken twins
    faults/      what breaks under a program, and how to bring it about
    scenarios/   one file each, its invariant in the first sentence
    models/      the protocols as Spin explores them: `python -m stress.models --help`

A scenario has `UNIT` (what its goal counts), `WAYS` (the sound way to do it, and broken twins that
it must catch) and `run(stage)`.
"""
