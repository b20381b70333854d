/* The line of tickets and the grants of one name, as kvsync/primitives/grants.py and units.py have
 * them, and a worker's way through it, as in kvsync/waiting.py and kvsync/session.py.
 *
 * - A write transaction is one d_step: SQLite and the gate let one in at a time. So is a read.
 * - Rings come after the commit, one step each: a process may be killed or stopped between any two.
 * - A release by the only holder, where the head of the line wants all units, hands over: the head
 *   holds from the commit on and has left the line, its place is remembered; then the releaser puts
 *   the word into its doorbell. Who reads the word holds, without a transaction of its own.
 * - A word counts for the ticket it names alone. Once that one has ended it does what a ring does,
 *   so it is one here from that moment on, in the doorbell or still to be sent.
 * - Whoever finds the time to claim over of what was handed over takes the word out of the doorbell
 *   in its transaction, and leaves a ring: the ticket is in its old place again, and skipped until
 *   it stirs. Where no word is, it was read, or never sent, and the grant counts as claimed. Who has
 *   taken a word may die, or fail, at once (FAILS): then it is gone, and the transaction was none.
 * - Sets of workers are bits of a byte. The line is an array in the order of arrival.
 * - A sleeper wakes by a ring, by the end of a process that it watches, or, at the head of the line,
 *   when the time to claim a grant is over of which it knew. The safety net, the slow look at how
 *   things are, is there only once somebody was stopped or a second late (`disturbed`), for who is
 *   stopped neither rings nor looks. So whatever kills alone, at any step, would leave asleep shows.
 * - Deaths are atomic; the deadlines of tickets, leases and force_release are not here.
 * - Whatever may go on for ever is bounded (rounds, kills, stops ...) and may stop earlier, so every
 *   state in which all have come to rest is looked at: `at_rest` asserts that nobody sleeps there
 *   who could go on.
 *
 * The including file says WORKERS, ROUNDS, KILLS, STOPS, SLOWS (claims that come too late though
 * nobody was stopped), TIMEOUTS (waits given up, and single tries), FAILS (as above), CAPACITY, and
 * what a worker does: `choose(me)` what it wants, `enters(me)`, WHILE_IT_HAS_IT, `leaves(me)`, and
 * `dies(w)`.
 */

#define NONE 0
#define WAITING 1
#define GRANTED 2
#define PASSED 3

#define NOBODY 255

#define bit(w) (1 << (w))
#define has(set, w) ((set) & bit(w))
#define add(set, w) set = set | bit(w)
#define remove(set, w) set = set & ~bit(w)
#define ALL (bit(WORKERS) - 1)

byte dead, stopped, frozen, finished;  /* frozen: stopped for ever */
bool disturbed;                        /* somebody was stopped, or was very late */
byte bell;                             /* rung, and not heard yet */
byte word;                             /* who has the word of its ticket in the doorbell */
byte late;                             /* whose word came after others had not found it there */
byte knows;                            /* who has read the word of what is given */
byte given, over;                      /* grants not claimed yet; those whose time to claim is over */
byte held[WORKERS];                    /* units, given or claimed */
byte want[WORKERS];
byte ticket[WORKERS];
byte line[WORKERS];
byte queued;
byte place;                            /* in the line, of what was handed over and not claimed */
byte watch[WORKERS];                   /* whose end wakes that sleeper */
byte due;                              /* who sleeps until the time to claim is over */
byte rings[WORKERS];                   /* whom that worker has still to ring */
byte words[WORKERS];                   /* to whom it has still to send the word, before it rings */
byte timeouts = TIMEOUTS;
#ifdef BROKEN_WORD_TWICE
bool sent_before;
#endif

#ifdef BROKEN_STOPPED_IS_DEAD
#define DIES (dead | stopped | frozen)
#elif defined(BROKEN_NO_REAP)
#define DIES 0
#else
#define DIES dead
#endif

#ifdef BROKEN_ONLY_HEAD_MENDS
#define NET false
#else
#define NET disturbed  /* a second or more: it is needed only where somebody was stopped */
#endif

