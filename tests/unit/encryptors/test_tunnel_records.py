"""The record layer without a network: nonces, order, limits, and the marker between generations."""

from __future__ import annotations

import asyncio
import contextlib
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heliograph.consumer.keys import Role, derive
from heliograph.encryptors.addresses import Address
from heliograph.encryptors.generation import Generation, GenerationLimits
from heliograph.encryptors.keyring import Keyring
from heliograph.encryptors.lanes import ReceiveLane, SendLane
from heliograph.encryptors.port_forwarder import Forward, ForwarderConfig
from heliograph.encryptors.records import (
    HEADER_BYTES,
    MAX_BODY_BYTES,
    RecordHeader,
    RecordType,
    connection_index,
    opener_of,
    parse_header,
)
from heliograph.errors import ConfigurationError, KeySupplyError, LocalProtocolError, RemoteProtocolError
from heliograph.testing.clock import ManualClock
from heliograph.types import DeliveredKey

LIMITS = GenerationLimits(rekey_bytes=65536, max_key_age_s=100)


def tunnel_keys(number):
    return derive(DeliveredKey(str(uuid.UUID(int=number)), bytes([number]) * 32))


def split(record):
    return parse_header(record[:HEADER_BYTES]), record[HEADER_BYTES:]


def generations(limits=LIMITS):
    keys = tunnel_keys(1)
    return Generation(keys, Role.INITIATOR, limits, 0.0), Generation(keys, Role.RESPONDER, limits, 0.0)


class Ends:
    """Both ends of one connection that the initiator opened."""

    def __init__(self):
        self.clock = ManualClock()
        self.nearly = []
        self.a = Keyring(Role.INITIATOR, LIMITS, self.clock, self.nearly.append)
        self.b = Keyring(Role.RESPONDER, LIMITS, self.clock, self.nearly.append)
        self.rotate(1)
        self.send = SendLane(self.a, 5)
        self.receive = ReceiveLane(self.b, 5)

    def rotate(self, number):
        for ring in (self.a, self.b):
            ring.install(tunnel_keys(number), self.clock.now())
            ring.activate(tunnel_keys(number).key_id)

    def deliver(self, data):
        """Open every record in ``data``; return the kinds and payloads."""
        got = []
        while data:
            header = parse_header(data[:HEADER_BYTES])
            end = HEADER_BYTES + header.length
            got.append((header.kind, self.receive.open(header, data[HEADER_BYTES:end])))
            data = data[end:]
        return got


def test_a_record_is_opened_by_the_peer_alone_and_once():
    a, b = generations()
    record = a.seal(RecordType.DATA, 3, b"hello", 0.0)
    assert len(record) == 35 + 5 + 16
    assert b.open(*split(record), 0.0) == b"hello"
    with pytest.raises(RemoteProtocolError, match="replayed"):
        b.open(*split(record), 0.0)
    with pytest.raises(RemoteProtocolError, match="reflected"):
        a.open(*split(record), 0.0)


