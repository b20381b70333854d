"""queue: a verb with verbs of its own.

command     the group
named       which queue is meant, as it is stored
look        ls, peek, dead
put         put
change      redrive, purge, shutdown, reopen
work        work: a command for each item
child       one run of that command
"""