#ifdef BROKEN_NO_CLAIM_TIME
#define TOO_LATE 0
#else
#define TOO_LATE (dead | stopped | frozen)
#endif

#ifdef BROKEN_BARGE
#define LINE_IS_EMPTY true
#else
#define LINE_IS_EMPTY (!queued)
#endif

#ifdef BROKEN_SUCCESSOR_NOT_RUNG
#define NEXT(w) 0
#else
#define NEXT(w) bit(w)
#endif

/* Whose rings the net stands for: the dead need it only where somebody was stopped too. */
#define SILENT (frozen | (NET -> dead : 0))

#ifdef BROKEN_TAKEN_BACK_UNREAD
#define IS_THERE(w) true
#elif defined(BROKEN_NOT_TAKEN_BACK)
#define IS_THERE(w) false
#else
#define IS_THERE(w) has(word, w)
#endif

#ifdef BROKEN_CLAIMED_IS_FORGOTTEN
#define has_become_its(w) has(given, w)
#else
#define has_become_its(w) held[w]
#endif

#ifdef BROKEN_NO_WATCH
#define GONE 0
#else
#define GONE DIES
#endif

hidden byte i, j, who, used, gone, fresh, had;

#define holds(w) (held[w] && !has(given, w))
#define runs(w) (!has(dead | stopped | frozen, w))
#define is_done(w) (!rings[w] && !words[w])

inline count_used() {
	used = 0;
	for (i : 0 .. WORKERS - 1) { used = used + held[i] }
}

/* --- inside a transaction of `me`; the rings are owed until it has committed ------------------ */

/* Back to its old place, to be skipped until it stirs. */
inline take_back(w) {
	held[w] = 0;
	remove(word, w);
	add(bell, w);
	j = queued;
	do
	:: j > place -> line[j] = line[j - 1]; j--
	:: else -> break
	od;
	line[place] = w;
	queued++;
	ticket[w] = PASSED;
	j = 0
}

inline end_what_time_ended() {
	for (i : 0 .. WORKERS - 1) {
		if
		:: has(given & over, i) ->
			remove(given, i);
			if
			:: ticket[i] == GRANTED -> held[i] = 0; ticket[i] = PASSED; fresh = true
			:: ticket[i] == NONE && IS_THERE(i) -> take_back(i); fresh = true; place = 0
			:: ticket[i] == NONE && !IS_THERE(i) -> place = 0
			fi;
			remove(knows, i)
		:: else
		fi
	}
	over = 0;
}

/* Nobody waits who stands before `w`; or nobody at all, if it has no ticket. */
inline in_order(w) {
	i = 0;
	do
	:: i < queued && line[i] != w -> assert(ticket[line[i]] != WAITING); i++
	:: else -> break
	od;
	i = 0
}

inline give(w) {
	in_order(w);
	held[w] = want[w];
	add(given, w);
	ticket[w] = GRANTED;
	used = used + want[w];
}

/* Without `news` nothing has changed for the line so far; `mine` asks for itself. */
inline serve_with(me, news, mine) {
	fresh = news;
	end_what_time_ended();
	count_used();
	j = 0;
	do
	:: j < queued && ticket[line[j]] == WAITING ->
		who = line[j];
		if
		:: who != mine && (fresh || used + want[who] <= CAPACITY) -> add(rings[me], who)
		:: else
		fi;
		if
		:: used + want[who] > CAPACITY -> break
		:: else -> give(who); fresh = true
		fi;
		j++
	:: j < queued && ticket[line[j]] != WAITING -> j++
	:: j >= queued -> break
	od;
	i = 0; j = 0; who = 0; used = 0; fresh = 0
}

inline serve(me) { serve_with(me, true, NOBODY) }

inline join_line(me) {
	line[queued] = me;
	queued++;
	ticket[me] = WAITING
}

