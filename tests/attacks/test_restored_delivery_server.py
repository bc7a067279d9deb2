"""A delivery server that is not the newest one: restored, cloned, promoted without the last deliveries."""

import sys
from pathlib import Path

import pytest

from heliograph.errors import InsufficientKeys, RollbackDetected, StoreUnavailable
from heliograph.storage.pg_reopen import destroy_server_keys, reopen_server
from heliograph.vault.anchor import FileAnchor

sys.path.insert(0, str(Path(__file__).parents[1] / "unit" / "storage"))
from delivery_stores import PostgresStore, owned, pairs

pytestmark = pytest.mark.slow


def attended(store):
    for front in store.fronts.values():
        front.attend()
    return store


def take(front, number=1):
    return front.keys.deliver_to_master("sae-a", "sae-b", number, 200.0)


def put_back(server, backup):
    server.stop()
    for path in sorted(server.data.rglob("*"), reverse=True):
        path.unlink() if not path.is_dir() or path.is_symlink() else path.rmdir()
    server.data.rmdir()
    backup.copy_to(server)
    server.start()


def backed_up(server, new_server):
    """Copy the running server: its sessions go on."""
    backup = new_server(create=False)
    server.base_backup(backup)
    return backup


def test_a_restored_server_serves_nobody_whoever_delivered_last(tmp_path, server, new_server):
    store = attended(PostgresStore(tmp_path, server, ("fe-1", "fe-2")))
    rows = store.add(1, owned(4))
    take(store.fronts["fe-2"])
    backup = backed_up(server, new_server)
    taken = take(store.fronts["fe-1"])  # only fe-1 delivers after the backup
    put_back(server, backup)
    # fe-2 has seen nothing that the copy has not: alone it could not tell.
    with pytest.raises(StoreUnavailable, match="waits for the front ends fe-1"):
        take(store.fronts["fe-2"])
    with pytest.raises(RollbackDetected, match="fe-1 remembers 2 uses, the server 1"):
        take(store.fronts["fe-1"])
    with pytest.raises(RollbackDetected, match="fenced"):
        take(store.fronts["fe-2"])
    # An operator destroys what may have been delivered; fresh blocks are served, and no key came twice.
    fe_1 = store.fronts["fe-1"]
    fe_1.close()
    assert reopen_server(store.link, store.kek, "fe-1", FileAnchor(tmp_path / "fe-1" / "anchor"), 200.0) == 3
    attended_again(store)
    fresh = store.add(2, owned(2))
    again = take(store.fronts["fe-1"]) + take(store.fronts["fe-2"])
    assert pairs(taken) == pairs(rows[1:2])
    assert pairs(again) == pairs(fresh)
    store.close()


def attended_again(store):
    store.close_fronts()
    for name in store.names:
        store.open(name)
    attended(store)


def test_a_copy_from_before_a_front_ends_first_delivery_serves_nobody(tmp_path, server, new_server):
    store = PostgresStore(tmp_path, server, ("fe-1", "fe-2"))
    store.add(1, owned(3))
    backup = backed_up(server, new_server)
    attended(store)
    take(store.fronts["fe-1"])
    put_back(server, backup)
    with pytest.raises(RollbackDetected, match="the server 0"):
        take(store.fronts["fe-1"])
    store.close()


def test_a_live_clone_beside_the_server_serves_nobody(tmp_path, server, new_server):
    store = attended(PostgresStore(tmp_path, server, ("fe-1", "fe-2")))
    store.add(1, owned(4))
    clone = backed_up(server, new_server)
    clone.start()
    store.fronts["fe-2"].close()
    lured = store.open("fe-2", clone)  # fe-2 is led to the clone, fe-1 stays
    with pytest.raises(StoreUnavailable, match="waits for the front ends fe-1"):
        take(lured)
    assert len(take(store.fronts["fe-1"], 2)) == 2
    lured.close()
    # Back at the server fe-2 is ahead of it: it said so to the clone, and nobody knows what else.
    store.open("fe-2")
    with pytest.raises(RollbackDetected, match="fe-2 remembers"):
        take(store.fronts["fe-2"])
    store.close()


