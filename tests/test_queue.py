"""Queues: what goes in, in which order it comes out, and who waits meanwhile."""

import itertools
import math
import pickle
import queue
from collections.abc import Callable
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import kvsync
from kvsync.primitives.items import Items
from kvsync.testing import ManualClock
from tests.lines import calling
from tests.processes import expect, run_all, running
from tests.queues import NAME, items, tickets, waiting
from tests.values import NOT_JSON, Reversing

VALUES = [None, False, 0, "", [], {}, 1.5, "größe", {"to": ["ada", {"cc": None}]}]


TAKES: dict[str, Callable[[kvsync.Queue], Any]] = {
    "get": lambda jobs: jobs.get(),
    "get many": lambda jobs: jobs.get_many(2)[0],
    "reserve": lambda jobs: jobs.reserve(0).item,
    "reserve many": lambda jobs: jobs.reserve_many(2, 0)[0].item,
}

# --- in and out ----------------------------------------------------------------------------------


def test_what_was_put_first_is_got_first(store: kvsync.Store) -> None:
    """Through whichever object of its name; each of them once."""
    jobs, same = store.queue(NAME), store.queue(NAME)
    ids = [jobs.put(value) for value in VALUES]
    assert ids == sorted(set(ids))
    assert [same.get() for _ in VALUES] == VALUES
    with pytest.raises(queue.Empty):
        jobs.get_nowait()
    assert items(store) == []


def test_other_names_are_other_queues(store: kvsync.Store) -> None:
    one, other = store.queue("one"), store.queue("other")
    assert one.put("a") == other.put("b") == 1
    assert (one.get(), other.get()) == ("a", "b")


def test_ids_rise_and_never_come_again(store: kvsync.Store) -> None:
    """Though the queue was empty in between, by `get`, by `purge`, or by an acknowledgement."""
    jobs = store.queue(NAME)
    ids = [jobs.put("a")]
    jobs.get()
    ids.append(jobs.put("b"))
    jobs.purge()
    ids.append(jobs.put("c"))
    jobs.reserve().ack()
    ids += jobs.put_many("de")
    assert ids == [1, 2, 3, 4, 5]


def test_a_higher_priority_goes_first(store: kvsync.Store) -> None:
    """Within one it is first come, first served; any number is a priority."""
    jobs = store.queue(NAME)
    for name, priority in [("a", 0), ("b", -1), ("c", 2.5), ("d", 0), ("e", 2.5), ("f", 2**53)]:
        jobs.put(name, priority=priority)
    jobs.put_many(["g", "h"], priority=1)
    assert jobs.get_many(20) == ["f", "c", "e", "g", "h", "a", "d", "b"]


def test_many_are_put_and_got_at_once(store: kvsync.Store) -> None:
    """As many as there are, in their order; one after the other."""
    jobs = store.queue(NAME)
    assert jobs.put_many([]) == []
    assert jobs.put_many(str(n) for n in range(1200)) == list(range(1, 1201))
    assert jobs.get_many(3) == ["0", "1", "2"]
    assert jobs.get_many(5000) == [str(n) for n in range(3, 1200)]
    with pytest.raises(queue.Empty):
        jobs.get_many(1, block=False)


def test_of_many_all_or_none_are_put(store: kvsync.Store) -> None:
    jobs = store.queue(NAME, 3)
    with pytest.raises(kvsync.EncodeError):
        jobs.put_many(["a", object()])
    with pytest.raises(ValueError, match="never fit"):
        jobs.put_many("abcd")
    jobs.put_many("ab")
    with pytest.raises(queue.Full):
        jobs.put_many("cd", block=False)
    with pytest.raises(queue.Full):
        jobs.put_many("cd", timeout=0.01)
    assert jobs.get_many(5) == ["a", "b"]
    assert tickets(store) == []


