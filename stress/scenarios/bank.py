"""Transfers between the entries of a dict, in transactions, never change their total, as readers
see it at any time, and none that was acknowledged is lost, though writers and readers are killed by
SIGKILL at any instant.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import kvsync
from stress.crew import Crew, Worker
from stress.journal import acknowledged
from stress.stage import SOUND, Stage

UNIT = "kills"
PROCESSES = 4
PRIMITIVES = ("dict", "counter", "transaction")

WAYS: dict[str, Callable[[kvsync.Store], AbstractContextManager[None]]] = {
    SOUND: kvsync.Store.transaction,
    "separate-commits": lambda _store: nullcontext(),
}

_ACCOUNTS = [f"account {number}" for number in range(10)]
_DEPOSIT = 100
_TOTAL = _DEPOSIT * len(_ACCOUNTS)
_READERS = 2
_AMOUNTS = "transferred"


def _transfer(worker: Worker) -> None:
    accounts, transfers = worker.store.dict("accounts"), worker.store.counter("transfers")
    while worker.going_on():
        giver, taker = worker.chance.sample(_ACCOUNTS, 2)
        with worker.in_doubt():
            with WAYS[worker.way](worker.store):
                amount = worker.chance.randint(0, accounts[giver])
                accounts[giver] -= amount
                accounts[taker] += amount
                number = transfers.add()
            worker.journal.note("transfers", number)
        worker.journal.note(_AMOUNTS, amount)
        worker.ready()


def _read(worker: Worker) -> None:
    accounts = worker.store.dict("accounts")
    while worker.going_on():
        assert not (flaw := _flaw(accounts)), flaw
        worker.ready()


def _flaw(accounts: kvsync.Dict) -> str:
    """What is wrong with the balances, read at one moment; empty if nothing is."""
    balances = accounts.get_many(_ACCOUNTS)
    sound = sum(balances.values()) == _TOTAL and min(balances.values()) >= 0
    return "" if sound else f"{sum(balances.values())} instead of {_TOTAL}: {balances}"


def run(stage: Stage) -> None:
    with stage.open() as store:
        store.dict("accounts").update(dict.fromkeys(_ACCOUNTS, _DEPOSIT))
        with Crew(stage) as crew:
            crew.start(_transfer, stage.processes)
            crew.start(_read, _READERS)
            crew.assemble()
            while not stage.enough(crew.killed):
                crew.strike()
        stage.figures[_AMOUNTS] = sum(acknowledged(stage.folder)[_AMOUNTS])
        stage.expect_some(_AMOUNTS)
        done, writers = {"transfers": store.counter("transfers").value}, crew.killed_at[_transfer]
        stage.expect_accounted(done, writers, crew.unknown, beside=(_AMOUNTS,))
        flaw = _flaw(store.dict("accounts"))
        stage.expect(not flaw, flaw)
    stage.expect_sound_file()
