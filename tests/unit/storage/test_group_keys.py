"""One key for several SAEs: each fetches its share once, whatever crashes, and nobody else ever does."""

import os
import shutil
import uuid

import pytest

from heliograph.errors import InsufficientKeys, KeyNotFound, NotPermitted, StoreUnavailable
from heliograph.kme import etsi014, etsi014_consumer, supply
from heliograph.kme.groups import SaeGroup
from heliograph.protocol.audience import audience_name
from heliograph.storage import local_keys
from heliograph.storage.database import Database
from heliograph.storage.keys import KeyRecords, NewKey
from heliograph.storage.local_keys import REMEMBERED_S, UNFETCHED_S, LocalKeys
from heliograph.storage.store_seal import StoreSeal
from heliograph.testing.anchor import MemoryAnchor
from heliograph.testing.clock import ManualClock
from heliograph.vault.filekek import FileKek
from heliograph.vault.randomness import SystemRandomness

GROUP = audience_name(["sae-b", "sae-c", "sae-l"])  # sae-l is at the master's site


def opened(directory):
    if not (directory / "kek").exists():
        FileKek.create(directory / "kek", SystemRandomness())
    database = Database(directory / "site" / "store.db", FileKek(directory / "kek", SystemRandomness()))
    return database, KeyRecords(database, SystemRandomness())


def add(store, number, *, here, block=1):
    database, keys = store
    shares = ("sae-l",) if here else ("sae-b", "sae-c")
    rows = [NewKey(str(uuid.uuid4()), "sae-a", GROUP, here, os.urandom(32), 100.0, shares) for _ in range(number)]
    with database.transaction() as cursor:
        keys.add(cursor, 1, block, rows)
        keys.acknowledge(cursor, 1, block)
    return rows


def slaves_can(store, saes, key_id):
    _, keys = store
    found = []
    for sae in saes:
        try:
            keys.check_held(sae, "sae-a", [key_id])
        except KeyNotFound:
            continue
        found.append(sae)
    return found


def rows_left(store):
    with store[0].reading() as cursor:
        return [cursor.execute(f"SELECT count(*) FROM {t}").fetchone()[0] for t in ("key_records", "key_shares")]


@pytest.fixture
def store(tmp_path):
    store = opened(tmp_path)
    yield store
    store[0].close()


def test_each_slave_fetches_a_groups_key_once_and_the_last_erases_it(store):
    (row,) = add(store, 1, here=False)
    keys = store[1]
    for sae in ("sae-c", "sae-b"):
        (key,) = keys.deliver_to_slave(sae, "sae-a", [row.key_id], 200.0)
        assert key.material == row.material
        with pytest.raises(KeyNotFound):
            keys.deliver_to_slave(sae, "sae-a", [row.key_id], 200.0)
    assert rows_left(store) == [0, 0]
    assert keys.known(row.key_id)


def test_a_slave_beside_the_master_waits_until_the_master_has_the_key(store):
    (row,) = add(store, 1, here=True)
    keys = store[1]
    with pytest.raises(KeyNotFound):
        keys.deliver_to_slave("sae-l", "sae-a", [row.key_id], 200.0)
    (key,) = keys.deliver_to_master("sae-a", GROUP, 1, 200.0)
    assert key.material == row.material
    with pytest.raises(InsufficientKeys):
        keys.deliver_to_master("sae-a", GROUP, 1, 200.0)
    (share,) = keys.deliver_to_slave("sae-l", "sae-a", [row.key_id], 200.0)
    assert share.material == row.material
    assert rows_left(store) == [0, 0]


def test_who_is_not_in_the_group_is_not_permitted_and_takes_nothing(store):
    (row,) = add(store, 1, here=False)
    for thief in ("sae-x", GROUP[:-1], "sae-"):
        with pytest.raises(NotPermitted):
            store[1].deliver_to_slave(thief, "sae-a", [row.key_id], 200.0)
    with pytest.raises(KeyNotFound):  # a member, but at the other site
        store[1].deliver_to_slave("sae-l", "sae-a", [row.key_id], 200.0)
    assert slaves_can(store, ["sae-b", "sae-c"], row.key_id) == ["sae-b", "sae-c"]