def test_a_delayed_item_is_not_there_until_it_is_due(path: Path) -> None:
    """Then it stands where its id and its priority put it."""
    clock = ManualClock()
    with kvsync.open(path, clock=clock) as store:
        jobs = store.queue(NAME)
        jobs.put("late", delay=60)
        jobs.put_many(["soon", "soon too"], delay=timedelta(seconds=30))
        jobs.put("urgent", delay=30, priority=1)
        jobs.put("now")
        assert (jobs.qsize(), jobs.stats().delayed) == (1, 4)
        assert jobs.get() == "now"
        assert jobs.empty()
        with pytest.raises(queue.Empty):
            jobs.get(timeout=0)
        clock.advance(29.9)
        assert jobs.empty()
        clock.advance(0.1)
        assert jobs.qsize() == jobs.stats().depth == 3
        assert jobs.get_many(5) == ["urgent", "soon", "soon too"]
        clock.advance(30)
        assert jobs.get_nowait() == "late"


@pytest.mark.parametrize("take", TAKES.values(), ids=TAKES)
def test_a_delayed_item_that_is_due_goes_before_what_was_put_after_it(
    path: Path, take: Callable[[kvsync.Queue], Any]
) -> None:
    """And before what is of a lower priority, by the very first taking."""
    clock = ManualClock()
    with kvsync.open(path, clock=clock) as store:
        jobs = store.queue(NAME)
        jobs.put("first", delay=1)
        jobs.put("other")
        jobs.put("urgent", delay=1, priority=9)
        clock.advance(1)
        assert take(jobs) == "urgent"
        jobs.purge()
        jobs.put("first", delay=1)
        jobs.put("other")
        clock.advance(1)
        assert take(jobs) == "first"


def test_in_a_transaction_what_is_due_goes_first_too(path: Path) -> None:
    clock = ManualClock()
    with kvsync.open(path, clock=clock) as store:
        jobs = store.queue(NAME)
        jobs.put_many(["urgent", "urgent too"], delay=1, priority=9)
        jobs.put_many("abc")
        clock.advance(1)
        with store.transaction():
            assert jobs.get_nowait() == "urgent"
            assert jobs.get_many(2) == ["urgent too", "a"]


def test_a_queue_that_is_shut_down_gives_nothing_that_is_due_either(path: Path) -> None:
    clock = ManualClock()
    with kvsync.open(path, clock=clock) as store:
        jobs = store.queue(NAME)
        jobs.put("late", delay=1)
        jobs.shutdown(immediate=True)
        clock.advance(1)
        with pytest.raises(kvsync.ShutDown):
            jobs.get_many(2)
        jobs.reopen()
        assert jobs.get_nowait() == "late"


def test_more_than_one_transaction_makes_ready_is_ready_all_the_same(path: Path) -> None:
    clock = ManualClock()
    with kvsync.open(path, clock=clock) as store:
        jobs = store.queue(NAME)
        jobs.put_many(range(1300), delay=1)
        clock.advance(1)
        assert jobs.qsize() == 1300
        got: list[int] = []
        while len(got) < 1300:
            got += jobs.get_many(1000, block=False)
        assert got == list(range(1300))


def test_of_one_key_one_item_waits(store: kvsync.Store) -> None:
    """A second one is not put, whatever it is; once the first is taken there may be another."""
    jobs = store.queue(NAME)
    assert jobs.put("a", key="k") == 1
    assert jobs.put("b", key="k") is None
    assert jobs.put("b", key="k", delay=5, priority=9) is None
    assert jobs.put("c", key="K") == 2
    assert jobs.put("d") == 3
    assert store.queue("another").put("e", key="k") == 1
    assert jobs.get() == "a"
    assert jobs.put("f", key="k") == 4
    assert jobs.reserve().item == "c"
    assert jobs.put("g", key="K") == 5
    assert jobs.get_many(9) == ["d", "f", "g"]


def test_of_one_key_several_may_wait_for_room(store: kvsync.Store) -> None:
    """The first is let in, the others learn of it in their turn, and hold up nobody."""
    jobs = store.queue(NAME, 1)
    jobs.put("full")
    with (
        waiting(lambda: jobs.put("a", key="k"), store) as first,
        waiting(lambda: jobs.put("b", key="k", timeout=1000), store) as second,
        waiting(lambda: jobs.put("c"), store) as third,
    ):
        with pytest.raises(queue.Full):
            jobs.put("d", False, key="k")
        assert jobs.get() == "full"
        assert first.result() == 2
        assert second.result() is None
        assert not third.is_over
        assert jobs.get() == "a"
        assert third.result() == 3
    assert tickets(store) == []
    assert jobs.get_many(9) == ["c"]


