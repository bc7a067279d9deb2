"""What every store of keys for delivery promises, whichever it is: the same tests over both."""

import uuid
from concurrent.futures import ThreadPoolExecutor

import hypothesis.strategies as st
import pytest
from delivery_stores import METADATA, PostgresStore, SqliteStore, held, new, owned, pairs
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from heliograph.errors import (
    InsufficientKeys,
    KeyNotFound,
    KeySupplyError,
    LocalProtocolError,
    NotPermitted,
    StoreUnavailable,
)
from heliograph.protocol.audience import audience_name
from heliograph.storage.group_commit import run_group
from heliograph.storage.key_counts import KeyCounts

KINDS = ["sqlite", "postgres"]


@pytest.fixture(params=KINDS)
def store(request, tmp_path):
    if request.param == "sqlite":
        made = SqliteStore(tmp_path)
    else:
        made = PostgresStore(tmp_path, request.getfixturevalue("postgres"))
    yield made
    made.close()


def test_a_key_is_delivered_once_oldest_first_with_its_own_bytes(store):
    rows = store.add(1, owned(3)) + store.add(2, owned(3))
    taken = [key for number in (2, 3, 1) for key in store.keys.deliver_to_master("sae-a", "sae-b", number, 200.0)]
    assert pairs(taken) == pairs(rows)
    assert [key.block for key in taken] == [(1, 1)] * 3 + [(1, 2)] * 3
    assert {key.metadata for key in taken} == {METADATA}
    with pytest.raises(InsufficientKeys):
        store.keys.deliver_to_master("sae-a", "sae-b", 1, 200.0)
    assert sorted(store.keys.delivered_key_ids(owner_here=True)) == sorted(row.key_id for row in rows)
    assert store.keys.delivered_counts() == (6, 0)
    assert store.keys.metadata(1, 1) is None


def test_too_few_keys_burn_none(store):
    rows = store.add(1, owned(3))
    with pytest.raises(InsufficientKeys, match="4 asked for, 3 stored"):
        store.keys.deliver_to_master("sae-a", "sae-b", 4, 200.0)
    with pytest.raises(InsufficientKeys, match="3 asked for, 2 stored"):
        store.keys.deliver_to_master("sae-a", "sae-b", 3, 200.0, keep=1)
    with pytest.raises(KeySupplyError, match="at least one"):
        store.keys.deliver_to_master("sae-a", "sae-b", 0, 200.0)
    assert pairs(store.keys.deliver_to_master("sae-a", "sae-b", 3, 200.0)) == pairs(rows)


def test_a_key_the_peer_has_not_acknowledged_is_not_delivered(store):
    rows = store.add(1, owned(2), acknowledged=False)
    assert store.keys.counts("sae-a", "sae-b") == KeyCounts(pending=2)
    with pytest.raises(InsufficientKeys):
        store.keys.deliver_to_master("sae-a", "sae-b", 1, 200.0)
    store.acknowledge(1)
    assert store.keys.stored_key_count("sae-a", "sae-b") == 2
    assert pairs(store.keys.deliver_to_master("sae-a", "sae-b", 2, 200.0)) == pairs(rows)


def test_keys_of_one_pair_never_serve_another_nor_the_other_direction(store):
    store.add(1, owned(2) + held(2, master="sae-a", slave="sae-c"))
    for master, slave in (("sae-b", "sae-a"), ("sae-a", "sae-c"), ("sae-c", "sae-b")):
        with pytest.raises(InsufficientKeys):
            store.keys.deliver_to_master(master, slave, 1, 200.0)


def test_the_slave_gets_the_named_keys_in_the_order_asked(store):
    rows = store.add(1, held(4))
    wanted = [rows[2], rows[0], rows[3]]
    ids = [row.key_id for row in wanted]
    store.keys.check_held("sae-a", "sae-b", ids)
    assert pairs(store.keys.deliver_to_slave("sae-a", "sae-b", ids, 200.0)) == pairs(wanted)
    assert store.keys.counts("sae-b", "sae-a") == KeyCounts(held=1)
    with pytest.raises(KeyNotFound):
        store.keys.check_held("sae-a", "sae-b", ids)


