"""TLS under preshared keys: a connection whose key is retired before it could move ends, and never waits for ever."""

import asyncio
import contextlib

from tunnel_pair import TO_INITIATOR, RawRelay, Sites, until

from heliograph.testing.clock import ManualClock


class Gate(RawRelay):
    """Holds back what goes to the initiator's side until it is told otherwise."""

    gate: asyncio.Event

    async def _pump(self, number, direction, reader, writer):  # noqa: ARG002  - as the relay calls it
        while chunk := await reader.read(1 << 18):
            if direction == TO_INITIATOR:
                await self.gate.wait()
            writer.write(chunk)
            await writer.drain()
        writer.close()


def test_a_connection_opened_while_its_key_ran_out_is_opened_again_or_ended():
    async def scenario():
        clock, relay = ManualClock(), Gate()
        relay.gate = asyncio.Event()
        async with Sites(cipher="tls-psk", relay=relay, clock=clock, stock=1) as pair:
            await pair.settled()
            clock.seconds = 294  # senders stop at 295
            reader, writer = await pair.dial()
            writer.write(b"hello")
            await until(lambda: pair.a.status().live_connections == 0)
            clock.seconds = 296
            relay.gate.set()
            await until(lambda: pair.a.status().live_connections == 1)  # the handshake is over, nothing may be sent
            clock.seconds = 301
            for agent in (pair.a, pair.b):
                agent.tick()
            pair.keys.stock = 100
            rekeys = pair.a.status().rekeys
            for _ in range(8):
                clock.seconds += 20
                for agent in (pair.a, pair.b):
                    agent.tick()
                await asyncio.sleep(0)
                if pair.a.status().rekeys > rekeys:
                    break
                await until(lambda: True)
            async with asyncio.timeout(30):
                with contextlib.suppress(OSError):
                    await reader.read(1)
            writer.close()
            await until(lambda: pair.a.status().live_connections == 0)

    asyncio.run(scenario())