def test_who_gives_up_waiting_for_room_leaves_its_key_to_the_next(path: Path) -> None:
    """Which is not told that there is one: it never was in the queue."""
    clock = ManualClock()
    with kvsync.open(path, clock=clock) as store:
        jobs = store.queue(NAME, 1)
        jobs.put("full")
        with (
            waiting(lambda: jobs.put("a", key="k", timeout=5), store) as first,
            waiting(lambda: jobs.put("b", key="k", timeout=1000), store) as second,
        ):
            clock.advance(6)
            with pytest.raises(queue.Full):
                first.result()
            assert jobs.get() == "full"
            assert second.result() == 2
        assert [(each.item, each.key) for each in jobs.peek(9)] == [("b", "k")]


def test_what_comes_back_has_its_key_before_who_waits_for_room(store: kvsync.Store) -> None:
    """Who then is told at once, though there be no room."""
    jobs = store.queue(NAME, 1)
    jobs.put("a", key="k")
    task = jobs.reserve()
    jobs.put("full")
    with waiting(lambda: jobs.put("b", key="k"), store) as call:
        task.give_back()
        assert call.result() is None
    assert [(each.item, each.key) for each in jobs.peek(9)] == [("a", "k"), ("full", None)]


def test_a_delayed_item_has_its_key_too(store: kvsync.Store) -> None:
    jobs = store.queue(NAME)
    jobs.put("a", key="k", delay=1000)
    assert jobs.put("b", key="k") is None
    assert jobs.purge() == 1
    assert jobs.put("b", key="k") == 2


def test_peek_shows_the_first_and_takes_none(path: Path) -> None:
    """Those that are delayed come at the end."""
    clock = ManualClock(5000.0)
    with kvsync.open(path, clock=clock) as store:
        jobs = store.queue(NAME)
        assert jobs.peek() == []
        jobs.put("late", delay=10)
        jobs.put("a", key="k")
        jobs.put("b", priority=2)
        assert [each.item for each in jobs.peek()] == ["b"]
        b, a, late = jobs.peek(9)
        assert b == (3, "b", 2.0, None, 5000.0, 0, None)
        assert a == (2, "a", 0.0, "k", 5000.0, 0, None)
        assert (late.item, late.due) == ("late", 5010.0)
        assert jobs.stats().depth == 2


def test_peek_shows_what_is_due_in_its_place(path: Path) -> None:
    """As it is going to be taken, whether anybody has seen to it yet or not; the others by time."""
    clock = ManualClock()
    with kvsync.open(path, clock=clock) as store:
        jobs = store.queue(NAME)
        jobs.put("later", delay=9, priority=9)
        jobs.put("sooner", delay=5)
        jobs.put("ripe", delay=2)
        jobs.put("a")
        jobs.put("urgent", delay=1, priority=1)
        clock.advance(2)
        expected = ["urgent", "ripe", "a", "sooner", "later"]
        for n in range(1, 6):
            assert [each.item for each in jobs.peek(n)] == expected[:n]
        assert [each.due is None for each in jobs.peek(9)] == [True, True, True, False, False]
        assert jobs.get_many(9) == expected[:3]


def test_peek_names_the_item_that_it_cannot_read(store: kvsync.Store) -> None:
    jobs = store.queue(NAME)
    jobs.put("good")
    store.queue(NAME, codec="pickle").put({1})
    assert jobs.peek()[0].item == "good"
    with pytest.raises(kvsync.DecodeError, match=r"^item 2 of 'jobs': cannot read"):
        jobs.peek(2)


