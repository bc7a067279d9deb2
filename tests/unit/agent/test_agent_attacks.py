"""Someone between the sites, a lying peer, junk on the ports: never a wrong byte, never an unproved key."""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import os
import random
import struct
import uuid

import pytest
from tunnel_pair import TO_INITIATOR, TO_RESPONDER, Relay, Sites, until

from heliograph.consumer.messages import Prepare, encode
from heliograph.encryptors.records import HEADER_BYTES, RecordType, parse_header
from heliograph.testing.clock import ManualClock
from heliograph.types import DeliveredKey

PAYLOAD = random.Random(7).randbytes(600_000)


def kind_of(record):
    return parse_header(record[:HEADER_BYTES]).kind


def flip(byte):
    def tamper(record):
        changed = bytearray(record)
        changed[byte] ^= 1
        return [bytes(changed)]

    return tamper


def resize(record):
    return [record[: HEADER_BYTES - 4] + struct.pack(">I", len(record) - HEADER_BYTES - 1) + record[HEADER_BYTES:-1]]


def swap_next():
    held = []

    def tamper(record):
        if held:
            return [record, held.pop()]
        held.append(record)
        return []

    return tamper


ATTACKS = {
    "a flipped byte of the type": lambda: flip(1),
    "a flipped byte of the sender": lambda: flip(2),
    "a flipped byte of the connection": lambda: flip(6),
    "a flipped byte of the counter": lambda: flip(14),
    "a flipped byte of the key_ID": lambda: flip(20),
    "a flipped byte of the length": lambda: flip(34),
    "a flipped byte of the ciphertext": lambda: flip(HEADER_BYTES),
    "a flipped byte of the tag": lambda: flip(-1),
    "a shortened record": lambda: resize,
    "a dropped record": lambda: lambda _: [],
    "a repeated record": lambda: lambda record: [record, record],
    "two records in the other order": swap_next,
    "junk between records": lambda: lambda record: [os.urandom(40), record],
}


async def attacked(relay):
    """Send the payload through an attacked relay; return what each side saw."""
    # Where the attack leaves one side without the record it waits for, its time limit ends the connection.
    limits = {"connect_seconds": 0.2, "first_record_seconds": 0.2}
    async with Sites(relay=relay, forwarder_changes=limits) as sites:
        sites.host.reply = lambda got: got
        await sites.settled()
        try:
            answer = await sites.exchange(PAYLOAD)
        except ConnectionResetError:
            answer = None
        await until(lambda: sites.a.status().live_connections == sites.b.status().live_connections == 0)
        a, b = sites.a.status(), sites.b.status()
        got = bytes(sites.host.received[0]) if sites.host.received else b""
        whole = bool(sites.host.whole and sites.host.whole[0])
        # The next connection is not harmed.
        relay.tamper = lambda _connection, _direction, record: [record]
        assert await sites.exchange(PAYLOAD) == PAYLOAD
        return got, whole, answer, a.refused_records + b.refused_records, a.cut_connections + b.cut_connections


@pytest.mark.parametrize("direction", [TO_RESPONDER, TO_INITIATOR], ids=["to the responder", "to the initiator"])
@pytest.mark.parametrize("at", [0, 1, 3], ids=["first record", "second record", "in the middle"])
@pytest.mark.parametrize("attack", ATTACKS)
def test_a_changed_stream_never_delivers_a_wrong_byte_and_never_looks_whole(attack, at, direction):
    tamper, count = ATTACKS[attack](), itertools.count()

    def meddle(_connection, way, record):
        if way != direction:
            return [record]
        number = next(count)
        return tamper(record) if number == at or (attack.startswith("two") and number == at + 1) else [record]

    got, whole, answer, refused, cut = asyncio.run(asyncio.wait_for(attacked(Relay(tamper=meddle)), 20))
    assert PAYLOAD.startswith(got)
    if direction == TO_RESPONDER:
        assert not whole
    assert answer is None, "the host behind A must see a reset, not an end of data"
    assert refused + cut >= 1


def test_a_cut_connection_does_not_look_like_an_end_of_data():
    async def scenario():
        async with Sites() as sites:
            relay, seen = sites.relay, itertools.count()

            def cut(connection, way, record):
                if way == TO_RESPONDER and next(seen) == 3:
                    relay.writers[connection, TO_RESPONDER].close()
                    return []
                return [record]

            relay.tamper = cut
            with pytest.raises(ConnectionResetError):
                await sites.exchange(PAYLOAD)
            await until(lambda: sites.b.status().cut_connections == 1)
            assert PAYLOAD.startswith(bytes(sites.host.received[0]))
            assert sites.host.whole == [False]

    asyncio.run(scenario())


