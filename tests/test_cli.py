"""The command `kvsync`, run as people and programs run it."""

import fcntl
import json
import os
import select
import shutil
import signal
import sqlite3
import struct
import subprocess
import sys
import termios
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import keyvalue_sqlite
import pytest

import kvsync
from tests.commands import run_command
from tests.processes import PATIENCE

KVSYNC = str(Path(sys.executable).with_name("kvsync"))

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run(path: Path, tmp_path: Path) -> Run:
    """Runs `kvsync`, with the test's store as the default one."""
    environment = os.environ | {"KVSYNC_STORE": str(path)}

    def run(
        *words: object, env: Mapping[str, str] = {}, input: str = ""
    ) -> subprocess.CompletedProcess[str]:
        return run_command([str(word) for word in words], environment | env, tmp_path, input)

    return run


def succeeded(done: subprocess.CompletedProcess[str]) -> str:
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def refused(done: subprocess.CompletedProcess[str], status: int, *words: str) -> None:
    """One line on stderr that holds `words`, nothing on stdout, this exit status."""
    assert (done.returncode, done.stdout) == (status, ""), done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith("kvsync: ")
    assert "Errno" not in line
    for word in words:
        assert word in line


@contextmanager
def on_terminal(
    *words: str, path: object, columns: int = 80, lines: int = 24
) -> Iterator[tuple[subprocess.Popen[bytes], Callable[[bytes], str]]]:
    """`kvsync` on a terminal of that size, and what returns all it shows up to a word.

    Up to its end, for the word b"".
    """
    ours, theirs = os.openpty()
    with open(ours, "rb", buffering=0) as screen:
        fcntl.ioctl(ours, termios.TIOCSWINSZ, struct.pack("4H", lines, columns, 0, 0))
        hidden = ("COLUMNS", "LINES", "KVSYNC_STORE")
        environment = {key: value for key, value in os.environ.items() if key not in hidden}
        child = subprocess.Popen(
            [KVSYNC, *words],
            env=environment | {"KVSYNC_STORE": str(path), "TERM": "dumb"},
            stdin=subprocess.DEVNULL,
            stdout=theirs,
            stderr=theirs,
        )
        os.close(theirs)

        def shown(word: bytes) -> str:
            seen = b""
            with suppress(OSError):  # its end, of a terminal
                while not word or word not in seen:
                    assert select.select([ours], [], [], PATIENCE)[0], "it hangs"
                    seen += screen.read(1 << 16)
            return seen.decode().replace("\r\n", "\n")

        with child:
            try:
                yield child, shown
            finally:
                child.kill()


# --- values ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "value", "printed"),
    [
        ("dark", "dark", "dark"),
        ('"dark"', "dark", "dark"),
        ("-5", -5, "-5"),
        ("-.5", "-.5", "-.5"),
        ('{"a": [1, null]}', {"a": [1, None]}, '{"a": [1, null]}'),
        ("NaN", "NaN", "NaN"),
        ("", "", ""),
        ("grün ☂", "grün ☂", "grün ☂"),
    ],
)
def test_a_value_is_json_or_else_text(
    run: Run, path: Path, written: str, value: Any, printed: str
) -> None:
    assert succeeded(run("set", "settings", "key", written)) == ""
    with kvsync.open(path) as store:
        assert store.dict("settings")["key"] == value
    assert succeeded(run("get", "settings", "key")) == printed + "\n"
    assert json.loads(succeeded(run("get", "settings", "key", "--json"))) == value


def test_a_value_can_come_from_stdin_and_have_a_ttl(run: Run, path: Path) -> None:
    succeeded(run("set", "d", "k", "-", "--ttl", "1000", input="a line\n"))
    with kvsync.open(path) as store:
        assert store.dict("d")["k"] == "a line"
        left = store.dict("d").ttl("k")
        assert left is not None
        assert 0 < left <= 1000


def test_what_other_codecs_wrote_is_shown_and_never_unpickled(
    run: Run, store: kvsync.Store
) -> None:
    store.dict("raw", codec="raw")["k"] = "{no json"
    store.dict("pickle", codec="pickle")["k"] = {1}
    assert succeeded(run("get", "raw", "k")) == "{no json\n"
    assert set(json.loads(succeeded(run("get", "pickle", "k", "--json")))) == {"base64"}
    assert "bytes>" in succeeded(run("ls", "pickle"))
    succeeded(run("del", "pickle", "k"))


