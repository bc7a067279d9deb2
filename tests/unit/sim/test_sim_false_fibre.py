"""The receiver's module against a fibre that misbehaves."""

from __future__ import annotations

import asyncio
import contextlib

import numpy as np
import pytest
from sim_draws import CountingRandom

from heliograph.errors import RemoteProtocolError, TransportClosed
from heliograph.protocol.module_link import (
    HEADER_BYTES,
    ORDER_BYTES_MAX,
    LightSent,
    ModuleError,
    decode_order,
    encode_frame,
    frame_length,
    report_clicks,
)
from heliograph.sim.modules import open_receiver
from heliograph.types import BlockId, LightParameters
from heliograph.vault.randomness import SystemRandomness

LIGHT = LightParameters(2 * 10**7, 1e9, (0.5, 0.1), (0.7, 0.3), 0.9, 0.8)
LIMIT_S = 15


@contextlib.asynccontextmanager
async def false_fibre(folder, answer):
    """Run a fibre that answers each order with what ``answer(order)`` returns; None closes the line."""
    lines = []

    async def serve(reader, writer):
        lines.append(asyncio.current_task())
        with contextlib.suppress(asyncio.IncompleteReadError):
            while True:
                header = await reader.readexactly(HEADER_BYTES)
                order = decode_order(await reader.readexactly(frame_length(header, ORDER_BYTES_MAX)))
                reply = answer(order)
                if reply is None:
                    break
                writer.write(reply if isinstance(reply, bytes) else encode_frame(reply))
        writer.close()
        await writer.wait_closed()

    async with await asyncio.start_unix_server(serve, folder / "false"), asyncio.timeout(LIMIT_S):
        try:
            yield f"unix:{folder}/false"
        finally:
            await asyncio.gather(*lines)


def collect_from(folder, answer, randomness=None, **settings):
    async def scenario():
        async with false_fibre(folder, answer) as address:
            receiver = await open_receiver({"address": address, **settings}, randomness or SystemRandomness())
            try:
                return await receiver.collect(BlockId(0), LIGHT)
            finally:
                await receiver.close()

    return asyncio.run(scenario())


def clicks(slots, patterns):
    return lambda order: report_clicks(order.block, np.array(slots), np.array(patterns, dtype=np.uint8))


def test_clicks_while_a_detector_is_dead_are_ignored_and_counted(folder):
    """Weier et al. 2011 (theory.md 3, row 10). A click in the dead time makes the detectors dead again."""
    answer = clicks([10, 1010, 2011, 2012, 5000], [1, 2, 2, 3, 1])
    record = collect_from(folder, answer)
    assert record.slots.tolist() == [10, 2011, 5000]
    assert record.bits.tolist() == [0, 1, 0]
    assert (record.dead_time_clicks, record.double_clicks) == (2, 0)


def test_the_dead_time_is_a_setting(folder):
    record = collect_from(folder, clicks([10, 20, 21], [1, 2, 1]), dead_time_s=9e-9)
    assert record.slots.tolist() == [10, 20]
    assert record.dead_time_clicks == 1


@pytest.mark.parametrize("byte", [0x00, 0xFF])
def test_a_double_click_gets_a_bit_of_the_receivers_own_randomness(folder, byte):
    randomness = CountingRandom(byte)
    record = collect_from(folder, clicks([0, 2000, 4000, 6000], [3, 1, 3, 2]), randomness)
    assert record.bits.tolist() == [byte & 1, 0, byte & 1, 1]
    assert record.double_clicks == 2
    assert randomness.drawn == [32, 1]  # the bases' seed, then one byte for two bits


@pytest.mark.parametrize(
    "answer",
    [
        clicks([5, 5], [1, 1]),
        clicks([LIGHT.pulses], [1]),
        clicks([5], [0]),
        lambda order: LightSent(order.block),
        lambda order: ModuleError(order.block, "laser off"),
        lambda _: b"\x00\x00\x00\x02{}",
        lambda _: b"\xff\xff\xff\xff",
    ],
    ids=["repeated slot", "slot outside", "no detector", "other report", "module error", "junk", "oversize"],
)
def test_what_no_fibre_reports_is_refused(folder, answer):
    with pytest.raises(RemoteProtocolError):
        collect_from(folder, answer)


def test_a_fibre_that_hangs_up_closes_the_transport(folder):
    with pytest.raises(TransportClosed):
        collect_from(folder, lambda _: None)