def test_a_groups_keys_are_no_pairs_keys(store):
    add(store, 2, here=True)
    for slave in ("sae-b", "sae-c", "sae-l"):
        with pytest.raises(InsufficientKeys):
            store[1].deliver_to_master("sae-a", slave, 1, 200.0)


def test_expiry_erases_shares_and_spares_those_just_released(store):
    rows = add(store, 2, here=True)
    store[1].deliver_to_master("sae-a", GROUP, 1, 200.0)
    assert store[1].expire(150.0, 200.0, grace=60.0) == 1
    assert slaves_can(store, ["sae-l"], rows[0].key_id) == ["sae-l"]
    assert store[1].expire(150.0, 200.0) == 1
    assert rows_left(store) == [0, 0]


def test_keys_of_one_site_are_stored_for_the_slaves_only(store):
    database, keys = store
    audience = audience_name(["sae-2", "sae-3"])
    issued = LocalKeys(database, keys, SystemRandomness()).issue("sae-a", audience, 3, 32, 100.0)
    assert len({key.material for key in issued}) == 3
    with pytest.raises(InsufficientKeys):
        keys.deliver_to_master("sae-a", audience, 1, 100.0)
    for key in issued:
        for sae in ("sae-3", "sae-2"):
            (share,) = keys.deliver_to_slave(sae, "sae-a", [key.key_id], 200.0)
            assert share.material == key.material
    assert rows_left(store) == [0, 0]


def test_one_slave_of_the_same_site_gets_the_one_copy(store):
    database, keys = store
    (key,) = LocalKeys(database, keys, SystemRandomness()).issue("sae-a", "sae-2", 1, 32, 100.0)
    assert keys.deliver_to_slave("sae-2", "sae-a", [key.key_id], 200.0)[0].material == key.material
    with pytest.raises(KeyNotFound):
        keys.deliver_to_slave("sae-2", "sae-a", [key.key_id], 200.0)


class PowerCuts:
    """Keeps what is on the disk before each statement of a store: what a power cut there would leave."""

    def __init__(self, directory, store):
        self.directory = directory
        self.images = []
        self.connection = store[0]._connection

    def __enter__(self):
        self.connection.set_trace_callback(self.cut)
        return self

    def __exit__(self, *_):
        self.connection.set_trace_callback(None)
        self.cut("after")

    def cut(self, _):
        image = self.directory / f"image-{len(self.images)}"
        shutil.copytree(self.directory / "site", image / "site")
        shutil.copy(self.directory / "kek", image / "kek")
        self.images.append(image)

    def each(self):
        for image in self.images:
            store = opened(image)
            yield store
            store[0].close()


def test_a_power_cut_at_any_step_of_a_share_keeps_it_or_has_burnt_it(tmp_path, store):
    (row,) = add(store, 1, here=False)
    for sae, others in (("sae-b", ["sae-c"]), ("sae-c", [])):
        (tmp_path / sae).mkdir()
        cuts = PowerCuts(tmp_path, store)
        with cuts:
            assert len(store[1].deliver_to_slave(sae, "sae-a", [row.key_id], 200.0)) == 1
        states = [slaves_can(image, [sae, *others], row.key_id) for image in cuts.each()]
        shutil.rmtree(tmp_path / "image-0")
        for image in cuts.images[1:]:
            shutil.rmtree(image)
        assert len(states) > 5
        # Nothing left before the method returned: either state is safe before, only "burnt" is after.
        assert states[0] == [sae, *others]
        assert states[-1] == others
        assert all(state in ([sae, *others], others) for state in states)


def test_a_power_cut_at_any_step_of_the_masters_delivery_never_serves_a_slave_alone(tmp_path, store):
    (row,) = add(store, 1, here=True)
    cuts = PowerCuts(tmp_path, store)
    with cuts:
        store[1].deliver_to_master("sae-a", GROUP, 1, 200.0)
    states = [
        (image[1].stored_key_count("sae-a", GROUP), slaves_can(image, ["sae-l"], row.key_id)) for image in cuts.each()
    ]
    assert len(states) > 5
    assert states[0] == (1, [])
    assert states[-1] == (0, ["sae-l"])
    assert set(map(str, states)) == {str((1, [])), str((0, ["sae-l"]))}


