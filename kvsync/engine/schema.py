"""kvsync's tables, and which versions of the library may use them.

`kvsync_meta` holds three numbers. `schema` is the version that made or last migrated the tables.
A newer library only ever adds to them, and raises `min_writer` or `min_reader` when an older one
would do harm, so that older workers keep running through a rolling deploy:

- `min_reader` above `VERSION`: the file is refused;
- `min_writer` above `VERSION`: it can be read, and every write is refused.
"""

import re
import sqlite3
from functools import cache
from typing import NamedTuple

from kvsync.errors import SchemaError

VERSION = 1

TABLES = """
create table kvsync_meta (
    key text primary key,
    value integer not null
) without rowid;

-- Values are text (JSON, raw str) or blobs. `expires` is wall time in seconds, null for never.
-- A row past it is as good as gone; whoever sets another TTL sweeps some of them up.
create table kvsync_dict (
    name text not null,
    key text not null,
    value blob not null,
    expires real,
    primary key (name, key)
) without rowid;
create index kvsync_dict_expires on kvsync_dict (name, expires) where expires is not null;

-- A counter on its own is a label of the family ''.
create table kvsync_counter (
    family text not null,
    label text not null,
    value bigint not null,
    primary key (family, label)
) without rowid;

-- A process that holds something or waits, as one store handle: see session.py. The doorbell that
-- proves its life is null where the system has none.
create table kvsync_session (
    id integer primary key autoincrement,
    doorbell text,
    device bigint,
    inode bigint,
    host text not null,
    boot text not null,
    clock text not null,
    pid_namespace bigint not null,
    time_namespace bigint not null,
    pid bigint not null,
    start_ticks bigint not null,
    start_stack bigint not null,
    command text not null,
    since real not null
);

-- Each boot has an epoch of fencing tokens, which is `synced` once it is sure to be on the disk,
-- and the largest token that was forgotten: see tokens.py.
create table kvsync_boot (
    boot text primary key,
    epoch bigint not null,
    synced bigint not null default 0,
    floor bigint not null default 0
);

-- Units of a named thing that somebody holds, or held: see primitives/grants.py. A row of session
-- 0 is free. `expires` and `claim_by` are on the session's boot clock. A grant with a `doorbell`
-- was handed over: it has what its `ticket` was, and the word of that was sent there.
create table kvsync_unit (
    space text not null,
    name text not null,
    slot bigint not null,
    token bigint not null,
    kind text not null,
    units bigint not null,
    capacity bigint not null,
    session bigint not null,
    attempt bigint not null,
    thread text not null,
    since real not null,
    expires real,
    claim_by real,
    ticket bigint,
    doorbell text,
    asked real,
    lease real,
    deadline real,
    primary key (space, name, slot)
) without rowid;
create view kvsync_grant as
    select token as id, space, name, kind, units, capacity, session, attempt, thread, since,
        expires, claim_by, ticket, doorbell
    from kvsync_unit where session <> 0;

-- A place in a line, first come first served: see waiting.py. `state` is 'waiting', 'passed' (it
-- did not claim what it was given, and is skipped until it stirs), or how its wait ended. Those of
-- a line lie side by side. An `id` is never used again, in no line: the last one is kept.
create table kvsync_ticket (
    space text not null,
    name text not null,
    id bigint not null,
    kind text not null,
    units bigint not null,
    capacity bigint not null,
    session bigint not null,
    attempt bigint not null,
    thread text not null,
    doorbell text,
    since real not null,
    lease real,
    deadline real,
    state text not null,
    token bigint,
    primary key (space, name, id)
) without rowid;
create table kvsync_last_ticket (
    id bigint not null
);
create trigger kvsync_count_ticket after insert on kvsync_ticket begin
    update kvsync_last_ticket set id = new.id where id < new.id;
end;

-- A lock changes hands in one statement, in which the ticket goes that it is handed over to. What
-- was given to a ticket otherwise is claimed in one.
create trigger kvsync_hand_over after update of asked on kvsync_unit begin
    delete from kvsync_ticket where space = new.space and name = new.name and id = new.ticket;
end;
create view kvsync_given as
    select held.space, held.name, held.slot, held.token, held.session, held.units, held.expires,
        line.id as ticket, line.lease
    from kvsync_ticket as line join kvsync_unit as held
    on held.space = line.space and held.name = line.name and held.ticket = line.id;
create trigger kvsync_claim instead of update on kvsync_given begin
    update kvsync_unit set claim_by = null, ticket = null, expires = new.expires
    where space = new.space and name = new.name and slot = new.slot;
    delete from kvsync_ticket where space = new.space and name = new.name and id = new.ticket;
end;

-- What a rate limiter has granted, as the moment when it would all have gone through at the steady
-- rate: see primitives/rate.py. `tat` and `reserved` are nanoseconds of the boot clock named by
-- `clock`, `fraction` is the rest of `tat` in 2**-32 nanoseconds, `wall` is `tat` in wall time.
create table kvsync_rate (
    name text primary key,
    clock text not null,
    tat bigint not null,
    fraction bigint not null,
    reserved bigint not null,
    wall real not null,
    attempt bigint not null
) without rowid;

-- What was done once: its result as JSON, its wall time, and the token under which it ran.
create table kvsync_once (
    name text primary key,
    value text not null,
    since real not null,
    token bigint not null
) without rowid;

-- An event that is set, and a barrier that is broken, since that wall time.
create table kvsync_event (
    name text primary key,
    since real not null
) without rowid;
create table kvsync_barrier (
    name text primary key,
    since real not null
) without rowid;

-- A ticket whose owner owes something to the others: see primitives/tickets.py.
create table kvsync_pledge (
    space text not null,
    name text not null,
    ticket bigint not null,
    primary key (space, name, ticket)
) without rowid;

-- Queues and their items: see primitives/items.py. `since`, `taken`, `due`, `mark` and `older` are
-- wall time, `until` and `claim_by` are on the boot clock of the session that has the item. What
-- most calls need of a queue is in its tally, a row before its items, of state -2: that is on the
-- page of the first of them, mostly, so that a commit that takes that one writes a single page.
create table kvsync_queue_past (
    name text primary key,
    purged bigint not null,
    mark_last bigint not null,
    mark_done bigint not null,
    older real not null,
    older_last bigint not null,
    older_done bigint not null
) without rowid;
create table kvsync_item (
    queue text not null,
    state bigint not null,
    place real not null,
    id bigint not null,
    priority real not null,
    value blob not null,
    key text,
    since real not null,
    attempts bigint not null,
    error text,
    due real,
    session bigint,
    attempt bigint,
    ticket bigint,
    max_attempts bigint,
    taken real,
    until real,
    claim_by real,
    maxsize bigint not null default 0,
    shut bigint not null default 0,
    last bigint not null default 0,
    size bigint not null default 0,
    got bigint not null default 0,
    receipts bigint not null default 0,
    mark real not null default 0,
    primary key (queue, state, place, id)
) without rowid;
create unique index kvsync_item_key on kvsync_item (queue, key)
    where key is not null and state between 0 and 1;

-- The tally of a queue, and all that is known of the queue. Items with ids above the `last` of the
-- tally's row are not counted there yet: they were put at place 0 without a write to it, and all of
-- them are there still; here they are. (`cross join` has SQLite go from queue to queue: tallies lie
-- among the items, and to look for them there is to read those.)
create view kvsync_tally as
    select queue, maxsize, shut, coalesce(newest, last) as last,
        size + coalesce(newest, last) - last as size, got, receipts, due, mark
    from (
        select *, (
            select max(id) from kvsync_item as uncounted
            where uncounted.queue = tally.queue and uncounted.state = 0 and uncounted.place = 0
            and uncounted.id > tally.last) as newest
        from kvsync_item as tally where state = -2) as tallies;
create view kvsync_queue as
    select name, maxsize, shut, last, size, got, purged, receipts, due, mark, mark_last, mark_done,
        older, older_last, older_done
    from kvsync_queue_past cross join kvsync_tally on queue = name;
create trigger kvsync_queue_make instead of insert on kvsync_queue begin
    insert into kvsync_queue_past (name, purged, mark_last, mark_done, older, older_last,
        older_done)
    values (new.name, new.purged, new.mark_last, new.mark_done, new.older, new.older_last,
        new.older_done)
    on conflict do nothing;
    insert into kvsync_item (queue, state, place, id, priority, value, since, attempts, maxsize,
        shut, last, size, got, receipts, due, mark)
    values (new.name, -2, 0, 0, 0, '', 0, 0, new.maxsize, new.shut, new.last, new.size, new.got,
        new.receipts, new.due, new.mark)
    on conflict do nothing;
end;
create trigger kvsync_queue_forget instead of delete on kvsync_queue begin
    delete from kvsync_item where queue = old.name and state = -2;
    delete from kvsync_queue_past where name = old.name;
end;

-- What is done most is one statement each, for the tally counts along: to insert into the first
-- puts an item, or gives it to a `ticket` under `receipt`; into the second hands one out, and takes
-- away the one that was handed out as `done`; into the third takes one away. What was given is
-- claimed by an insert into the last, for a while, or by a delete from it, for good.
create view kvsync_item_in as
    select queue, id, priority, value, since, place as receipt, ticket, session, attempt, claim_by,
        null as doorbell, null as behind
    from kvsync_item;
create trigger kvsync_item_put instead of insert on kvsync_item_in when new.ticket is null begin
    update kvsync_item set (last, size) = (
            select new.id, size + 1 from kvsync_tally where queue = new.queue)
    where queue = new.queue and state = -2;
    insert into kvsync_item (queue, state, place, id, priority, value, since, attempts)
    values (new.queue, 0, -new.priority, new.id, new.priority, new.value, new.since, 0);
end;
create trigger kvsync_item_give instead of insert on kvsync_item_in when new.ticket is not null
begin
    update kvsync_item set (last, size, receipts) = (
            select new.id, size, new.receipt from kvsync_tally where queue = new.queue)
    where queue = new.queue and state = -2;
    insert into kvsync_item (queue, state, place, id, priority, value, since, attempts, session,
        attempt, ticket, taken, claim_by)
    values (new.queue, -1, new.receipt, new.id, new.priority, new.value, new.since, 0, new.session,
        new.attempt, new.ticket, new.since, new.claim_by);
    update kvsync_ticket set state = 'granted', token = new.receipt
    where space = 'queue' and name = new.queue and id = new.ticket;
end;
create view kvsync_item_out as
    select queue, place, id, priority, value, key, since, attempts, error, session, attempt,
        max_attempts, taken, until, place as receipt, place as done, id as done_id
    from kvsync_item;
create trigger kvsync_item_hand_out instead of insert on kvsync_item_out begin
    update kvsync_item set state = -1, place = new.receipt, attempts = new.attempts,
        session = new.session, attempt = new.attempt, max_attempts = new.max_attempts,
        taken = new.taken, until = new.until
    where queue = new.queue and state = 0 and place = new.place and id = new.id;
    update kvsync_item set size = case when new.id > last then size else size - 1 end,
        last = case when new.id > last then new.id else last end, receipts = new.receipt
    where queue = new.queue and state = -2;
end;
create trigger kvsync_item_hand_on instead of insert on kvsync_item_out when new.done is not null
begin
    delete from kvsync_item
    where queue = new.queue and state = -1 and place = new.done and id = new.done_id;
end;
create view kvsync_item_got as
    select queue, place, id, priority, value, key, since, attempts, error from kvsync_item;
create trigger kvsync_item_get instead of insert on kvsync_item_got begin
    delete from kvsync_item
    where queue = new.queue and state = 0 and place = new.place and id = new.id;
    update kvsync_item set size = case when new.id > last then size else size - 1 end,
        last = case when new.id > last then new.id else last end, got = got + 1
    where queue = new.queue and state = -2;
end;
create view kvsync_item_given as
    select queue, place, item.id, priority, value, key, item.since, attempts, error, max_attempts,
        until, line.id as ticket
    from kvsync_ticket as line join kvsync_item as item
    on queue = name and item.state = -1 and place = line.token and ticket = line.id
    where space = 'queue' and claim_by is not null;
create trigger kvsync_item_claim instead of insert on kvsync_item_given begin
    update kvsync_item set claim_by = null, ticket = null, attempts = new.attempts,
        max_attempts = new.max_attempts, until = new.until
    where queue = new.queue and state = -1 and place = new.place and id = new.id;
    delete from kvsync_ticket where space = 'queue' and name = new.queue and id = new.ticket;
end;
create trigger kvsync_item_claim_for_good instead of delete on kvsync_item_given begin
    delete from kvsync_item
    where queue = old.queue and state = -1 and place = old.place and id = old.id;
    update kvsync_item set got = got + 1 where queue = old.queue and state = -2;
    delete from kvsync_ticket where space = 'queue' and name = old.queue and id = old.ticket;
end;
"""


