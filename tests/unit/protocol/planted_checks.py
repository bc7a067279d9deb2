"""Checks that the real code passes and a planted bug must not: each raises AssertionError for its promise."""

from __future__ import annotations

from dataclasses import replace

import pytest
from commit_model import CommitModel

from heliograph.authentication.authenticator import Authenticator
from heliograph.authentication.pads import PadAddress, PadRole
from heliograph.errors import AuthenticationFailed, PadsExhausted, RemoteProtocolError, RollbackDetected
from heliograph.postprocessing.reconciliation.outcome import announcement_charge
from heliograph.protocol import hello
from heliograph.protocol import messages as m
from heliograph.protocol.codec import decode, encode
from heliograph.protocol.frames import parse_frame
from heliograph.protocol.handshake import Door, Initiator, Presence, Responder
from heliograph.protocol.records import Marks
from heliograph.testing.links import quick_channel, quick_registration
from heliograph.testing.pair import Pair


def make(directory, *, link="a-b", **options):
    return Pair(replace(quick_registration(), link=link), quick_channel(), directory, prefilter=False, **options)


def message(wire):
    return decode(parse_frame(wire).body)


def bend(kind, change):
    """Return a wire that changes the first message of ``kind`` and leaves its tag as it was."""
    done = []

    def wire(_, frame):
        if not isinstance(message(frame), kind) or done:
            return (frame,)
        done.append(frame)
        return change(parse_frame(frame))

    return wire


# Checks: each raises AssertionError when its promise is broken.
def check_model(_, store=None):
    for case in ({"crashes": 1}, {"crashes": 2, "forgeries": False}):
        violations = CommitModel(store=store, **case).search().violations
        assert not violations, violations


def check_no_reveal_after_an_altered_closure(tmp_path):
    def change(frame):
        closure = message(frame.wire())
        fields = {n: getattr(closure, n) for n in closure.__struct_fields__}
        fields["bases"] = bytes([closure.bases[0] ^ 0x80]) + closure.bases[1:]
        return (replace(frame, body=encode(m.QuantumPhaseClosed(**fields))).wire(),)

    pair = make(tmp_path / "pair", wire=bend(m.QuantumPhaseClosed, change))
    pair.run_block()
    assert not [f for _, f in pair.frames if isinstance(message(f), m.BasisReveal)]


def check_a_failed_tag_destroys_the_block(tmp_path):
    pair = make(
        tmp_path / "pair",
        wire=bend(m.QuantumPhaseClosed, lambda frame: (replace(frame, tag=bytes(16)).wire(), frame.wire())),
    )
    pair.run_block()
    assert pair.tx.discards() == ["AuthenticationFailed"]
    assert pair.tx.finished() == []


def check_every_frame_is_covered(tmp_path):
    """One bit of one test result, which every other check lets pass, and the block is gone."""
    for kind in (m.BasisReveal, m.ReconciliationStart):

        def change(frame):
            said = message(frame.wire())
            fields = {n: getattr(said, n) for n in said.__struct_fields__}
            fields["test_bits"] = bytes([said.test_bits[0] ^ 0x80]) + said.test_bits[1:]
            return (replace(frame, body=encode(type(said)(**fields))).wire(),)

        pair = make(tmp_path / kind.__name__, wire=bend(kind, change))
        pair.run_block()
        pair.time_out()
        assert pair.tx.finished() == pair.rx.finished() == []


def check_last_seen_is_covered(tmp_path):
    pair = make(
        tmp_path / "pair",
        wire=bend(m.Verified, lambda frame: (replace(frame, last_seen=frame.last_seen - 1).wire(),)),
    )
    pair.run_block()
    pair.time_out()
    assert pair.tx.finished() == pair.rx.finished() == []