@pytest.mark.parametrize("case", ["unknown", "delivered", "expired", "other master", "owned here"])
def test_one_bad_key_id_burns_none(store, case):
    rows = store.add(1, held(3))
    bad = {
        "unknown": str(uuid.uuid4()),
        "delivered": rows[2].key_id,
        "expired": store.add(2, held(1, created_at=1.0))[0].key_id,
        "other master": store.add(3, held(1, master="sae-z"))[0].key_id,
        "owned here": store.add(4, [new("sae-b", "sae-a", 100.0, here=True)])[0].key_id,
    }[case]
    store.keys.deliver_to_slave("sae-a", "sae-b", [rows[2].key_id], 200.0)
    store.keys.expire(50.0, 200.0)
    with pytest.raises(KeyNotFound, match="one or more keys specified are not found on KME"):
        store.keys.deliver_to_slave("sae-a", "sae-b", [rows[0].key_id, bad], 200.0)
    first = [row.key_id for row in rows[:2]]
    assert pairs(store.keys.deliver_to_slave("sae-a", "sae-b", first, 200.0)) == pairs(rows[:2])


def test_a_key_of_another_slave_is_not_permitted_also_when_it_is_gone(store):
    rows = store.add(1, held(1) + held(1, slave="sae-x"))
    both = [row.key_id for row in rows]
    with pytest.raises(NotPermitted):
        store.keys.deliver_to_slave("sae-a", "sae-b", both, 200.0)
    assert pairs(store.keys.deliver_to_slave("sae-x", "sae-b", both[1:], 200.0)) == pairs(rows[1:])
    with pytest.raises(NotPermitted):
        store.keys.deliver_to_slave("sae-a", "sae-b", both, 200.0)
    with pytest.raises(KeySupplyError, match="each only once"):
        store.keys.deliver_to_slave("sae-a", "sae-b", both[:1] * 2, 200.0)
    assert pairs(store.keys.deliver_to_slave("sae-a", "sae-b", both[:1], 200.0)) == pairs(rows[:1])


def test_who_refuses_the_keys_leaves_them(store):
    def refuse(_):
        raise KeySupplyError("not these")

    rows = store.add(1, owned(2) + held(1))
    with pytest.raises(KeySupplyError, match="not these"):
        store.keys.deliver_to_master("sae-a", "sae-b", 1, 200.0, accept=refuse)
    with pytest.raises(KeySupplyError, match="not these"):
        store.keys.deliver_to_slave("sae-a", "sae-b", [rows[2].key_id], 200.0, accept=refuse)
    assert store.keys.counts("sae-a", "sae-b").deliverable == 2
    assert store.keys.counts("sae-b", "sae-a").held == 1


def test_each_slave_of_a_group_fetches_its_share_once_and_then_the_key_is_gone(store):
    group = audience_name(["sae-b", "sae-c"])
    (row,) = store.add(1, [new("sae-a", group, 100.0, here=False, shares=("sae-b", "sae-c"))])
    for slave in ("sae-b", "sae-c"):
        assert pairs(store.keys.deliver_to_slave(slave, "sae-a", [row.key_id], 200.0)) == pairs([row])
        with pytest.raises(KeyNotFound):
            store.keys.deliver_to_slave(slave, "sae-a", [row.key_id], 200.0)
    assert store.keys.metadata(1, 1) is None
    with pytest.raises(NotPermitted):
        store.keys.deliver_to_slave("sae-d", "sae-a", [row.key_id], 200.0)