def test_bytes_do_not_drive_the_terminal(run: Run, store: kvsync.Store) -> None:
    """A pipe gets them as they are."""
    store.dict("raw", codec="raw")["k"] = b"gr\xc3\xbcn\x1b[2J\xff\n\t"
    with on_terminal("get", "raw", "k", path=store.path) as (_, shown):
        assert shown(b"").startswith("grün\\x1b[2J\\xff\n")
    store.dict("raw", codec="raw")["k"] = b"\x1b[2J"
    assert succeeded(run("get", "raw", "k")) == "\x1b[2J"


def test_del_removes_a_key_once(run: Run, store: kvsync.Store) -> None:
    store.dict("d")["k"] = 1
    assert succeeded(run("del", "d", "k", "--json")) == "true\n"
    refused(run("del", "d", "k"), 1, "'d' has no key 'k'")
    refused(run("get", "d", "k"), 1, "'d' has no key 'k'")


def test_incr_adds_to_counters_and_labels(run: Run, store: kvsync.Store) -> None:
    assert succeeded(run("incr", "hits")) == "1\n"
    assert succeeded(run("incr", "hits", "-10")) == "-9\n"
    assert succeeded(run("incr", "http", "5", "--label", "GET /")) == "5\n"
    assert store.counter("hits").value == -9
    assert dict(store.counters("http")) == {"GET /": 5}


# --- options before and after the verb ---------------------------------------------------------


@pytest.mark.parametrize(
    "words",
    [
        ["--store", "STORE", "--json", "get", "d", "k"],
        ["get", "--store", "STORE", "--json", "d", "k"],
        ["get", "d", "k", "--json", "--store=STORE"],
        ["--store", "nowhere.db", "get", "d", "k", "--store", "sqlite:///STORE", "--json"],
    ],
)
def test_common_options_stand_before_or_after_the_verb(
    run: Run, tmp_path: Path, words: list[str]
) -> None:
    other = tmp_path / "other.db"
    with kvsync.open(other) as store:
        store.dict("d")["k"] = "v"
    named = [word.replace("STORE", str(other)) for word in words]
    assert succeeded(run(*named)) == '"v"\n'


def test_the_default_store_is_in_the_users_state_folder(run: Run, tmp_path: Path) -> None:
    succeeded(run("incr", "hits", env={"KVSYNC_STORE": "", "XDG_STATE_HOME": str(tmp_path)}))
    assert (tmp_path / "kvsync" / "store.db").exists()


def test_it_runs_as_a_module_too() -> None:
    command = [sys.executable, "-m", "kvsync", "--version"]
    out = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=True)
    assert out.stdout == f"kvsync {kvsync.__version__}\n"


@pytest.mark.parametrize("module", ["click", "rich", "platformdirs"])
def test_without_its_extra_it_says_what_to_install(module: str) -> None:
    code = (
        f"import sys; sys.modules[{module!r}] = None; from kvsync.cli import main;"
        " sys.exit(main(['ls']))"
    )
    environment = {key: value for key, value in os.environ.items() if key != "KVSYNC_STORE"}
    refused(
        subprocess.run(
            [sys.executable, "-c", code],
            env=environment,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        ),
        2,
        module,
        "install kvsync[cli]",
    )


# --- what is in it -----------------------------------------------------------------------------


@pytest.fixture
def full(store: kvsync.Store) -> kvsync.Store:
    store.dict("settings").update({"theme": "dark", "title": "x", "zoom": 2})
    store.counter("hits").add(3)
    store.counters("http").add_many({"GET /": 1, "POST /": 2})
    return store


@pytest.mark.usefixtures("full")
def test_ls_shows_what_is_there(run: Run) -> None:
    table = succeeded(run("ls"))
    for words in ("settings   3 entries", "hits       3", "http       2 labels"):
        assert words in table
    assert json.loads(succeeded(run("ls", "--json"))) == [
        {"kind": "dict", "name": "settings", "entries": 3},
        {"kind": "counter", "name": "hits", "value": 3},
        {"kind": "counters", "name": "http", "labels": 2},
    ]
    (only,) = json.loads(succeeded(run("ls", "dict", "--json")))
    assert only["name"] == "settings"


@pytest.mark.usefixtures("full")
def test_ls_of_names_lists_what_is_under_them(run: Run) -> None:
    table = succeeded(run("ls", "settings"))
    assert 'theme   "dark"' in table
    found = json.loads(succeeded(run("ls", "settings", "http", "hits", "--json")))
    assert [thing.get("items") for thing in found] == [
        {"theme": "dark", "title": "x", "zoom": 2},
        {"GET /": 1, "POST /": 2},
        None,
    ]
    some = json.loads(succeeded(run("ls", "settings", "--prefix=t", "--limit=1", "--json")))
    assert some[0]["items"] == {"theme": "dark"}


