"""The three ways to protect a record: what crosses, what a pad costs, and that no bit of a pad is used twice."""

from __future__ import annotations

import asyncio
import contextlib
import random
import struct
from itertools import pairwise

import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.poly1305 import Poly1305
from tunnel_pair import Relay, Sites, clear_windows, until

from heliograph.agent.config import AgentConfig
from heliograph.agent.identity import PeerIdentity
from heliograph.consumer.keys import Cipher, Role, derive
from heliograph.encryptors.ciphers import PadOpener, PadSealer
from heliograph.encryptors.generation import Generation, GenerationLimits
from heliograph.encryptors.records import HEADER_BYTES, RecordHeader, RecordType, parse_header
from heliograph.errors import ConfigurationError, KeySupplyError, RemoteProtocolError
from heliograph.types import DeliveredKey
from heliograph.vault.randomness import SystemRandomness


def pad_sites(**settings) -> Sites:
    randomness = SystemRandomness()
    pair = PeerIdentity("sae-a", "sae-b", b"k" * 32, randomness), PeerIdentity("sae-b", "sae-a", b"k" * 32, randomness)
    return Sites(identities=pair, cipher="one-time-pad", peer_key="peer.key", **settings)


def pad_claims(relay: Relay):
    """Yield (key_ID, sender, number, first byte, end) of every record seen between the sites."""
    for _, _, record in relay.seen:
        header = parse_header(record[:HEADER_BYTES])
        number, start = struct.unpack(">II", record[HEADER_BYTES : HEADER_BYTES + 8])
        yield header.key_id, header.sender, number, start, start + header.length - 40


def test_chacha20_carries_traffic_and_its_records_do_not_open_under_aes():
    async def scenario():
        payload = random.Random(1).randbytes(1 << 20)
        async with Sites(cipher="chacha20-poly1305", rekey_bytes=1 << 19) as pair:
            assert await pair.exchange(payload) == b"thank you"
            assert bytes(pair.host.received[0]) == payload
            assert pair.a.status().cipher == "chacha20-poly1305"
            assert clear_windows(bytes(pair.relay.wire[0]), payload) == 0

    asyncio.run(scenario())
    key = DeliveredKey("3f2b8c1e-6c1f-4f6e-9d3a-0a1b2c3d4e5f", bytes(range(32)))
    ciphers = [derive(key, cipher).initiator_key for cipher in (Cipher.AES_256_GCM, Cipher.CHACHA20_POLY1305)]
    assert ciphers[0] != ciphers[1]


def test_sites_with_different_ciphers_send_nothing():
    async def scenario():
        async with Sites(cipher="chacha20-poly1305") as pair:
            await pair.a.close()
            pair.settings["cipher"] = "aes-256-gcm"
            await pair.start_a()
            await until(lambda: pair.a.status().control_connected and len(pair.keys.named) >= 2)
            assert pair.a.status().mode == pair.b.status().mode == "fail-closed"

    asyncio.run(scenario())


def test_a_one_time_pad_is_the_links_keys_as_they_are_and_no_bit_of_it_is_used_twice():
    async def scenario():
        payload = random.Random(2).randbytes(20_000)
        delivered = {}
        async with pad_sites(pad_keys=256) as pair:
            take = pair.keys.take

            def recorded():
                key = take()
                delivered[key.key_id] = key.material
                return key

            pair.keys.take = recorded
            assert await pair.exchange(payload) == b"thank you"
            assert bytes(pair.host.received[0]) == payload
            await pair.settled()
            assert pair.a.status().rekeys >= 5
            claims: dict[tuple[bytes, Role], list[tuple[int, int]]] = {}
            numbers: dict[tuple[bytes, Role], list[int]] = {}
            for key_id, sender, number, start, end in pad_claims(pair.relay):
                claims.setdefault((key_id, sender), []).append((start, end))
                numbers.setdefault((key_id, sender), []).append(number)
            assert all(len(set(used)) == len(used) for used in numbers.values())
            for spans in claims.values():
                spans.sort()
                assert all(before[1] <= after[0] for before, after in pairwise(spans))
            # No key derivation: the ciphertext is the payload XOR the key manager's bytes.
            names = list(delivered)
            wire = {
                h.key_id.hex(): record
                for h, (_, way, record) in zip(pair.relay.headers(), pair.relay.seen, strict=True)
                if way == 0 and h.kind is RecordType.DATA and str(h.key_id.hex()) in {n.replace("-", "") for n in names}
            }
            key_id, record = next(iter(wire.items()))
            first = next(i for i, name in enumerate(names) if name.replace("-", "") == key_id)
            pad = b"".join(delivered[name][:16] for name in names[first + 1 : first + 256])
            tags = len(pad) // 4 // 32 * 32  # the first quarter is for tags
            start = tags + int.from_bytes(record[HEADER_BYTES + 4 : HEADER_BYTES + 8], "big")
            body = record[HEADER_BYTES + 8 : -32]
            plain = bytes(a ^ b for a, b in zip(body, pad[start:], strict=False))
            assert plain in payload
            assert len(plain) > 100

    asyncio.run(scenario())