def test_a_power_cut_at_any_step_of_local_keys_leaves_all_shares_or_none(tmp_path, store):
    cuts = PowerCuts(tmp_path, store)
    with cuts:
        (key,) = LocalKeys(*store, SystemRandomness()).issue("sae-a", audience_name(["sae-2", "sae-3"]), 1, 32, 100.0)
    states = [slaves_can(image, ["sae-2", "sae-3"], key.key_id) for image in cuts.each()]
    assert states[0] == []
    assert states[-1] == ["sae-2", "sae-3"]
    assert all(state in ([], ["sae-2", "sae-3"]) for state in states)


def test_tombstones_of_a_sites_own_keys_go_after_a_day_and_no_key_with_them(store):
    database, keys = store
    local = LocalKeys(database, keys, SystemRandomness())
    old = local.issue("sae-a", "sae-2", 2, 32, 100.0)
    link = uuid.uuid4()
    with database.transaction() as cursor:
        keys.add(
            cursor,
            1,
            1,
            [NewKey(str(link), "sae-b", "sae-a", owner_here=False, material=os.urandom(32), created_at=100.0)],
        )
    keys.deliver_to_slave("sae-a", "sae-b", [str(link)], 100.0)
    keys.deliver_to_slave("sae-2", "sae-a", [old[0].key_id], 200.0)
    young = local.issue("sae-a", "sae-2", 1, 32, 300.0 + REMEMBERED_S)
    keys.deliver_to_slave("sae-2", "sae-a", [young[0].key_id], 300.0 + REMEMBERED_S)
    assert local.forget(200.0 + REMEMBERED_S) == 0  # not before its day is over
    assert local.forget(300.0 + REMEMBERED_S) == 1
    assert not keys.known(old[0].key_id)
    assert keys.known(young[0].key_id)
    assert keys.known(str(link))  # a link's stays
    # The one that nobody fetched is destroyed, its tombstone is there still, and neither is served again.
    assert keys.known(old[1].key_id)
    for gone in old:
        with pytest.raises(KeyNotFound):
            keys.deliver_to_slave("sae-2", "sae-a", [gone.key_id], 999_999.0)
    with database.reading() as cursor:
        plan = cursor.execute(
            "EXPLAIN QUERY PLAN SELECT chunk FROM key_chunks WHERE epoch = 4611686018427387905 AND segment IS NULL "
            "AND changed_at < 1"
        ).fetchall()
    assert "key_local_gone" in str(plan)  # a sweep does not read every tombstone of the site


@pytest.fixture
def few(monkeypatch):
    """Let a slave leave five keys, not thousands."""
    monkeypatch.setattr(local_keys, "LOCAL_UNFETCHED_MAX", 5)
    monkeypatch.setattr(supply, "LOCAL_UNFETCHED_MAX", 5)


@pytest.mark.usefixtures("few")
def test_a_slave_that_never_fetches_is_named_to_the_master_and_takes_no_key_from_the_others(store):
    database, keys = store
    local, audience = LocalKeys(database, keys, SystemRandomness()), audience_name(["sae-2", "sae-3"])
    issued = local.issue("sae-a", audience, 5, 32, 100.0)
    keys.deliver_to_slave("sae-2", "sae-a", [issued[0].key_id, issued[1].key_id], 100.0)
    with pytest.raises(InsufficientKeys, match="left are: sae-3 5, sae-2 3; let them fetch"):
        local.issue("sae-a", audience, 1, 32, 100.0)
    assert keys.unfetched("sae-a", audience) == {"sae-3": 5, "sae-2": 3}
    # Another group, and what was drawn before, are as ever; and one fetch makes room for one key.
    assert len(local.issue("sae-a", "sae-2", 5, 32, 100.0)) == 5
    assert keys.unfetched("sae-a", "sae-2") == {"sae-2": 5}
    assert keys.deliver_to_slave("sae-2", "sae-a", [issued[2].key_id], 100.0)[0].material == issued[2].material
    assert keys.deliver_to_slave("sae-3", "sae-a", [issued[4].key_id], 100.0)[0].material == issued[4].material
    assert len(local.issue("sae-a", audience, 1, 32, 100.0)) == 1