def test_in_a_pipe_one_long_value_does_not_make_the_other_rows_long(
    run: Run, store: kvsync.Store
) -> None:
    """It is there in full, wherever its column is."""
    store.dict("d").update({f"{n:03}": n for n in range(100)} | {"long": "x" * 200_000})
    store.queue("jobs").put_many([1, "y" * 200_000, 2], priority=3)
    for words, long in ((["ls", "d"], "x"), (["queue", "peek", "jobs"], "y")):
        table = succeeded(run(*words))
        assert len(table) < 220_000
        assert f'"{long * 200_000}"' in table
        lines = table.splitlines()
        assert [line for line in lines if line != line.rstrip()] == []
        assert sum(len(line) > 150 for line in lines) == 1
    headings, _, first, _, last = lines
    assert headings.split() == ["id", "item", "priority", "age"]
    place = headings.index("priority") + len("priorit")
    assert first[place] == last[place] == "3"


def test_ls_tells_a_name_from_a_kind(run: Run, store: kvsync.Store) -> None:
    store.dict("counter")["k"] = 1
    store.counter("counter").add(7)
    (thing,) = json.loads(succeeded(run("ls", "dict:counter", "--json")))
    assert thing["items"] == {"k": 1}
    refused(run("ls", "nothing"), 1, "nothing called 'nothing'")


def test_a_long_table_says_that_it_was_cut(run: Run, store: kvsync.Store) -> None:
    store.counters("many").add_many({f"{n:04}": n for n in range(1200)})
    done = run("ls", "many")
    assert done.returncode == 0
    assert "the first 1,000 of 1,200 labels" in done.stderr
    assert len(json.loads(succeeded(run("ls", "many", "--json")))[0]["items"]) == 1200


def test_what_a_store_holds_does_not_drive_the_terminal(run: Run, store: kvsync.Store) -> None:
    store.dict("\x1b[2J")["k\x9b31m\n"] = "[bold]\x1b[31m :smile:"
    for words in (["ls"], ["ls", "\x1b[2J"], ["ls", "\x1b[2J?"]):
        done = run(*words)
        assert not {"\x1b", "\x9b"} & set(done.stdout + done.stderr)
    assert "[bold]" in succeeded(run("ls", "\x1b[2J"))


@pytest.mark.usefixtures("full")
def test_stats_tells_sizes(run: Run, path: Path) -> None:
    found = json.loads(succeeded(run("--json", "stats")))
    assert found["path"] == str(path)
    assert (found["dicts"], found["counters"], found["journal_mode"]) == (1, 2, "wal")
    assert "journal mode   wal" in succeeded(run("stats"))


@pytest.mark.parametrize(
    "words", [["get", "d", "k"], ["ls"], ["stats"], ["doctor"], ["del", "d", "k"], ["backup", "b"]]
)
def test_a_store_that_is_not_there_is_not_made(run: Run, tmp_path: Path, words: list[str]) -> None:
    refused(run(*words), 2, "there is no store at", str(tmp_path))
    (tmp_path / "store.db").touch()
    refused(run(*words), 2, "there is no store at", "empty")
    assert [found.name for found in tmp_path.iterdir()] == ["store.db"]


@pytest.mark.parametrize("words", [["get", "d", "k"], ["ls"], ["stats"]])
def test_looking_at_a_foreign_database_adds_nothing_to_it(
    run: Run, path: Path, words: list[str]
) -> None:
    keyvalue_sqlite.KeyValueSqlite(str(path), "t").set("k", 1)
    before = path.read_bytes()
    refused(run(*words), 2, "no store of kvsync's")
    assert path.read_bytes() == before
    assert not Path(f"{path}-kvsync").exists()


def test_looking_goes_on_while_somebody_writes(run: Run, full: kvsync.Store) -> None:
    with full.transaction():
        full.counter("hits").add(39)
        assert "hits" in succeeded(run("ls"))
        assert succeeded(run("get", "settings", "zoom")) == "2\n"
        assert succeeded(run("doctor"))
        assert succeeded(run("stats"))
    assert full.counter("hits").value == 42


# --- doctor ------------------------------------------------------------------------------------