def test_a_short_pad_stops_traffic_and_never_stretches():
    async def scenario():
        async with pad_sites(pad_keys=64, stock=64) as pair:
            _, writer = await pair.dial()
            writer.write(random.Random(3).randbytes(10_000))
            await writer.drain()
            await until(lambda: pair.host.received and len(pair.host.received[0]) > 300)
            await until(lambda: "no key is left" in (pair.a.status().last_refusal or ""))
            for _ in range(2000):
                await asyncio.sleep(0)
            # 63 keys of 16 bytes each way, 32 for each tag, a quarter kept for markers: no more than that crossed.
            assert len(pair.host.received[0]) <= 63 * 16 * 3 // 4
            claims = [claim for claim in pad_claims(pair.relay) if claim[1] is Role.INITIATOR]
            spent = sum(32 + end - start for *_, start, end in claims)
            assert spent + pair.a.status().pad_bytes_left == 63 * 16
            writer.close()

    asyncio.run(scenario())


def test_a_pad_offered_with_another_number_of_keys_is_refused():
    async def scenario():
        async with pad_sites(pad_keys=128) as pair:
            await pair.a.close()
            pair.settings["pad_keys"] = 64
            await pair.start_a()
            await until(lambda: "pad_keys" in (pair.b.status().last_refusal or ""))
            assert pair.a.status().mode == "fail-closed"

    asyncio.run(scenario())


def test_no_pad_is_fetched_for_a_peer_that_says_nothing():
    """Who takes the responder's place on the network, or merely answers its port, costs no pad."""

    async def scenario():
        async with pad_sites(pad_keys=64) as pair:
            await pair.settled()
            await pair.a.close()
            await pair.b.close()
            heard = []

            async def swallow(reader, writer):
                try:
                    while data := await reader.read(1 << 16):
                        heard.append(data)
                        writer.write(data)  # an echo is the best that a peer without the key can say
                finally:
                    writer.close()

            deaf = await asyncio.start_server(swallow, *pair.b.control_address)
            before = len(pair.keys.named)
            await pair.start_a()
            await until(lambda: len(heard) >= 1)
            await until(lambda: pair.a.status().refused_messages >= 1)
            assert len(pair.keys.named) == before
            deaf.close()
            await pair.a.close()
            await pair.start_b(str(pair.b.control_address), str(pair.b.forwarder.outer_address))
            await pair.start_a()
            await pair.settled()
            assert len(pair.keys.named) == before + 64

    asyncio.run(scenario())


def test_forged_records_from_off_the_path_cost_no_attempt_and_stop_no_pad():
    async def scenario():
        async with pad_sites(pad_keys=256) as pair:
            await pair.settled()
            key_id = pair.b.forwarder.keyring.sending.key_id
            opening = pair.b.forwarder.keyring.sending._opening._inner
            for number in range(1100):  # more than the attempts that a pad has
                header = RecordHeader(RecordType.OPEN, Role.INITIATOR, 5, 0, key_id, 8 + 3 + 32)
                body = struct.pack(">II", number % 8, 0) + random.Random(number).randbytes(35)
                reader, writer = await asyncio.open_connection(*pair.b.forwarder.outer_address)
                writer.write(header.pack() + body)
                with contextlib.suppress(ConnectionResetError):
                    await reader.read(-1)
                writer.close()
            assert pair.b.status().refused_records == 1100
            assert opening._attempts == 0
            assert pair.b.status().pad_bytes_left == pair.a.status().pad_bytes_left == 255 * 16
            assert await pair.exchange(b"still here") == b"thank you"

    asyncio.run(scenario())


