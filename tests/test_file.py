"""The file under the store: replaced, copied, full, damaged."""

import contextlib
import os
import resource
import shutil
import signal
import sqlite3
from pathlib import Path

import pytest

import kvsync
from kvsync.engine import links
from tests.processes import in_thread, run_all


def remove(path: Path) -> None:
    """As `rm app.db*` does."""
    for name in (path, Path(f"{path}-wal"), Path(f"{path}-shm")):
        name.unlink(missing_ok=True)


@pytest.mark.parametrize("replaced", [False, True])
def test_a_file_that_is_gone_is_noticed(
    path: Path, monkeypatch: pytest.MonkeyPatch, replaced: bool
) -> None:
    """By every kind of call, and nothing is written anywhere."""
    monkeypatch.setattr(links, "TRUST", 0)
    monkeypatch.setattr(links, "SLICE", 0)
    store = kvsync.open(path)
    hits = store.counter("hits")
    hits.add()
    remove(path)
    if replaced:
        sqlite3.connect(path).close()
        path.touch()
    for call in (hits.add, lambda: hits.value, store.transaction().__enter__):
        with pytest.raises(kvsync.StoreReplacedError, match="open it again"):
            call()
    assert path.exists() == replaced
    with kvsync.open(path) as again:
        assert again.counter("hits").add() == 1
    store.close()


@pytest.mark.skipif(not hasattr(os, "O_PATH"), reason="the system cannot keep a file's number")
def test_who_has_no_connection_open_notices_a_replaced_file_too(path: Path) -> None:
    """Though some file systems would give a removed file's number to the next that is made."""
    with kvsync.open(path) as store:
        lock = store.lock("a")
        assert in_thread(lock.acquire)  # the thread's connection goes with it
        _replace_by_one_of_the_same_number(path)
        with pytest.raises(kvsync.StoreReplacedError):
            store.transaction(guard=lock).__enter__()


@pytest.mark.skipif(not hasattr(os, "O_PATH"), reason="the system cannot keep a file's number")
def test_a_forked_child_and_its_parent_notice_a_replaced_file(path: Path) -> None:
    """Neither has a connection open then; the child closes the handle that it inherited first."""
    with kvsync.open(path) as store:
        lock = store.lock("a")
        assert lock.acquire()
        run_all(_close_and_replace, [(store, path)], "fork")
        with pytest.raises(kvsync.StoreReplacedError):
            store.transaction(guard=lock).__enter__()


def _close_and_replace(store: kvsync.Store, path: Path) -> None:
    with kvsync.open(path) as other:
        other.engine.place_for_writing()
        store.close()
        other.engine._pool.close()
        _replace_by_one_of_the_same_number(path)
        with pytest.raises(kvsync.StoreReplacedError):
            other.counter("hits").add()


def _replace_by_one_of_the_same_number(path: Path) -> None:
    """If the file system can be brought to that."""
    number = path.stat().st_ino
    remove(path)
    for attempt in range(100):
        path.touch()
        if path.stat().st_ino == number:
            break
        path.rename(f"{path}.{attempt}")
    path.touch()


def test_a_transaction_notices_a_replaced_file_without_delay(path: Path) -> None:
    """Reads and single adds may trust for a moment; what others rely on may not."""
    with kvsync.open(path) as store:
        store.counter("hits").add()
        remove(path)
        with pytest.raises(kvsync.StoreReplacedError), store.transaction():
            pytest.fail("must not get in")


def test_a_thread_that_connects_later_does_not_make_a_new_file(path: Path) -> None:
    """`sqlite3.connect` would."""
    with kvsync.open(path) as store:
        store.counter("hits").add()
        remove(path)
        store.engine._pool.close()
        with pytest.raises(kvsync.StoreReplacedError):
            store.counter("hits").value  # noqa: B018
        assert not path.exists()


def test_a_backup_is_a_store(store: kvsync.Store, tmp_path: Path) -> None:
    """With one consistent state, while others write."""
    store.dict("settings").set_many({str(i): i for i in range(1000)})
    store.backup(tmp_path / "copy.db")
    store.dict("settings")["later"] = 1
    with kvsync.open(tmp_path / "copy.db") as copy:
        assert len(copy.dict("settings")) == 1000
        assert copy.check().damage == ()
        copy.dict("settings")["mine"] = 1
    assert "mine" not in store.dict("settings")


