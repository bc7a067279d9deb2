"""Every single bit of a tagged frame: codec or tag refuses it, from the state that really awaited the frame."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from tampering import make, message_name

from heliograph.authentication.mac import check_tag
from heliograph.authentication.pads import PadAddress, PadRole
from heliograph.errors import AuthenticationFailed, RemoteProtocolError
from heliograph.protocol import actions as a
from heliograph.protocol.frames import Direction, parse_frame

EXHAUSTIVE_BYTES = 4096
HEADER_AND_NAME = 64
TAGGED = (
    "Proposal",
    "QuantumPhaseClosed",
    "AmplificationSeed",
    "ParticipantAccept",
    "Decision",
    "Acknowledgement",
    "Settlement",
)


class Moment:
    """The receiving site just before a tagged frame arrives: its session, and all its pads."""

    def __init__(self, side, wire):
        self.session, self.wire = side.running, wire
        self.pads = {}
        for block in range(1, 10):
            for role in PadRole:
                address = PadAddress(1, block, role)
                with side.database.reading() as cursor:
                    row = cursor.execute(
                        "SELECT sealed FROM link_pads WHERE block = ? AND role = ?", (block, role)
                    ).fetchone()
                if row is not None and row[0] is not None:
                    self.pads[address] = side.records._unseal(bytes(row[0]), address)

    def accepts(self, wire):
        """Return whether the site would act on these bytes as on the peer's tagged word."""
        try:
            _, actions = self.session.receive(wire)
        except RemoteProtocolError:
            return False
        here = self.session.blocks.get(1)
        repeated = {getattr(here, name, b"") for name in ("decision", "acknowledgement", "resend")}
        for x in actions:
            if isinstance(x.action, a.Send):
                assert x.action.frame.wire() in repeated, "said something new before the tag was checked"
                return False
            if isinstance(x.action, a.Tag):
                # An acceptance of a block that a restart lost: all that can come of it is the word that it is lost.
                assert x.action.role is PadRole.DECISION
                assert x.block not in self.session.blocks
                return False
            assert isinstance(x.action, a.CheckTag), "acted before the tag was checked"
            pad = self.pads.get(PadAddress(1, x.block, x.action.role))
            if pad is None:
                return False
            try:
                check_tag(pad, x.action.covered, x.action.tag)
            except AuthenticationFailed:
                return False
        return bool(actions)


@pytest.fixture(scope="module")
def moments(tmp_path_factory):
    pair = make(tmp_path_factory.mktemp("moments") / "pair", prefilter=False)
    found = {}
    pair.begin_block()
    while pair._todo:
        side, *rest = pair._todo[0]
        if len(rest) == 1 and parse_frame(rest[0]).tagged:
            found[message_name(rest[0])] = Moment(side, rest[0])
        pair.advance()
    assert set(found) == set(TAGGED)
    return found


def flipped(wire, bit):
    bent = bytearray(wire)
    bent[bit // 8] ^= 0x80 >> bit % 8
    return bytes(bent)


def bits_of(wire, sample):
    """All bits of a small frame; of a large one head, end and tag whole, the rest sampled."""
    size = 8 * len(wire)
    if len(wire) <= EXHAUSTIVE_BYTES:
        return range(size)
    edge = 8 * HEADER_AND_NAME
    middle = random.Random(len(wire)).sample(range(edge, size - edge), sample)
    return [*range(edge), *middle, *range(size - edge, size)]


@pytest.mark.parametrize("name", TAGGED)
def test_every_flipped_bit_is_refused_in(moments, name):
    moment = moments[name]
    assert moment.accepts(moment.wire)
    survivors = [bit for bit in bits_of(moment.wire, 6000) if moment.accepts(flipped(moment.wire, bit))]
    assert survivors == []


@pytest.mark.soak
@pytest.mark.parametrize("name", ["QuantumPhaseClosed", "AmplificationSeed"])
def test_every_flipped_bit_is_refused_whole(moments, name):
    moment = moments[name]
    assert [bit for bit in range(8 * len(moment.wire)) if moment.accepts(flipped(moment.wire, bit))] == []


@pytest.mark.parametrize("name", TAGGED)
def test_every_shortened_or_lengthened_frame_is_refused(moments, name):
    moment = moments[name]
    cuts = range(len(moment.wire)) if len(moment.wire) <= EXHAUSTIVE_BYTES else range(0, len(moment.wire), 97)
    assert not any(moment.accepts(moment.wire[:cut]) for cut in cuts)
    assert not any(moment.accepts(moment.wire + bytes(extra)) for extra in range(1, 40))


def test_no_tagged_frame_stands_for_another(moments):
    """Each frame given to each state that awaits one: only its own is accepted."""
    accepted = {(at, of) for at in TAGGED for of in TAGGED if moments[at].accepts(moments[of].wire)}
    assert accepted == {(name, name) for name in TAGGED}


@pytest.mark.parametrize("name", ["AmplificationSeed", "ParticipantAccept"])
def test_the_transcript_tags_cover_every_frame_before_them(moments, name):
    """One bit of any earlier frame of either direction, as this site saw it, and the tag does not match."""
    moment = moments[name]
    session, actions = moment.session.receive(moment.wire)
    (check,) = (x.action for x in actions)
    pad = moment.pads[PadAddress(1, 1, check.role)]
    talk = moment.session.blocks[1].talk
    dice = random.Random(name)
    for direction in ("sent", "received"):
        frames = getattr(talk, direction)
        for index, frame in enumerate(frames):
            for bit in {0, 8 * len(frame) - 1, *(dice.randrange(8 * len(frame)) for _ in range(4))}:
                bent = (*frames[:index], flipped(frame, bit), *frames[index + 1 :])
                covered = _replaced(talk, direction, bent).transcript_cover(check.role, parse_frame(moment.wire))
                with pytest.raises(AuthenticationFailed):
                    check_tag(pad, covered, check.tag)
        assert len(frames) > 5
    assert talk.own in Direction
    assert session is not moment.session


def _replaced(talk, direction, frames):

    return replace(talk, **{direction: frames})
