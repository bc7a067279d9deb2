"""A link whose registration names the Toeplitz hash: the same machines, another hash, keys of the same length."""

from __future__ import annotations

from dataclasses import replace

import pytest

from heliograph.errors import ConfigurationError
from heliograph.postprocessing.amplification import amplify
from heliograph.protocol import actions as a
from heliograph.protocol.codec import decode
from heliograph.protocol.frames import parse_frame
from heliograph.protocol.messages import AmplificationSeed
from heliograph.protocol.records import CommittedLocal
from heliograph.testing.links import quick_channel, quick_registration
from heliograph.testing.pair import Pair

REGISTRATION = replace(quick_registration(), amplification="toeplitz")


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    one = Pair(REGISTRATION, quick_channel(), tmp_path_factory.mktemp("pair"), seed=1, prefilter=False)
    one.run_block()
    one.time_out()
    return one


def test_both_sides_hold_the_same_keys_as_ever_many(pair):
    assert pair.tx.finished() == pair.rx.finished() == [1]
    keys = pair.tx.deliverable("sae-a", "sae-b", 10_000)
    assert keys
    for key_id, material in keys:
        (peer,) = pair.rx.keys.deliver_to_slave("sae-b", "sae-a", [key_id], 0.0)
        assert peer.material == material


def test_the_key_is_the_classic_hash_of_the_verified_bits_under_the_seed_that_crossed(pair):
    (job,) = [x.action for x in pair.tx.done if isinstance(x.action, a.Compute) and x.action.job == "amplify"]
    block, seed, length, family = job.arguments
    sent = [decode(parse_frame(x.action.frame.wire()).body) for x in pair.tx.done if isinstance(x.action, a.Send)]
    (announced,) = [message for message in sent if isinstance(message, AmplificationSeed)]
    (record,) = [
        x.action.record
        for x in pair.rx.done
        if isinstance(x.action, a.Persist) and isinstance(x.action.record, CommittedLocal)
    ]
    assert family == "toeplitz"
    assert (announced.seed, announced.length, len(seed)) == (seed, length, (len(block.bits) + length - 1 + 7) // 8)
    assert record.secret == amplify(block, seed, length, "toeplitz").bits


def test_two_sites_that_registered_different_hashes_do_not_have_one_registration():
    assert REGISTRATION.digest() != quick_registration().digest()
    with pytest.raises(ConfigurationError, match="amplification = 'crc': write one of"):
        replace(REGISTRATION, amplification="crc")
