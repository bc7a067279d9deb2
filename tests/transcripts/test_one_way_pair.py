"""Two honest sites that reconcile one way: the same keys from one round trip, and refusals for what is bent."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import msgspec
import pytest

from heliograph.errors import ConfigurationError
from heliograph.kernels.ldpc_codes import VERSION
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
    more = crossed.count("MoreSyndrome")
    assert crossed[begin : end + 1] == [
        "SyndromeRequest",
        "Syndrome",
        *(["MoreSyndrome", "Syndrome"] * more),
        "ReconciliationEnd",
    ]
    assert more <= 2
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
    assert replace(one, reconciliation="cascade", codes=0).digest() != one.digest()
    assert one.parameters[0].secret_key_length < other.parameters[0].secret_key_length
    with pytest.raises(ConfigurationError, match="write one of cascade, ldpc"):
        replace(one, reconciliation="none")


@pytest.mark.parametrize("codes", [0, VERSION - 1, VERSION + 1])
def test_a_link_registered_for_other_codes_is_refused_before_it_starts(codes):
    """A site of another release would send syndromes that mean nothing here."""
    one = example_registration(reconciliation="ldpc")
    with pytest.raises(ConfigurationError, match=f"codes = {codes}: .* version {VERSION} of the codes"):
        replace(one, codes=codes)


def test_with_cascade_no_codes_are_registered_and_the_digest_is_as_before_them():
    one = example_registration()
    assert one.codes == 0
    with pytest.raises(ConfigurationError, match="codes"):
        replace(one, codes=VERSION)
    without = {key: value for key, value in msgspec.to_builtins(one).items() if key != "codes"}
    for pair in (*without["transmitter_pairs"], *without["receiver_pairs"]):
        del pair["also_there"], pair["also_here"], pair["key_sizes"]
    assert hashlib.sha256(msgspec.msgpack.encode(without)).digest() == one.digest()


def test_more_errors_than_the_block_was_planned_for_leave_no_key(tmp_path):
    registration = quick_registration(reconciliation="ldpc")
    worse = quick_channel()
    pair = Pair(registration, replace(worse, fibre=replace(worse.fibre, misalignment=0.05)), tmp_path, prefilter=False)
    pair.run_block()
    assert "BlockAbandoned" in names(pair)
    assert not keys(pair)
