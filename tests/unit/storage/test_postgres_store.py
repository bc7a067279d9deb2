"""The delivery server: hand-over, what it never learns, settings, front ends beside each other."""

import re
import signal
import socket
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

import pytest
from delivery_stores import PostgresStore, held, new, owned, pairs

from heliograph.errors import (
    ConfigurationError,
    HeliographError,
    InsufficientKeys,
    KeyNotFound,
    LocalProtocolError,
    RollbackDetected,
    StoreUnavailable,
)
from heliograph.lab.pg_faults import LOGGING
from heliograph.lab.ports import free_ports
from heliograph.protocol.audience import audience_name
from heliograph.site.clocks import WallClock
from heliograph.site.front_end import Tidier
from heliograph.storage.group_commit import run_group
from heliograph.storage.key_counts import KeyCounts
from heliograph.storage.outbox import require_nothing_under_way
from heliograph.storage.pg_keys import PgKeys
from heliograph.storage.pg_schema import create_schema
from heliograph.storage.pg_server import PgServer, ServerEntry, refuse_settings
from heliograph.vault.filekek import FileKek


@pytest.fixture
def two(tmp_path, postgres):
    """Give a store with two front ends that have both been heard."""
    store = PostgresStore(tmp_path, postgres, ("fe-1", "fe-2"))
    for front in store.fronts.values():
        front.attend()
    yield store
    store.close()


def take(front, number=1):
    return front.keys.deliver_to_master("sae-a", "sae-b", number, 200.0)


def disk(directory):
    return b"".join(path.read_bytes() for path in sorted(directory.rglob("*")) if path.is_file())


# -- the hand-over ---------------------------------------------------------------------------------------------------


def test_what_was_handed_over_before_a_crash_is_not_handed_over_again(two):
    """A crash after the server had them: the link's file still has the block."""
    rows = two.stored(1, owned(3))
    tables = ("key_segments", "key_chunks", "key_ciphertexts", "key_audiences")
    with two.database.reading() as cursor:
        before = {table: cursor.execute(f"SELECT * FROM {table}").fetchall() for table in tables}
    assert two.outbox.push() == 3
    taken = take(two.fronts["fe-1"], 2)
    with two.database.transaction() as cursor:
        for table, lines in before.items():
            cursor.execute(f"DELETE FROM {table}" if table != "key_segments" else "SELECT 1")
            places = ", ".join("?" * len(lines[0]))
            cursor.executemany(f"INSERT INTO {table} VALUES ({places})", lines)
    assert two.outbox.push() == 3
    taken += take(two.fronts["fe-2"])
    assert pairs(taken) == pairs(rows)
    with pytest.raises(InsufficientKeys):
        take(two.fronts["fe-2"])
    assert two.own.counts("sae-a", "sae-b") == KeyCounts()


PUSH_UNTIL_KILLED = """
import os, sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from delivery_stores import PostgresStore
from heliograph.vault.randomness import SystemRandomness
from heliograph.storage.database import Database
from heliograph.storage.keys import KeyRecords
from heliograph.storage.outbox import Outbox
from heliograph.storage.pg_server import PgServer, ServerEntry
from heliograph.vault.filekek import FileKek
directory = Path(sys.argv[2])
kek = FileKek(directory / "kek", SystemRandomness())
database = Database(directory / "site" / "store.db", kek)
keys, server = KeyRecords(database, SystemRandomness()), PgServer(ServerEntry(sys.argv[3]), None)
outbox = Outbox(database, keys, server, ("fe-1",), float)
os.write(1, b"begins\\n")
outbox.push()
"""


@pytest.mark.parametrize("after_ms", [0, 3, 10, 25])
def test_kill_9_during_the_hand_over_neither_loses_nor_repeats_a_key(tmp_path, postgres, after_ms):
    store = PostgresStore(tmp_path, postgres)
    rows = [row for block in range(1, 41) for row in store.stored(block, owned(4))]
    store.close_link()
    words = [sys.executable, "-c", PUSH_UNTIL_KILLED, str(Path(__file__).parent), str(tmp_path), postgres.conninfo()]
    program = subprocess.Popen(words, stdout=subprocess.PIPE)
    assert program.stdout.readline() == b"begins\n"
    with suppress(subprocess.TimeoutExpired):
        program.wait(after_ms / 1000)
    program.send_signal(signal.SIGKILL)
    program.wait()
    program.stdout.close()
    store.open_link()
    store.outbox.push()
    assert store.own.counts("sae-a", "sae-b") == KeyCounts()
    assert pairs(take(store.fronts["fe-1"], len(rows))) == pairs(rows)
    store.close()