def checks(done: subprocess.CompletedProcess[str]) -> dict[str, tuple[str, str]]:
    assert done.stderr == ""
    return {c["name"]: (c["state"], c["sentence"]) for c in json.loads(done.stdout)["checks"]}


@pytest.mark.usefixtures("full")
def test_doctor_finds_a_healthy_store_healthy(run: Run) -> None:
    table = succeeded(run("doctor"))
    assert "WAL-reset bug" in table
    found = checks(run("doctor", "--json"))
    assert {state for state, _ in found.values()} == {"ok"}
    assert set(found) == {
        "SQLite",
        "file system",
        "hard links",
        "permissions",
        "journal mode",
        "tables",
        "sizes",
        "integrity",
        "sessions",
        "doorbells",
    }


def test_doctor_tells_of_doorbells_that_were_left_behind_and_removes_them(
    run: Run, store: kvsync.Store
) -> None:
    """If it is told to."""
    with store.lock("held"):
        for number in range(3):
            path = Path(store.path + "-kvsync", "doorbells", f"{number:024}")
            os.mkfifo(path, 0o600)
            os.utime(path, (0, 0))
        _, sentence = checks(run("doctor", "--json"))["doorbells"]
        assert sentence.startswith("3 of 5 were left behind by the dead.")
        _, sentence = checks(run("doctor", "--reap", "--json"))["doorbells"]
        assert sentence == "Removed 3 that the dead left behind."
        assert not path.exists()
        _, sentence = checks(run("doctor", "--json"))["doorbells"]
        assert sentence == "2, none of them left behind."


@pytest.mark.usefixtures("full")
def test_doctor_warns_of_rights_that_differ(run: Run, path: Path) -> None:
    Path(f"{path}-wal").chmod(0o644)
    done = run("doctor", "--json")
    assert done.returncode == 0
    state, sentence = checks(done)["permissions"]
    assert state == "warning"
    assert "store.db-wal is 644, not 600" in sentence


def test_doctor_warns_of_a_long_log(run: Run, store: kvsync.Store, path: Path) -> None:
    store.counter("hits").add()
    with closing(sqlite3.connect(path)) as reader:
        reader.execute("begin")
        reader.execute("select * from kvsync_counter").fetchall()  # so the log cannot be emptied
        for n in range(18):
            store.dict("d", codec="raw")[str(n)] = bytes(1 << 20)
        assert checks(run("doctor", "--json"))["sizes"][0] == "warning"


def test_doctor_finds_damage(run: Run, path: Path) -> None:
    with kvsync.open(path) as store:
        store.dict("d").update({f"{n:04}": "x" * 100 for n in range(1000)})
    with path.open("r+b") as file:
        file.seek(8 * 4096)
        file.write(b"\xa5" * 4096 * 4)
    done = run("doctor", "--json")
    assert done.returncode == 1
    assert checks(done)["integrity"][0] == "problem"


def test_doctor_finds_hard_links(run: Run, path: Path) -> None:
    with kvsync.open(path) as store:
        store.counter("hits").add()
    path.with_name("alias.db").hardlink_to(path)
    done = run("doctor", "--json")
    assert done.returncode == 1
    assert checks(done)["hard links"][0] == "problem"
    assert checks(done)["opening"][0] == "problem"


def test_doctor_tells_of_a_newer_schema(run: Run, full: kvsync.Store) -> None:
    full.engine.write("update kvsync_meta set value = 7 where key in ('schema', 'min_writer')")
    assert checks(run("doctor", "--json"))["tables"][0] == "warning"
    full.engine.write("update kvsync_meta set value = 7 where key = 'min_reader'")
    done = run("doctor", "--json")
    assert (done.returncode, checks(done)["tables"][0]) == (1, "problem")
    refused(run("ls"), 2, "upgrade kvsync")


def test_doctor_looks_at_a_foreign_file_without_holding_its_writers_up(
    run: Run, path: Path
) -> None:
    keyvalue_sqlite.KeyValueSqlite(str(path), "t").set("k", 1)
    found = checks(run("doctor", "--json"))
    assert found["journal mode"][0] == "warning"
    assert found["integrity"] == (
        "ok",
        "Not checked: without WAL mode, writers would have to wait for it.",
    )


# --- copies and conversions --------------------------------------------------------------------


def test_backup_copies_and_replaces(run: Run, full: kvsync.Store, tmp_path: Path) -> None:
    target = tmp_path / "copy.db"
    target.write_text("old")
    assert succeeded(run("backup", target)) == ""
    assert json.loads(succeeded(run("backup", target, "--json")))["path"] == str(target)
    with kvsync.open(target) as copy:
        assert copy.counter("hits").value == 3
    refused(run("backup", full.path), 2, "the store itself")
    refused(run("backup", tmp_path), 2, "is a directory")
    refused(run("backup", tmp_path / "none" / "copy.db"), 1, "No such file")


