"""TLS 1.3 under the link's keys: each key for one connection, moved at each rotation, ended with its key."""

from __future__ import annotations

import asyncio
import contextlib
import random
import re

import pytest
from tunnel_pair import TO_INITIATOR, TO_RESPONDER, RawRelay, Sites, clear_windows, until

from heliograph.agent.config import AgentConfig
from heliograph.agent.identity import PeerIdentity
from heliograph.consumer.keys import Cipher, Role, derive
from heliograph.encryptors.generation import GenerationLimits
from heliograph.encryptors.psk_generation import PskGeneration, read_identity
from heliograph.encryptors.records import RecordType, connection_index
from heliograph.encryptors.tls_stream import accept_tls, open_tls
from heliograph.encryptors.tls_tunnel import CONTINUE, INDEX, MOVED, send_frame
from heliograph.errors import ConfigurationError, HeliographError, RemoteProtocolError, TransportClosed
from heliograph.testing.clock import ManualClock
from heliograph.types import DeliveredKey
from heliograph.vault.randomness import SystemRandomness

IDENTITY = re.compile(rb"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}/\d+")
KEY = DeliveredKey("3f2b8c1e-6c1f-4f6e-9d3a-0a1b2c3d4e5f", bytes(range(32)))


def identities(relay: RawRelay) -> list[bytes]:
    return IDENTITY.findall(bytes(relay.wire[TO_RESPONDER]))


def tls_sites(**settings) -> Sites:
    return Sites(cipher="tls-psk", relay=RawRelay(), **settings)


def test_tls_carries_a_payload_intact_while_keys_rotate_and_uses_each_preshared_key_once():
    async def scenario():
        payload = random.Random(1).randbytes(12 << 20)
        async with tls_sites(rekey_bytes=2 << 20) as pair:
            pair.host.reply = lambda got: got[: 6 << 20]
            assert await pair.exchange(payload) == payload[: 6 << 20]
            assert bytes(pair.host.received[0]) == payload
            assert pair.host.whole == [True]
            assert len(pair.host.received) == 1  # the host saw one connection all the time
            rekeys = pair.a.status().rekeys
            assert rekeys >= 5
            named = identities(pair.relay)
            assert len(set(named)) == len(named) >= 5
            assert len({identity.partition(b"/")[0] for identity in named}) >= 5  # each under another key of QKD
            assert {identity.partition(b"/")[0].decode() for identity in named} <= set(pair.keys.named)
            for way in (TO_RESPONDER, TO_INITIATOR):
                assert clear_windows(bytes(pair.relay.wire[way]), payload) == 0
            assert pair.a.status().refused_records == pair.b.status().refused_records == 0
            assert pair.a.status().cipher == "tls-psk"

    asyncio.run(scenario())


def test_many_tls_connections_move_at_a_rotation_and_lose_nothing():
    async def scenario():
        async with tls_sites(rekey_bytes=1 << 20) as pair:
            payloads = [random.Random(n).randbytes(300_000 + n) for n in range(12)]
            answers = await asyncio.gather(*(pair.exchange(each) for each in payloads))
            assert answers == [b"thank you"] * 12
            assert sorted(map(bytes, pair.host.received)) == sorted(payloads)
            assert pair.a.status().rekeys >= 2

    asyncio.run(scenario())


def test_tls_runs_on_combined_keys_too():
    async def scenario():
        randomness, secret = SystemRandomness(), b"k" * 32
        names = ("sae-a", "sae-b"), ("sae-b", "sae-a")
        pair_of = tuple(PeerIdentity(*each, secret, randomness) for each in names)
        combined = {"policy": "hybrid-required", "peer_key": "peer.key", "identities": pair_of}
        async with tls_sites(rekey_bytes=1 << 18, **combined) as pair:
            payload = random.Random(3).randbytes(1 << 20)
            assert await pair.exchange(payload) == b"thank you"
            assert bytes(pair.host.received[0]) == payload
            await pair.settled()
            assert pair.a.status().components == ("qkd", "ml-kem-768", "x25519")
            assert pair.a.status().rekeys >= 2

    asyncio.run(scenario())


