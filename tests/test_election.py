"""Elections: one leader at a time, followed when it resigns or dies; who is deposed finds out."""

import asyncio
import os
import threading
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest

import kvsync
from kvsync.testing import ManualClock
from tests.interrupted import after_each_call
from tests.lines import calling, queued
from tests.processes import (
    PATIENCE,
    eventually,
    expect,
    in_raw_child,
    in_thread,
    kill,
    running,
)


def test_one_leads_until_it_resigns(store: kvsync.Store) -> None:
    """Then the next in line does."""
    one, other = store.election("boss"), store.election("boss")
    assert one.leader() is None
    assert one.campaign()
    assert one.is_leader()
    assert not other.is_leader()
    assert not other.campaign(blocking=False)
    assert not other.campaign(timeout=0.01)
    leader = other.leader()
    assert leader is not None
    assert (leader.pid, leader.token, leader.kind) == (os.getpid(), one.token, "election")
    with queued(other.campaign, one) as campaign:
        one.resign()
        assert campaign.result()
    assert other.is_leader()
    assert not one.is_leader()
    with pytest.raises(kvsync.NotOwnedError):
        one.resign()


def test_a_leader_that_campaigns_leads_already(store: kvsync.Store) -> None:
    """At once, from any thread; one `resign` ends it."""
    election = store.election("boss")
    assert election.campaign()
    token = election.token
    assert election.campaign()
    assert in_thread(election.campaign)
    assert in_thread(election.is_leader)
    assert election.token == token
    election.resign()
    assert election.leader() is None


def test_an_election_and_a_lock_of_one_name_are_two_things(store: kvsync.Store) -> None:
    """Elections have names of their own."""
    with store.election("job"), store.lock("job"):
        assert store.election("job").locked()


def lead(pipe: Any, path: str) -> None:
    """Lead until killed."""
    with kvsync.open(path) as store:
        election = store.election("boss")
        election.campaign()
        pipe.send(election.token)
        pipe.recv()


def test_a_killed_leader_is_followed(store: kvsync.Store) -> None:
    """By who waits, under a larger token."""
    election = store.election("boss")
    with running(lead, store.path) as (child, pipe):
        token = expect(pipe)
        leader = election.leader()
        assert leader is not None
        assert leader.pid == child.pid
        with queued(election.campaign, election) as campaign:
            kill(child)
            assert campaign.result()
    assert election.token is not None
    assert election.token > token


def assert_deposed(store: kvsync.Store, election: kvsync.Election) -> None:
    assert not election.is_leader()
    with pytest.raises(kvsync.LeaseLostError), store.transaction(guard=election):
        store.counter("led").add()
    assert store.counter("led").value == 0


def test_a_deposed_leader_knows_it(store: kvsync.Store) -> None:
    """And can commit nothing; it may campaign again, in its turn."""
    election, rival = store.election("boss"), store.election("boss")
    election.campaign()
    with store.transaction(guard=election):
        pass
    with queued(rival.campaign, rival) as campaign:
        (deposed,) = rival.force_release()
        assert deposed.pid == os.getpid()
        assert campaign.result()
    assert_deposed(store, election)
    assert not election.campaign(timeout=0)
    assert rival.is_leader()
    rival.resign()
    assert election.campaign()
    with store.transaction(guard=election):
        store.counter("led").add()


def test_a_leader_whose_lease_is_over_knows_it(path: Path) -> None:
    """Whether another leads or not."""
    clock = ManualClock()
    with kvsync.open(path, clock=clock) as store:
        election, rival = store.election("boss", lease=10), store.election("boss")
        election.campaign()
        clock.advance(6)
        election.extend(10)
        clock.advance(6)
        assert election.is_leader()
        clock.advance(6)
        assert_deposed(store, election)
        assert rival.campaign(timeout=0)
        assert_deposed(store, election)
        with pytest.raises(kvsync.LeaseLostError):
            election.resign()
        assert rival.is_leader()