def test_slaves_beside_the_master_get_their_shares_after_it(store):
    group = audience_name(["sae-b", "sae-a2"])
    (row,) = store.add(1, [new("sae-a", group, 100.0, here=True, shares=("sae-a2",))])
    with pytest.raises(KeyNotFound):
        store.keys.deliver_to_slave("sae-a2", "sae-a", [row.key_id], 200.0)
    assert pairs(store.keys.deliver_to_master("sae-a", group, 1, 200.0)) == pairs([row])
    assert store.keys.counts("sae-a", group) == KeyCounts(released=1)
    assert pairs(store.keys.deliver_to_slave("sae-a2", "sae-a", [row.key_id], 200.0)) == pairs([row])
    assert store.keys.counts("sae-a", group) == KeyCounts()


def test_a_delivered_key_is_gone_after_a_restart_and_the_others_are_not(store):
    rows = store.add(1, owned(4)) + store.add(2, held(2))
    store.keys.deliver_to_master("sae-a", "sae-b", 2, 200.0)
    store.keys.deliver_to_slave("sae-a", "sae-b", [rows[4].key_id], 200.0)
    store.reopen()
    assert pairs(store.keys.deliver_to_master("sae-a", "sae-b", 2, 201.0)) == pairs(rows[2:4])
    with pytest.raises(KeyNotFound):
        store.keys.deliver_to_slave("sae-a", "sae-b", [rows[4].key_id], 201.0)
    assert pairs(store.keys.deliver_to_slave("sae-a", "sae-b", [rows[5].key_id], 201.0)) == pairs(rows[5:])


def test_an_altered_key_is_set_aside_and_the_next_ones_are_served(store):
    rows = store.add(1, owned(3))
    store.alter(rows[0].key_id)
    with pytest.raises(StoreUnavailable, match=rows[0].key_id):
        store.keys.deliver_to_master("sae-a", "sae-b", 2, 200.0)
    assert store.keys.counts("sae-a", "sae-b") == KeyCounts(deliverable=2, damaged=1)
    assert pairs(store.keys.deliver_to_master("sae-a", "sae-b", 2, 200.0)) == pairs(rows[1:])


def test_keys_whose_names_were_cut_are_set_aside_and_counted_as_such_and_the_next_ones_are_served(store):
    """Counted as deliverable, they would be promised for ever: no key of them can be opened, nor named by a slave."""
    store.add(1, owned(3))
    rows = store.add(2, owned(2))
    store.cut_names(1)
    for _ in range(3):  # a row at a time in a server, a chunk at a time in a file
        if store.keys.counts("sae-a", "sae-b").damaged < 3:
            with pytest.raises(StoreUnavailable, match="altered in the store; it is set aside"):
                store.keys.deliver_to_master("sae-a", "sae-b", 1, 200.0)
    assert store.keys.counts("sae-a", "sae-b") == KeyCounts(deliverable=2, damaged=3)
    assert store.keys.damaged_count() == 3
    assert pairs(store.keys.deliver_to_master("sae-a", "sae-b", 2, 200.0)) == pairs(rows)
    store.reopen()
    assert store.keys.counts("sae-a", "sae-b") == KeyCounts(damaged=3)
    with pytest.raises(InsufficientKeys, match="0 stored"):
        store.keys.deliver_to_master("sae-a", "sae-b", 1, 200.0)
    assert store.discard(1) == 3
    assert store.keys.damaged_count() == 0


def collected(store):
    """Let a front end fetch the keys of blocks; a site's own file has them."""
    for front in getattr(store, "fronts", {}).values():
        with front.server.transaction() as cursor:
            front.front_end.tidy(cursor)


