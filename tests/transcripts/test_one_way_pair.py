"""Two honest sites that reconcile one way: the same keys from one round trip, and refusals for what is bent."""

from __future__ import annotations

from dataclasses import replace

import pytest

from heliograph.errors import ConfigurationError
from heliograph.protocol import messages as m
from heliograph.protocol.codec import decode, encode
from heliograph.protocol.frames import parse_frame
from heliograph.testing.links import example_channel, example_registration, quick_channel, quick_registration
from heliograph.testing.pair import Pair


def names(pair):
    return [type(decode(parse_frame(frame).body)).__name__ for _, frame in pair.frames]


def keys(pair):
    found = []
    for owner, master, slave in ((pair.tx, "sae-a", "sae-b"), (pair.rx, "sae-b", "sae-a")):
        for key_id, material in owner.deliverable(master, slave, 10_000):
            peer = pair.other(owner).keys.deliver_to_slave(slave, master, [key_id], 0.0)
            found.append((material, peer[0].material))
    return found


def test_both_sides_hold_the_same_keys_after_one_round_trip(tmp_path):
    pair = Pair(example_registration(reconciliation="ldpc"), example_channel(), tmp_path, prefilter=False)
    pair.run_block()
    found = keys(pair)
    assert found
    assert all(master == slave for master, slave in found)
    crossed = names(pair)
    begin, end = crossed.index("SyndromeRequest"), crossed.index("ReconciliationEnd")
    assert crossed[begin : end + 1] in (
        ["SyndromeRequest", "Syndrome", "ReconciliationEnd"],
        ["SyndromeRequest", "Syndrome", "MoreSyndrome", "Syndrome", "ReconciliationEnd"],
    )
    assert not {"ReconciliationStart", "ParityRequest", "ParityReply"} & set(crossed)


@pytest.mark.parametrize("bend", ["flip", "shorten", "lengthen", "count"])
def test_a_bent_syndrome_leaves_no_key(tmp_path, bend):
    def wire(_, data):
        frame = parse_frame(data)
        message = decode(frame.body)
        if isinstance(message, m.Syndrome):
            parities, count = message.parities, message.count
            changed = {
                "flip": m.Syndrome(count, bytes(b ^ 0xFF for b in parities[:40]) + parities[40:]),
                "shorten": m.Syndrome(count - 8, parities[:-1]),
                "lengthen": m.Syndrome(count + 8, parities + b"\0"),
                "count": m.Syndrome(count - 1, parities),
            }[bend]
            return (replace(frame, body=encode(changed)).wire(),)
        return (data,)

    registration = quick_registration(reconciliation="ldpc")
    pair = Pair(registration, quick_channel(), tmp_path, prefilter=False, wire=wire)
    pair.run_block()
    assert "BlockAbandoned" in names(pair)
    assert not keys(pair)


def test_another_method_is_another_registration():
    one, other = (example_registration(reconciliation=method) for method in ("ldpc", "cascade"))
    assert replace(one, reconciliation="cascade").digest() != one.digest()
    assert one.parameters[0].secret_key_length < other.parameters[0].secret_key_length
    with pytest.raises(ConfigurationError, match="write one of cascade, ldpc"):
        replace(one, reconciliation="none")


def test_more_errors_than_the_block_was_planned_for_leave_no_key(tmp_path):
    registration = quick_registration(reconciliation="ldpc")
    worse = quick_channel()
    pair = Pair(registration, replace(worse, fibre=replace(worse.fibre, misalignment=0.05)), tmp_path, prefilter=False)
    pair.run_block()
    assert "BlockAbandoned" in names(pair)
    assert not keys(pair)