inline leave_line(w) {
	if
	:: ticket[w] != NONE ->
		i = 0;
		do
		:: line[i] == w -> break
		:: else -> i++
		od;
		if
		:: i < place -> place--
		:: else
		fi;
		do
		:: i + 1 < queued -> line[i] = line[i + 1]; i++
		:: else -> break
		od;
		queued--;
		line[queued] = 0;
		ticket[w] = NONE;
		i = 0
	:: else
	fi
}

/* Who stands behind `me` watches it, and must look again when it leaves the line: there may be others
 * to watch now; and who gave to both may have died before it rang.
 */
inline ring_next(me, needed) {
	i = 0;
	gone = 0;
	do
	:: i < queued && gone && ticket[line[i]] != PASSED ->
		if
		:: ticket[line[i]] == GRANTED || needed -> rings[me] = rings[me] | NEXT(line[i])
		:: else
		fi;
		break
	:: i < queued && !(gone && ticket[line[i]] != PASSED) -> gone = gone || line[i] == me; i++
	:: i >= queued -> break
	od;
	i = 0; gone = 0
}

/* Its ticket has ended: what names it is no more than a ring. */
inline outlive_words(me) {
	remove(late, me);
#ifndef BROKEN_ANY_WORD
	if
	:: has(word, me) -> remove(word, me); add(bell, me)
	:: else
	fi;
	for (i : 0 .. WORKERS - 1) {
		if
		:: has(words[i], me) -> remove(words[i], me); add(rings[i], me)
		:: else
		fi
	}
	i = 0
#endif
}

inline drop(w) {
	if
	:: has(given, w) && ticket[w] == NONE -> place = 0
	:: else
	fi;
	held[w] = 0;
	remove(given, w);
	remove(over, w);
	remove(knows, w)
}

inline claim(me) {
	if
	:: ticket[me] == NONE ->
		if
		:: has(given, me) -> remove(given, me); remove(over, me); place = 0
		:: else
		fi;
		outlive_words(me)
	:: ticket[me] != NONE && has(given, me) ->
		remove(given, me);
		remove(over, me);
#ifndef BROKEN_NOT_RUNG_ON
		ring_next(me, false);
#endif
		leave_line(me)
	:: ticket[me] != NONE && !has(given, me) ->
		if
		:: ticket[me] == GRANTED -> ticket[me] = WAITING; serve(me)
		:: else
		fi
	fi
}

/* For who was ahead of it nothing has changed. */
inline withdraw(me) {
	claim(me);
	if
	:: !held[me] ->
		ring_next(me, true);
		leave_line(me);
		serve_with(me, false, NOBODY)
	:: else
	fi
}

/* Takes back whatever the attempt had come to, as after a signal. */
inline undo(me) {
	ring_next(me, true);
	leave_line(me);
	drop(me);
	outlive_words(me);
	serve(me)
}

/* The first who waits, NOBODY if there is none. */
inline find_head() {
	j = 0;
	do
	:: j < queued && ticket[line[j]] != WAITING -> j++
	:: else -> break
	od;
	who = (j < queued -> line[j] : NOBODY)
}

/* Rings who stands behind the new holder, too: there is another to watch now. */
inline release(me) {
	find_head();
	count_used();
	if
	:: who != NOBODY && used == held[me] && want[who] == CAPACITY ->
		drop(me);
		leave_line(who);
		place = j;
		held[who] = CAPACITY;
		add(given, who);
		add(words[me], who);
		find_head();
		if
		:: who != NOBODY -> add(rings[me], who)
		:: else
		fi;
		j = 0; who = 0; used = 0
	:: else ->
		drop(me);
		serve(me)
	fi
}

/* The line is served if they had anything in it; by who `mends` it in any case. */
inline reap(me, sessions, mends) {
	gone = sessions;
	had = mends;
	for (j : 0 .. WORKERS - 1) {
		if
		:: has(gone, j) -> had = had || held[j] || ticket[j] != NONE; leave_line(j); drop(j)
		:: else
		fi
	}
	j = 0; gone = 0;
	if
	:: had -> had = 0; serve(me)
	:: else
	fi
}

/* --- reads ------------------------------------------------------------------------------------ */