def check_a_tag_is_bound_to_its_link(tmp_path):
    """Two links that share a key book, against every rule: even then no tag of one counts on the other."""
    other = make(tmp_path / "other", link="a-c")
    other.run_block()
    (foreign,) = (f for _, f in other.frames if isinstance(message(f), m.QuantumPhaseClosed))
    pair = make(tmp_path / "pair", wire=bend(m.QuantumPhaseClosed, lambda _: (foreign,)))
    pair.run_block()
    assert pair.tx.discards() == ["AuthenticationFailed"]


def check_burnt_pads_stay_burnt(tmp_path):
    pair = make(tmp_path / "pair")
    pair.run_block()
    for side in pair.sides:
        side.restart()
        for address, _ in side.tagged:
            with pytest.raises(PadsExhausted):
                side.records.burn(address)


def check_attempts_survive_a_restart(tmp_path):
    pair = make(tmp_path / "pair")
    address = PadAddress(1, 1, PadRole.PROPOSAL)
    for expected in (1, 2, 3):
        with pytest.raises(AuthenticationFailed):
            pair.rx.authenticator.check(address, (b"forged",), bytes(16))
        with pair.rx.database.reading() as cursor:
            row = cursor.execute("SELECT attempts FROM link_pads WHERE block = 1 AND role = 0").fetchone()
        assert row == (expected,)
        pair.rx.restart()


def check_attempts_come_before_the_comparison(tmp_path):
    pair = make(tmp_path / "pair")
    seen = []
    store = pair.rx.records

    class Watched:
        def attempt(self, address):
            seen.append("attempt")
            return store.attempt(address)

        def accepted(self, address, bound):
            seen.append("accepted")
            store.accepted(address, bound)

    with pytest.raises(AuthenticationFailed):
        Authenticator(Watched()).check(PadAddress(1, 1, PadRole.PROPOSAL), (b"forged",), bytes(16))
    assert seen == ["attempt"]


def check_a_forged_mark_changes_nothing(tmp_path):
    pair = make(tmp_path / "pair")
    pair.run_block()
    pads = pair.rx.records.marks()
    identity = pair.rx.registration.identity()
    generation, _ = pair.rx.records.door.generations()
    eve = Initiator(identity, Presence(pair.tx.site, Marks(1, 90, 90, 1, 5), bytes(16)), bytes(64), 0.0)
    here = Responder(identity, Presence(pair.rx.site, pads, bytes(16)), bytes(64), 0.0)
    here.reply(eve.hello(Door(generation, bytes(32))), pair.rx.doors.of)
    eve._agree(eve._door, b"", b"")
    forged = hello.encode_hello(hello.HelloConfirm(eve._mac(b"confirm", eve._hello, here._reply), b""))
    try:
        here.finish(forged)
    except RollbackDetected:
        pytest.fail("a forged mark destroys the pool")
    except RemoteProtocolError:
        return
    pytest.fail("a forged mark was accepted")


def check_both_directions_are_charged(tmp_path):
    pair = make(tmp_path / "pair")
    pair.run_block()
    asked = sum(message(f).count for _, f in pair.frames if isinstance(message(f), m.ParityReply))
    assert asked > 50
    for side in pair.sides:
        ((_, _, report),) = side.commits.committed_blocks()
        counts = announcement_charge(report["sifted_bits"], 2).parities_a
        assert report["disclosed"] == {"parities_a": asked + counts, "parities_b": asked + counts, "verification": 0}


def check_junk_costs_nothing(tmp_path):
    pair = Pair(quick_registration(), quick_channel(), tmp_path / "pair")
    pair.run_block()
    proposal = pair.frames[0][1]
    parsed = parse_frame(proposal[:-16])
    junk = replace(parsed, block=2).wire() + bytes(16)
    before = pair.rx.records.totals()
    for _ in range(20):
        pair.inject(pair.rx, junk)
    assert pair.rx.attempts == 4  # proposal, transcript, decision and settlement of the honest block
    assert pair.rx.records.totals() == before
    assert pair.rx.refused == ["junk"] * 20