def test_an_idle_tls_connection_moves_to_the_next_key_and_the_old_key_is_retired():
    async def scenario():
        clock = ManualClock()
        async with tls_sites(clock=clock, rekey_seconds=60) as pair:
            await pair.settled()
            reader, writer = await pair.dial()
            await until(lambda: pair.host.received)
            first = pair.a.status().key_id
            clock.seconds = 61
            pair.a.tick()
            await until(lambda: pair.a.status().key_id != first and pair.a.status().state == "Active")
            await until(lambda: len(identities(pair.relay)) == 2)
            # Drained, so retired long before the overlap is over: the clock stands still.
            await until(
                lambda: not any(pair.a.forwarder.keyring.holds(k) for k in [bytes.fromhex(first.replace("-", ""))])
            )
            writer.write(b"still here")
            writer.write_eof()
            assert await reader.read(-1) == b"thank you"
            assert bytes(pair.host.received[0]) == b"still here"
            writer.close()

    asyncio.run(scenario())


def test_tls_connections_end_with_their_key():
    async def scenario():
        clock = ManualClock()
        async with tls_sites(clock=clock, stock=1) as pair:
            await pair.settled()
            reader, writer = await pair.dial()
            await until(lambda: pair.host.received)
            await until(lambda: pair.a.status().received_records == 1)  # idle from here: no frame is on its way
            clock.seconds = 301
            pair.a.tick()
            pair.b.tick()
            await until(lambda: pair.a.status().mode == pair.b.status().mode == "fail-closed")
            with pytest.raises(ConnectionResetError):
                async with asyncio.timeout(30):
                    await reader.read(1)
            await until(lambda: pair.b.status().live_connections == 0)
            assert pair.host.whole == [False]
            writer.transport.abort()

    asyncio.run(scenario())


def test_a_recorded_tls_opening_replayed_reaches_no_host_and_uses_no_key_up():
    async def scenario():
        async with tls_sites() as pair:
            assert await pair.exchange(b"once") == b"thank you"
            hello = next(chunk for number, way, chunk in pair.relay.seen if (number, way) == (0, TO_RESPONDER))
            all_of_it = b"".join(chunk for number, way, chunk in pair.relay.seen if (number, way) == (0, TO_RESPONDER))
            for recording in (hello, all_of_it):
                reader, writer = await asyncio.open_connection(*pair.b.forwarder.outer_address)
                writer.write(recording)
                with contextlib.suppress(ConnectionResetError):
                    await reader.read(-1)  # the other side ends it
                writer.close()
            assert len(pair.host.received) == 1
            assert pair.b.status().refused_records == 2
            assert await pair.exchange(b"twice") == b"thank you"

    asyncio.run(scenario())


def test_naming_the_peers_identities_uses_none_of_them_up():
    """A key_ID is public: whoever names the next identities without the key must not shut the peer out."""

    async def scenario():
        async with tls_sites() as pair:
            await pair.settled()
            key_id = pair.a.status().key_id
            for number in range(5):
                reader, writer = await asyncio.open_connection(*pair.b.forwarder.outer_address)
                with pytest.raises(RemoteProtocolError):
                    await open_tls(reader, writer, f"{key_id}/{number}".encode(), bytes(32))
                writer.close()
            assert await pair.exchange(b"once") == b"thank you"

    asyncio.run(scenario())


class PeerOfB:
    """A peer that holds the key and does as it likes."""

    def __init__(self, pair: Sites) -> None:
        self.pair = pair
        ring = pair.a.forwarder.keyring
        self.generation = ring.sending

    async def open(self, identity: bytes):
        reader, writer = await asyncio.open_connection(*self.pair.b.forwarder.outer_address)
        try:
            stream = await open_tls(reader, writer, identity, self.generation.psk(Role.INITIATOR, identity))
            stream.send(self.generation.proof(Role.INITIATOR, stream.exported()))
            await stream.read_exactly(32)
        except HeliographError:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
            raise
        return stream