def test_a_leader_that_lost_its_lease_may_be_elected_again(path: Path) -> None:
    """By a campaign, and under another token."""
    clock = ManualClock()
    with kvsync.open(path, clock=clock) as store:
        election = store.election("boss", lease=10)
        election.campaign()
        token = election.token
        clock.advance(11)
        assert election.campaign(timeout=0)
        assert election.is_leader()
        assert election.token != token
        election.resign()
        assert election.leader() is None


def test_whose_time_is_over_while_another_thread_has_won_leads_too(path: Path) -> None:
    """Both campaign through one object, which is asked for by each."""
    clock = ManualClock()
    with kvsync.open(path, clock=clock) as store:
        election, rival = store.election("boss"), store.election("boss")
        rival.campaign()
        with ExitStack() as stack:
            first, second = (
                stack.enter_context(queued(lambda: election.campaign(timeout=9), election))
                for _ in range(2)
            )
            rival.resign()
            assert first.result()
            clock.advance(10)
            assert second.result()
        assert election.is_leader()
        election.resign()
        assert election.leader() is None


def test_threads_that_ask_at_once_whether_they_lead_are_told(store: kvsync.Store) -> None:
    """Though the lead was lost, and all of them find out together."""
    election, start = store.election("boss"), threading.Barrier(8)
    election.campaign()
    election.force_release()

    def ask() -> tuple[bool, bool]:
        start.wait(PATIENCE)
        return election.is_leader(), election.campaign(timeout=0)

    with ExitStack() as stack:
        answers = [stack.enter_context(calling(ask)) for _ in range(8)]
        assert all(campaigned in (True, False) for _, campaigned in (a.result() for a in answers))
    assert election.is_leader()
    election.resign()
    assert election.leader() is None


def test_a_leader_in_a_file_that_was_replaced_does_not_lead(path: Path, tmp_path: Path) -> None:
    """It cannot know who leads in the other one."""
    store = kvsync.open(path)
    election = store.election("boss")
    election.campaign()
    store.backup(tmp_path / "copy.db")
    os.replace(tmp_path / "copy.db", path)
    with pytest.raises(kvsync.StoreReplacedError), store.transaction(guard=election):
        pytest.fail("must not get in")
    eventually(lambda: not election.is_leader())
    with pytest.raises(kvsync.StoreReplacedError):
        election.campaign()
    store.close()


def test_a_leader_whose_store_is_closed_does_not_lead(path: Path, store: kvsync.Store) -> None:
    """And another does."""
    other = kvsync.open(path)
    election = other.election("boss")
    election.campaign()
    other.close()
    assert not election.is_leader()
    assert store.election("boss").campaign(blocking=False)