/* The head of the line watches those who hold, every other its predecessor. */
inline look(me) {
	watch[me] = 0;
	remove(due, me);
	i = 0;
	do
	:: line[i] == me -> break
	:: else ->
		if
		:: ticket[line[i]] == WAITING -> watch[me] = bit(line[i])
		:: else
		fi;
		i++
	od;
	if
	:: !watch[me] ->
		for (i : 0 .. WORKERS - 1) {
			if
			:: held[i] -> add(watch[me], i)
			:: else
			fi
		}
		if
		:: given -> add(due, me)
		:: else
		fi
	:: else
	fi;
	i = 0
}

#define dies_holding(w) (has(DIES, w) && held[w])
#if WORKERS > 3
#define dead_holders() (dies_holding(0) || dies_holding(1) || dies_holding(2) || dies_holding(3))
#else
#define dead_holders() (dies_holding(0) || dies_holding(1) || dies_holding(2))
#endif

inline holders_that_died() {
	gone = 0;
	for (i : 0 .. WORKERS - 1) {
		if
		:: held[i] && has(DIES, i) -> add(gone, i)
		:: else
		fi
	}
	i = 0
}

/* Who comes sees to the first of the line, too. */
inline obstacles_that_died() {
	holders_that_died();
	if
	:: queued && has(DIES, line[0]) -> add(gone, line[0])
	:: else
	fi
}

/* --- a worker --------------------------------------------------------------------------------- */

#define ring_one(me) atomic { !is_done(me) -> d_step { if :: words[me] -> send_word(me) :: else -> ring(me) fi } }

inline ring(me) {
	first(rings[me]);
	remove(rings[me], who);
	add(bell, who);
	who = 0
}

/* A dead one's doorbell keeps nothing. */
inline send_word(me) {
	first(words[me]);
#ifdef BROKEN_WORD_TWICE
	if
	:: sent_before -> remove(words[me], who)
	:: else -> sent_before = true
	fi;
#else
	remove(words[me], who);
#endif
	if
	:: !has(dead, who) ->
		add(word, who);
		if
		:: !has(given, who) -> add(late, who)
		:: else
		fi
	:: else
	fi;
	who = 0
}

inline first(set) {
	who = 0;
	do
	:: has(set, who) -> break
	:: else -> who++
	od
}

/* What a frozen process owes comes through when the sleeper looks by itself. */
inline hear(me) {
	remove(bell, me);
	for (i : 0 .. WORKERS - 1) {
		if
		:: has(SILENT, i) -> remove(rings[i], me)
		:: else
		fi
	}
	i = 0
}

#define owes(w, me) (has(SILENT, w) && has(rings[w], me))
#if WORKERS > 3
#define owed(me) (owes(0, me) || owes(1, me) || owes(2, me) || owes(3, me))
#else
#define owed(me) (owes(0, me) || owes(1, me) || owes(2, me))
#endif

inline sleeps_no_more(me) {
	watch[me] = 0;
	remove(due, me)
}

inline read_the_word(me) {
	assert(held[me]);
	outlive_words(me);
	if
	:: has(given, me) -> add(knows, me)
	:: else
	fi
}

/* Whom the transaction to come will ring, before it has committed. */
inline to_be_rung(me) {
	for (i : 0 .. WORKERS - 1) {
		if
		:: ticket[i] == WAITING -> add(rings[me], i)
		:: else
		fi
	}
	i = 0
}

/* To whom it will send the word, likewise. */
inline to_be_told(me) {
	find_head();
	if
	:: who != NOBODY -> add(words[me], who)
	:: else
	fi;
	j = 0; who = 0
}

