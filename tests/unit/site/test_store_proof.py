"""A store that failed is asked again before the link goes on, and whoever connects often does not wear out the disk."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

import pytest

from heliograph.errors import StoreUnavailable, TransportClosed
from heliograph.site.store_proof import StoreProof
from heliograph.testing.clock import ManualClock


def test_a_flood_of_connections_writes_to_a_failed_store_once_a_second():
    clock, probes, full = ManualClock(), [], True

    def probe():
        probes.append(clock.now())
        if full:
            raise StoreUnavailable("disk full")

    async def flood():
        proof = StoreProof(clock, store, probe)
        await proof.require()
        assert probes == [], "a sound store is not asked"
        proof.failed(StoreUnavailable("disk full"))
        with pytest.raises(StoreUnavailable, match="disk full"):
            await proof.require()
        for _ in range(100):
            with pytest.raises(TransportClosed, match="disk full"):  # of these the log tells once a second
                await proof.require()
        assert len(probes) == 1
        nonlocal full
        full = False
        clock.advance(1.0)
        await proof.require()
        await proof.require()
        assert len(probes) == 2, "proven once, it is believed until it fails again"

    with ThreadPoolExecutor(1) as store:
        asyncio.run(flood())