def test_while_the_server_is_away_keys_stay_in_the_links_file(tmp_path, new_server):
    server = new_server()
    server.start()
    store = PostgresStore(tmp_path, server)
    server.stop()
    rows = store.stored(1, owned(2))
    with pytest.raises(StoreUnavailable, match="delivery server"):
        store.outbox.push()
    with pytest.raises(StoreUnavailable, match="delivery server"):
        take(store.fronts["fe-1"])
    assert store.own.counts("sae-a", "sae-b").deliverable == 2
    server.start()
    store.outbox.push()
    assert pairs(take(store.fronts["fe-1"], 2)) == pairs(rows)
    store.close()


def test_keys_handed_over_before_the_acknowledgement_wait_for_it(two):
    two.add(1, owned(2), acknowledged=False)
    with pytest.raises(InsufficientKeys):
        take(two.fronts["fe-1"])
    two.acknowledge(1)
    assert len(take(two.fronts["fe-1"], 2)) == 2


def test_a_front_end_ends_a_key_whose_time_is_over_while_the_process_of_the_link_is_away(two):
    now = WallClock().now()
    two.add(1, owned(2, created_at=now - 61.0) + held(1, created_at=now - 61.0) + held(1, created_at=now - 121.0))
    rows = two.add(2, owned(1, created_at=now))
    two.close_link()
    front = two.fronts["fe-1"]
    ttl_s = None
    tidier = Tidier(front.server, front.front_end, front.keys, lambda: ttl_s)
    tidier.once()
    assert front.keys.counts("sae-a", "sae-b").deliverable == 3
    ttl_s = 60.0
    tidier.once()  # as at its start, before its door opens
    assert pairs(take(front)) == pairs(rows)
    with pytest.raises(InsufficientKeys):
        take(front)
    assert front.keys.counts("sae-b", "sae-a").held == 1
    two.open_link()


def test_the_process_of_the_link_hands_out_no_key(two):
    two.add(1, owned(1))
    with pytest.raises(LocalProtocolError, match="front ends"):
        PgKeys(two.link).deliver_to_master("sae-a", "sae-b", 1, 200.0)
    assert two.keys.stored_key_count("sae-a", "sae-b") == 1


# -- what the server never learns, and what is left of a key that was delivered ---------------------------------------


def test_the_server_never_sees_a_key_and_its_log_never_sees_a_blocks_key(tmp_path, new_server):
    server = new_server()
    server.set("full_page_writes = on", "wal_compression = off")
    server.start()
    store = PostgresStore(tmp_path, server)
    rows = store.stored(1, owned(20))
    with store.database.reading() as cursor:
        (sealed,) = cursor.execute("SELECT sealed_key FROM key_segments").fetchone()
        ciphertexts = [row[0] for row in cursor.execute("SELECT ciphertext FROM key_records")]
    store.outbox.push()
    with server.session() as session:
        session.execute("CHECKPOINT")
        session.execute("UPDATE heliograph.store SET link_connected = true")
    server.stop()  # only now is an unlogged table written to its file
    log, everything = server.files("pg_wal"), server.files()
    assert all(one in log for one in ciphertexts)  # the search would see what is there
    assert sealed in everything
    assert sealed not in log
    assert not any(row.material[:16] in everything or row.material[16:] in everything for row in rows)
    server.start()
    # Delivered: what is left of it anywhere opens with nothing that anybody has.
    assert pairs(take(store.fronts["fe-1"], 20)) == pairs(rows)
    assert store.outbox.upkeep() == 0
    with server.session() as session:
        session.execute("CHECKPOINT")
    server.stop()
    store.close()
    assert sealed not in server.files()
    assert sealed not in disk(tmp_path)
    assert all(one in server.files("pg_wal") for one in ciphertexts)  # that much the log keeps, until it is recycled