def test_a_preshared_key_that_had_its_connection_is_refused():
    async def scenario():
        async with tls_sites() as pair:
            await pair.settled()
            peer = PeerOfB(pair)
            identity = peer.generation.offer()
            stream = await peer.open(identity)
            with pytest.raises(HeliographError):
                await peer.open(identity)
            await stream.close()

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("kind", "payload"),
    [
        (RecordType.OPEN, INDEX.pack(connection_index(Role.RESPONDER, 0)) + b"web"),
        (RecordType.OPEN, b""),
        (RecordType.OPEN, INDEX.pack(9) + b"nothing of this name"),
        (RecordType.DATA, INDEX.pack(9) + b"web"),
        (CONTINUE, INDEX.pack(77)),
        (MOVED, bytes(8)),
        (99, b"junk"),
    ],
    ids=str,
)
def test_a_tls_connection_that_begins_otherwise_than_it_may_reaches_no_host(kind, payload):
    async def scenario():
        async with tls_sites() as pair:
            await pair.settled()
            peer = PeerOfB(pair)
            stream = await peer.open(peer.generation.offer())
            send_frame(stream, kind, payload)
            with pytest.raises(HeliographError):
                await stream.read_exactly(1)
            assert pair.host.received == []
            stream.abort()

    asyncio.run(scenario())


def test_a_peer_that_moves_with_a_wrong_count_of_frames_is_cut_off():
    async def scenario():
        async with tls_sites() as pair:
            await pair.settled()
            peer = PeerOfB(pair)
            stream = await peer.open(peer.generation.offer())
            send_frame(stream, RecordType.OPEN, INDEX.pack(5) + b"web")
            await stream.read_exactly(5)  # ACCEPT
            send_frame(stream, RecordType.DATA, b"one")
            send_frame(stream, MOVED, (3).to_bytes(8, "big"))  # OPEN and DATA are two
            with pytest.raises(HeliographError):
                await stream.read_exactly(1)
            await until(lambda: pair.b.status().refused_records == 1)
            assert pair.host.whole == [False]
            stream.abort()

    asyncio.run(scenario())


def test_a_connection_is_not_moved_to_its_own_or_an_older_key():
    async def scenario():
        async with tls_sites() as pair:
            await pair.settled()
            _, writer = await pair.dial()
            await until(lambda: pair.host.received)
            peer = PeerOfB(pair)
            stream = await peer.open(peer.generation.offer())
            send_frame(stream, CONTINUE, INDEX.pack(connection_index(Role.INITIATOR, 0)))
            with pytest.raises(HeliographError):
                await stream.read_exactly(1)
            assert pair.b.status().refused_records == 1
            writer.transport.abort()

    asyncio.run(scenario())


def generation(role: Role, key: DeliveredKey = KEY, since: float = 0.0) -> PskGeneration:
    return PskGeneration(
        derive(key, Cipher.TLS_PSK), role, GenerationLimits(rekey_bytes=65536, max_key_age_s=100), since
    )


async def tls_pair(client, server):
    """Shake hands over a real socket; ``client(reader, writer)``, ``server(reader, writer)`` return streams."""
    accepted: asyncio.Future = asyncio.get_running_loop().create_future()

    async def serve(reader, writer):
        try:
            accepted.set_result(await server(reader, writer))
        except HeliographError as why:
            accepted.set_exception(why)
            writer.close()

    listener = await asyncio.start_server(serve, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*listener.sockets[0].getsockname()[:2])
    outcome = await asyncio.gather(client(reader, writer), accepted, return_exceptions=True)
    listener.close()
    if isinstance(outcome[0], Exception):
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
    return outcome


