"""Long, hard use of kvsync by many processes: `python -m stress --help`.

    __main__     one scenario after the other
    options      what the run is asked for, and the command that repeats it
    report       what is printed: how to repeat it, progress, the table at the end
    version      which code a run is of
    record       what a run came to, as data; pages writes it down
    page/        a run as one HTML file with pictures
    stage        one run of a scenario: its chance, its goal, its store, what it found
    crew         its processes: started, struck by the nemeses, always reaped
    nemeses/     what is done to processes while they work, one file each
    tally        what each process has done so far
    measures     how long calls took, how many there were when, and who was inside
    programs     how one of the suite's is started in a process of its own
    leaks        whether one of them, or the log, grows without bound
    timing       percentiles, and how busy the machine was with other work meanwhile
    journal      what processes were told is done, kept outside of the store
    history      what they called, when, and what came of it
    windows      when they write that down
    checkers/    whether a history is legal
    judge        puts the histories of a run before the checkers
    witness      files that so many processes at a time can have, for all that is held
    model        what the objects of a store do, for one call after the other
    backlog      the queue of the scenarios of queues
    plain        a counter by `sqlite3` alone, for the broken twins
    faults/      what breaks under a program, and how to bring it about
    scenarios/   one file each, its invariant in the first sentence
    mutants/     broken twins of kvsync itself: `python -m stress mutants --help`
    models/      the protocols as Spin explores them: `python -m stress.models --help`

A scenario has `UNIT` (what its goal counts), `PROCESSES`, `WAYS` (the sound way to do it, and
broken twins that it must catch) and `run(stage)`. `NEMESES` says which faults it bears; left out,
all that strike any crew, if it counts kills, else none; `FAULTS` are its own, in each run.
`PRIMITIVES` is what of kvsync it is about, `THREADS` how many of each process a history tells
apart, if that is more than one.
"""