def test_a_blocks_key_is_in_no_log_of_statements_whatever_the_server_logs(tmp_path, new_server):
    """As a parameter it would stand there for ever, and open what the log keeps of the block's ciphertexts."""
    server = new_server()
    server.set(*LOGGING)
    server.start()
    store = PostgresStore(tmp_path, server, ("fe-1", "fe-2"))
    store.stored(1, owned(2))
    with store.database.reading() as cursor:
        (sealed,) = cursor.execute("SELECT sealed_key FROM key_segments").fetchone()
    with server.session() as session:  # a statement that fails is logged with all there is to it
        session.execute(
            "CREATE FUNCTION heliograph.no() RETURNS trigger AS 'BEGIN RAISE EXCEPTION ''no''; END' LANGUAGE plpgsql"
        )
        session.execute(
            "CREATE TRIGGER no BEFORE INSERT ON heliograph.segment_keys FOR EACH ROW EXECUTE FUNCTION heliograph.no()"
        )
    with pytest.raises(StoreUnavailable, match="delivery server: no; try again"):
        store.outbox.push()
    with server.session() as session:
        session.execute("DROP TRIGGER no ON heliograph.segment_keys")
    assert store.outbox.push() == 2
    with store.link.transaction() as cursor:
        cursor.execute("TRUNCATE segment_keys")  # as after a crash: it is offered again
    assert store.outbox.upkeep() == 1
    assert len(take_with_all(store, 2)) == 2
    store.close()
    log = (server.directory / "log").read_bytes()
    assert b"COPY segment_keys" in log
    assert log.count(b"parameters: ") > 10  # they are logged
    assert sealed[:16].hex().encode() not in log.lower()


def take_with_all(store, number):
    for front in store.fronts.values():
        front.attend()
    return take(store.fronts["fe-1"], number)


def test_a_blocks_key_stays_with_the_link_until_every_front_end_has_it(two):
    two.add(1, owned(1) + held(1))
    take(two.fronts["fe-1"])
    assert two.outbox.upkeep() == 1  # fe-2 has not fetched it yet
    # The server crashed: what it holds of blocks' keys is in no log, and gone. The link offers it again.
    with two.link.transaction() as cursor:
        cursor.execute("TRUNCATE segment_keys")
    (row,) = held(1)
    two.add(2, [row])
    assert two.outbox.upkeep() == 2
    with two.fronts["fe-2"].server.transaction() as cursor:
        two.fronts["fe-2"].front_end.tidy(cursor)
    with two.fronts["fe-1"].server.transaction() as cursor:
        two.fronts["fe-1"].front_end.tidy(cursor)
    assert two.outbox.upkeep() == 0
    with two.link.reading() as cursor:
        assert cursor.execute("SELECT count(*) FROM segment_keys").fetchone() == (0,)
    got = two.fronts["fe-2"].keys.deliver_to_slave("sae-a", "sae-b", [row.key_id], 200.0)
    assert pairs(got) == pairs([row])


def test_a_front_end_without_the_blocks_key_takes_nothing(two):
    rows = two.add(1, owned(1) + held(1))
    with two.link.transaction() as cursor:
        cursor.execute("TRUNCATE segment_keys")
    with pytest.raises(InsufficientKeys):
        take(two.fronts["fe-1"])
    with pytest.raises(StoreUnavailable, match="has not reached"):
        two.fronts["fe-1"].keys.deliver_to_slave("sae-a", "sae-b", [rows[1].key_id], 200.0)
    two.outbox.upkeep()
    assert pairs(take(two.fronts["fe-1"])) == pairs(rows[:1])


def test_the_last_key_of_a_block_takes_the_blocks_key_with_it_at_every_front_end(two):
    two.add(1, owned(2))
    for front in two.fronts.values():
        take(front)
    fronts = [front.front_end for front in two.fronts.values()]
    assert [front.holds(1, 1) for front in fronts] == [True, False]  # fe-1 learns it when it tidies up
    with two.fronts["fe-1"].server.transaction() as cursor:
        assert fronts[0].tidy(cursor) == 1
    assert not fronts[0].holds(1, 1)


@pytest.mark.usefixtures("two")
def test_with_another_kek_the_server_is_refused(tmp_path, postgres):
    (tmp_path / "other").mkdir()
    other = FileKek.create(tmp_path / "other" / "kek", type("R", (), {"kind": "c", "draw": lambda _, n: bytes(n)})())
    server = PgServer(ServerEntry(postgres.conninfo()))
    with pytest.raises(StoreUnavailable, match="not the key-encryption key"):
        create_schema(server, other)
    server.close()