def test_a_leader_in_doubt_steps_down(store: kvsync.Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the store cannot be read nobody leads; then another one may."""
    election = store.election("boss")
    election.campaign()
    with kvsync.open(store.path) as another:
        other = another.election("boss")
        with monkeypatch.context() as patch:
            patch.setattr(election._units, "is_current", unreadable)
            assert not election.is_leader()
        assert other.campaign(timeout=PATIENCE)  # it has given its place up by itself
        assert not election.is_leader()
    with pytest.raises(kvsync.NotOwnedError):
        election.resign()


def test_a_candidate_in_doubt_steps_down(
    store: kvsync.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It hears why, and its next campaign is a new one."""
    election = store.election("boss")
    election.campaign()
    token = election.token
    with monkeypatch.context() as patch:
        patch.setattr(election._units, "is_current", unreadable)
        with pytest.raises(kvsync.StorageError):
            election.campaign()
    assert election.campaign(timeout=0)
    assert election.token > token


def test_a_leader_that_asks_within_another_tasks_transaction_leads_on(
    store: kvsync.Store,
) -> None:
    """It is told what any call is told there: it is not the lead that is in doubt."""
    election, asked = store.election("boss"), []
    election.campaign()
    token = election.token

    async def ask() -> None:
        for call in (election.is_leader, election.campaign, lambda: election.run(fail)):
            with pytest.raises(kvsync.TransactionError, match="another task"):
                call()
            asked.append(call)

    async def transact() -> None:
        with store.transaction():
            await asyncio.create_task(ask())

    asyncio.run(transact())
    assert len(asked) == 3
    assert election.is_leader()
    assert election.token == token


def test_a_leader_that_asks_within_a_transaction_that_has_failed_leads_on(
    store: kvsync.Store,
) -> None:
    """Nothing can be asked in there; after it, everything."""
    election = store.election("boss")
    election.campaign()
    with pytest.raises(kvsync.TransactionError, match="nothing was committed"), store.transaction():
        store.engine.write("rollback")  # as SQLite does it by itself when the disk is full
        with pytest.raises(kvsync.StorageError):
            store.engine.write("no statement")
        for call in (election.is_leader, election.campaign):
            with pytest.raises(kvsync.TransactionError, match="already failed"):
                call()
    assert election.is_leader()


def test_a_child_that_may_not_use_the_store_gives_no_lead_up(store: kvsync.Store) -> None:
    """Its parent leads, and goes on; it does not itself."""
    election = store.election("boss")
    election.campaign()

    def ask() -> tuple[bool, list[object]]:
        given_up: list[object] = []
        election._units.give_up = given_up.append  # type: ignore[method-assign]
        with pytest.raises(kvsync.ForkError):
            election.campaign()
        return election.is_leader(), given_up

    assert in_raw_child(ask) == "(False, [])"
    assert election.is_leader()


def test_a_run_in_doubt_tells_that_its_lead_was_lost(
    store: kvsync.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has stepped down, and given its place up."""
    election = store.election("boss")

    def doubt() -> None:
        with monkeypatch.context() as patch:
            patch.setattr(election._units, "is_current", unreadable)
            assert not election.is_leader()
        assert not election.is_leader()

    with pytest.raises(kvsync.LeaseLostError):
        election.run(doubt)
    eventually(lambda: election.leader() is None)


def within_run(election: kvsync.Election, func: Callable[[], object]) -> None:
    election.run(func)


def within_block(election: kvsync.Election, func: Callable[[], object]) -> None:
    with election:
        func()


def deposed(election: kvsync.Election) -> None:
    election.force_release()


def resigned(election: kvsync.Election) -> None:
    in_thread(lambda: election.resign() or True)


def doubted(election: kvsync.Election) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(election._units, "is_current", unreadable)
        in_thread(lambda: [election.is_leader()])


@pytest.mark.parametrize("within", [within_run, within_block])
@pytest.mark.parametrize("ends", [deposed, resigned, doubted])
def test_who_has_lost_its_own_lead_does_not_go_by_another_threads(
    store: kvsync.Store,
    within: Callable[[kvsync.Election, Callable[[], object]], None],
    ends: Callable[[kvsync.Election], None],
) -> None:
    """Though that one has won it through the same object, and leads on."""
    election, seen = store.election("boss"), []  # an error within is not the one that comes out
    with ExitStack() as stack:

        def lose() -> None:
            token = election.token
            ends(election)
            assert stack.enter_context(calling(election.campaign)).result()
            assert_deposed(store, election)
            assert not election.owned()
            assert election.token == token
            with pytest.raises(kvsync.KvsyncError):
                election.resign()
            seen.append(token)

        with pytest.raises(kvsync.LeaseLostError):
            within(election, lose)
        assert seen
        with store.transaction(guard=election):
            store.counter("led").add()
        assert election.is_leader()


@pytest.mark.parametrize("within", [within_run, within_block])
def test_who_has_won_again_within_its_own_lead_goes_by_that(
    store: kvsync.Store, within: Callable[[kvsync.Election, Callable[[], object]], None]
) -> None:
    """And keeps it, when what it had lost has come to its end."""
    election, seen = store.election("boss"), []

    def win_again() -> None:
        lost = election.token
        election.force_release()
        assert election.campaign()
        assert lost is not None
        assert election.token is not None
        assert election.token > lost
        with store.transaction(guard=election):
            assert election.is_leader()
        seen.append(lost)

    with pytest.raises(kvsync.LeaseLostError):
        within(election, win_again)
    assert seen
    assert election.is_leader()
    election.resign()
    assert election.leader() is None


def test_a_block_entered_by_hand_is_over_though_its_lead_was_lost(store: kvsync.Store) -> None:
    """From then on its thread goes by the lead of the object."""
    election = store.election("boss")
    with ExitStack() as calls:
        with pytest.raises(kvsync.LeaseLostError), ExitStack() as stack:
            stack.enter_context(election)
            election.force_release()
            assert calls.enter_context(calling(election.campaign)).result()
            led = election.is_leader()
        assert not led
        assert election.is_leader()


def unreadable(_: kvsync.Grant) -> bool:
    raise kvsync.StorageError("the disk is gone")


def test_run_leads_while_the_function_runs(store: kvsync.Store) -> None:
    """And resigns, whether it returns or raises."""
    election = store.election("boss")
    assert election.run(election.is_leader)
    assert election.leader() is None
    with pytest.raises(ZeroDivisionError):
        election.run(lambda: 1 // 0)
    assert election.leader() is None
    election.run(election.resign)
    assert election.leader() is None


def test_runs_of_one_object_lead_one_after_the_other(store: kvsync.Store) -> None:
    """The end of one does not take the lead away from the other."""
    election, may_end = store.election("boss"), threading.Event()

    def lead() -> bool:
        return may_end.wait(PATIENCE) and election.is_leader()

    with calling(lambda: election.run(lead)) as first:
        eventually(election.leader)
        with queued(lambda: election.run(election.is_leader), election) as second:
            may_end.set()
            assert first.result()
            assert second.result()
    assert election.leader() is None


@pytest.mark.parametrize("within", [within_run, within_block])
def test_a_campaign_does_not_win_what_is_another_threads_own(
    store: kvsync.Store, within: Callable[[kvsync.Election, Callable[[], object]], None]
) -> None:
    """Through the same object: that ends with the other's run, or block, and is waited for."""
    election, may_end = store.election("boss"), threading.Event()
    with calling(lambda: within(election, lambda: may_end.wait(PATIENCE))) as first:
        eventually(election.leader)
        assert not election.campaign(timeout=0)
        with queued(election.campaign, election) as second:
            may_end.set()
            first.result()
            assert second.result()
            assert election.is_leader()
            assert election.campaign()
            election.resign()
    assert election.leader() is None


def test_a_run_waits_for_the_end_of_another_threads_block(store: kvsync.Store) -> None:
    """As for the end of its run: the lead would end before the function did."""
    election, may_end = store.election("boss"), threading.Event()
    with calling(lambda: within_block(election, lambda: may_end.wait(PATIENCE))) as first:
        eventually(election.leader)
        with queued(lambda: election.run(election.is_leader), election) as second:
            may_end.set()
            first.result()
            assert second.result()
    assert election.leader() is None


@pytest.mark.parametrize("within", [within_run, within_block])
def test_who_campaigns_within_its_own_lead_leads_already(
    store: kvsync.Store, within: Callable[[kvsync.Election, Callable[[], object]], None]
) -> None:
    """And wins nothing by that: what its run or block had won ends with it."""
    election, seen = store.election("boss"), []
    within(election, lambda: seen.append(election.campaign() and election.run(election.is_leader)))
    assert seen == [True]
    assert election.leader() is None


def test_what_is_acquired_by_hand_is_all_threads(store: kvsync.Store) -> None:
    """As what is won by a campaign."""
    election = store.election("boss")
    assert election.acquire()
    assert not election.acquire(timeout=0)
    assert in_thread(lambda: election.campaign() and election.run(election.is_leader))
    assert in_thread(lambda: election.resign() or True)
    assert election.leader() is None


@pytest.mark.parametrize("within", [within_run, within_block])
def test_any_thread_may_resign_for_all(
    store: kvsync.Store, within: Callable[[kvsync.Election, Callable[[], object]], None]
) -> None:
    """One that has campaigned in vain, too. Who led finds out, and the next in line leads."""
    election, led = store.election("boss"), []

    def campaign_in_vain_and_resign() -> bool:
        won = election.campaign(timeout=0)
        election.resign()
        return not won

    def lead() -> None:
        with queued(store.election("boss").campaign, election) as rival:
            led.append(election.is_leader())
            led.append(in_thread(campaign_in_vain_and_resign))
            led.append(rival.result())
            led.append(not election.is_leader())

    with pytest.raises(kvsync.LeaseLostError):
        within(election, lead)
    assert led == [True] * 4


def fail() -> None:
    raise ZeroDivisionError


@pytest.mark.parametrize("func", [int, fail])
def test_an_exception_after_any_call_leaves_no_run_in_the_lead(
    store: kvsync.Store, func: Callable[[], object]
) -> None:
    """As a signal's handler could raise it there, whether the function returns or raises."""
    election = store.election("boss")

    def run() -> None:
        with suppress(ZeroDivisionError):
            election.run(func)

    for point in after_each_call(run):
        assert election.leader() is None, point
        assert election.token is None, point
        assert not election._inside, point


def test_a_run_within_a_lead_leaves_it(store: kvsync.Store) -> None:
    """It resigns what it has won, and no more; from any thread, and in a run within a run."""
    election = store.election("boss")
    election.campaign()
    token = election.token
    assert election.run(election.is_leader)
    assert in_thread(lambda: election.run(election.is_leader))
    with pytest.raises(ZeroDivisionError):
        election.run(lambda: 1 // 0)
    assert election.is_leader()
    assert election.token == token
    election.resign()
    assert election.run(lambda: election.run(election.is_leader) and election.is_leader())
    assert election.leader() is None


def test_a_run_within_a_lead_tells_that_it_was_lost(store: kvsync.Store) -> None:
    """Or given up by another thread meanwhile."""
    election = store.election("boss")
    for end in (election.force_release, lambda: in_thread(lambda: election.resign() or True)):
        election.campaign()
        with pytest.raises(kvsync.LeaseLostError):
            election.run(end)


def test_a_run_whose_lead_another_thread_gave_up_says_so(store: kvsync.Store) -> None:
    """What its function gives up itself it has not lost."""
    election = store.election("boss")
    election.run(election.resign)
    with pytest.raises(kvsync.LeaseLostError):
        election.run(lambda: in_thread(lambda: election.resign() or True))
    assert election.run(election.is_leader)


def test_a_run_leaves_what_its_function_won(store: kvsync.Store) -> None:
    """And says that its own lead was lost."""
    election = store.election("boss")

    def win_again() -> None:
        election.force_release()
        election.campaign()

    with pytest.raises(kvsync.LeaseLostError):
        election.run(win_again)
    assert election.is_leader()
    election.resign()


def test_run_raises_when_it_is_not_elected_in_time(store: kvsync.Store) -> None:
    """The function is not called then."""
    with store.election("boss"), pytest.raises(kvsync.AcquireTimeout):
        store.election("boss", timeout=0.01).run(lambda: pytest.fail("must not run"))
    with store.election("boss"), pytest.raises(kvsync.AcquireTimeout):
        store.election("boss").run(lambda: pytest.fail("must not run"), timeout=0)


def test_run_tells_that_the_lead_was_lost(store: kvsync.Store) -> None:
    """Unless the function has something worse to tell."""
    election = store.election("boss")

    def be_deposed() -> bool:
        election.force_release()
        return election.is_leader()

    with pytest.raises(kvsync.LeaseLostError):
        election.run(be_deposed)
    with pytest.raises(ZeroDivisionError):
        election.run(lambda: 1 // be_deposed())
    assert election.run(election.is_leader)
