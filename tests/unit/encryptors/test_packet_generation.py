"""Packets under a generation: each counter once, in any order within a window, and nothing in between."""

from __future__ import annotations

import random
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heliograph.agent.config import AgentConfig
from heliograph.consumer.keys import Role, derive
from heliograph.encryptors.generation import Generation, GenerationLimits
from heliograph.encryptors.packet_generation import WINDOW, PacketGeneration, ReplayWindow
from heliograph.encryptors.records import HEADER_BYTES, RecordType, connection_index, parse_header
from heliograph.encryptors.tun_device import OVERHEAD_BYTES, TunConfig, TunDevice
from heliograph.errors import ConfigurationError, KeySupplyError, RemoteProtocolError
from heliograph.types import DeliveredKey

KEYS = derive(DeliveredKey(str(uuid.UUID(int=1)), bytes(range(32))))
LIMITS = GenerationLimits(rekey_bytes=65536, max_key_age_s=100)


def ends(limits=LIMITS):
    return PacketGeneration(KEYS, Role.INITIATOR, limits, 0.0), PacketGeneration(KEYS, Role.RESPONDER, limits, 0.0)


def opened(generation, record, now=0.0):
    return generation.open(parse_header(record[:HEADER_BYTES]), record[HEADER_BYTES:], now)


def test_packets_are_taken_in_any_order_and_each_once():
    a, b = ends()
    records = [a.seal_packet(b"packet %d" % n, 0.0) for n in range(200)]
    order = list(enumerate(records))
    random.Random(1).shuffle(order)
    for number, record in order:
        assert opened(b, record) == b"packet %d" % number
    for record in records:
        with pytest.raises(RemoteProtocolError, match="replayed"):
            opened(b, record)
    assert b.received_records == 200


def test_a_packet_too_far_behind_is_refused_though_it_never_came():
    a, b = ends(GenerationLimits(max_key_age_s=100))
    records = [a.seal_packet(b"x", 0.0) for _ in range(WINDOW + 1)]
    opened(b, records[-1])
    with pytest.raises(RemoteProtocolError, match="too old"):
        opened(b, records[0])
    assert opened(b, records[1]) == b"x"


@given(st.lists(st.integers(0, 3 * WINDOW), max_size=300))
def test_the_window_takes_what_a_plain_set_would_take(counters):
    window, seen, highest = ReplayWindow(), set(), -1
    for counter in counters:
        fresh = counter not in seen and counter > highest - WINDOW
        try:
            window.check(counter)
        except RemoteProtocolError:
            assert not fresh
            continue
        assert fresh
        window.mark(counter)
        seen.add(counter)
        highest = max(highest, counter)


def test_every_bit_flip_of_a_packet_is_refused_and_moves_no_window():
    a, b = ends()
    record = a.seal_packet(b"attack at dawn", 0.0)
    for bit in range(8 * len(record)):
        bent = bytearray(record)
        bent[bit // 8] ^= 0x80 >> bit % 8
        with pytest.raises(RemoteProtocolError):
            opened(b, bytes(bent))
    assert opened(b, record) == b"attack at dawn"


def test_packets_are_not_taken_back_from_the_other_side_nor_over_an_age_or_limit():
    a, b = ends()
    record = a.seal_packet(b"x", 0.0)
    with pytest.raises(RemoteProtocolError, match="reflected"):
        opened(a, record)
    with pytest.raises(RemoteProtocolError, match="age"):
        opened(b, record, 100.0)
    with pytest.raises(KeySupplyError):
        a.seal_packet(b"x", 95.0)
    with pytest.raises(KeySupplyError):
        a.seal_packet(bytes(65536), 0.0)


def test_a_record_of_a_connection_is_no_packet_and_the_other_way_round():
    a, b = ends()
    stream = Generation(KEYS, Role.INITIATOR, LIMITS, 0.0)
    for kind, connection in ((RecordType.DATA, connection_index(Role.INITIATOR, 0)), (RecordType.PACKET, 7)):
        with pytest.raises(RemoteProtocolError, match="not with the peer's packet"):
            opened(b, stream.seal(kind, connection, b"x", 0.0))
    assert opened(b, a.seal_packet(b"x", 0.0)) == b"x"


TUN = {
    "role": "initiator",
    "control": "127.0.0.1:1",
    "outer_listen": "127.0.0.1:2",
    "outer_connect": "127.0.0.1:3",
    "tun": {"interface": "hg0"},
}


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"outer_listen": None}, "outer_listen"),
        ({"outer_connect": None}, "outer_listen and outer_connect"),
        ({"forwards": {"web": "127.0.0.1:4"}}, "remove forwards"),
        ({"cipher": "tls-psk"}, "for ports"),
        ({"cipher": "one-time-pad", "peer_key": "x"}, "for ports"),
        ({"tun": {"interface": "../hg0"}}, "interface"),
        ({"tun": {"interface": "hg0", "path_mtu": 1300}}, "path_mtu"),
    ],
    ids=str,
)
def test_a_tun_table_that_cannot_work_is_refused_by_name(change, named):
    assert AgentConfig.from_mapping(TUN).tun == TunConfig("hg0")
    with pytest.raises(ConfigurationError, match=named):
        AgentConfig.from_mapping({name: value for name, value in (TUN | change).items() if value is not None})


def test_an_interface_that_nobody_made_is_not_made_by_the_agent():
    with pytest.raises(ConfigurationError, match="ip tuntap add dev hgnone0 mode tun"):
        TunDevice(TunConfig("hgnone0"))
    assert OVERHEAD_BYTES == 99