active [WORKERS] proctype worker() provided (runs(_pid)) {
	byte rounds = ROUNDS;
	byte seen;

again:
	do
	:: ring_one(_pid)
	:: atomic {
		is_done(_pid) && !rounds ->
		add(finished, _pid);
		remove(bell, _pid);
		goto out
	   }
	:: atomic {  /* past an empty line, in one statement */
		is_done(_pid) && rounds ->
		rounds--;
		choose(_pid);
		d_step {
			count_used();
			if
			:: LINE_IS_EMPTY && used + want[_pid] <= CAPACITY -> in_order(_pid); held[_pid] = want[_pid]
			:: else
			fi;
			used = 0
		}
		if
		:: held[_pid] -> enters(_pid); goto has_it
		:: else
		fi
	   }
	   atomic {  /* the dead in its way: the proof is read, what follows is a transaction */
		d_step { obstacles_that_died(); seen = gone; gone = 0 }
		if
		:: !seen -> goto joins
		:: else
		fi
	   }
	   d_step { reap(_pid, seen, false); seen = 0 }
	   goto joins
	od;

joins:
	do
	:: ring_one(_pid)
	:: atomic {
		is_done(_pid) ->
		d_step { join_line(_pid); serve_with(_pid, false, _pid); claim(_pid) }
		if
		:: holds(_pid) -> enters(_pid); goto has_it
		:: else -> goto waits
		fi
	   }
	:: atomic {  /* or a single try: it joins and leaves in one moment */
		is_done(_pid) && timeouts ->
		d_step { timeouts--; join_line(_pid); serve_with(_pid, false, _pid); withdraw(_pid) }
		if
		:: holds(_pid) -> enters(_pid); goto has_it
		:: else -> goto again
		fi
	   }
	od;

waits:
	do
	:: ring_one(_pid)
	:: atomic { is_done(_pid) && ticket[_pid] == NONE && !has_become_its(_pid) -> goto again }
	:: is_done(_pid) && ticket[_pid] == NONE && has_become_its(_pid) ->
		atomic {
			d_step { claim(_pid) }
			if
			:: holds(_pid) -> enters(_pid); goto has_it
			:: else
			fi
		}
	:: is_done(_pid) && ticket[_pid] == PASSED ->
		d_step {
			if
			:: ticket[_pid] == PASSED -> ticket[_pid] = WAITING
			:: else
			fi;
			serve(_pid)
		}
	:: is_done(_pid) && ticket[_pid] == GRANTED ->
		atomic {
			d_step { claim(_pid) }
			if
			:: holds(_pid) -> enters(_pid); goto has_it
			:: else
			fi
		}
	:: d_step { is_done(_pid) && ticket[_pid] == WAITING -> look(_pid) }
#ifdef BROKEN_FORGETS_RINGS_LATE
		d_step { remove(bell, _pid); remove(word, _pid) }
#endif
		if
		/* It looks again: it was rung, or a watch tells of an end, or time has come. */
		:: atomic {
			has(bell | word, _pid) || (watch[_pid] & GONE) ->
			d_step { seen = has(word, _pid); remove(bell, _pid); remove(word, _pid); sleeps_no_more(_pid) }
			if
			:: seen ->
				d_step { seen = 0; read_the_word(_pid) }
				enters(_pid);
				goto has_it
			:: else
			fi
		   }
		:: d_step { NET && ticket[_pid] != WAITING -> sleeps_no_more(_pid) }
		:: d_step { owed(_pid) -> hear(_pid); sleeps_no_more(_pid) }
		/* It has looked, and there is something to do. */
		:: d_step { watch[_pid] & GONE -> seen = watch[_pid] & GONE; sleeps_no_more(_pid); reap(_pid, seen, true); seen = 0 }
		:: d_step { over && (has(due, _pid) || NET) -> sleeps_no_more(_pid); serve(_pid) }
		:: d_step { NET && dead_holders() -> sleeps_no_more(_pid); holders_that_died(); seen = gone; reap(_pid, seen, false); seen = 0 }
		/* Its own time is over, or a signal's exception ends the call. */
		:: atomic {
			timeouts ->
			d_step { timeouts--; sleeps_no_more(_pid); withdraw(_pid) }
			if
			:: holds(_pid) -> enters(_pid); goto has_it
			:: else -> goto again
			fi
		   }
		:: atomic { timeouts -> d_step { timeouts--; sleeps_no_more(_pid); undo(_pid) } goto again }
		fi
	od;

has_it:
	do
	:: ring_one(_pid)
	WHILE_IT_HAS_IT
	:: atomic {  /* a signal's exception ends the call, which knew by the word */
		timeouts && has(knows, _pid) ->
		leaves(_pid);
		d_step { timeouts--; undo(_pid) }
		goto again
	   }
	:: atomic {
		is_done(_pid) ->
		leaves(_pid);
#ifdef BROKEN_RING_BEFORE_COMMIT
		d_step { to_be_rung(_pid) }
		goto rings_first
#elif defined(BROKEN_WORD_BEFORE_COMMIT)
		d_step { to_be_told(_pid); seen = words[_pid] }
		goto rings_first
#elif defined(BROKEN_FREES_THEN_SERVES)
		d_step { drop(_pid) }
		break
#else
		if
		:: !queued -> d_step { drop(_pid) } goto again
		:: else -> break
		fi
#endif
	   }
	od;
	atomic { true; d_step { release(_pid) } goto again }

#ifdef BROKEN_RING_BEFORE_COMMIT
#define not_again(me) rings[me] = 0; words[me] = 0
#else
#define not_again(me) words[me] = words[me] & ~seen; seen = 0
#endif
#if defined(BROKEN_RING_BEFORE_COMMIT) || defined(BROKEN_WORD_BEFORE_COMMIT)
rings_first:
	do
	:: ring_one(_pid)
	:: atomic { is_done(_pid) -> d_step { release(_pid); not_again(_pid) } goto again }
	od;
#endif

out:
	skip
}

