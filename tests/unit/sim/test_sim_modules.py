"""Both modules over a real fibre process."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import stat
import subprocess
import sys

import numpy as np
import pytest
from sim_draws import CountingRandom

from heliograph.errors import ConfigurationError, LocalProtocolError, RemoteProtocolError, TransportClosed
from heliograph.sim.modules import open_receiver, open_transmitter
from heliograph.types import BlockId, LightParameters
from heliograph.vault.randomness import SystemRandomness

pytestmark = pytest.mark.slow  # real processes or real time: `make test` runs it

LIGHT = LightParameters(2 * 10**7, 1e9, (0.5, 0.1), (0.7, 0.3), 0.9, 0.8)
LIMIT_S = 15


class FibreProcess:
    """``python -m heliograph.sim`` with its sockets in a folder."""

    def __init__(self, folder, extra=""):
        self.tx, self.rx = f"unix:{folder}/tx", f"unix:{folder}/rx"
        config = folder / "fibre.toml"
        head = f'transmitter = "{self.tx}"\nreceiver = "{self.rx}"\nseed = 1\n'
        config.write_text(head + (extra or "[fibre]\ndistance_km = 25\n"))
        self.process = subprocess.Popen(
            [sys.executable, "-m", "heliograph.sim", str(config)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        assert json.loads(self.process.stdout.readline()) == {"ready": True}

    def end(self, number=signal.SIGTERM):
        self.process.send_signal(number)
        _, errors = self.process.communicate(timeout=LIMIT_S)
        return self.process.returncode, errors.decode()


@contextlib.contextmanager
def fibre_process(folder, extra=""):
    fibre = FibreProcess(folder, extra)
    try:
        yield fibre
    finally:
        if fibre.process.returncode is None:
            fibre.process.kill()
            fibre.process.communicate()


@contextlib.asynccontextmanager
async def modules(fibre, randomness=None):
    transmitter = await open_transmitter({"address": fibre.tx}, randomness or SystemRandomness())
    receiver = await open_receiver({"address": fibre.rx}, randomness or SystemRandomness())
    try:
        async with asyncio.timeout(LIMIT_S):
            yield transmitter, receiver
    finally:
        await transmitter.close()
        await receiver.close()


async def one_block(transmitter, receiver, block=0, light=LIGHT):
    return await asyncio.gather(transmitter.emit(BlockId(block), light), receiver.collect(BlockId(block), light))


def qber(pulses, record):
    sent = pulses.at(record.slots)
    matched = sent.bases == record.bases
    return np.count_nonzero(sent.bits[matched] != record.bits[matched]) / np.count_nonzero(matched)


def test_a_block_crosses_the_fibre_and_both_sides_agree_but_for_the_qber(folder):
    async def scenario(fibre):
        async with modules(fibre) as (transmitter, receiver):
            pulses, record = await one_block(transmitter, receiver)
        assert len(record.slots) > 10_000
        assert (np.diff(record.slots) > 1000).all()
        assert record.dead_time_clicks == 0
        assert abs(np.mean(record.bases == 0) - 0.8) < 0.02
        assert 0.001 < qber(pulses, record) < 0.03

    with fibre_process(folder) as fibre:
        asyncio.run(scenario(fibre))
        assert fibre.end() == (0, "")
    assert not (folder / "tx").exists()


def test_eve_in_the_configuration_raises_the_qber(folder):
    async def scenario(fibre):
        async with modules(fibre) as (transmitter, receiver):
            assert 0.24 < qber(*await one_block(transmitter, receiver)) < 0.28

    extra = '[fibre]\ndistance_km = 25\n[eve]\nattack = "intercept-resend"\nfraction = 1\n'
    with fibre_process(folder, extra) as fibre:
        asyncio.run(scenario(fibre))


def test_several_blocks_in_flight_get_their_own_light(folder):
    async def scenario(fibre):
        async with modules(fibre) as (transmitter, receiver):
            emitted = [asyncio.create_task(transmitter.emit(BlockId(b), LIGHT)) for b in range(4)]
            collected = [asyncio.create_task(receiver.collect(BlockId(b), LIGHT)) for b in reversed(range(4))]
            records = list(reversed(await asyncio.gather(*collected)))
            for pulses, record in zip(await asyncio.gather(*emitted), records, strict=True):
                assert qber(pulses, record) < 0.03
            assert qber(await emitted[0], records[1]) > 0.4

    with fibre_process(folder) as fibre:
        asyncio.run(scenario(fibre))


def test_the_same_seeds_and_draws_give_the_same_block(folder):
    async def scenario(fibre):
        async with modules(fibre, CountingRandom(7)) as (transmitter, receiver):
            records = [(await one_block(transmitter, receiver, 3))[1] for _ in range(2)]
            other = (await one_block(transmitter, receiver, 4))[1]
        assert records[0].slots.tolist() == records[1].slots.tolist()
        assert records[0].bits.tolist() == records[1].bits.tolist()
        assert records[0].slots.tolist() != other.slots.tolist()

    with fibre_process(folder) as fibre:
        asyncio.run(scenario(fibre))


def test_the_modules_reconnect_after_the_fibre_was_killed(folder):
    async def scenario():
        with fibre_process(folder) as fibre:
            async with modules(fibre) as (transmitter, receiver):
                waiting = asyncio.create_task(receiver.collect(BlockId(0), LIGHT))
                await one_block(transmitter, receiver, 1)  # so block 0 is in flight as well
                assert fibre.end(signal.SIGKILL)[0] == -signal.SIGKILL
                with pytest.raises(TransportClosed):
                    await waiting
                with pytest.raises(TransportClosed, match="no fibre at"):
                    await transmitter.emit(BlockId(2), LIGHT)
                with fibre_process(folder):  # over the stale sockets
                    _, record = await one_block(transmitter, receiver, 3)
                    assert len(record.slots) > 10_000

    asyncio.run(scenario())


def test_a_fibre_told_to_end_does_so_cleanly_with_a_block_waiting(folder):
    async def scenario(fibre):
        async with modules(fibre) as (transmitter, receiver):
            waiting = asyncio.create_task(receiver.collect(BlockId(0), LIGHT))
            await one_block(transmitter, receiver, 1)
            assert fibre.end(signal.SIGTERM) == (0, "")
            with pytest.raises(TransportClosed, match="closed the line"):
                await waiting

    with fibre_process(folder) as fibre:
        asyncio.run(scenario(fibre))


def test_a_fibre_told_to_end_while_sampling_does_so_cleanly(folder):
    async def scenario(fibre):
        light = LightParameters(10**10, 1e9, (0.5,), (1.0,), 0.5, 0.5)
        async with modules(fibre) as (transmitter, receiver):
            sampling = [asyncio.create_task(side(BlockId(0), light)) for side in (transmitter.emit, receiver.collect)]
            refused = [transmitter.emit(BlockId(1), LIGHT), receiver.collect(BlockId(1), light)]
            for answer in await asyncio.gather(*refused, return_exceptions=True):  # refused at once, so 0 is on its way
                assert isinstance(answer, RemoteProtocolError)
            assert fibre.end(signal.SIGTERM) == (0, "")
            for answer in await asyncio.gather(*sampling, return_exceptions=True):
                assert isinstance(answer, TransportClosed)

    with fibre_process(folder) as fibre:
        asyncio.run(scenario(fibre))


def test_different_light_parameters_on_the_two_sides_are_refused_on_both(folder):
    async def scenario(fibre):
        other = LightParameters(2 * 10**7, 1e9, (0.5, 0.1), (0.7, 0.3), 0.9, 0.7)
        async with modules(fibre) as (transmitter, receiver):
            answers = await asyncio.gather(
                transmitter.emit(BlockId(0), LIGHT), receiver.collect(BlockId(0), other), return_exceptions=True
            )
            for answer in answers:
                assert isinstance(answer, RemoteProtocolError)
                assert "different light parameters" in str(answer)
            await one_block(transmitter, receiver, 1)  # the line lives on

    with fibre_process(folder) as fibre:
        asyncio.run(scenario(fibre))


def test_a_block_too_large_to_report_is_refused(folder):
    async def scenario(fibre):
        light = LightParameters(10**13, 1e9, (0.5,), (1.0,), 0.5, 0.5)
        async with modules(fibre) as (transmitter, receiver):
            with pytest.raises(RemoteProtocolError, match="use fewer pulses"):
                await one_block(transmitter, receiver, 0, light)

    with fibre_process(folder) as fibre:
        asyncio.run(scenario(fibre))


def test_light_of_a_cancelled_call_is_replaced_by_the_next(folder):
    async def scenario(fibre):
        async with modules(fibre) as (transmitter, receiver):
            given_up = asyncio.create_task(transmitter.emit(BlockId(0), LIGHT))
            await one_block(transmitter, receiver, 1)
            given_up.cancel()
            with pytest.raises(asyncio.CancelledError):
                await given_up
            pulses, record = await one_block(transmitter, receiver, 0)
            assert qber(pulses, record) < 0.03

    with fibre_process(folder) as fibre:
        asyncio.run(scenario(fibre))


def test_in_real_time_a_block_takes_its_pulses_over_the_clock(folder):
    async def scenario(fibre):
        loop = asyncio.get_running_loop()
        async with modules(fibre) as (transmitter, receiver):
            start = loop.time()
            await one_block(transmitter, receiver, 0, LightParameters(2 * 10**6, 1e7, (0.5,), (1.0,), 0.5, 0.5))
            assert loop.time() - start >= 0.2

    with fibre_process(folder, "realtime = true\n[fibre]\ndistance_km = 25\n") as fibre:
        asyncio.run(scenario(fibre))


def test_a_block_cannot_be_in_flight_twice(folder):
    async def scenario(fibre):
        async with modules(fibre) as (transmitter, receiver):
            first = asyncio.create_task(transmitter.emit(BlockId(0), LIGHT))
            await asyncio.sleep(0)
            with pytest.raises(LocalProtocolError):
                await transmitter.emit(BlockId(0), LIGHT)
            await receiver.collect(BlockId(0), LIGHT)
            await first

    with fibre_process(folder) as fibre:
        asyncio.run(scenario(fibre))


def test_the_sockets_are_open_to_their_owner_only(folder):
    with fibre_process(folder):
        for name in ("tx", "rx"):
            assert stat.S_IMODE((folder / name).stat().st_mode) == 0o600


def test_a_module_on_the_wrong_line_or_sending_junk_loses_its_line(folder):
    async def scenario(fibre):
        wrong = await open_transmitter({"address": fibre.rx}, SystemRandomness())
        with pytest.raises(TransportClosed):
            await asyncio.wait_for(wrong.emit(BlockId(0), LIGHT), LIMIT_S)
        await wrong.close()
        for junk in (b"\x00\x00\x00\x00", b"\xff\xff\xff\xff", b"\x00\x00\x00\x02\xc0\xc0"):
            reader, writer = await asyncio.open_unix_connection(fibre.tx.removeprefix("unix:"))
            writer.write(junk)
            assert await asyncio.wait_for(reader.read(), LIMIT_S) == b""
            writer.close()
            await writer.wait_closed()
        async with modules(fibre) as (transmitter, receiver):
            await one_block(transmitter, receiver)

    with fibre_process(folder) as fibre:
        asyncio.run(scenario(fibre))
        assert fibre.end() == (0, "")


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"address": 5},
        {"address": "unix:relative"},
        {"address": "unix:/" + 107 * "x"},
        {"address": "tcp:localhost"},
        {"address": "tcp:localhost:0"},
        {"address": "tcp::5"},
        {"address": "tcp:localhost:" + 5000 * "9"},
        {"address": "udp:localhost:5"},
        {"address": "unix:/tmp/x", "adress": ""},
        {"address": "unix:/tmp/x", "dead_time_s": -1},
        {"address": "unix:/tmp/x", "dead_time_s": "1"},
        {"address": "unix:/tmp/x", "dead_time_s": float("nan")},
    ],
    ids=lambda settings: str(settings)[:60],
)
def test_settings_that_cannot_be_used_are_refused_in_one_line(settings):
    with pytest.raises(ConfigurationError) as refusal:
        asyncio.run(open_receiver(settings, SystemRandomness()))
    assert "\n" not in str(refusal.value)


def test_opening_a_module_without_a_fibre_says_where_it_looked(folder):
    with pytest.raises(TransportClosed, match=str(folder)):
        asyncio.run(open_transmitter({"address": f"unix:{folder}/tx"}, SystemRandomness()))