@pytest.mark.usefixtures("few")
def test_what_a_slave_never_fetched_is_destroyed_after_a_day_told_and_frees_its_group(store, caplog):
    database, keys = store
    local, audience = LocalKeys(database, keys, SystemRandomness()), audience_name(["sae-2", "sae-3"])
    issued = local.issue("sae-a", audience, 5, 32, 100.0)
    keys.deliver_to_slave("sae-2", "sae-a", [key.key_id for key in issued], 100.0)
    local.forget(100.0 + UNFETCHED_S)  # not before its day is over
    with pytest.raises(InsufficientKeys, match="left are: sae-3 5;"):
        local.issue("sae-a", audience, 1, 32, 100.0 + UNFETCHED_S)
    local.forget(101.0 + UNFETCHED_S)
    assert (
        "keys drawn for sae-a and its group were not fetched within 24 h by sae-3 5; they are destroyed" in caplog.text
    )
    with pytest.raises(KeyNotFound):
        keys.deliver_to_slave("sae-3", "sae-a", [issued[0].key_id], 101.0 + UNFETCHED_S)
    assert rows_left(store) == [0, 0]
    assert keys.unfetched("sae-a", audience) == {}
    assert len(local.issue("sae-a", audience, 5, 32, 101.0 + UNFETCHED_S)) == 5


@pytest.mark.usefixtures("few")
def test_the_masters_status_counts_what_it_can_have_and_names_who_has_left_how_many(store):
    database, keys = store
    local, audience = LocalKeys(database, keys, SystemRandomness()), audience_name(["sae-2", "sae-3"])
    here = frozenset({"sae-a", "sae-2", "sae-3"})
    kme = supply.Supply(
        keys,
        "kme-a",
        [],
        supply.Limits(),
        ManualClock(),
        groups=[SaeGroup("sae-a", ("sae-2", "sae-3"), here)],
        issue=local.issue,
    )
    assert kme.status("sae-a", "sae-2").stored_key_count == 5
    issued = local.issue("sae-a", audience, 4, 32, 100.0)
    keys.deliver_to_slave("sae-2", "sae-a", [key.key_id for key in issued], 100.0)
    told = kme.status("sae-a", "sae-2")
    assert (told.stored_key_count, told.unfetched) == (1, {"sae-3": 4})
    read = etsi014_consumer.read_status(etsi014.status_document(told))
    assert (read.stored_key_count, read.unfetched, read.stored_by_size) == (1, {"sae-3": 4}, {})
    assert kme.status("sae-2", "sae-a").unfetched == {}  # a slave learns nothing of the others


def test_the_issue_of_a_sites_own_keys_is_counted_in_the_anchor(tmp_path):
    """A copy of the store from before it is behind the anchor from then on (ADR 0020)."""
    kek = FileKek.create(tmp_path / "kek", SystemRandomness())
    database, anchor = Database(tmp_path / "site" / "store.db", kek), MemoryAnchor()
    seal = StoreSeal(database, anchor)
    seal.count()
    keys = KeyRecords(database, SystemRandomness(), seal)
    local = LocalKeys(database, keys, SystemRandomness())
    before = anchor.read()
    local.issue("sae-a", "sae-2", 3, 32, 100.0)
    assert anchor.read() > before
    with database.reading() as cursor:
        assert cursor.execute("SELECT runs FROM store_seal").fetchone()[0] == anchor.read()[0]

    def broken(_epoch, _block):
        raise StoreUnavailable("anchor: no space")

    anchor.advance = broken
    for _ in range(2):  # no key is told, nor are more burnt while it lasts
        with pytest.raises(StoreUnavailable):
            local.issue("sae-a", "sae-2", 1, 32, 100.0)
    assert keys.counts("sae-a", "sae-2").released == 4
    del anchor.advance
    local.issue("sae-a", "sae-2", 1, 32, 100.0)
    database.close()
