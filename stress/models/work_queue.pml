/* The work queue: an item is handed out under a new receipt each time, and only who has the newest
 * can ack it, give it back or bury it.
 *
 * - A write transaction is one d_step. A pause is a worker that takes no step for a while.
 * - An item is handed out again if its worker dies, if its time to be invisible is over (which may
 *   be at any moment, `SLOWS` times), or after a retry, when its delay is over. After MOST attempts it
 *   goes to the dead letters instead.
 * - The work's own write, `results`, is in the transaction that acks.
 * - Who waits is given an item under a receipt, and has an attempt only when it claims it. One that
 *   it does not claim, in time or ever, goes back uncounted.
 * - So does what a worker gives back as if never handed out, `RETURNS` times: its loop was left, it was
 *   interrupted, or the take that it came from.
 * - How a waiting worker is woken is in no model: its line is not that of ticket_queue.pml.
 *
 * Asserted: what succeeds has the newest receipt; no item has more than MOST attempts that count; at
 * rest every item that was put is either acked, once, with its result written once, or among the
 * dead letters, where it came once.
 */

#ifndef WORKERS
#define WORKERS 3
#define ITEMS 2
#define MOST 2
#define KILLS 2
#define SLOWS 1
#endif
#ifndef RETURNS
#define RETURNS 0
#endif

#define ABSENT 0
#define READY 1
#define OUT 2
#define DELAYED 3
#define ACKED 4
#define BURIED 5
#define GIVEN 6  /* to one who waits, and not claimed yet */

#define bit(w) (1 << (w))
#define PRODUCER WORKERS

byte dead;
byte state[ITEMS], attempts[ITEMS], receipt[ITEMS], holder[ITEMS];
byte hand_outs[ITEMS], acks[ITEMS], burials[ITEMS], results[ITEMS];  /* what really happened */
byte returned[ITEMS];
byte returns = RETURNS;

hidden byte i;

#ifdef BROKEN_ACK_BY_ID
#define valid(mine, mark) (state[mine] == OUT)
#elif defined(BROKEN_ACK_WHATEVER_STATE)
#define valid(mine, mark) (receipt[mine] == mark)
#else
#define valid(mine, mark) (state[mine] == OUT && receipt[mine] == mark)
#endif
#ifdef BROKEN_CLAIMS_WHOEVERS
#define is_given(mine, mark) (state[mine] == GIVEN)
#else
#define is_given(mine, mark) (state[mine] == GIVEN && receipt[mine] == mark)
#endif
#ifdef BROKEN_SAME_RECEIPT
#define NEW 0
#else
#define NEW 1
#endif
#ifdef BROKEN_NO_REAP
#define gone(w) false
#else
#define gone(w) (dead & bit(w))
#endif

inline oldest_ready() {
	i = 0;
	do
	:: i < ITEMS && state[i] != READY -> i++
	:: else -> break
	od
}

inline give(item) {
	state[item] = GIVEN;
	holder[item] = _pid;
	receipt[item] = receipt[item] + NEW
}

inline claim(item) {
	state[item] = OUT;
	attempts[item]++;
	hand_outs[item]++;
	assert(hand_outs[item] - returned[item] <= MOST)
}

inline hand_out(item) { give(item); claim(item) }

inline take_back(item) {
	returned[item]++;
	attempts[item]--;
	state[item] = READY
}

inline bury(item) {
	state[item] = BURIED;
	burials[item]++;
	assert(burials[item] == 1 && !acks[item])
}

inline give_back(item, as) {
#ifdef BROKEN_DEATH_DOES_NOT_COUNT
	if
	:: gone(holder[item]) -> attempts[item]--
	:: else
	fi;
#endif
	if
	:: attempts[item] >= MOST -> bury(item)
	:: else -> state[item] = as
	fi
}

inline ack(item) {
	state[item] = ACKED;
	acks[item]++;
	assert(acks[item] == 1 && !burials[item])
}

inline has_newest(item, turn) { assert(turn == hand_outs[item]) }

#define runs(w) (!(dead & bit(w)))
#define ready (state[0] == READY || state[ITEMS - 1] == READY || (ITEMS > 2 && state[1] == READY))

