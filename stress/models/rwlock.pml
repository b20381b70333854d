/* A read-write lock: readers share it, a writer has it alone, both in the order of asking; a writer
 * may go on as a reader.
 */

#ifndef WORKERS
#define WORKERS 3
#define ROUNDS 1
#define KILLS 1
#define STOPS 1
#define SLOWS 0
#define TIMEOUTS 1
#define FAILS 1
#endif
#define CAPACITY 8  /* a reader has one unit, a writer all: fewer are never there */

byte reading, writing;

#define choose(me) if :: want[me] = 1 :: want[me] = CAPACITY fi
#define enters(me) d_step { \
	assert(!writing); \
	if \
	:: want[me] == 1 -> add(reading, me) \
	:: else -> assert(!reading); add(writing, me) \
	fi }
#define leaves(me) remove(reading, me); remove(writing, me)
#define dies(w) leaves(w)

/* Downgrade: first the read side too, which nobody else can have, then the write side away. */
#define WHILE_IT_HAS_IT \
	:: d_step { !rings[_pid] && held[_pid] == CAPACITY -> held[_pid] = CAPACITY + 1 } \
	:: d_step { !rings[_pid] && held[_pid] == CAPACITY + 1 -> \
		remove(writing, _pid); add(reading, _pid); \
		held[_pid] = 1; serve(_pid) }

#include "line.pml"