def test_a_block_whose_own_key_does_not_open_is_set_aside_whole_and_later_keys_flow(store):
    lost = store.add(1, owned(3) + held(2))
    rows = store.add(2, owned(2) + held(1))
    collected(store)
    store.alter_block(1)
    with pytest.raises(StoreUnavailable, match="block 1 of epoch 1"):
        store.keys.deliver_to_master("sae-a", "sae-b", 1, 200.0)
    assert store.keys.counts("sae-a", "sae-b") == KeyCounts(deliverable=2, damaged=3)
    assert store.keys.counts("sae-b", "sae-a") == KeyCounts(held=1, damaged=2)
    assert store.keys.damaged_count() == 5
    assert pairs(store.keys.deliver_to_master("sae-a", "sae-b", 2, 200.0)) == pairs(rows[:2])
    assert pairs(store.keys.deliver_to_slave("sae-a", "sae-b", [rows[2].key_id], 200.0)) == pairs(rows[2:])
    # What the peer may still hand out of that block is refused here, and no key of it leaves by the other way.
    for row in lost:
        with pytest.raises((KeyNotFound, NotPermitted)):
            store.keys.deliver_to_slave("sae-a", "sae-b", [row.key_id], 200.0)
    store.reopen()
    with pytest.raises(InsufficientKeys):
        store.keys.deliver_to_master("sae-a", "sae-b", 1, 200.0)
    assert store.discard(1) == 5  # and an operator, or expiry, is rid of them as of others
    assert store.keys.damaged_count() == 0


def test_the_slaves_request_sets_such_a_block_aside_too(store):
    rows = store.add(1, held(2) + owned(1))
    fine = store.add(2, owned(1))
    collected(store)
    store.alter_block(1)
    with pytest.raises(StoreUnavailable, match="block 1 of epoch 1"):
        store.keys.deliver_to_slave("sae-a", "sae-b", [rows[1].key_id], 200.0)
    with pytest.raises(KeyNotFound):
        store.keys.deliver_to_slave("sae-a", "sae-b", [rows[0].key_id], 200.0)
    assert pairs(store.keys.deliver_to_master("sae-a", "sae-b", 1, 200.0)) == pairs(fine)


def test_a_block_and_a_key_id_are_stored_once(store):
    rows = store.add(1, owned(1))
    store.keys.deliver_to_master("sae-a", "sae-b", 1, 200.0)
    with pytest.raises(LocalProtocolError, match="used before"):
        store.add(2, rows)
    assert store.keys.known(rows[0].key_id)
    assert not store.keys.known(str(uuid.uuid4()))


def test_expiry_keeps_the_slaves_copy_longer_than_the_masters(store):
    mine = store.add(1, owned(1, created_at=100.0))
    theirs = store.add(2, held(1, created_at=100.0))
    assert store.keys.expire(before=110.0, now=200.0, grace=30.0) == 1
    with pytest.raises(InsufficientKeys):
        store.keys.deliver_to_master("sae-a", "sae-b", 1, 200.0)
    assert pairs(store.keys.deliver_to_slave("sae-a", "sae-b", [theirs[0].key_id], 200.0)) == pairs(theirs)
    assert store.keys.known(mine[0].key_id)
    assert store.keys.delivered_key_ids(owner_here=True) == []
    assert store.keys.expire(float("inf"), 200.0) == 0


def test_a_key_stamped_further_ahead_than_a_key_may_live_is_erased_since_the_clock_was_set_back(store):
    """Stamped ahead of now by more than a key may live: how old it is nobody knows, so it goes."""
    store.add(1, owned(1, created_at=1_000_000.0) + held(1, created_at=1_000_000.0))
    rows = store.add(2, owned(1, created_at=290.0) + held(1, created_at=290.0))
    assert store.keys.expire(before=100.0, now=200.0, grace=100.0) == 2
    assert store.keys.expire(before=100.0, now=200.0, grace=100.0) == 0
    assert pairs(store.keys.deliver_to_master("sae-a", "sae-b", 1, 200.0)) == pairs(rows[:1])
    with pytest.raises(InsufficientKeys):
        store.keys.deliver_to_master("sae-a", "sae-b", 1, 200.0)
    assert store.keys.counts("sae-b", "sae-a").held == 1