def test_records_cut_off_before_a_marker_are_missed():
    async def scenario():
        held, removed = [], []

        def cut_tail(_connection, way, record):
            """Drop the last data record of the first generation: hold each back until the next one is seen."""
            if way != TO_RESPONDER or removed:
                return [record]
            if kind_of(record) is RecordType.MARKER:
                removed.extend(held)
                return [record]
            out = list(held)
            held[:] = [record] if kind_of(record) is RecordType.DATA else []
            return out + ([] if held else [record])

        async with Sites(relay=Relay(tamper=cut_tail), rekey_bytes=200_000) as sites:
            await sites.settled()
            with pytest.raises(ConnectionResetError):
                await sites.exchange(PAYLOAD)
            assert len(removed) == 1
            await until(lambda: sites.b.status().refused_records == 1)
            assert PAYLOAD.startswith(bytes(sites.host.received[0]))
            assert sites.host.whole == [False]

    asyncio.run(scenario())


def test_reflected_records_are_refused():
    async def scenario():
        async with Sites() as sites:
            relay = sites.relay

            def reflect(connection, way, record):
                if way == TO_RESPONDER and kind_of(record) is RecordType.DATA:
                    relay.writers[connection, TO_INITIATOR].write(record)
                return [record]

            relay.tamper = reflect
            with pytest.raises(ConnectionResetError):
                await sites.exchange(PAYLOAD)
            assert sites.a.status().refused_records == 1

    asyncio.run(scenario())


def test_a_record_spliced_into_another_connection_is_refused():
    async def scenario():
        async with Sites() as sites:
            stolen = []

            def splice(connection, way, record):
                if way == TO_RESPONDER and kind_of(record) is RecordType.DATA:
                    if connection == 0 and not stolen:
                        stolen.append(record)
                        return []
                    if connection == 1:
                        return [stolen[0]]
                return [record]

            sites.relay.tamper = splice
            first_reader, first = await sites.dial()
            first.write(b"to the first")
            await until(lambda: bool(stolen))
            second_reader, second = await sites.dial()
            second.write(b"to the second")
            with pytest.raises(ConnectionResetError):
                await second_reader.readexactly(1)
            assert [bytes(got) for got in sites.host.received] == [b"", b""]
            assert sites.b.status().refused_records == 1
            for writer in (first, second):
                writer.transport.abort()
            del first_reader

    asyncio.run(scenario())


def test_a_recorded_connection_replayed_on_a_new_one_reaches_no_host():
    async def scenario():
        async with Sites() as sites:
            await sites.exchange(PAYLOAD)
            _, writer = await asyncio.open_connection(*sites.b.forwarder.outer_address)
            writer.write(bytes(sites.relay.wire[TO_RESPONDER]))
            await until(lambda: sites.b.status().refused_records == 1)
            assert len(sites.host.received) == 1
            writer.transport.abort()

    asyncio.run(scenario())


def test_junk_on_the_outer_port_is_capped_timed_out_and_harms_nobody():
    async def scenario():
        async with Sites(forwarder_changes={"max_unauthenticated": 8, "first_record_seconds": 0.3}) as sites:
            await sites.settled()
            outer = sites.b.forwarder.outer_address
            silent = [await asyncio.open_connection(*outer) for _ in range(32)]  # four times as many, for a moment
            await until(lambda: len(sites.b.forwarder._waiting) == 32)
            _, extra = await asyncio.open_connection(*outer)
            # The oldest makes way: who holds connections open without a word keeps nobody out.
            with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
                await silent[0][0].readexactly(1)
            # The silent ones are turned away in time, and then there is room again.
            await until(lambda: sites.b.status().turned_away == 33)
            refused = sites.b.status().refused_records
            for junk in (b"GET / HTTP/1.1\r\n\r\n" * 3, os.urandom(200), bytes(100)):
                reader, writer = await asyncio.open_connection(*outer)
                writer.write(junk)
                with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
                    await reader.readexactly(1)
                writer.transport.abort()
            assert sites.b.status().refused_records == refused + 3
            assert await sites.exchange(b"still here") == b"thank you"
            for _, writer in [*silent, (None, extra)]:
                writer.transport.abort()

    asyncio.run(scenario())


