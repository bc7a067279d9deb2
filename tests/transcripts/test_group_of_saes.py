"""A link with several pairs and a group: every SAE of each gets its share of every link's keys, the same bytes."""

from __future__ import annotations

import dataclasses
import hashlib

import msgspec
import pytest

from heliograph.errors import ConfigurationError
from heliograph.protocol.registration import SaePair
from heliograph.testing.links import quick_channel, quick_registration
from heliograph.testing.pair import Pair

GROUP = SaePair("sae-a", "sae-b", ("sae-b2",), ("sae-a2",))
PAIRS = (SaePair("sae-a", "sae-b"), SaePair("sae-a2", "sae-b2"), GROUP)


def registration():
    return dataclasses.replace(quick_registration(), transmitter_pairs=PAIRS)


def test_the_slaves_of_a_group_at_both_sites_hold_the_masters_key(tmp_path):
    pair = Pair(registration(), quick_channel(), tmp_path / "pair")
    for _ in range(3):
        pair.run_block()
    here, there = pair.tx.keys, pair.rx.keys
    counts = [here.stored_key_count(p.master, p.audience) for p in PAIRS]
    assert max(counts) - min(counts) <= 1
    for key in here.deliver_to_master("sae-a", GROUP.audience, counts[2], 0.0):
        shares = [
            keys.deliver_to_slave(sae, "sae-a", [key.key_id], 0.0)[0].material
            for keys, sae in ((here, "sae-a2"), (there, "sae-b"), (there, "sae-b2"))
        ]
        assert shares == [key.material] * 3
    assert here.counts("sae-a", GROUP.audience) == there.counts("sae-a", GROUP.audience)


def test_a_registration_without_groups_has_the_digest_it_had_before_there_were_any():
    plain = quick_registration()
    record = msgspec.to_builtins(plain)
    for entry in (*record["transmitter_pairs"], *record["receiver_pairs"]):
        assert not any((entry.pop("also_there"), entry.pop("also_here"), entry.pop("key_sizes")))
    assert record.pop("codes") == 0  # as before there were versions of them
    assert plain.digest() == hashlib.sha256(msgspec.msgpack.encode(record)).digest()
    assert registration().digest() != plain.digest()


@pytest.mark.parametrize(
    "pairs",
    [
        (SaePair("sae-a", "sae-b", ("sae-b",)),),
        (SaePair("sae-a", "sae-b", ("sae-a",)),),
        (SaePair("sae-a", "sae-b", (" ",)),),
        (SaePair("sae-a", "sae-b", ("x\x1fy",)),),
        (GROUP, SaePair("sae-a", "sae-b2", ("sae-b",), ("sae-a2",))),
        (SaePair("sae-a", "sae-b", (), ("sae-c",)), SaePair("sae-a", "sae-c")),
    ],
)
def test_a_contradictory_group_is_not_registered(pairs):
    with pytest.raises(ConfigurationError):
        dataclasses.replace(quick_registration(), transmitter_pairs=pairs)