def test_a_record_changed_on_the_path_costs_no_attempt_either():
    key = DeliveredKey("3f2b8c1e-6c1f-4f6e-9d3a-0a1b2c3d4e5f", random.Random(6).randbytes(4128))
    keys = derive(key, Cipher.ONE_TIME_PAD)
    a, b = (Generation(keys, role, GenerationLimits(), 0.0) for role in (Role.INITIATOR, Role.RESPONDER))
    record = a.seal(RecordType.DATA, 3, b"attack at dawn", 0.0)
    for bit in range(8 * HEADER_BYTES, 8 * len(record)):
        bent = bytearray(record)
        bent[bit // 8] ^= 0x80 >> bit % 8
        with pytest.raises(RemoteProtocolError, match="pre-filter"):
            b.open(parse_header(bytes(bent[:HEADER_BYTES])), bytes(bent[HEADER_BYTES:]), 0.0)
    assert b._opening._inner._attempts == 0
    assert b.open(parse_header(record[:HEADER_BYTES]), record[HEADER_BYTES:], 0.0) == b"attack at dawn"


PAD = random.Random(4).randbytes(400)


def test_a_pad_record_bent_in_any_byte_is_refused_and_the_right_one_still_opens():
    sealer, opener = PadSealer(PAD), PadOpener(PAD)
    body = sealer.seal(b"", b"attack at dawn", b"header")
    for at in range(len(body)):
        bent = bytearray(body)
        bent[at] ^= 1
        with pytest.raises((InvalidTag, RemoteProtocolError)):
            opener.open(b"", bytes(bent), b"header")
    with pytest.raises(InvalidTag):
        opener.open(b"", body, b"another")
    assert opener.open(b"", body, b"header") == b"attack at dawn"
    with pytest.raises(RemoteProtocolError, match="used before"):
        opener.open(b"", body, b"header")


def test_who_knows_a_payload_knows_no_tags_key_and_cannot_name_its_bytes_as_one():
    """A man in the middle holds back a record whose text he knows: its pad is his, and must be of no use as a key."""
    text = b"GET /index.html HTTP/1.1\r\nHost: intranet\r\nAccept: text/html, text/plain, */*\r\n\r\n"
    body = PadSealer(PAD).seal(b"", text, b"header")
    known = bytes(a ^ b for a, b in zip(body[8:-16], text, strict=True))
    forged_text = b"DELETE /all"
    for number in range(4):
        for start in range(0, 320, 8):
            for key_at in range(len(known) - 32 - len(forged_text)):
                place = struct.pack(">II", number, start)
                pad = known[key_at + 32 : key_at + 32 + len(forged_text)]
                sealed = bytes(a ^ b for a, b in zip(forged_text, pad, strict=True))
                tag = Poly1305.generate_tag(known[key_at : key_at + 32], b"header" + place + sealed)
                with pytest.raises((InvalidTag, RemoteProtocolError)):
                    PadOpener(PAD).open(b"", place + sealed + tag, b"header")


def test_a_pad_takes_a_bounded_number_of_forgeries():
    body = PadSealer(PAD).seal(b"", b"attack at dawn", b"header")
    opener = PadOpener(PAD)
    forged = body[:-16] + bytes(16)
    for _ in range(1024):
        with pytest.raises(InvalidTag):
            opener.open(b"", forged, b"header")
    with pytest.raises(RemoteProtocolError, match="wrong tags"):
        opener.open(b"", body, b"header")


def test_a_record_that_does_not_fit_spends_nothing():
    sealer = PadSealer(PAD)
    with pytest.raises(KeySupplyError):
        sealer.seal(b"", bytes(305), b"header")
    assert sealer.left == 400
    assert not sealer.room(229)
    sealer.seal(b"", bytes(304), b"header")
    assert sealer.left == 64  # keys of two more tags


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"cipher": "rot13"}, "cipher"),
        ({"cipher": "one-time-pad"}, "peer_key"),
        ({"cipher": "one-time-pad", "peer_key": "x", "policy": "hybrid-required"}, "qkd-only"),
        ({"cipher": "one-time-pad", "peer_key": "x", "pad_keys": 8}, "pad_keys"),
    ],
    ids=str,
)
def test_a_cipher_that_cannot_keep_its_promise_is_refused_by_name(change, named):
    with pytest.raises(ConfigurationError, match=named):
        AgentConfig.from_mapping({"role": "initiator", "control": "127.0.0.1:1"} | change)