def test_adopt_sets_wal_mode_for_good(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "old.db"
    keyvalue_sqlite.KeyValueSqlite(str(file), "t").set("k", 1)
    assert "is in WAL mode, was in delete" in succeeded(run("adopt", file))
    assert "was in WAL mode already" in succeeded(run("adopt", file))
    assert json.loads(succeeded(run("adopt", file, "--json")))["before"] == "wal"
    with closing(sqlite3.connect(file)) as connection:
        assert connection.execute("pragma journal_mode").fetchall() == [("wal",)]
        assert connection.execute("select key from t").fetchall() == [("k",)]
    refused(run("adopt", tmp_path / "none.db"), 2, "there is no store at")
    assert not (tmp_path / "none.db").exists()


# --- errors ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "status", "sentence"),
    [
        (["nosuch"], 2, "No such command 'nosuch'"),
        (["get", "d"], 2, "Missing argument 'KEY'"),
        (["set", "d", "k", "v", "--tll", "3"], 2, "Did you mean '--ttl'"),
        (["set", "d", "k", "v", "--ttl", "0"], 2, "positive number of seconds"),
        (["set", "d", "k", "v", "--ttl", "nan"], 2, "positive number of seconds"),
        (["set", "d", "k", "[" * 100_000], 2, "nested too deeply"),
        (["set", "d", "k", "1e999"], 2, "cannot store this float"),
        (["set", "", "k", "v"], 2, "a name cannot be empty"),
        (["set", "d", b"\xff".decode(errors="surrogateescape"), "v"], 2, "lone surrogate"),
        (["incr", "hits", "x"], 2, "'x' is not a valid integer"),
        (["incr", "hits", str(2**63)], 1, "64 bits"),
        (["--store", "", "ls"], 2, "cannot open ''"),
        (["--store", ":memory:", "incr", "hits"], 2, "cannot open ':memory:'"),
        (["--store", "http://x/y", "ls"], 2, "cannot open"),
        (["--store", "/proc/no/store.db", "incr", "hits"], 2, "cannot open /proc/no/store.db"),
        (["--store", ".", "incr", "hits"], 2, "directory"),
    ],
)
def test_an_error_is_one_line_and_a_status(
    run: Run, words: list[str], status: int, sentence: str
) -> None:
    refused(run(*words), status, sentence)


def test_what_is_no_database_is_left_alone(run: Run, path: Path) -> None:
    path.write_text("no database, but words " * 10)
    for words in (["get", "d", "k"], ["set", "d", "k", "v"], ["ls"], ["adopt", path]):
        refused(run(*words), 2, "is no SQLite database")
    done = run("doctor", "--json")
    assert (done.returncode, checks(done)["opening"][0]) == (1, "problem")
    assert path.read_text() == "no database, but words " * 10


@pytest.mark.parametrize("words", [["get", "d", "k"], ["ls"], ["doctor"], ["incr", "hits"]])
def test_a_loop_of_links_cannot_be_opened(run: Run, path: Path, words: list[str]) -> None:
    """By whoever looks, as by whoever would make the store."""
    path.symlink_to(path)
    refused(run(*words), 2, f"cannot open {path}", "symbolic links")


@pytest.mark.parametrize("words", [["get", "d", "k"], ["ls"], ["backup", "b"], ["incr", "hits"]])
def test_what_is_no_file_is_called_that(run: Run, path: Path, words: list[str]) -> None:
    """And not an empty one."""
    os.mkfifo(path)
    refused(run(*words), 2, f"cannot open {path}: it is not a regular file")


