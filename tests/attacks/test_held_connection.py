"""A connection that somebody in between opened early and held: the listening site must not speak from that moment."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

import pytest

from heliograph.site.greeting import greet, welcome
from heliograph.testing.links import quick_channel, quick_registration
from heliograph.testing.pair import Pair
from heliograph.transport.tcp import dial, listen


async def meet_on_a_held_connection(pair, meanwhile):
    """Let the receiver's site take a connection, ``meanwhile`` others, and only then the transmitter's site use it."""
    arrived = asyncio.Queue()
    server = await listen("127.0.0.1", 0, arrived.put)
    store, anchor = ThreadPoolExecutor(1), ThreadPoolExecutor(1)
    dialled = await dial(*server.sockets[0].getsockname())
    taken = await arrived.get()
    answering = asyncio.create_task(welcome(taken, pair.rx.doors, store, anchor))
    try:
        for _ in range(3):  # whatever it does before a hello is there
            await asyncio.sleep(0)
            await asyncio.get_running_loop().run_in_executor(store, int)
        for _ in range(meanwhile):
            pair.connect()
        (_, at_tx), (_, at_rx) = await asyncio.gather(greet(dialled, pair.tx.doors, store, anchor), answering)
    finally:
        answering.cancel()
        await asyncio.gather(answering, return_exceptions=True)
        for transport in (dialled, taken):
            await transport.close()
        server.close()
        await server.wait_closed()
        for pool in (store, anchor):
            pool.shutdown()
    return at_tx, at_rx


@pytest.mark.parametrize("meanwhile", [0, 1, 2])
def test_a_connection_opened_early_and_held_makes_no_live_site_a_copy(tmp_path, meanwhile):
    """Eve opens it, lets the sites meet on others, and leads the dialling site to it: no pool is destroyed for that."""
    pair = Pair(quick_registration(), quick_channel(), tmp_path / "pair")
    pair.run_block()
    pair.connect()
    at_tx, at_rx = asyncio.run(meet_on_a_held_connection(pair, meanwhile))
    assert at_tx.transcript == at_rx.transcript
    pair.connect()
    assert pair.run_block() == 9