_CREATE = r"create (?P<kind>table|view|trigger|index|unique index) (?P<rest>(?P<name>\w+)(?s:.*));"


class Versions(NamedTuple):
    schema: int
    min_reader: int
    min_writer: int


def versions(connection: sqlite3.Connection) -> Versions | None:
    """What the file says of its tables; None if it has none of kvsync's. Raises: SchemaError."""
    found = connection.execute(
        "select 1 from sqlite_schema where type = 'table' and name = 'kvsync_meta'"
    ).fetchall()
    if not found:
        return None
    try:
        meta = dict(connection.execute("select key, value from kvsync_meta").fetchall())
        versions = Versions(meta["schema"], meta["min_reader"], meta["min_writer"])
    except KeyError as error:
        raise SchemaError(f"its table kvsync_meta lacks the row {error}") from error
    except sqlite3.OperationalError as error:
        if getattr(error, "sqlite_errorcode", None) != sqlite3.SQLITE_ERROR:
            raise
        raise SchemaError(f"its table kvsync_meta is not kvsync's: {error}") from error
    if any(type(version) is not int for version in versions):
        raise SchemaError(f"its table kvsync_meta is not kvsync's: {versions}")
    _require_ours(connection, versions)
    return versions


def _require_ours(connection: sqlite3.Connection, versions: Versions) -> None:
    """Raises: SchemaError if a table is another's, or if writing to one would set something off.

    A view could run for ever, a trigger do anything. A newer library may have added to a table, but
    not changed a trigger.
    """
    rows = connection.execute(
        "select type, name, sql from sqlite_schema where tbl_name like 'kvsync\\_%' escape '\\'"
    ).fetchall()
    found = {name: sql for _, name, sql in rows}
    for name, sql in _declared().items():
        there = found.get(name)
        if there != sql and (versions.schema <= VERSION or not _has_same_kind(there, sql)):
            raise SchemaError(f"its {name} is not kvsync's")
    for type, name, sql in rows:
        if type == "trigger" and sql != _declared().get(name):
            raise SchemaError(f"its trigger {name!r} is not kvsync's")