def test_purge_leaves_what_was_put_after_the_call(
    store: kvsync.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between two of its commits, by others and by those who waited for room."""
    jobs = store.queue(NAME, 1500)
    jobs.put_many(range(1499))
    jobs.put("late", delay=1000)

    def purge_some(self: Items, *arguments: Any) -> int:
        removed = purge(self, *arguments)
        with calling(lambda: jobs.put("new", priority=9)) as call:
            later.append(call)
        return removed

    later: list[Any] = []
    purge = Items.purge
    monkeypatch.setattr(Items, "purge", purge_some)
    with waiting(lambda: jobs.put("asked"), store) as call:
        assert jobs.purge() == 1500
        assert call.result() == 1501
    for each in later:
        each.result()
    assert jobs.qsize() == len(later) + 1
    assert {each.item for each in jobs.peek(9)} == {"new", "asked"}


def test_purge_removes_what_waits_and_nothing_else(store: kvsync.Store) -> None:
    """Not what somebody has in hand, and not the dead letters."""
    jobs = store.queue(NAME)
    assert jobs.purge() == 0
    jobs.put_many(range(1500))
    jobs.put("late", delay=1000)
    task = jobs.reserve()
    jobs.reserve().bury("no")
    assert jobs.purge() == 1499
    assert (jobs.qsize(), jobs.stats().delayed, len(jobs.dead)) == (0, 0, 1)
    task.ack()
    assert jobs.join(0)


# --- what somebody waits for ---------------------------------------------------------------------


def test_who_waits_for_an_item_is_served_in_the_order_of_asking(store: kvsync.Store) -> None:
    """One item each; by `get` and by `reserve` alike."""
    jobs = store.queue(NAME)
    with ExitStack() as stack:
        calls = [
            stack.enter_context(waiting(ask, store))
            for ask in (jobs.get, lambda: jobs.reserve().item, lambda: jobs.get_many(2), jobs.get)
        ]
        assert jobs.stats().getters == 4
        jobs.put("a")
        assert calls[0].result() == "a"
        jobs.put_many("bcd")
        assert [call.result() for call in calls[1:]] == ["b", ["c"], "d"]
    assert tickets(store) == []
    assert jobs.empty()


def test_many_that_come_at_once_wake_as_many_as_they_are(store: kvsync.Store) -> None:
    """Who waits for up to so many gets what nobody waits for."""
    jobs = store.queue(NAME)
    with waiting(lambda: jobs.get_many(3), store) as call:
        jobs.put_many("abcd")
        got = call.result()
    assert got == ["a", "b", "c"]
    assert jobs.get() == "d"


def test_an_item_goes_to_who_waits_and_not_to_who_comes_later(store: kvsync.Store) -> None:
    """Though that one be quicker."""
    jobs = store.queue(NAME)
    with waiting(jobs.get, store) as call:
        jobs.put("a")
        with pytest.raises(queue.Empty):
            jobs.get_nowait()
        assert call.result() == "a"


def test_a_full_queue_lets_its_putters_in_in_order(store: kvsync.Store) -> None:
    """As many at a time as there is room for; a later one never passes."""
    jobs = store.queue(NAME, 2)
    jobs.put_many("ab")
    assert jobs.full()
    with ExitStack() as stack:
        first = stack.enter_context(waiting(lambda: jobs.put_many("cd"), store))
        second = stack.enter_context(waiting(lambda: jobs.put("e", priority=1), store))
        assert jobs.stats().putters == 2
        assert jobs.get() == "a"
        assert not jobs.full()
        with pytest.raises(queue.Full):
            jobs.put_nowait("x")
        assert jobs.get() == "b"
        assert first.result() == [3, 4]
        assert jobs.get() == "c"
        assert second.result() == 5
        assert jobs.get_many(9) == ["e", "d"]
    assert tickets(store) == []


def test_room_is_made_by_all_that_takes_items_away(store: kvsync.Store) -> None:
    """Also by handing one out."""
    jobs = store.queue(NAME, 1)
    jobs.put("a")
    with waiting(lambda: jobs.put("b"), store) as call:
        task = jobs.reserve()
        assert call.result() == 2
    task.ack()
    with waiting(lambda: jobs.put("c"), store) as call:
        assert jobs.purge() >= 1
        assert call.result() == 3


def test_delayed_items_take_up_room(store: kvsync.Store) -> None:
    jobs = store.queue(NAME, 1)
    jobs.put("a", delay=1000)
    assert jobs.full()
    assert jobs.empty()
    with pytest.raises(queue.Full):
        jobs.put("b", timeout=0.01)
    assert items(store) == [1]


def test_what_came_back_may_be_more_than_there_is_room_for(store: kvsync.Store) -> None:
    """No item is lost to make room, and nobody puts until there is some."""
    jobs = store.queue(NAME, 1)
    jobs.put("a")
    task = jobs.reserve()
    jobs.put("b")
    task.give_back()
    assert jobs.qsize() == 2
    assert jobs.full()
    with waiting(lambda: jobs.put("c"), store) as call:
        assert jobs.get() == "a"
        assert not call.is_over
        assert jobs.get() == "b"
        assert call.result() == 3


@pytest.mark.parametrize(
    ("arguments", "options"),
    [((False,), {}), ((False, 5), {}), ((True, 0), {}), ((), {"timeout": 0.01})],
    ids=str,
)
def test_a_wait_ends_in_time(store: kvsync.Store, arguments: Any, options: Any) -> None:
    """With the exceptions of the standard library, and nobody left in a line."""
    jobs = store.queue(NAME, 1)
    with pytest.raises(queue.Empty):
        jobs.get(*arguments, **options)
    with pytest.raises(queue.Empty):
        jobs.get_many(2, *arguments, **options)
    jobs.put("a")
    with pytest.raises(queue.Full):
        jobs.put("b", *arguments, **options)
    assert tickets(store) == []
    assert items(store) == [1]


def test_an_empty_queue_hands_nothing_out(store: kvsync.Store) -> None:
    for timeout in (0, 0.01, timedelta(milliseconds=10)):
        with pytest.raises(queue.Empty):
            store.queue(NAME).reserve(timeout)
    assert tickets(store) == []


def test_threads_share_a_queue(store: kvsync.Store) -> None:
    """Each item comes to one of them; one object serves them all."""
    jobs, done = store.queue(NAME, 5), store.queue("done")

    def work() -> int:
        count = 0
        while (item := jobs.get()) is not None:
            done.put(item)
            count += 1
        return count

    with ExitStack() as stack:
        workers = [stack.enter_context(calling(work)) for _ in range(4)]
        for number in range(200):
            jobs.put(number)
        for _ in workers:
            jobs.put(None)
        assert sum(worker.result() for worker in workers) == 200
    assert sorted(done.get_many(1000)) == list(range(200))


def answer(pipe: Any, jobs: kvsync.Queue, answers: kvsync.Queue) -> None:
    """A question from the one, its answer to the other."""
    pipe.send((jobs.name, jobs.maxsize))
    with jobs.reserve() as task:
        answers.put(task.item * 2)


def test_processes_get_what_others_put(store: kvsync.Store) -> None:
    """Queues come to a spawned child as arguments; it waits there, and so do we here."""
    jobs, answers = store.queue(NAME, 7, max_attempts=3), store.queue("answers")
    with running(answer, jobs, answers) as (_, pipe), waiting(answers.get, store) as call:
        assert expect(pipe) == (NAME, 7)
        jobs.put(21)
        assert call.result() == 42


def drain(path: str) -> list[int]:
    """All that there is, as it comes."""
    got = []
    with kvsync.open(path) as store:
        jobs = store.queue(NAME)
        while (item := jobs.get()) is not None:
            got.append(item)
    return got


def test_no_item_comes_to_two_processes(store: kvsync.Store) -> None:
    """And each of them gets its items in order."""
    jobs = store.queue(NAME)
    jobs.put_many([*range(600), None, None, None])
    shares = run_all(drain, [(store.path,)] * 3)
    assert all(share == sorted(share) for share in shares)
    assert sorted(itertools.chain(*shares)) == list(range(600))


def test_it_outlives_its_processes(path: Path) -> None:
    """Items, ids, and what is delayed, in hand, or dead."""
    with kvsync.open(path) as store:
        jobs = store.queue(NAME)
        jobs.put_many("abc")
        jobs.put("late", delay=1000)
        jobs.get()
        jobs.reserve()
        jobs.put("d")
        jobs.reserve().bury("no")
    with kvsync.open(path) as store:
        jobs = store.queue(NAME)
        assert [letter.item for letter in jobs.dead] == ["c"]
        assert [each.item for each in jobs.peek(9)] == ["b", "d", "late"]
        assert jobs.put("e") == 6


def test_a_pickled_queue_is_the_same_queue(store: kvsync.Store) -> None:
    """With all its options."""
    jobs = store.queue(
        NAME, 3, max_attempts=2, visibility=9, retry_delay=timedelta(0), codec="pickle"
    )
    jobs.put({1, 2})
    copy = pickle.loads(pickle.dumps(jobs))
    assert repr(copy) == repr(jobs)
    assert copy.maxsize == 3
    assert copy.get() == {1, 2}


@pytest.mark.parametrize(
    ("codec", "value"),
    [("raw", b"\0\xff"), ("pickle", {1, (2,)}), (Reversing(), "text")],
    ids=["raw", "pickle", "the user's own"],
)
def test_items_are_what_the_codec_holds(store: kvsync.Store, codec: Any, value: Any) -> None:
    """By `get`, by `reserve`, to `peek` and among the dead letters."""
    jobs = store.queue(NAME, codec=codec)
    jobs.put_many([value, value])
    assert jobs.peek()[0].item == value
    assert jobs.get() == value
    jobs.reserve().bury()
    assert jobs.dead.list()[0].item == value


def test_stats_tell_how_it_stands(path: Path) -> None:
    """Of a queue that nobody has used yet too."""
    clock = ManualClock()
    with kvsync.open(path, clock=clock) as store:
        jobs = store.queue(NAME, 9)
        fresh = jobs.stats()
        assert (fresh.maxsize, fresh.depth, fresh.oldest_age, fresh.is_shutdown) == (
            9,
            0,
            None,
            False,
        )
        jobs.put_many("abcd")
        clock.advance(10)
        jobs.put("late", delay=60)
        jobs.get()
        task = jobs.reserve()
        jobs.reserve().bury()
        stats = jobs.stats()
        assert (stats.name, stats.depth, stats.delayed) == (NAME, 1, 1)
        assert (stats.in_flight, stats.dead, stats.oldest_age) == (1, 1, 10.0)
        assert (stats.put_rate, stats.done_rate) == (0.5, 0.2)
        task.ack()
        assert jobs.stats().oldest_age == 10.0
        with pytest.raises(AttributeError):
            stats.depth = 2  # type: ignore[misc]


def test_the_oldest_may_be_far_back_in_the_line(path: Path) -> None:
    """Behind those of a higher priority; and it may have come back, or be due and not ready yet."""
    clock = ManualClock()
    with kvsync.open(path, clock=clock) as store:
        jobs = store.queue(NAME)
        for priority in (0, 1, 2):
            jobs.put("an item", priority=priority)
            clock.advance(10)
        assert jobs.stats().oldest_age == 30.0
        jobs.get()
        assert jobs.stats().oldest_age == 30.0
        jobs.purge()
        assert jobs.stats().oldest_age is None
        jobs.put("late", delay=5)
        assert jobs.stats().oldest_age is None
        clock.advance(7)
        assert (jobs.stats().depth, jobs.stats().oldest_age) == (1, 7.0)


def test_rates_are_those_of_the_last_minutes(path: Path) -> None:
    """What happened long ago does not count."""
    clock = ManualClock()
    with kvsync.open(path, clock=clock) as store:
        jobs = store.queue(NAME)
        jobs.put_many(range(6000))
        for _ in range(4):
            clock.advance(60)
            jobs.put("one")
        clock.advance(60)
        assert jobs.stats().put_rate <= 0.1


def test_an_idle_queue_has_no_rates(path: Path) -> None:
    """And begins anew with what comes after the pause."""
    clock = ManualClock()
    with kvsync.open(path, clock=clock) as store:
        jobs = store.queue(NAME)
        jobs.put_many(range(600))
        jobs.get_many(300)
        clock.advance(100)
        assert (jobs.stats().put_rate, jobs.stats().done_rate) == (6.0, 3.0)
        clock.advance(20)
        assert (jobs.stats().put_rate, jobs.stats().done_rate) == (0.0, 0.0)
        clock.advance(5000)
        jobs.put("a")
        clock.advance(10)
        jobs.put("b")
        jobs.get()
        assert (jobs.stats().put_rate, jobs.stats().done_rate) == (0.1, 0.1)


def test_who_waits_counts_before_anything_was_put(store: kvsync.Store) -> None:
    jobs = store.queue(NAME)
    with waiting(jobs.get, store) as call:
        assert jobs.stats().getters == 1
        jobs.put("a")
        call.result()
    assert jobs.stats().getters == 0


# --- bad input -----------------------------------------------------------------------------------


@pytest.mark.parametrize("value", NOT_JSON.values(), ids=NOT_JSON)
def test_what_the_codec_cannot_hold_is_refused(store: kvsync.Store, value: Any) -> None:
    """And nothing is written, nor anybody's place lost."""
    jobs = store.queue(NAME)
    with pytest.raises(kvsync.EncodeError):
        jobs.put(value)
    with pytest.raises(kvsync.EncodeError):
        jobs.put_many(["good", value])
    assert items(store) == []


@pytest.mark.parametrize(
    "options",
    [
        {"delay": -1},
        {"delay": math.nan},
        {"delay": math.inf},
        {"delay": timedelta(seconds=-1)},
        {"priority": math.nan},
        {"priority": math.inf},
        {"priority": -math.inf},
        {"priority": 2**53 + 1},
        {"priority": 1e300},
        {"timeout": -1},
        {"timeout": math.nan},
        {"key": "a\0b"},
        {"key": "\ud800"},
    ],
    ids=str,
)
def test_a_bad_value_is_refused(store: kvsync.Store, options: Any) -> None:
    jobs = store.queue(NAME)
    with pytest.raises(ValueError):  # noqa: PT011  # each tells its own
        jobs.put("a", **options)
    if "key" not in options:
        with pytest.raises(ValueError):  # noqa: PT011
            jobs.put_many(["a"], **options)
    assert items(store) == []


@pytest.mark.parametrize("options", [{"priority": 10**400}, {"delay": -(10**5000)}])
def test_a_number_that_nobody_would_read_is_not_shown(store: kvsync.Store, options: Any) -> None:
    jobs = store.queue(NAME)
    with pytest.raises(ValueError, match=r"not an int of [0-9]+ bits") as caught:
        jobs.put("a", **options)
    assert len(str(caught.value)) < 100
    for take in (jobs.get_many, jobs.peek, lambda n: store.queue(NAME, n)):
        with pytest.raises(ValueError, match="not an int of 1329 bits"):
            take(10**400)


@pytest.mark.parametrize(
    "options",
    [
        {"delay": "1"},
        {"delay": None},
        {"delay": True},
        {"priority": "1"},
        {"priority": None},
        {"priority": True},
        {"key": 1},
        {"key": b"k"},
        {"timeout": "1"},
    ],
    ids=str,
)
def test_a_wrong_type_is_refused(store: kvsync.Store, options: Any) -> None:
    with pytest.raises(TypeError):
        store.queue(NAME).put("a", **options)
    assert items(store) == []


@pytest.mark.parametrize(
    "options",
    [
        {"maxsize": 1 << 31},
        {"max_attempts": 0},
        {"max_attempts": -1},
        {"visibility": 0},
        {"visibility": -1},
        {"visibility": math.inf},
        {"retry_delay": -1},
        {"retry_delay": math.nan},
        {"codec": "unheard-of"},
    ],
    ids=str,
)
def test_a_bad_option_is_refused(store: kvsync.Store, options: Any) -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        store.queue(NAME, **options)


@pytest.mark.parametrize(
    "options",
    [
        {"maxsize": 1.5},
        {"maxsize": True},
        {"maxsize": "1"},
        {"max_attempts": 2.0},
        {"visibility": "1"},
        {"retry_delay": None},
        {"codec": 7},
    ],
    ids=str,
)
def test_an_option_of_a_wrong_type_is_refused(store: kvsync.Store, options: Any) -> None:
    with pytest.raises(TypeError):
        store.queue(NAME, **options)


@pytest.mark.parametrize("n", [0, -1, 1 << 31])
def test_a_bad_number_of_items_is_refused(store: kvsync.Store, n: int) -> None:
    jobs = store.queue(NAME)
    jobs.put("a")
    for take in (jobs.get_many, jobs.reserve_many, jobs.peek):
        with pytest.raises(ValueError, match="n is"):
            take(n)
        with pytest.raises(TypeError):
            take(1.0)  # type: ignore[arg-type]
    assert jobs.get() == "a"


def test_another_maxsize_is_adopted_while_nobody_waits(store: kvsync.Store) -> None:
    """A restart with another one must not crash, though it be smaller than what is there."""
    store.queue(NAME, 1).put("a")
    jobs = store.queue(NAME, 3)
    jobs.put_many("bc")
    with pytest.raises(queue.Full):
        jobs.put_nowait("d")
    assert jobs.stats().maxsize == 3
    small = store.queue(NAME, 2)
    with pytest.raises(queue.Full):
        small.put_nowait("d")
    assert small.stats().maxsize == 2
    store.queue(NAME, -1).put("d")
    assert store.queue(NAME).stats().maxsize == 0


def test_another_maxsize_is_refused_while_somebody_waits(store: kvsync.Store) -> None:
    """For an item or for room; or has one in hand."""
    jobs = store.queue(NAME, 1)
    jobs.put("a")
    with waiting(lambda: jobs.put("b"), store) as call:
        with pytest.raises(kvsync.LimitError, match="maxsize of 1, not 2"):
            store.queue(NAME, 2).put("c")
        task = jobs.reserve()
        call.result()
    with pytest.raises(kvsync.LimitError):
        store.queue(NAME, 2).put("c")
    task.ack()
    assert jobs.get() == "b"
    with waiting(jobs.get, store) as call:
        with pytest.raises(kvsync.LimitError):
            store.queue(NAME, 2).put("c")
        jobs.put("c")
        assert call.result() == "c"
    assert store.queue(NAME, 2).put("d") == 4


# --- what nobody can read ------------------------------------------------------------------------


@pytest.mark.parametrize("take", ["get", "reserve"])
def test_what_the_codec_cannot_read_becomes_a_dead_letter(store: kvsync.Store, take: str) -> None:
    """Whoever meets it is told; the next item is the next one's."""
    store.queue(NAME, codec="pickle").put({1})
    jobs = store.queue(NAME)
    jobs.put("good")
    with pytest.raises(kvsync.DecodeError):
        getattr(jobs, take)(timeout=0)
    (letter,) = jobs.dead
    assert (letter.id, letter.item) == (1, None)
    assert "another codec" in str(letter.error)
    assert jobs.get() == "good"
    assert store.queue(NAME, codec="pickle").dead.list()[0].item == {1}


@pytest.mark.parametrize("take", ["get_many", "reserve_many"])
def test_among_many_it_costs_no_other_item(store: kvsync.Store, take: str) -> None:
    jobs = store.queue(NAME)
    jobs.put("a")
    store.queue(NAME, codec="pickle").put({1})
    jobs.put("b")
    with pytest.raises(kvsync.DecodeError):
        getattr(jobs, take)(3)
    assert [letter.id for letter in jobs.dead] == [2]
    assert jobs.get_many(3) == ["a", "b"]


def test_it_is_told_to_one_of_those_who_wait(store: kvsync.Store) -> None:
    """The others wait on."""
    jobs, other = store.queue(NAME), store.queue(NAME, codec="pickle")
    with waiting(jobs.get, store) as first, waiting(lambda: jobs.reserve().item, store) as second:
        other.put({1})
        with pytest.raises(kvsync.DecodeError):
            first.result()
        assert len(jobs.dead) == 1
        assert not second.is_over
        jobs.put("good")
        assert second.result() == "good"
    assert tickets(store) == []
