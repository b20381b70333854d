/* A lock: one unit, handed on in the order of the tickets. */

#ifndef WORKERS
#define WORKERS 3
#define ROUNDS 2
#define KILLS 1
#define STOPS 1
#define SLOWS 1
#define TIMEOUTS 1
#define FAILS 1
#endif
#ifndef CAPACITY
#define CAPACITY 1
#endif

byte inside;

#define choose(me) want[me] = 1
#define enters(me) d_step { \
	count_used(); assert(used <= CAPACITY); \
	used = 0; add(inside, me); \
	for (i : 0 .. WORKERS - 1) { \
		if \
		:: has(inside, i) -> used = used + want[i] \
		:: else \
		fi \
	} \
	assert(used <= CAPACITY); \
	i = 0; used = 0 }
#define WHILE_IT_HAS_IT
#define leaves(me) remove(inside, me)
#define dies(w) remove(inside, w)

#include "line.pml"