def test_every_single_bit_flip_of_a_record_is_refused_and_changes_nothing():
    a, b = generations()
    record = a.seal(RecordType.DATA, 3, b"attack at dawn", 0.0)
    for bit in range(8 * len(record)):
        forged = bytearray(record)
        forged[bit // 8] ^= 0x80 >> bit % 8
        with pytest.raises(RemoteProtocolError):
            b.open(*split(bytes(forged)), 0.0)
    assert b.received_records == 0
    assert b.open(*split(record), 0.0) == b"attack at dawn"


def test_records_of_a_connection_are_taken_in_exact_order():
    a, b = generations()
    records = [a.seal(RecordType.DATA, 3, bytes([n]), 0.0) for n in range(3)]
    for wrong in (records[1], records[2]):
        with pytest.raises(RemoteProtocolError):
            b.open(*split(wrong), 0.0)
    for n, record in enumerate(records):
        assert b.open(*split(record), 0.0) == bytes([n])


@given(st.lists(st.tuples(st.sampled_from([0, 1, 7, 2**31]), st.binary(max_size=50)), max_size=40))
def test_no_nonce_is_used_twice_under_a_direction_key(writes):
    a, _ = generations()
    headers = [split(a.seal(RecordType.MARKER, connection, data, 0.0))[0] for connection, data in writes]
    assert len({h.nonce() for h in headers}) == len(writes)


def test_the_two_directions_use_different_keys():
    a, b = generations()
    ours, theirs = (g.seal(RecordType.DATA, 3, bytes(64), 0.0)[HEADER_BYTES:] for g in (a, b))
    assert ours[:64] != theirs[:64]


def test_data_stops_at_the_byte_limit_and_a_close_still_goes():
    a, _ = generations()
    for _ in range(4):
        a.seal(RecordType.DATA, 3, bytes(16384), 0.0)
    assert a.nearly_used
    assert not a.may_send(1, 0.0)
    with pytest.raises(KeySupplyError, match="byte limit"):
        a.seal(RecordType.DATA, 3, b"x", 0.0)
    a.seal(RecordType.CLOSE, 3, b"", 0.0)


def test_nothing_is_sealed_or_opened_over_the_record_limit():
    a, b = generations(GenerationLimits(max_records=16))
    records = [a.seal(RecordType.MARKER, 3, b"", 0.0) for _ in range(16)]
    with pytest.raises(KeySupplyError, match="record limit"):
        a.seal(RecordType.CLOSE, 3, b"", 0.0)
    for record in records:
        b.open(*split(record), 0.0)
    with pytest.raises(RemoteProtocolError, match="record limit"):
        b.open(*split(records[0]), 0.0)


def test_a_sender_stops_before_the_key_s_greatest_age_and_a_receiver_at_it():
    a, b = generations()
    record = a.seal(RecordType.DATA, 3, b"late", 94.9)
    with pytest.raises(KeySupplyError, match="age"):
        a.seal(RecordType.CLOSE, 3, b"", 95.0)
    with pytest.raises(RemoteProtocolError, match="age"):
        b.open(*split(record), 100.0)
    assert b.open(*split(record), 99.9) == b"late"


@given(st.binary(min_size=35, max_size=35))
def test_a_random_header_is_parsed_or_refused(data):
    with contextlib.suppress(RemoteProtocolError):
        assert parse_header(data).pack() == data


@pytest.mark.parametrize("length", [0, 15, MAX_BODY_BYTES + 1, 2**32 - 1])
def test_a_length_out_of_range_is_refused_before_anything_is_read(length):
    header = RecordHeader(RecordType.DATA, Role.INITIATOR, 1, 0, bytes(16), length)
    with pytest.raises(RemoteProtocolError, match="between"):
        parse_header(header.pack())


def test_the_openers_indices_never_meet():
    assert opener_of(connection_index(Role.INITIATOR, 2**31 - 1)) is Role.INITIATOR
    assert opener_of(connection_index(Role.RESPONDER, 0)) is Role.RESPONDER
    assert connection_index(Role.INITIATOR, 2**31 - 1) < connection_index(Role.RESPONDER, 0)


def test_a_marker_joins_two_generations():
    ends = Ends()
    data = ends.send.seal(RecordType.OPEN, b"web") + ends.send.seal(RecordType.DATA, b"one")
    ends.rotate(2)
    data += ends.send.switch() + ends.send.seal(RecordType.DATA, b"two") + ends.send.seal(RecordType.CLOSE)
    kinds = [kind.name for kind, _ in ends.deliver(data)]
    assert kinds == ["OPEN", "DATA", "MARKER", "DATA", "CLOSE"]
    assert ends.send.switch() == b""


def test_the_first_record_after_a_switch_brings_its_marker_by_itself():
    ends = Ends()
    data = ends.send.seal(RecordType.OPEN, b"web")
    ends.rotate(2)
    data += ends.send.seal(RecordType.DATA, b"two")
    assert [kind.name for kind, _ in ends.deliver(data)] == ["OPEN", "MARKER", "DATA"]


def test_records_cut_off_at_the_end_of_a_generation_are_missed():
    ends = Ends()
    ends.deliver(ends.send.seal(RecordType.OPEN, b"web"))
    ends.send.seal(RecordType.DATA, b"cut off")
    ends.rotate(2)
    with pytest.raises(RemoteProtocolError, match="cut off"):
        ends.deliver(ends.send.switch())


def test_an_old_generation_is_refused_once_retired_and_after_its_marker():
    ends = Ends()
    ends.deliver(ends.send.seal(RecordType.OPEN, b"web"))
    late = ends.send.seal(RecordType.DATA, b"late")
    old = tunnel_keys(1).key_id
    ends.rotate(2)
    ends.b.retire(old)
    with pytest.raises(RemoteProtocolError, match="retired"):
        ends.deliver(late)


@pytest.mark.parametrize("kind", [RecordType.DATA, RecordType.CLOSE, RecordType.ACCEPT])
def test_a_connection_begins_with_open(kind):
    ends = Ends()
    with pytest.raises(RemoteProtocolError, match="out of place"):
        ends.deliver(ends.send.seal(kind))


@pytest.mark.parametrize("kind", [RecordType.OPEN, RecordType.ACCEPT])
def test_a_connection_is_opened_once(kind):
    ends = Ends()
    ends.deliver(ends.send.seal(RecordType.OPEN, b"web"))
    with pytest.raises(RemoteProtocolError, match="out of place"):
        ends.deliver(ends.send.seal(kind, b"web"))


def test_nothing_follows_a_close():
    ends = Ends()
    ends.deliver(ends.send.seal(RecordType.OPEN, b"web") + ends.send.seal(RecordType.CLOSE))
    with pytest.raises(LocalProtocolError):
        ends.send.seal(RecordType.DATA, b"x")
    generation = ends.a.sending
    with pytest.raises(RemoteProtocolError, match="after the peer's close"):
        ends.deliver(generation.seal(RecordType.DATA, 5, b"x", 0.0))


def test_a_record_of_another_connection_is_refused():
    ends = Ends()
    other = SendLane(ends.a, 6)
    with pytest.raises(RemoteProtocolError, match="spliced"):
        ends.deliver(other.seal(RecordType.OPEN, b"web"))


def test_without_a_generation_nothing_is_sealed():
    ends = Ends()
    ends.clock.seconds = 95
    with pytest.raises(KeySupplyError):
        ends.send.seal(RecordType.OPEN, b"web")


def test_a_key_installed_before_is_never_installed_again():
    ends = Ends()
    ends.a.retire(tunnel_keys(1).key_id)
    with pytest.raises(LocalProtocolError, match="before"):
        ends.a.install(tunnel_keys(1), 0.0)


def test_half_used_is_announced_once():
    ends = Ends()
    for _ in range(3):
        ends.a.sending.seal(RecordType.DATA, 5, bytes(16384), 0.0)
        ends.a.count()
    assert ends.nearly == [tunnel_keys(1).key_id]


def test_keys_print_nowhere():
    ends = Ends()
    secret = tunnel_keys(1).initiator_key.to_bytes().hex()
    assert secret not in repr(ends.a.sending)
    assert secret not in repr(ends.a)


@pytest.mark.parametrize("text", ["", ":1", "127.0.0.1", "127.0.0.1:", "h:65536", "h:-1", "h:1x", "h:١"])
def test_an_address_that_is_none_is_refused(text):
    with pytest.raises(ConfigurationError, match="address"):
        Address.parse(text)


def test_an_endless_port_is_refused_like_any_other():
    with pytest.raises(ConfigurationError, match="address"):
        Address.parse("h:" + 5000 * "9")


def test_addresses_are_read_and_written():
    assert Address.parse("[::1]:70") == ("::1", 70)
    assert str(Address.parse("[::1]:70")) == "[::1]:70"
    assert str(Address.parse("127.0.0.1:0")) == "127.0.0.1:0"


def test_user_traffic_in_clear_stays_on_this_machine_unless_declared():
    far = Address("192.0.2.1", 80)
    outer = Address("192.0.2.9", 7)
    with pytest.raises(ConfigurationError, match="in clear"):
        ForwarderConfig(outer_connect=outer, forwards=(Forward(far, "web"),))
    with pytest.raises(ConfigurationError, match="in clear"):
        ForwarderConfig(outer_listen=outer, targets={"web": far})
    ForwarderConfig(outer_listen=outer, targets={"web": far}, inner_lan=True)


def test_a_waiter_is_woken_by_a_change_of_generations():
    async def scenario():
        ring = Keyring(Role.INITIATOR, LIMITS, ManualClock(), lambda _: None)
        waiter = asyncio.create_task(ring.changed())
        await asyncio.sleep(0)
        assert not waiter.done()
        ring.install(tunnel_keys(1), 0.0)
        await waiter
        assert ring.sending is None
        assert not ring.may_send(1)

    asyncio.run(scenario())