def test_younger_keys_can_be_asked_for(store):
    store.add(1, owned(2, created_at=100.0))
    young = store.add(2, owned(1, created_at=150.0))
    assert pairs(store.keys.deliver_to_master("sae-a", "sae-b", 1, 200.0, since=140.0)) == pairs(young)


def test_the_newest_keys_stay_when_nobody_fetches_them(store):
    rows = store.add(1, owned(3)) + store.add(2, owned(3))
    assert store.keys.trim("sae-a", "sae-b", owner_here=True, keep=2, now=200.0) == 4
    assert store.keys.trim("sae-a", "sae-b", owner_here=False, keep=0, now=200.0) == 0
    assert pairs(store.keys.deliver_to_master("sae-a", "sae-b", 2, 200.0)) == pairs(rows[4:])


def test_a_discarded_block_is_gone(store):
    store.add(1, owned(3))
    assert store.discard(1) == 3
    with pytest.raises(InsufficientKeys):
        store.keys.deliver_to_master("sae-a", "sae-b", 1, 200.0)


def test_threads_never_get_the_same_key(store):
    rows = store.add(1, owned(120))
    with ThreadPoolExecutor(8) as pool:
        taken = list(pool.map(lambda _: store.keys.deliver_to_master("sae-a", "sae-b", 2, 200.0), range(60)))
    assert sorted(pairs(key for keys in taken for key in keys)) == sorted(pairs(rows))


def test_requests_that_commit_together_are_each_all_or_none(store):
    rows = store.add(1, owned(4))
    take = lambda number: lambda: store.keys.deliver_to_master("sae-a", "sae-b", number, 200.0)  # noqa: E731
    first, refused, second = run_group(store.group(), [take(1), take(9), take(2)])
    assert pairs(first + second) == pairs(rows[:3])
    assert isinstance(refused, InsufficientKeys)
    store.reopen()
    assert pairs(store.keys.deliver_to_master("sae-a", "sae-b", 1, 200.0)) == pairs(rows[3:])


def test_each_size_of_a_pairs_keys_is_a_pool_of_its_own(store):
    rows = {size: store.add(block, owned(3, size=size)) for block, size in enumerate((16, 32, 33), 1)}
    more = store.add(4, [row for size in (33, 16) for row in owned(2, size=size)])  # one block with several
    rows = {16: rows[16] + more[2:], 32: rows[32], 33: rows[33] + more[:2]}
    take = lambda number, size: store.keys.deliver_to_master("sae-a", "sae-b", number, 200.0, size_bytes=size)  # noqa: E731
    assert pairs(take(4, 33)) == pairs(rows[33][:4])
    with pytest.raises(InsufficientKeys, match="2 asked for, 1 stored"):
        take(2, 33)
    with pytest.raises(InsufficientKeys, match="1 asked for, 0 stored"):
        take(1, 64)
    assert [store.keys.stored_key_count("sae-a", "sae-b", size) for size in (16, 32, 33, 64)] == [5, 3, 1, 0]
    assert store.keys.counts("sae-a", "sae-b") == KeyCounts(deliverable=9)
    with pytest.raises(KeySupplyError, match="keys of 128, 256, 264 bits for this pair: name a size"):
        store.keys.deliver_to_master("sae-a", "sae-b", 1, 200.0)
    store.reopen()
    assert pairs(take(3, 32)) == pairs(rows[32])
    assert pairs(take(1, 33)) == pairs(rows[33][4:])
    assert pairs(store.keys.deliver_to_master("sae-a", "sae-b", 5, 200.0)) == pairs(rows[16])  # only these are left


def test_the_slave_names_keys_of_any_size_and_no_size(store):
    rows = store.add(1, [new("sae-b", "sae-a", 100.0, here=False, size=size) for size in (16, 64, 32)])
    ids = [row.key_id for row in rows]
    assert pairs(store.keys.deliver_to_slave("sae-a", "sae-b", ids, 200.0)) == pairs(rows)