def test_junk_on_the_control_port_neither_stops_rotations_nor_burns_keys():
    async def scenario():
        clock = ManualClock()
        async with Sites(clock=clock, rekey_seconds=10) as sites:
            await sites.settled()
            address = sites.b.control_address
            links = []
            for junk in (b"\xff\xff", b"\0\0", b"\0\x05hello", os.urandom(64), b"", b""):
                reader, writer = await asyncio.open_connection(*address)
                writer.write(junk)
                links.append((reader, writer))
            await until(lambda: sites.b.status().refused_messages >= 3)
            # More idle connections than there is room for: the proven one stays.
            links += [await asyncio.open_connection(*address) for _ in range(12)]
            for turn in range(1, 4):
                clock.seconds += 11
                sites.a.tick()
                await until(lambda turn=turn: sites.a.status().rekeys == sites.b.status().rekeys == turn)
            assert len(sites.keys.named) == 4
            assert sites.a.status().control_connected
            for _, writer in links:
                writer.transport.abort()

    asyncio.run(scenario())


def test_who_names_many_unknown_keys_is_dropped():
    async def scenario():
        async with Sites() as sites:
            await sites.settled()
            before = sites.b.status().key_id
            reader, writer = await asyncio.open_connection(*sites.b.control_address)
            for number in range(8):
                message = encode(Prepare(uuid.uuid4().bytes, None, 1, bytes(32)))
                writer.write(struct.pack(">H", len(message)) + message)
                # An answer for each: wait for it, since one fetch is under way at a time.
                (size,) = struct.unpack(">H", await reader.readexactly(2))
                answer = await reader.readexactly(size)
                if number == 0:  # the first message on a link is what the responder stands on
                    (size,) = struct.unpack(">H", await reader.readexactly(2))
                    answer = await reader.readexactly(size)
                assert b"unknown key" in answer
            with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
                await reader.readexactly(1)
            assert sites.b.status().key_id == before
            assert await sites.exchange(b"still here") == b"thank you"
            writer.transport.abort()

    asyncio.run(scenario())


class LyingSource:
    """Gives other material, or other key_IDs, than the true one for the first ``lies`` keys."""

    def __init__(self, true, how, lies):
        self.true, self.how, self.lies = true, how, lies

    def _bend(self, key):
        if self.lies == 0:
            return key
        self.lies -= 1
        return self.how(key)

    async def get_key(self):
        return self._bend(await self.true.get_key())

    async def get_key_with_id(self, key_id):
        return self._bend(await self.true.get_key_with_id(key_id))


LIES = {
    "other material": lambda key: dataclasses.replace(key, material=bytes(32)),
    "another key_ID": lambda key: dataclasses.replace(key, key_id=str(uuid.uuid4())),
    "a short key": lambda key: DeliveredKey(key.key_id, key.material[:16]),
    "no UUID": lambda key: dataclasses.replace(key, key_id="../../etc"),
}


@pytest.mark.parametrize("side", ["a", "b"])
@pytest.mark.parametrize("lie", LIES)
def test_a_key_that_the_peer_does_not_hold_is_never_used_and_the_next_one_is(lie, side):
    async def scenario():
        clock = ManualClock()
        sites = Sites(clock=clock)
        bent = LyingSource(sites.keys.master if side == "a" else sites.keys.slave, LIES[lie], 3)
        setattr(sites, f"source_{side}", bent)
        async with sites:
            while bent.lies:
                left = bent.lies
                assert sites.a.status().mode == sites.b.status().mode == "fail-closed"
                clock.seconds += 20
                sites.a.tick()
                await until(lambda left=left: bent.lies < left)
                await until(lambda: sites.a.status().state == sites.b.status().state == "Idle")
            clock.seconds += 20
            sites.a.tick()
            await sites.settled()
            assert sites.a.status().key_id == sites.b.status().key_id is not None
            assert await sites.exchange(b"now") == b"thank you"

    asyncio.run(scenario())


def test_a_key_manager_that_gives_a_key_twice_causes_no_second_use():
    async def scenario():
        clock = ManualClock()
        sites = Sites(clock=clock, rekey_seconds=10)
        given = []

        def again(key):
            given.append(key)
            return given[0]

        sites.source_a = LyingSource(sites.keys.master, again, 2)
        async with sites:
            await sites.settled()
            first = sites.a.status().key_id
            clock.seconds = 11
            sites.a.tick()
            await until(lambda: sites.a.status().last_refusal is not None)
            assert "second time" in sites.a.status().last_refusal
            assert sites.a.status().key_id == first
            clock.seconds = 13
            sites.a.tick()
            await until(lambda: sites.a.status().key_id != first)

    asyncio.run(scenario())


def test_a_forward_that_the_peer_does_not_offer_is_refused():
    async def scenario():
        async with Sites() as sites:
            object.__setattr__(sites.b.forwarder._config, "targets", {})
            with pytest.raises(ConnectionResetError):
                await sites.exchange(b"hello")
            assert sites.b.status().refused_records == 1

    asyncio.run(scenario())
