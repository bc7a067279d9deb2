"""Two sites whose pairs have keys of several sizes: the same key_ID is the same key, and the files must be equal."""

from __future__ import annotations

from dataclasses import replace

import pytest

from heliograph.errors import InsufficientKeys, RemoteProtocolError
from heliograph.kme.key_sizes import KeySizes
from heliograph.kme.quotas import Quota, Quotas, TooManyRequests
from heliograph.kme.supply import Limits, RequestRefused, Supply
from heliograph.kme.supply import SaePair as Served
from heliograph.protocol.codec import decode
from heliograph.protocol.frames import parse_frame
from heliograph.protocol.messages import Acknowledgement
from heliograph.protocol.registration import SaePair
from heliograph.testing.clock import ManualClock
from heliograph.testing.links import quick_channel, quick_registration
from heliograph.testing.pair import Pair

SIZES = (256, 128, 512, 264)  # the last an odd multiple of 8
GROUP = SaePair("sae-a", "sae-b", ("sae-b2",), key_sizes=(192,))
FORTH, BACK = SaePair("sae-a", "sae-b", key_sizes=SIZES), SaePair("sae-b", "sae-a", key_sizes=(1024,))
LINK = replace(quick_registration(), transmitter_pairs=(FORTH, GROUP), receiver_pairs=(BACK,))


def run(directory, blocks=8, registration=LINK):
    pair = Pair(registration, quick_channel(), directory)
    for _ in range(blocks):
        pair.run_block()
    return pair


def supply(side, **more):
    local, remote = ("sae-a", "sae-b") if side.is_transmitter else ("sae-b", "sae-a")
    named = {(p.master, p.audience): p.key_sizes for p in (FORTH, GROUP, BACK)}
    clock = ManualClock(0.0)
    pairs = [Served(local, remote, "kme-there")]
    return Supply(side.keys, f"kme-{side.name}", pairs, Limits(), clock, sizes=KeySizes(256, named), **more)


def test_each_size_is_served_and_the_peer_holds_the_same_key_under_the_same_key_id(tmp_path):
    pair = run(tmp_path)
    here, there = supply(pair.tx), supply(pair.rx)
    for master, slave, way, sizes in (
        (here, there, ("sae-a", "sae-b"), SIZES),
        (there, here, ("sae-b", "sae-a"), (1024,)),
    ):
        for size in sizes:
            keys = master.enc_keys(*way, 2, size_bits=size)
            assert {8 * len(key.material) for key in keys} == {size}
            assert slave.dec_keys(way[1], way[0], [key.key_id for key in keys]) == keys
    assert {8 * len(key.material) for key in here.enc_keys("sae-a", "sae-b", 1)} == {256}  # for whoever names none