active [WORKERS] proctype worker() provided (runs(_pid)) {
	byte mine, mark, turn;  /* an item, its receipt, and which hand-out that was */
	bit again;
end:
	do
#ifdef BROKEN_READ_THEN_TAKE
	:: d_step { ready -> oldest_ready(); mine = i; i = 0 }
	   atomic { true; d_step { hand_out(mine); mark = receipt[mine]; turn = hand_outs[mine]; again = 1 } }
#else
	:: if
	   :: d_step { ready -> oldest_ready(); mine = i; i = 0; hand_out(mine); mark = receipt[mine]; turn = hand_outs[mine]; again = 1 }
	   :: d_step { ready -> oldest_ready(); mine = i; i = 0; give(mine); mark = receipt[mine] }  /* by whoever puts it or gives it back */
	      if
	      :: d_step { is_given(mine, mark) -> claim(mine); turn = hand_outs[mine]; again = 1 }
	      :: d_step { !is_given(mine, mark) -> mine = 0; mark = 0 } goto end  /* it has passed on */
	      fi
	   fi;
#endif
	   do
#ifdef BROKEN_RESULT_BEFORE_ACK
	   :: atomic { valid(mine, mark) -> results[mine]++ }
	      if
	      :: d_step { valid(mine, mark) -> has_newest(mine, turn); ack(mine) }
	      :: !valid(mine, mark)
	      fi;
#elif defined(BROKEN_ACK_BEFORE_WORK)
	   :: d_step { valid(mine, mark) -> has_newest(mine, turn); ack(mine) }
	      atomic { true; results[mine]++ }
#else
	   :: d_step { valid(mine, mark) -> has_newest(mine, turn); ack(mine); results[mine]++ }
#endif
	   :: d_step { valid(mine, mark) -> has_newest(mine, turn); give_back(mine, DELAYED) }
	   :: d_step { returns && valid(mine, mark) -> returns--; has_newest(mine, turn); take_back(mine) }
	   :: d_step { valid(mine, mark) -> has_newest(mine, turn); bury(mine) }
	   :: d_step { again && valid(mine, mark) -> has_newest(mine, turn); again = 0 }  /* extend */
	   :: d_step { !valid(mine, mark) -> mine = 0; mark = 0; turn = 0; again = 0 }    /* refused */
	      break
	   od
	od
}

active proctype producer() provided (runs(PRODUCER)) {
	byte next;
	do
	:: d_step { next < ITEMS -> state[next] = READY; next++ }
	:: next == ITEMS -> break
	od
}

#define each(item, what) item < ITEMS && what
#define passes_on(item) d_step { each(item, state[item] == GIVEN && gone(holder[item])) -> state[item] = READY }

#ifdef BROKEN_GIVES_BACK_WITHOUT_A_LOOK
#define mends(item) each(item, state[item] == OUT && gone(holder[item])) -> atomic { true; d_step { give_back(item, READY) } }
#else
#define mends(item) d_step { each(item, state[item] == OUT && gone(holder[item])) -> give_back(item, READY) }
#endif

/* Whoever is alive gives back what the dead had. Two of them: they may look at the same time. */
active [2] proctype reaper() {
end:
	do
	:: mends(0)
	:: mends(1)
	:: passes_on(0)
	:: passes_on(1)
#if ITEMS > 2
	:: mends(2)
	:: passes_on(2)
#endif
	od
}

#define delay_over(item) d_step { each(item, state[item] == DELAYED) -> state[item] = READY }

active proctype time_passes() {
end:
	do
	:: delay_over(0)
	:: delay_over(1)
#if ITEMS > 2
	:: delay_over(2)
#endif
	od
}

#define kill(w) d_step { kills && w <= PRODUCER && !(dead & bit(w)) -> kills--; dead = dead | bit(w) }
#define visible_again(item) d_step { slows && each(item, state[item] == OUT) -> slows--; give_back(item, READY) }
#define not_claimed(item) d_step { slows && each(item, state[item] == GIVEN) -> slows--; state[item] = READY }

active proctype nemesis() {
	byte kills = KILLS;  /* less than there are workers */
	byte slows = SLOWS;
	do
	:: kill(0)
	:: kill(1)
	:: kill(2)
	:: kill(3)
	:: visible_again(0)
	:: visible_again(1)
	:: not_claimed(0)
	:: not_claimed(1)
#if ITEMS > 2
	:: visible_again(2)
	:: not_claimed(2)
#endif
	:: break
	od
}

active proctype at_rest() {
	timeout ->
	d_step {
		for (i : 0 .. ITEMS - 1) {
			assert(acks[i] + burials[i] == (state[i] != ABSENT));
			assert(results[i] == acks[i]);
			assert(state[i] != ABSENT || (dead & bit(PRODUCER)))
		}
	}
}
