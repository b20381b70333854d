"""demo: processes share a store, some of them are killed, and every call is accounted for.

One is killed half way, wherever it is; and for each act in which something is held, one that holds
it.

    acts        what they do, and what must be there afterwards
    witness     how many are inside at a time, by locks of the kernel and not by the library
    worker      one process: it acknowledges each operation through a pipe before its next one
    crew        all of them, from outside: starts, counts, kills, reaps
    accounts    what each thing must come to by those acknowledgements
    show        what is seen meanwhile
    command     the verb

Nothing is counted in the store itself: the pipes outlive whoever wrote to them.
"""