/* --- what goes wrong, and the end ------------------------------------------------------------- */

/* A claim that is not made in time: whoever is stopped is always too late. Who knows by the word
 * makes none, and may have it for long.
 */
active proctype time_passes() {
end:
	do
	:: d_step { given & ~over & (TOO_LATE | knows) -> over = over | (given & (TOO_LATE | knows)) }
	od
}

#define exists(w) (w < WORKERS && !has(dead | frozen | finished, w))
#define kill(w) kills && exists(w) -> d_step { kills--; add(dead, w); remove(stopped, w); dies(w); watch[w] = 0; words[w] = 0; remove(due, w); remove(bell, w); remove(word, w) }
#define stop(w) stops && exists(w) && !has(stopped, w) -> d_step { stops--; disturbed = true; add(stopped, w) }
#define freeze(w) stops && exists(w) && !has(stopped, w) -> d_step { stops--; disturbed = true; add(frozen, w); words[w] = 0 }
#define go_on(w) w < WORKERS && has(stopped, w) -> remove(stopped, w)

active proctype nemesis() {
	byte kills = KILLS;
	byte stops = STOPS;
	byte slows = SLOWS;
	byte fails = FAILS;
	do
	:: kill(0)
	:: kill(1)
	:: kill(2)
	:: kill(3)
	:: stop(0)
	:: stop(1)
	:: stop(2)
	:: stop(3)
	:: freeze(0)
	:: freeze(1)
	:: freeze(2)
	:: freeze(3)
	:: go_on(0)
	:: go_on(1)
	:: go_on(2)
	:: go_on(3)
	:: slows && (given & ~over) -> d_step { slows--; disturbed = true; over = given }
	:: fails && (given & over & word) -> d_step { fails--; bell = bell | (given & over & word); word = word & ~(given & over) }
	:: atomic { !stopped -> kills = 0; stops = 0; slows = 0; fails = 0; timeouts = 0; break }
	od
}

/* Stopped for ever, it has what nobody can take back: by a claim, or by the word, which is gone, or
 * which came so late that the time to claim was over.
 */
#define keeps(w) (has(frozen, w) && held[w] && ticket[w] == NONE && !has(word & ~late, w))

/* Nobody who runs is left waiting, unless for somebody who is stopped for ever and has it. */
active proctype at_rest() {
	timeout ->
	d_step {
		gone = 0;
		for (i : 0 .. WORKERS - 1) {
			if
			:: keeps(i) -> gone = 1
			:: else
			fi
		}
		assert(gone || (dead | frozen | finished) == ALL)
	}
}

