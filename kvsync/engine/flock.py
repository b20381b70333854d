"""`flock(2)`, with an unlock that no signal can prevent.

Audit hooks run inside of `fcntl.flock`, before anything is unlocked. One that is written in Python
(filelock installs one) lets signal handlers in, and an exception raised by one of them there would
leave the lock taken. ctypes calls the C function with nothing in between.
"""

import ctypes
import fcntl

flock = fcntl.flock
TRY = fcntl.LOCK_EX | fcntl.LOCK_NB
LOOK = fcntl.LOCK_SH | fcntl.LOCK_NB

unlock = ctypes.CDLL(None).flock
"""Call it as `unlock(descriptor, UNLOCK)`, directly: a function around it could be skipped."""

UNLOCK = fcntl.LOCK_UN