def test_a_damaged_store_does_not_replace_a_good_backup(path: Path, tmp_path: Path) -> None:
    """Where its pages can be copied, but not be read."""
    target = tmp_path / "copy.db"
    with kvsync.open(path) as store:
        store.dict("d").update({f"{n:04}": "x" * 100 for n in range(1000)})
        store.backup(target)
    good = target.read_bytes()
    with path.open("r+b") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(size // 2 // 4096 * 4096)
        file.write(b"\xa5" * 4096 * 4)
    with kvsync.open(path) as store, pytest.raises(kvsync.CorruptError, match="damaged"):
        store.backup(target)
    assert target.read_bytes() == good
    assert [each.name for each in tmp_path.iterdir() if each.name.startswith(".copy")] == []


def test_a_backup_replaces_its_target_in_one_step_or_not_at_all(
    store: kvsync.Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A failed one leaves the older copy, and nothing beside it."""
    store.counter("hits").add()
    target = tmp_path / "copies" / "copy.db"
    with pytest.raises(kvsync.StorageError):
        store.backup(target)
    target.parent.mkdir()
    target.write_text("older")

    def fail(*_: object) -> None:
        raise OSError(28, "no room")

    with monkeypatch.context() as patch, pytest.raises(kvsync.StorageError, match="no room"):
        patch.setattr(os, "replace", fail)
        store.backup(target)
    assert target.read_text() == "older"
    store.backup(target)
    assert [file.name for file in target.parent.iterdir()] == ["copy.db"]


@pytest.mark.parametrize("suffix", ["-wal", "-journal"])
def test_a_backup_does_not_replace_a_database_that_has_a_log(
    store: kvsync.Store, tmp_path: Path, suffix: str
) -> None:
    """The next to open it would read the old log into the new file."""
    store.counter("hits").add()
    target = tmp_path / "copy.db"
    store.backup(target)
    log = Path(f"{target}{suffix}")
    log.write_bytes(b"frames of a process that was killed")
    with pytest.raises(kvsync.StorageError, match="not closed cleanly"):
        store.backup(target)
    log.unlink()
    store.backup(target)


def test_a_value_that_is_no_text_blocks_nobody(store: kvsync.Store) -> None:
    """Bytes that are no UTF-8, in a file that others wrote: the error leaves no lock behind."""
    settings = store.dict("settings")
    settings["bad"] = "x"
    store.engine.write("update kvsync_dict set value = cast(x'ff' as text)")
    for call in (lambda: settings["bad"], lambda: settings.__delitem__("bad")):
        with pytest.raises(kvsync.KvsyncError):
            call()
        with kvsync.open(store.path, busy_timeout=0) as other:
            assert in_thread(other.counter("hits").add) > 0


def test_a_backup_onto_the_store_itself_is_refused(store: kvsync.Store, path: Path) -> None:
    """By whichever name."""
    store.counter("hits").add()
    link = path.with_name("link.db")
    link.symlink_to(path)
    for target in (path, link):
        with pytest.raises(ValueError, match="itself"):
            store.backup(target)


def test_a_full_disk_is_a_storage_error_and_loses_nothing(path: Path) -> None:
    """The file may not grow past a limit; the old values stay, and smaller ones still fit."""
    (outcome,) = run_all(_fill, [(str(path),)])
    assert outcome == "refused, and intact"


def _fill(path: str) -> str:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    with kvsync.open(path) as store:
        settings = store.dict("settings", codec="raw")
        settings["a"] = "old"
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, resource.RLIM_INFINITY))
        for call in (
            lambda: settings.set("a", b"x" * (2 << 20)),
            lambda: settings.set_many({str(i): b"x" * (1 << 18) for i in range(10)}),
        ):
            with pytest.raises(kvsync.StorageError):
                call()
        with pytest.raises(kvsync.KvsyncError), store.transaction():
            settings["b"] = b"x" * (2 << 20)
        assert dict(settings) == {"a": "old"}
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
        settings["a"] = "new"
        assert dict(settings) == {"a": "new"}
        assert store.check().damage == ()
    return "refused, and intact"


def test_a_transaction_that_sqlite_ended_commits_nothing_even_if_the_error_is_caught(
    path: Path,
) -> None:
    """A full disk may make SQLite roll back on its own."""
    (outcome,) = run_all(_catch_inside, [(str(path),)])
    assert outcome == {"a": "old"}


def _catch_inside(path: str) -> dict[str, object]:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    with kvsync.open(path) as store:
        settings = store.dict("settings", codec="raw")
        settings["a"] = "old"
        store.engine.write("pragma cache_size=10")
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, resource.RLIM_INFINITY))
        with pytest.raises(kvsync.KvsyncError), store.transaction():
            settings["a"] = "half"
            for number in range(50):
                try:
                    settings[str(number)] = b"x" * (1 << 18)
                except kvsync.KvsyncError:
                    continue
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
        return dict(settings)


def test_running_out_of_descriptors_is_a_typed_error_and_passes(path: Path) -> None:
    """Once there are some again, everything works."""
    (outcome,) = run_all(_use_up_descriptors, [(str(path),)])
    assert outcome == 2


def _use_up_descriptors(path: str) -> int:
    with kvsync.open(path) as store:
        store.counter("hits").add()
        store.engine._pool.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
        hoard = []
        try:
            while True:
                hoard.append(os.open("/dev/null", os.O_RDONLY))
        except OSError:
            pass
        for free in range(4):
            with pytest.raises(kvsync.KvsyncError):
                store.counter("hits").add()
            os.close(hoard.pop())
            if free == 3:
                break
        for descriptor in hoard:
            os.close(descriptor)
        return store.counter("hits").add()


def test_opening_without_descriptors_is_a_typed_error_too(path: Path) -> None:
    """The first use reads the mount table and makes files."""
    assert run_all(_open_without_descriptors, [(str(path),)]) == [1]


def _open_without_descriptors(path: str) -> int:
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
    hoard = []
    try:
        while True:
            hoard.append(os.open("/dev/null", os.O_RDONLY))
    except OSError:
        pass
    with kvsync.open(path) as store:
        for _ in range(8):
            with contextlib.suppress(kvsync.KvsyncError):
                store.counter("hits").add()
                break
            os.close(hoard.pop())
        for descriptor in hoard:
            os.close(descriptor)
        return store.counter("hits").value or store.counter("hits").add()


def test_a_damaged_file_is_reported_in_words(path: Path) -> None:
    """Never as a bare error of sqlite3, and `check` says what is wrong."""
    with kvsync.open(path) as store:
        store.dict("settings").set_many({str(i): "x" * 100 for i in range(2000)})
    with path.open("r+b") as file:
        file.seek(20_000)
        file.write(os.urandom(60_000))
    with kvsync.open(path) as store:
        try:
            damage = store.check().damage
        except kvsync.KvsyncError:
            damage = ("unreadable",)
        assert damage
        with pytest.raises(kvsync.KvsyncError):
            for key in list(store.dict("settings")):
                store.dict("settings").pop(key)


def test_a_restored_copy_is_another_store(path: Path, tmp_path: Path) -> None:
    """Moved into place under a live user, it is noticed."""
    with kvsync.open(path) as store:
        store.counter("hits").add()
        store.backup(tmp_path / "copy.db")
        store.counter("hits").add()
        os.replace(tmp_path / "copy.db", path)
        with pytest.raises(kvsync.StoreReplacedError), store.transaction():
            pass
    remove(Path(f"{path}-nothing"))
    shutil.rmtree(f"{path}-kvsync")


def test_the_folder_beside_the_file_comes_back_if_it_is_deleted(path: Path) -> None:
    """It holds nothing that cannot be made anew."""
    with kvsync.open(path) as store:
        store.counter("hits").add()
    shutil.rmtree(f"{path}-kvsync")
    with kvsync.open(path) as store:
        assert store.counter("hits").add() == 2
