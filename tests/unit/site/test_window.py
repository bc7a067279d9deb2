"""What a running site says its keys rest on is what happened at the bootstrap, not what is configured now."""

import asyncio
from dataclasses import replace

from link_pair import link_pair, running, settled, until

from heliograph.authentication.anchors.psk import EpochSecrets
from heliograph.testing.links import quick_channel, quick_registration
from heliograph.testing.pair import Pair


def test_the_algorithms_are_those_of_the_bootstrap_of_both_sites(tmp_path):
    pair = Pair(replace(quick_registration(), bootstrap="psk+pki"), quick_channel(), tmp_path / "pair")
    before = [side.doors.algorithms(side.records.totals().bootstrap) for side in pair.sides]
    assert before == 2 * [("psk-one-time-pads", "ed25519", "ed25519")]
    for side in pair.sides:
        side.signer.algorithm = "ml-dsa-65"  # the credential was renewed since
        assert side.doors.algorithms(side.records.totals().bootstrap) == before[0]


def test_blocks_of_an_earlier_epoch_do_not_count_as_made_since_the_bootstrap(tmp_path):
    async def scene():
        async with link_pair(tmp_path) as (tx, rx):
            assert tx.link.status().algorithms == ()
            async with running(tx, rx):
                await until(lambda: tx.committed() and settled(tx, rx))
            told = tx.link.status()
            assert told.epoch_blocks == told.blocks >= 1
            assert told.algorithms == ("psk-one-time-pads",)
            records = tx.store.records
            records.open_epoch(records.request_rebootstrap(), EpochSecrets(bytes(32), bytes(32), ()), "psk")
            assert tx.link.status().epoch_blocks == 0
            assert tx.link.status().blocks == told.blocks

    asyncio.run(scene())