def test_an_ordinary_role_is_enough(tmp_path, postgres):
    with postgres.session() as session:
        session.execute("DROP ROLE IF EXISTS plain")
        session.execute("CREATE ROLE plain LOGIN")
        session.execute("GRANT CREATE ON DATABASE postgres TO plain")
    plain = type("Plain", (), {"conninfo": lambda _: postgres.conninfo(user="plain")})()
    store = PostgresStore(tmp_path, plain)
    rows = store.add(1, owned(2) + held(1))
    assert pairs(take(store.fronts["fe-1"], 2)) == pairs(rows[:2])
    assert store.outbox.upkeep() == 0
    store.close()
    with postgres.session() as session:
        session.execute("DROP SCHEMA heliograph CASCADE; DROP OWNED BY plain; DROP ROLE plain")


# -- what the server has to promise -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("found", "standby", "words"),
    [
        ("off/on/on/", None, "fsync = off"),
        ("on/off/on/", None, "full_page_writes = off"),
        ("on/on/off/", None, "synchronous_commit = off"),
        ("on/on/local/", None, "synchronous_commit = local"),
        ("on/on/remote_write/", None, "synchronous_commit = remote_write"),
        ("on/on/on/", "replica", "wait for the standby"),
        ("on/on/on/replica2", "replica", "wait for the standby"),
        ("on/on/on/*", "replica", "wait for the standby"),
        ("on/on/on/replica, other", "replica", "wait for the standby"),  # of two the first that is there
        ("on/on/on/FIRST 1 (replica, other)", "replica", "wait for the standby"),
        ("on/on/on/ANY 1 (replica, other)", "replica", "wait for the standby"),
        ("on/on/on/1 (replica, other", "replica", "wait for the standby"),
        ("on/on/on/", None, ""),
        ("on/on/remote_apply/", None, ""),
        ("on/on/on/replica", "replica", ""),
        ("on/on/on/FIRST 1 (replica)", "replica", ""),
        ("on/on/on/2 (other, replica)", "replica", ""),
        ('on/on/on/any 2 ("Replica", other)', "replica", ""),
    ],
)
def test_each_setting_that_could_bring_a_key_back_is_named(found, standby, words):
    reason = refuse_settings(found, standby)
    assert bool(reason) == bool(words)
    assert words in reason


@pytest.mark.parametrize("line", ["fsync = off", "full_page_writes = off", "synchronous_commit = off"])
def test_a_server_that_does_not_wait_for_its_disk_serves_nobody(tmp_path, new_server, line):
    server = new_server()
    server.start()
    store = PostgresStore(tmp_path, server)
    store.add(1, owned(2))
    take(store.fronts["fe-1"])
    server.set(line)
    server.stop()
    server.start()
    for use in (lambda: take(store.fronts["fe-1"]), store.outbox.upkeep):
        with pytest.raises(StoreUnavailable, match=line):
            use()
    store.close()


def test_a_setting_changed_under_a_running_front_end_stops_it_and_burns_nothing(tmp_path, new_server):
    server = new_server()
    server.start()
    store = PostgresStore(tmp_path, server)
    rows, front = store.add(1, owned(2)), store.fronts["fe-1"]
    take(front)
    for value in ("off", "on"):
        server.set(f"fsync = {value}")
        server.reload()
        assert any(shown(front, "fsync") == value for _ in range(50_000))
        if value == "off":
            with pytest.raises(StoreUnavailable, match="fsync = off"):
                take(front)
    assert pairs(take(front)) == pairs(rows[1:])
    store.close()


def shown(front, name):
    with front.server.reading() as cursor:
        return cursor.execute(f"SHOW {name}").fetchone()[0]


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ("host=/run/x password=secret", "a password stands in it"),
        ("host=db.example", "add sslmode=verify-full"),
        ("host=/run/x,db.example sslmode=require", "add sslmode=verify-full"),
        ("hostaddr=192.0.2.1", "add sslmode=verify-full"),
        ("dbname=heliograph", "write host="),
        ("host=/run/postgresql service=x", "no service="),
        ("no such words", "delivery"),
        ("nonsense=1", "nonsense"),
    ],
)
def test_where_the_server_is_is_refused_with_a_password_or_a_bare_network(words, reason):
    with pytest.raises(ConfigurationError, match=reason) as refused:
        ServerEntry(words).check()
    assert "secret" not in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_server_on_this_machine_or_proved_by_its_certificate_is_taken():
    for words in ("host=/run/postgresql", "host=127.0.0.1", "host=db.example sslmode=verify-full sslrootcert=ca"):
        ServerEntry(words).check()