def test_the_handshake_has_a_post_quantum_share_beside_the_key_and_both_ends_export_the_same():
    async def scenario():
        ours, theirs = generation(Role.INITIATOR), generation(Role.RESPONDER)
        identity = ours.offer()
        a, b = await tls_pair(
            lambda r, w: open_tls(r, w, identity, ours.psk(Role.INITIATOR, identity)),
            lambda r, w: accept_tls(r, w, lambda name: theirs.psk(Role.INITIATOR, name)),
        )
        assert a.identity == b.identity == identity == f"{KEY.key_id}/0".encode()
        assert a.group == b.group == "X25519MLKEM768"
        assert a.exported() == b.exported()
        theirs.check_proof(ours.proof(Role.INITIATOR, a.exported()), b.exported())
        for wrong in (ours.proof(Role.RESPONDER, a.exported()), ours.proof(Role.INITIATOR, bytes(32)), bytes(32)):
            with pytest.raises(RemoteProtocolError, match="did not prove"):
                theirs.check_proof(wrong, b.exported())
        a.abort()
        b.abort()

    asyncio.run(scenario())


def test_another_key_of_qkd_under_the_same_name_makes_no_tls_connection():
    async def scenario():
        ours, theirs = generation(Role.INITIATOR), generation(Role.RESPONDER, DeliveredKey(KEY.key_id, bytes(32)))
        identity = ours.offer()
        outcome = await tls_pair(
            lambda r, w: open_tls(r, w, identity, ours.psk(Role.INITIATOR, identity)),
            lambda r, w: accept_tls(r, w, lambda name: theirs.psk(Role.INITIATOR, name)),
        )
        assert [type(each) for each in outcome] == [RemoteProtocolError, RemoteProtocolError]

    asyncio.run(scenario())


@pytest.mark.parametrize("end", [TransportClosed, RemoteProtocolError], ids=["cut", "changed"])
def test_a_tls_stream_cut_or_changed_never_delivers_a_wrong_byte(end):
    async def scenario():
        payload = random.Random(5).randbytes(1 << 20)

        def tamper(_, way, chunk):
            if way == TO_RESPONDER and len(pair.relay.wire[way]) > 300_000:
                return [] if end is TransportClosed else [bytes([chunk[0] ^ 1]) + chunk[1:]]
            return [chunk]

        async with tls_sites() as pair:
            pair.relay.tamper = tamper
            reader, writer = await pair.dial()
            writer.write(payload)
            writer.write_eof()
            if end is TransportClosed:
                await until(lambda: len(pair.relay.wire[TO_RESPONDER]) > 600_000)
                pair.relay.writers[0, TO_RESPONDER].transport.abort()
            with pytest.raises(ConnectionResetError):
                await reader.read(-1)
            await until(lambda: pair.b.status().live_connections == 0)
            assert payload.startswith(bytes(pair.host.received[0]))
            assert pair.host.whole == [False]
            writer.transport.abort()

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "identity", [b"", b"/", b"x", KEY.key_id.encode(), b"k/01", b"k/-1", b"k/1 ", b"k/99999999999", b"k/\xb2"]
)
def test_an_identity_that_is_none_is_not_read(identity):
    assert read_identity(identity) is None


def test_a_tls_generation_keeps_to_its_limits_and_prints_no_key():
    each = generation(Role.INITIATOR)
    assert each.may_send(65536, 0.0)
    assert not each.may_send(65537, 0.0)
    assert not each.may_send(1, 95.0)
    assert each.may_receive(99.0)
    assert not each.may_receive(100.0)
    secret = derive(KEY, Cipher.TLS_PSK).initiator_key.to_bytes()
    assert secret.hex() not in repr(each)
    assert each.psk(Role.INITIATOR, b"x/0") != each.psk(Role.RESPONDER, b"x/0") != each.psk(Role.RESPONDER, b"x/1")
    assert derive(KEY, Cipher.TLS_PSK).initiator_key != derive(KEY).initiator_key


def test_tls_beside_wireguard_is_refused():
    peer = "q" * 43 + "="
    with pytest.raises(ConfigurationError, match="cipher"):
        AgentConfig.from_mapping(
            {
                "role": "initiator",
                "control": "127.0.0.1:1",
                "cipher": "tls-psk",
                "wireguard": {"interface": "wg0", "peer": peer, "allowed_ips": ["10.0.0.0/8"]},
            }
        )