def test_the_bits_of_all_keys_are_used_once(tmp_path):
    pair = run(tmp_path)
    taken = []
    for owner, holder in ((pair.tx, pair.rx), (pair.rx, pair.tx)):
        for entry in (FORTH, GROUP) if owner is pair.tx else (BACK,):
            for size in entry.key_sizes:
                number = owner.keys.stored_key_count(entry.master, entry.audience, size // 8)
                assert number > 0
                keys = owner.keys.deliver_to_master(entry.master, entry.audience, number, 0.0, size_bytes=size // 8)
                for slave in (entry.slave, *entry.also_there):
                    named = [key.key_id for key in keys]
                    assert holder.keys.deliver_to_slave(slave, entry.master, named, 0.0) == keys
                taken += keys
    # 8 bytes are enough to tell: no piece of one key is a piece of another, or comes twice in one.
    pieces = [key.material[at : at + 8] for key in taken for at in range(0, len(key.material) - 7, 8)]
    assert len(set(pieces)) == len(pieces)
    for side in pair.sides:
        assert side.keys.counts("sae-a", "sae-b") == side.keys.counts("sae-b", "sae-a")  # nothing is left


def test_pools_of_one_site_fill_alike_and_one_that_is_empty_takes_nothing_from_another(tmp_path):
    pair = run(tmp_path, 5)
    counts = [pair.tx.keys.stored_key_count("sae-a", "sae-b", size // 8) for size in SIZES]
    counts.append(pair.tx.keys.stored_key_count("sae-a", GROUP.audience, 24))
    assert max(counts) - min(counts) <= len(counts)
    here = supply(pair.tx)
    here.enc_keys("sae-a", "sae-b", counts[2], size_bits=512)
    with pytest.raises(InsufficientKeys):
        here.enc_keys("sae-a", "sae-b", 1, size_bits=512)
    assert len(here.enc_keys("sae-a", "sae-b", counts[1], size_bits=128)) == counts[1]
    stored = here.status("sae-a", "sae-b").stored_by_size
    assert stored == {256: counts[0], 128: 0, 512: 0, 264: counts[3]}


def test_another_size_is_refused_by_the_names_of_those_there_are_and_takes_nothing(tmp_path):
    pair = run(tmp_path, 1)
    here = supply(pair.tx)
    before = here.status("sae-a", "sae-b")
    for size in (64, 192, 1024):  # also the size of a group, and of the other direction
        with pytest.raises(RequestRefused, match="keys of 128, 256, 264 and 512 bits are"):
            here.enc_keys("sae-a", "sae-b", 1, size_bits=size)
    assert here.status("sae-a", "sae-b") == before
    assert (before.key_size_bits, before.min_key_size_bits, before.max_key_size_bits) == (256, 128, 512)


def test_a_quota_counts_keys_of_every_size(tmp_path):
    pair = run(tmp_path)
    here = supply(pair.tx, quotas=Quotas(ManualClock(0.0), keys={("sae-a", "sae-b"): Quota(4, 0.001)}))
    here.enc_keys("sae-a", "sae-b", 2, size_bits=128)
    here.enc_keys("sae-a", "sae-b", 2, size_bits=512)
    with pytest.raises(TooManyRequests):
        here.enc_keys("sae-a", "sae-b", 1)


@pytest.mark.parametrize(
    "other",
    [
        replace(LINK, transmitter_pairs=(replace(FORTH, key_sizes=(128, 256, 512, 264)), GROUP)),
        replace(LINK, receiver_pairs=(replace(BACK, key_sizes=()),)),
        replace(LINK, key_size_bits=512),
    ],
    ids=["order", "missing", "the link's"],
)
def test_sites_whose_sizes_differ_do_not_connect_and_say_so_in_one_line(tmp_path, other):
    class Differing(Pair):
        def connect(self):
            self.rx.registration = other
            super().connect()

    with pytest.raises(
        RemoteProtocolError, match="its keys or its registration of link 'a-b' are not the same as here"
    ):
        Differing(LINK, quick_channel(), tmp_path)


def test_a_block_in_doubt_is_never_cut_by_sizes_that_were_registered_after_it(tmp_path):
    """The participant has cut its keys, its acknowledgement is lost; both operators change the sizes and come back."""

    def without_acknowledgement(_, wire):
        lost = parse_frame(wire).tagged and isinstance(decode(parse_frame(wire).body), Acknowledgement)
        return () if lost else (wire,)

    pair = Pair(LINK, quick_channel(), tmp_path, prefilter=False)
    pair.run_block()
    before = pair.tx.keys.counts("sae-a", "sae-b").deliverable
    pair.wire = without_acknowledgement
    pair.run_block()
    assert pair.tx.running.doubtful_blocks()
    pair.wire = lambda _, wire: (wire,)
    for side in pair.sides:
        side.registration = replace(LINK, transmitter_pairs=(replace(FORTH, key_sizes=(512,)), GROUP))
        side.restart()
    pair.connect()
    pair.run_block()
    # The old word about the old block covers the old sizes: it is not believed, and nobody's keys are cut anew.
    assert pair.tx.running.doubtful_blocks()
    assert pair.tx.refused
    assert pair.tx.keys.counts("sae-a", "sae-b").pending == 0
    for owner, holder in ((pair.tx, pair.rx), (pair.rx, pair.tx)):
        for entry in (FORTH, GROUP) if owner is pair.tx else (BACK,):
            for bits in entry.key_sizes:
                number = owner.keys.stored_key_count(entry.master, entry.audience, bits // 8)
                if not number:
                    continue
                keys = owner.keys.deliver_to_master(entry.master, entry.audience, number, 0.0, size_bytes=bits // 8)
                named = [key.key_id for key in keys]
                assert holder.keys.deliver_to_slave(entry.slave, entry.master, named, 0.0) == keys
    assert before > 0
