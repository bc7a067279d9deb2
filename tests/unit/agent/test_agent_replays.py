"""A peer's agent, or somebody who recorded one, that says again what was said before."""

from __future__ import annotations

import asyncio
import contextlib

import pytest
from tunnel_pair import TO_INITIATOR, TO_RESPONDER, RawRelay, Sites, until

from heliograph.testing.clock import ManualClock


@contextlib.asynccontextmanager
async def recorded_control(cipher: str):
    """Run a pair whose control channel goes through a relay that keeps it; yield (pair, the relay)."""
    clock, relay = ManualClock(), RawRelay()
    async with Sites(clock=clock, rekey_seconds=10, relay=RawRelay(), cipher=cipher) as pair:
        await pair.a.close()
        relay.target = tuple(pair.b.control_address)
        await relay.start()
        pair.settings["control"] = f"127.0.0.1:{relay.port}"
        clock.seconds += 20
        await pair.start_a()
        await pair.settled()
        try:
            yield pair, relay
        finally:
            await pair.a.close()
            await relay.close()


async def rotate(pair: Sites) -> None:
    before = pair.a.status().rekeys
    pair.clock.seconds += 11
    pair.a.tick()
    await until(
        lambda: pair.a.status().rekeys == pair.b.status().rekeys == before + 1 or pair.a.status().rekeys > before
    )
    await pair.settled()
    await until(lambda: pair.a.status().key_id == pair.b.status().key_id)


@pytest.mark.parametrize("cipher", ["aes-256-gcm", "tls-psk"])
def test_a_whole_recorded_control_connection_said_again_installs_nothing_and_costs_no_key(cipher):
    async def scenario():
        async with recorded_control(cipher) as (pair, relay):
            for _ in range(3):
                await rotate(pair)
            recording = bytes(relay.wire[TO_RESPONDER])
            assert len(recording) > 300  # Prepare and Commit of several rotations
            named, standing = len(pair.keys.named), pair.b.status()
            reader, writer = await asyncio.open_connection(*pair.b.control_address)
            writer.write(recording)
            writer.write_eof()
            with contextlib.suppress(ConnectionResetError):
                await reader.read(-1)
            writer.close()
            after = pair.b.status()
            assert (after.key_id, after.rekeys, after.mode) == (standing.key_id, standing.rekeys, "encrypting")
            assert len(pair.keys.named) == named
            # The true peer goes on as before.
            await rotate(pair)
            assert await pair.exchange(b"now") == b"thank you"
            assert len(pair.keys.named) == named + 1

    asyncio.run(scenario())


@pytest.mark.parametrize("cipher", ["aes-256-gcm", "tls-psk"])
def test_a_responder_that_says_its_old_answers_again_moves_the_initiator_to_no_key(cipher):
    async def scenario():
        async with recorded_control(cipher) as (pair, relay):
            for _ in range(2):
                await rotate(pair)
            recording = bytes(relay.wire[TO_INITIATOR])
            standing, named = pair.a.status(), len(pair.keys.named)
            relay.writers[0, TO_INITIATOR].write(recording)  # old Ready, Confirm and Standing on the true connection
            await rotate(pair)
            after = pair.a.status()
            assert after.key_id == pair.b.status().key_id != standing.key_id
            assert len(pair.keys.named) == named + 1
            assert after.rekeys == standing.rekeys + 1
            assert await pair.exchange(b"now") == b"thank you"

    asyncio.run(scenario())