# -- front ends beside each other -------------------------------------------------------------------------------------


def test_front_ends_never_give_one_key_twice(two):
    rows = two.add(1, owned(150)) + two.add(2, owned(150))
    seen, wrong = [], []

    def drain(front):
        while True:
            try:
                seen.extend(pairs(take(front, 3)))
            except InsufficientKeys:
                if front.keys.stored_key_count("sae-a", "sae-b") == 0:
                    return
            except HeliographError as why:
                wrong.append(why)
                return

    threads = [threading.Thread(target=drain, args=(front,)) for front in two.fronts.values()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert sorted(seen) == sorted(pairs(rows))
    runs = dict(runs_of(two))
    assert runs["fe-1"] + runs["fe-2"] == 2 + 100  # two openings, a hundred deliveries


def runs_of(store):
    with store.link.reading() as cursor:
        return cursor.execute("SELECT name, runs FROM front_ends").fetchall()


def test_a_share_is_fetched_once_whichever_front_end_is_asked(two):
    group = audience_name(["sae-b", "sae-c"])
    ids = [
        two.add(block, [new("sae-a", group, 100.0, here=False, shares=("sae-b", "sae-c"))])[0].key_id
        for block in range(1, 31)
    ]
    got, begin = [], threading.Barrier(2)

    def fetch(front):
        for key_id in ids:
            begin.wait()
            with suppress(KeyNotFound, StoreUnavailable):
                got.extend(pairs(front.keys.deliver_to_slave("sae-b", "sae-a", [key_id], 200.0)))

    threads = [threading.Thread(target=fetch, args=(front,)) for front in two.fronts.values()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(got) == len(set(got)) == len(ids)


def test_keys_that_another_front_end_is_handing_out_are_neither_taken_nor_waited_for(two):
    rows = two.add(1, owned(2) + held(1))
    one, other = two.fronts["fe-1"], two.fronts["fe-2"]
    seen = []

    def meanwhile(_):
        seen.extend(take(other))
        with pytest.raises(InsufficientKeys):
            take(other, 1)

    taken = one.keys.deliver_to_master("sae-a", "sae-b", 1, 200.0, accept=meanwhile)
    assert pairs(taken + seen) == pairs(rows[:2])

    def at_the_same_time(_):
        with pytest.raises(StoreUnavailable, match="another front end"):
            other.keys.deliver_to_slave("sae-a", "sae-b", [rows[2].key_id], 200.0)

    got = one.keys.deliver_to_slave("sae-a", "sae-b", [rows[2].key_id], 200.0, accept=at_the_same_time)
    assert pairs(got) == pairs(rows[2:])


def test_none_serves_before_every_listed_front_end_was_heard_in_this_run(tmp_path, postgres):
    store = PostgresStore(tmp_path, postgres, ("fe-1", "fe-2"))
    store.add(1, owned(1))
    with pytest.raises(StoreUnavailable, match="waits for the front ends fe-2"):
        take(store.fronts["fe-1"])
    store.fronts["fe-2"].attend()
    assert len(take(store.fronts["fe-1"])) == 1
    store.close()


def test_front_ends_with_different_lists_serve_nobody(tmp_path, postgres):
    store = PostgresStore(tmp_path, postgres, ("fe-1", "fe-2"))
    store.add(1, owned(1))
    store.fronts["fe-2"].attend()
    store.fronts["fe-1"].close()
    store.names = ("fe-1",)
    store.open("fe-1")
    take(store.fronts["fe-1"])  # to it alone nobody else is listed
    with pytest.raises(StoreUnavailable, match="another list"):
        take(store.fronts["fe-2"])
    store.close()


def test_an_anchor_that_cannot_be_written_burns_no_second_key(two, tmp_path):
    rows = two.add(1, owned(3))
    front = two.fronts["fe-1"]
    anchor = tmp_path / "fe-1" / "anchor"
    kept = anchor.rename(anchor.with_name("kept"))
    anchor.mkdir()
    for _ in range(3):
        with pytest.raises(StoreUnavailable, match="anchor"):
            take(front)
    anchor.rmdir()
    kept.rename(anchor)
    assert pairs(take(front, 2)) == pairs(rows[1:])


RESTORED = ("key_segments", "key_records", "key_tombstones", "front_ends", "attests", "segment_holders")


def test_rows_put_back_from_a_dump_under_a_running_front_end_hand_out_nothing_twice(two):
    two.add(1, owned(4))
    front, other = two.fronts["fe-1"], two.fronts["fe-2"]
    take(front)
    with two.link.transaction() as cursor:
        before = {table: cursor.execute(f"SELECT * FROM {table}").fetchall() for table in RESTORED}
    take(front, 2)
    with two.link.transaction() as cursor:
        cursor.execute(f"TRUNCATE {', '.join(RESTORED)}")
        for table in RESTORED:
            places = ", ".join(["%s"] * len(before[table][0]))
            cursor.executemany(f"INSERT INTO {table} VALUES ({places})", before[table])
    with pytest.raises(RollbackDetected, match="put back"):
        take(front)
    for one in (front, other):  # the first one has fenced it by now
        with pytest.raises((RollbackDetected, StoreUnavailable), match=r"old copy|fenced"):
            take(one)


def test_tables_put_back_from_a_dump_are_another_run_for_every_front_end(two):
    two.add(1, owned(4))
    taken = take(two.fronts["fe-1"])
    with two.link.transaction() as cursor:
        cursor.execute("CREATE TABLE fresh (LIKE store INCLUDING ALL)")
        cursor.execute("INSERT INTO fresh SELECT * FROM store")
        cursor.execute("DROP TABLE store")
        cursor.execute("ALTER TABLE fresh RENAME TO store")
    for name in ("fe-1", "fe-2"):
        with pytest.raises(RollbackDetected, match="put back"):
            take(two.fronts[name])
    with pytest.raises(StoreUnavailable, match="waits for the front ends fe-2"):
        take(two.fronts["fe-1"])
    with pytest.raises(InsufficientKeys):
        take(two.fronts["fe-2"], 9)  # it says that it is not ahead
    taken += take(two.fronts["fe-1"], 3)
    assert len({key.key_id for key in taken}) == 4


def test_a_second_move_buries_no_key_that_is_alive_in_the_server(two):
    rows = two.add(1, owned(3))
    take(two.fronts["fe-1"])
    two.outbox.push_tombstones()
    assert pairs(take(two.fronts["fe-1"], 2)) == pairs(rows[1:])


def test_a_site_without_the_server_does_not_start_half_way_through_a_hand_over(two):
    two.add(1, owned(2))
    require_nothing_under_way(two.database)
    two.stored(2, owned(2))
    two.link.close()  # the server is gone between the note and the hand-over
    with pytest.raises(StoreUnavailable):
        two.outbox.push()
    with pytest.raises(ConfigurationError, match=r"block 2 may be in the delivery server too"):
        require_nothing_under_way(two.database)


def test_a_front_end_that_lost_its_directory_is_refused(two, tmp_path):
    two.add(1, owned(3))
    for _ in range(2):
        two.fronts["fe-1"].close()
        (tmp_path / "fe-1" / "anchor").unlink()  # the first time as a crash leaves it between server and anchor
        two.open("fe-1")
        if count_runs(two) == 1:
            take(two.fronts["fe-1"])
    with pytest.raises(RollbackDetected, match="anchor is missing"):
        take(two.fronts["fe-1"])
    assert len(take(two.fronts["fe-2"])) == 1  # nobody else is touched


def count_runs(store):
    return dict(runs_of(store))["fe-1"]


def test_no_message_names_a_row(two):
    with pytest.raises(StoreUnavailable) as refused, two.link.transaction() as cursor:
        cursor.execute("INSERT INTO key_tombstones VALUES ('x', 'm', 's', 1, 1, 'f', 0), ('x', 'm', 's', 1, 1, 'f', 0)")
    words = r"delivery server: duplicate key value violates unique constraint \S+; try again"
    assert re.fullmatch(words, str(refused.value))


@pytest.mark.parametrize(
    ("code", "remedy"),
    [
        ("53100", "free space on the server's disk"),
        ("58030", "look into the server's log and at its disk"),
        ("57P01", "it is asked again by itself"),
        ("40001", "try again"),
    ],
)
def test_what_the_server_refuses_is_told_in_one_line_with_what_to_do(two, code, remedy):
    with pytest.raises(StoreUnavailable) as refused, two.link.transaction() as cursor:
        cursor.execute(f"DO $$ BEGIN RAISE EXCEPTION 'cannot' USING ERRCODE = '{code}', DETAIL = 'row'; END $$")
    assert str(refused.value).startswith("delivery server: cannot; ")
    assert str(refused.value).endswith(remedy)


def test_a_block_that_two_front_ends_empty_at_once_is_forgotten_all_the_same(two):
    rows = two.add(1, owned(2))
    one, other = two.fronts["fe-1"], two.fronts["fe-2"]
    # The second call runs while the first is not committed: each of the two sees the other's key in the block.
    taken = run_group(one.server, [lambda: take(one), lambda: take(other)])
    assert sorted(pairs(taken[0] + taken[1])) == sorted(pairs(rows))
    assert count(two, "key_segments") == 1
    for front in (one, other):
        with front.server.transaction() as cursor:
            front.front_end.tidy(cursor)
    assert count(two, "key_segments") == 0
    assert not one.front_end.holds(1, 1)
    assert not other.front_end.holds(1, 1)


def count(store, table):
    with store.link.reading() as cursor:
        return cursor.execute(f"SELECT count(*) FROM {table}").fetchone()[0]


def tidy(store):
    for front in store.fronts.values():
        with front.server.transaction() as cursor:
            front.front_end.tidy(cursor)


def test_a_block_that_one_front_end_cannot_open_is_handed_out_by_the_other(tmp_path, postgres):
    store = PostgresStore(tmp_path, postgres, names=("fe-1", "fe-2"))
    try:
        for front in store.fronts.values():
            front.attend()
        rows = store.add(1, owned(2))
        tidy(store)
        store.alter_block(1)
        with pytest.raises(StoreUnavailable, match="others hand its keys out"):
            store.keys.deliver_to_master("sae-a", "sae-b", 1, 200.0)
        with pytest.raises(InsufficientKeys):
            store.keys.deliver_to_master("sae-a", "sae-b", 1, 200.0)
        assert store.keys.damaged_count() == 0
        assert pairs(store.fronts["fe-2"].keys.deliver_to_master("sae-a", "sae-b", 2, 200.0)) == pairs(rows)
    finally:
        store.close()


@pytest.mark.parametrize("where", ["the server's copy", "the site's own file"])
def test_an_altered_key_of_a_block_on_its_way_does_not_keep_later_blocks_back(tmp_path, postgres, where):
    store = PostgresStore(tmp_path, postgres)
    try:
        store.stored(1, owned(2))
        if where == "the site's own file":
            with store.database.transaction() as cursor:
                cursor.execute("UPDATE key_segments SET sealed_key = zeroblob(61)")
        store.outbox.push()
        if where == "the server's copy":
            with store.link.transaction() as cursor:
                cursor.execute("UPDATE segment_keys SET sealed_key = %s", (bytes(61),))
        rows = store.add(2, owned(2))
        assert pairs(store.keys.deliver_to_master("sae-a", "sae-b", 2, 200.0)) == pairs(rows)
        store.outbox.upkeep()  # the link's process offers what it has once more
        damaged = 2 if where == "the site's own file" else 0
        assert store.keys.counts("sae-a", "sae-b") == KeyCounts(deliverable=2 - damaged, damaged=damaged)
        if not damaged:
            assert len(store.keys.deliver_to_master("sae-a", "sae-b", 2, 200.0)) == 2
    finally:
        store.close()


@pytest.mark.parametrize(("words", "unacknowledged_ms"), [("", 20_000), (" tcp_user_timeout=7000", 7_000)])
def test_a_server_that_vanishes_without_a_word_is_noticed_by_the_connection_itself(
    new_server, words, unacknowledged_ms
):
    """Else a front end would wait for minutes, or for an answer for hours; what the operator wrote goes before."""
    server, (port,) = new_server(), free_ports(1)
    server.set("listen_addresses = '127.0.0.1'", f"port = {port}")
    server.start()
    entry = ServerEntry(f"host=127.0.0.1 port={port} dbname=postgres user=heliograph{words}")
    session = PgServer(entry)
    try:
        with session.transaction() as cursor, socket.socket(fileno=cursor.connection.fileno()) as wire:
            found = [
                wire.getsockopt(socket.IPPROTO_TCP, option)
                for option in (socket.TCP_USER_TIMEOUT, socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
            ]
            wire.detach()
    finally:
        session.close()
    assert found == [unacknowledged_ms, 5, 5, 3]