def test_a_pool_that_nobody_fetches_from_is_bounded_and_takes_no_key_of_another_size(store):
    short, long = store.add(1, owned(3, size=16)), store.add(2, owned(5, size=64))
    assert store.keys.trim("sae-a", "sae-b", owner_here=True, keep=3, now=200.0) == 2
    assert pairs(store.keys.deliver_to_master("sae-a", "sae-b", 3, 200.0, size_bytes=16)) == pairs(short)
    assert pairs(store.keys.deliver_to_master("sae-a", "sae-b", 3, 200.0, size_bytes=64)) == pairs(long[2:])


def test_keys_of_several_sizes_wait_for_one_acknowledgement_of_their_block(store):
    store.add(1, owned(2, size=16) + owned(2, size=64), acknowledged=False)
    for size in (16, 64):
        with pytest.raises(InsufficientKeys):
            store.keys.deliver_to_master("sae-a", "sae-b", 1, 200.0, size_bytes=size)
    assert store.keys.counts("sae-a", "sae-b", 64) == KeyCounts(pending=2)
    store.acknowledge(1)
    assert [store.keys.stored_key_count("sae-a", "sae-b", size) for size in (16, 64)] == [2, 2]


class DeliveryMachine(RuleBasedStateMachine):
    """Any order of storing, acknowledging, delivering, restarting: nothing leaves twice, nothing leaves altered."""

    store = None
    block = 0

    def __init__(self):
        super().__init__()
        self.store.keys.expire(float("inf"), 200.0)
        self.pending, self.waiting, self.held, self.gone = {}, [], [], []

    def next_block(self):
        type(self).block += 1
        return self.block

    @rule(number=st.integers(1, 4))
    def store_owned(self, number):
        block = self.next_block()
        self.pending[block] = self.store.add(block, owned(number), acknowledged=False)

    @rule(number=st.integers(1, 4))
    def store_held(self, number):
        self.held += self.store.add(self.next_block(), held(number))

    @rule()
    def acknowledge_the_oldest(self):
        if self.pending:
            block = min(self.pending)
            self.store.acknowledge(block)
            self.waiting += self.pending.pop(block)

    @rule()
    def restart(self):
        self.store.reopen()

    @rule(number=st.integers(1, 6))
    def master_asks(self, number):
        if number > len(self.waiting):
            with pytest.raises(InsufficientKeys):
                self.store.keys.deliver_to_master("sae-a", "sae-b", number, 200.0)
            return
        taken = self.store.keys.deliver_to_master("sae-a", "sae-b", number, 200.0)
        assert pairs(taken) == pairs(self.waiting[:number])
        self.gone += self.waiting[:number]
        del self.waiting[:number]

    @rule(data=st.data())
    def slave_asks(self, data):
        everything = self.held + self.gone
        if not everything:
            return
        wanted = data.draw(st.lists(st.sampled_from(everything), min_size=1, max_size=3, unique_by=lambda r: r.key_id))
        ids = [row.key_id for row in wanted]
        if any(row in self.gone for row in wanted):
            with pytest.raises(NotPermitted if any(row.owner_here for row in wanted) else KeyNotFound):
                self.store.keys.deliver_to_slave("sae-a", "sae-b", ids, 200.0)
            return
        assert pairs(self.store.keys.deliver_to_slave("sae-a", "sae-b", ids, 200.0)) == pairs(wanted)
        self.held = [row for row in self.held if row.key_id not in ids]
        self.gone += wanted

    @invariant()
    def counts_agree(self):
        counts = self.store.keys.counts("sae-a", "sae-b")
        assert counts.deliverable == len(self.waiting)
        assert counts.pending == sum(len(rows) for rows in self.pending.values())
        assert self.store.keys.counts("sae-b", "sae-a").held == len(self.held)


def test_no_order_of_events_delivers_a_key_twice(store):
    DeliveryMachine.store = store
    machine = DeliveryMachine.TestCase
    machine.settings = settings(max_examples=10, stateful_step_count=20, deadline=None)
    machine().runTest()