def _has_same_kind(there: object, sql: str) -> bool:
    return isinstance(there, str) and there.split(" (")[0] == sql.split(" (", maxsplit=1)[0]


@cache
def _declared() -> dict[str, str]:
    """What SQLite's own table of tables says of ours: `create` and the kind in capitals."""
    found = [re.fullmatch(_CREATE, each) for each in _statements()]
    return {each["name"]: f"CREATE {each['kind'].upper()} {each['rest']}" for each in found if each}


def _statements() -> list[str]:
    """Those of `TABLES`; a trigger's has semicolons inside."""
    statements, begun = [], ""
    for line in TABLES.splitlines(keepends=True):
        begun += "" if line.startswith("--") else line
        if sqlite3.complete_statement(begun):
            statements.append(begun.strip())
            begun = ""
    return statements


def check(found: Versions, *, writing: bool) -> None:
    """Raises: SchemaError if this library is too old for these tables."""
    needed = found.min_writer if writing else found.min_reader
    if needed > VERSION:
        verb = "written" if writing else "read"
        raise SchemaError(
            f"its tables (schema {found.schema}) can be {verb} by schema {needed} and newer only;"
            f" this library has {VERSION}: upgrade kvsync"
        )


def create(connection: sqlite3.Connection) -> None:
    """Make the tables, all or none."""
    connection.execute("begin immediate")
    try:
        for statement in _statements():
            connection.execute(statement)
        connection.executemany(
            "insert into kvsync_meta (key, value) values (?, ?)",
            [("schema", VERSION), ("min_reader", 1), ("min_writer", 1)],
        )
        connection.execute("insert into kvsync_last_ticket (id) values (0)")
        connection.execute("commit")
    finally:
        if connection.in_transaction:
            connection.execute("rollback")