def test_a_standby_that_lost_the_last_deliveries_serves_nobody(tmp_path, server, new_server):
    standby = new_server(create=False)
    server.base_backup(standby, "replica")
    standby.start()
    store = attended(PostgresStore(tmp_path, server, ("fe-1", "fe-2")))
    store.add(1, owned(5))
    take(store.fronts["fe-1"])
    caught_up(server)
    standby.stop()
    take(store.fronts["fe-1"], 2)  # nobody waits for the standby: it is not named
    server.kill()
    standby.start()
    standby.promote()
    store.close_fronts()
    fe_1, fe_2 = (store.open(name, standby) for name in store.names)
    with pytest.raises(StoreUnavailable, match="waits for the front ends fe-1"):
        take(fe_2)
    with pytest.raises(RollbackDetected, match="lost the last deliveries"):
        take(fe_1)
    store.close()


def caught_up(server, condition="replay_lsn >= pg_current_wal_lsn()"):
    with server.session() as session:
        for _ in range(50_000):
            found = session.execute(f"SELECT count(*) FROM pg_stat_replication WHERE {condition}").fetchone()
            if found[0]:
                return
    pytest.fail("the standby did not come")


def test_after_a_fail_over_to_the_named_standby_service_goes_on_and_no_key_comes_twice(tmp_path, server, new_server):
    standby = new_server(create=False)
    server.base_backup(standby, "replica")
    server.set("synchronous_standby_names = 'replica'")
    standby.start()
    server.reload()
    caught_up(server)
    store = attended(PostgresStore(tmp_path, server, ("fe-1", "fe-2"), standby="replica"))
    rows = store.add(1, owned(6))
    taken = [key for front in store.fronts.values() for key in take(front)]
    server.kill()
    # Two machines, each with one more standby to come: the promoted one names it, or says that it stands alone.
    standby.promote()
    store.close_fronts()
    fe_1, fe_2 = (store.open(name, standby) for name in store.names)
    with pytest.raises(StoreUnavailable, match="wait for the standby"):
        take(fe_1)
    store.close_fronts()
    store.entry = type(store.entry)(standby.conninfo())
    fe_1, fe_2 = (store.open(name) for name in store.names)
    fe_2.attend()
    taken += take(fe_1, 2)
    # What the standby never had are the blocks' keys on the dead server; each front end has its own.
    assert pairs(taken) == pairs(rows[:4])
    store.close()


def test_without_its_standby_nothing_is_handed_out_and_no_more_than_one_answer_is_burnt(tmp_path, server, new_server):
    standby = new_server(create=False)
    server.base_backup(standby, "replica")
    server.set("synchronous_standby_names = 'replica'")
    standby.start()
    server.reload()
    caught_up(server)
    store = attended(PostgresStore(tmp_path, server, standby="replica"))
    rows, front = store.add(1, owned(6)), store.fronts["fe-1"]
    take(front)
    standby.stop()
    front.server._commit_s = 0.3
    for _ in range(3):
        with pytest.raises(StoreUnavailable, match="nothing is handed out"):
            take(front)
    standby.start()
    caught_up(server, "sync_state = 'sync'")
    assert pairs(take(front, 4)) == pairs(rows[2:])
    with pytest.raises(InsufficientKeys):
        take(front)
    store.close()


def test_a_rolled_back_site_destroys_and_fences_its_server_too(tmp_path, server):
    store = attended(PostgresStore(tmp_path, server))
    store.add(1, owned(3))
    take(store.fronts["fe-1"])
    assert destroy_server_keys(store.link, "the site's own store turned out to be an old copy", 200.0) == 2
    with pytest.raises(InsufficientKeys):
        take(store.fronts["fe-1"])
    store.add(2, owned(1))
    with pytest.raises(RollbackDetected, match="the site's own store"):
        take(store.fronts["fe-1"])
    store.close()
