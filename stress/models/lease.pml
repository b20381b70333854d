/* A lease with its fencing token: a holder that is paused is overtaken, and what it does then is
 * refused.
 *
 * - Two threads of each process: a grant is known by its token, a session is the process's.
 * - A write transaction is one d_step. A pause is a thread that takes no step for a while: all of
 *   these are explored. A lease may be over at any moment after it began.
 * - `outside` is a resource beside the database (a file, a service) that knows nothing of the lock
 *   but refuses a token smaller than the largest that it has seen.
 * - A name that is free may be forgotten at any moment; the largest token of those that are stays.
 * - A power failure kills all, and takes back the commits since the last one on the disk. Some
 *   threads run only after that; the epoch, on the disk before they go on, sets their tokens apart.
 *
 * Asserted: a grant's token is larger than every one ever given out; whatever succeeds (a guarded
 * write, extend, release) does so under the newest token; nothing comes after what is newer, in the
 * database and outside; and nobody who runs waits for ever.
 */

#ifndef THREADS
#define THREADS 4
#define ROUNDS 2
#define KILLS 1
#define POWER 1
#define ACTS 2
#endif
#ifndef FORGETS
#define FORGETS 0
#endif

#define NOBODY 0
#define EPOCH 32
#define bit(w) (1 << (w))
#define session(w) ((w) / 2 + 1 + 2 * boots)  /* never used again after a boot */
#define ALL (bit(THREADS) - 1)

byte boots;
byte dead, finished;
byte token, holder = NOBODY;  /* the row: the last token, and the session that holds it */
byte floor;                   /* the largest token whose row was forgotten */
bool over;                    /* its lease */
byte disk, disk_floor;        /* both in what a power failure leaves */

byte newest;                  /* the largest token ever given out, power failures included */
byte written, seen_outside;   /* the tokens of the last write here and outside */
byte started;

#define gone(s) ((s) == 1 && (dead & 1) || (s) == 2 && (dead & 4) || (boots && (s) <= 2))

#ifdef BROKEN_NO_EPOCH
#define FIRST(boot) 0
#else
#define FIRST(boot) ((boot) * EPOCH)
#endif
#ifdef BROKEN_FLOOR_FORGOTTEN
#define LAST token
#else
#define LAST (token -> token : floor)
#endif
#define larger(a, b) ((a) > (b) -> (a) : (b))

#if defined(BROKEN_GUARD_BY_SESSION)
#define current(mine) (holder == session(_pid) && !over)
#elif defined(BROKEN_GUARD_BY_NAME)
#define current(mine) (holder != NOBODY && !over)
#else
#define current(mine) (token == mine && holder == session(_pid) && !over)
#endif
#ifdef BROKEN_NO_GUARD
#define guarded(mine) true
#else
#define guarded(mine) current(mine)
#endif
#ifdef BROKEN_RELEASE_BY_NAME
#define released(mine) (holder != NOBODY)
#else
#define released(mine) (token == mine && holder == session(_pid))
#endif
#ifdef BROKEN_RESOURCE_TAKES_ALL
#define fenced(mine) true
#else
#define fenced(mine) (mine >= seen_outside)
#endif

inline take(mine) {
	if
	:: holder == NOBODY || over ->
#ifdef BROKEN_TOKEN_RESTARTS
		if
		:: holder == NOBODY -> token = 0  /* its row went with the release */
		:: else
		fi;
#endif
		token = 1 + larger(LAST, FIRST(boots));
		assert(token > newest);
		newest = token;
		holder = session(_pid);
		over = false;
		mine = token
	:: else
	fi
}

inline succeeded(mine) { assert(mine == newest) }

inline release(mine) {
	if
	:: released(mine) ->
		if
		:: !over -> succeeded(mine)
		:: else  /* it is told so, and nobody has it now */
		fi;
		holder = NOBODY;
		over = false
	:: else  /* LeaseLostError */
	fi
}

inline write(mine) {
	succeeded(mine);
	assert(mine >= written);
	written = mine
}

#define runs(w) (!(dead & bit(w)))

active [THREADS] proctype thread() provided (runs(_pid)) {
	byte rounds = ROUNDS;
	byte acts, mine;

	started = started | bit(_pid);
next:
	do
	:: atomic { !rounds -> finished = finished | bit(_pid); goto out }
	:: atomic {
		rounds && (holder == NOBODY || over) ->
		d_step { rounds--; acts = ACTS; take(mine) }
		break
	   }
	od;
	do
#ifdef BROKEN_CHECK_THEN_WRITE
	:: acts && guarded(mine) -> atomic { acts--; write(mine) }
#else
	:: d_step { acts && guarded(mine) -> acts--; write(mine) }
#endif
	:: d_step { acts && fenced(mine) -> acts--; assert(mine >= seen_outside); seen_outside = mine }
	:: d_step { acts && current(mine) -> acts--; succeeded(mine) }  /* extend, ensure_held */
	:: atomic { !current(mine) -> mine = 0; acts = 0; goto next }     /* it finds out */
	:: atomic {
		true ->
		d_step { release(mine); mine = 0; acts = 0 }
		goto next
	   }
	od;
out:
	skip
}

active proctype time_passes() {
	do
	:: d_step { holder != NOBODY && !over -> over = true }
#if FORGETS
	:: d_step { holder == NOBODY && token -> floor = larger(floor, token); token = 0 }
#endif
	od
}

/* Whoever is obstructed by a dead process frees what it held. */
active proctype reaper() {
	do
	:: d_step { holder != NOBODY && gone(holder) -> holder = NOBODY; over = false }
	od
}

#define both(w) (bit(w) | bit((w) ^ 1))
#define kill(w) d_step { kills && w < THREADS && !((dead | finished) & both(w)) -> kills--; dead = dead | both(w) }

active proctype nemesis() {
	byte kills = KILLS;
	byte failures = POWER;
	do
	:: kill(0)
	:: kill(2)
	:: d_step { failures && !boots ->
		dead = dead | (started & ~finished);
		token = disk; floor = disk_floor; holder = NOBODY; over = false; boots = 1; failures-- }
	:: d_step { disk != token || disk_floor != floor -> disk = token; disk_floor = floor }
	:: break
	od
}

active proctype at_rest() {
	timeout -> assert(((dead | finished) & ALL) == ALL)
}