def test_the_doctor_too_says_what_is_no_file(run: Run, path: Path) -> None:
    os.mkfifo(path)
    done = run("doctor", "--json")
    assert done.returncode == 1
    sentence = f"cannot open {path}: it is not a regular file"
    assert checks(done)["opening"] == ("problem", sentence)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_an_unwritable_folder_is_told_of(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "locked"
    folder.mkdir(mode=0o500)
    refused(run("incr", "hits", "--store", folder / "store.db"), 2, "no permission")


def test_help_is_told_for_both_of_its_names(run: Run) -> None:
    """Of the group, and of a verb."""
    for verb in ([], ["release"]):
        assert succeeded(run(*verb, "-h")) == succeeded(run(*verb, "--help"))
    assert "kvsync stress mutants" in succeeded(run("stress", "-h"))


def test_without_a_verb_it_explains_itself(run: Run) -> None:
    done = run()
    assert (done.returncode, done.stdout) == (2, "")
    assert "Commands:" in done.stderr


def test_a_reader_that_has_seen_enough_ends_it_quietly(store: kvsync.Store) -> None:
    store.counters("many").add_many({f"{n:05}": n for n in range(5000)})
    done = subprocess.run(
        [shutil.which("bash") or "bash", "-c", f"{KVSYNC} ls many --json | head -1"],
        env=os.environ | {"KVSYNC_STORE": store.path},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.splitlines()) == 1


def with_closed(descriptor: int, *words: str, path: object) -> subprocess.CompletedProcess[str]:
    """What becomes of `kvsync` where a daemon or cron has closed one of its standard streams."""
    return subprocess.run(
        ["sh", "-c", f'exec "$@" {descriptor}>&-', "sh", KVSYNC, *words],
        env=os.environ | {"KVSYNC_STORE": str(path), "PYTHONWARNINGS": "error"},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


@pytest.mark.parametrize(
    "words",
    [
        ["get", "raw", "k"],
        ["incr", "hits"],
        ["ls"],
        ["ls", "d", "--json"],
        ["doctor"],
        ["queue", "put", "jobs", "1"],
    ],
)
def test_who_has_closed_stdout_wants_to_see_nothing(
    store: kvsync.Store, path: Path, words: list[str]
) -> None:
    """And no failure behind what was committed, which would be done again."""
    store.dict("d")["k"] = 1
    store.dict("raw", codec="raw")["k"] = b"bytes"
    store.queue("jobs").put(0)
    assert succeeded(with_closed(1, *words, path=path)) == ""
    assert store.counter("hits").value == (words[0] == "incr")
    assert store.queue("jobs").stats().depth == 1 + ("put" in words)


def test_who_has_closed_stderr_hears_of_errors_by_the_exit_status(path: Path) -> None:
    """And what it wants to see comes."""
    assert with_closed(2, "get", "d", "k", path=path).returncode == 2
    assert with_closed(2, "incr", "hits", path=path).stdout == "1\n"


def test_the_commands_of_a_worker_whose_stdout_is_closed_print_into_nothing(
    store: kvsync.Store, path: Path
) -> None:
    """And into no file of the store, which could have got that descriptor."""
    store.queue("jobs").put(1)
    command = ["sh", "-c", "echo && [ /dev/null -ef /dev/fd/1 ]"]
    done = with_closed(1, "queue", "work", "jobs", "--drain", "--", *command, path=path)
    assert succeeded(done) == ""


@pytest.mark.parametrize(
    "words",
    [
        ["set", "d", "k", "-"],
        ["queue", "put", "jobs", "-"],
        ["queue", "put", "jobs", "--lines"],
    ],
)
def test_a_stdin_that_is_closed_is_not_an_empty_one(path: Path, words: list[str]) -> None:
    """Nothing is written."""
    refused(with_closed(0, *words, path=path), 2, "stdin is closed")
    with kvsync.open(path) as store:
        assert [*store.names("dict"), *store.names("queue")] == []


def test_without_a_stdin_nobody_answers(store: kvsync.Store, path: Path) -> None:
    """As where it is empty."""
    store.queue("jobs").put(1)
    done = with_closed(0, "queue", "purge", "jobs", path=path)
    assert (done.returncode, "say --yes" in done.stderr) == (2, True)
    assert store.queue("jobs").stats().depth == 1


def test_where_nobody_reads_the_error_the_status_tells(path: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "wb") as nobody:
        done = subprocess.run(
            [KVSYNC, "--store", str(path), "get", "d", "k"],
            stderr=nobody,
            timeout=PATIENCE,
            check=False,
        )
    assert done.returncode == 2


def test_an_interrupt_is_quiet(path: Path) -> None:
    with subprocess.Popen(
        [KVSYNC, "set", "d", "k", "-"],
        env=os.environ | {"KVSYNC_STORE": str(path), "PYTHONUNBUFFERED": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as child:
        assert child.stdin is not None
        child.stdin.write("x" * (1 << 20))  # more than a pipe holds: it reads, and waits for more
        child.send_signal(signal.SIGINT)
        out, errors = child.communicate(timeout=PATIENCE)
    assert (child.returncode, out, errors) == (130, "", "")
    assert not path.exists()
