"""One key manager over the stores of several links: each pair from its own, and one that hangs holds up no other."""

import asyncio
import os
import threading
import uuid
from functools import partial

import pytest

from heliograph.errors import StoreUnavailable
from heliograph.http.callers import CertificateCallers
from heliograph.http.server import MAX_WAITING_OF_ONE, KmeServer
from heliograph.http.skip_server import SkipServer
from heliograph.http.tls import server_tls, skip_server_tls
from heliograph.kme.boundary import Boundary
from heliograph.kme.groups import SaeGroup
from heliograph.kme.skip import SkipSystems
from heliograph.kme.supply import Limits, SaePair, Supply
from heliograph.storage.database import Database
from heliograph.storage.group_commit import run_group
from heliograph.storage.keys import KeyRecords, NewKey
from heliograph.vault.filekek import FileKek
from heliograph.vault.randomness import SystemRandomness

PAIRS = [SaePair("sae-a", "sae-b", "kme-b"), SaePair("sae-a", "sae-c", "kme-c", "a-c")]
GROUPS = [SaeGroup("sae-a", ("sae-c", "sae-c2"), frozenset({"sae-a"}), "a-c")]


@pytest.fixture
def further(site):
    randomness = SystemRandomness()
    database = Database(site.directory / "further" / "store.db", FileKek(site.directory / "kek", randomness))
    yield database, KeyRecords(database, randomness)
    database.close()


def put(store, number, peer, *, here, audience=None):
    database, keys = store
    master, slave = ("sae-a", audience or peer) if here else (peer, "sae-a")
    rows = [NewKey(str(uuid.uuid4()), master, slave, here, os.urandom(32), 100.0) for _ in range(number)]
    with database.transaction() as cursor:
        (block,) = cursor.execute("SELECT coalesce(max(block), 0) FROM key_segments").fetchone()
        keys.add(cursor, 1, block + 1, rows, "{}")
        keys.acknowledge(cursor, 1, block + 1)
    return rows


def serve(site, further, act, **more):
    async def main():
        supply = Supply(
            site.keys,
            "kme-a",
            PAIRS,
            Limits(max_key_count=1000, further_counts={"a-c": 77}),
            StoppedClock(),
            groups=GROUPS,
            further={"a-c": further[1]},
            **more,
        )
        server = KmeServer(supply)
        for link, database in (("", site.database), ("a-c", further[0])):
            server.commit_together(partial(run_group, database), database, link)
        await server.start("127.0.0.1", 0, server_tls(*site.kme_files))
        try:
            return await act(server)
        finally:
            await server.close()

    return asyncio.run(main())


class StoppedClock:
    def now(self):
        return 200.0


def test_each_pair_has_the_keys_of_its_own_link(site, further, wire):
    for_b = put((site.database, site.keys), 2, "sae-b", here=True)
    for_c = put(further, 1, "sae-c", here=True)
    of_c = put(further, 1, "sae-c", here=False)
    # Whoever could write one store would not get its keys out by another link's pair.
    put((site.database, site.keys), 3, "sae-c", here=True)
    tls = site.sae_tls("sae-a")

    async def act(kme):
        async def get(path):
            return await wire.ask(kme.port, tls, "GET", f"/api/v1/keys/{path}")

        stock = [(await get(f"{peer}/status"))[2] for peer in ("sae-b", "sae-c")]
        keys = [await get(f"{peer}/enc_keys") for peer in ("sae-b", "sae-c", "sae-c")]
        taken = await get(f"sae-c/dec_keys?key_ID={of_c[0].key_id}")
        wrong = await get(f"sae-b/dec_keys?key_ID={of_c[0].key_id}")
        return stock, keys, taken, wrong

    stock, keys, taken, wrong = serve(site, further, act)
    assert [(s["stored_key_count"], s["max_key_count"], s["target_KME_ID"]) for s in stock] == [
        (2, 1000, "kme-b"),
        (1, 77, "kme-c"),
    ]
    assert [status for status, *_ in keys] == [200, 200, 503]
    assert [wire.served(answer)[0] for status, _, answer in keys if status == 200] == [
        (row.key_id, row.material) for row in (for_b[0], for_c[0])
    ]
    assert wire.served(taken[2]) == [(of_c[0].key_id, of_c[0].material)]
    assert wrong[0] == 400


def test_whether_an_unknown_key_is_final_hangs_on_the_pairs_own_link(site, further, wire):
    tls = site.sae_tls("sae-a")
    unknown = "00000000-1111-4222-8333-444455556666"

    async def act(kme):
        paths = [f"/api/v1/keys/{peer}/dec_keys?key_ID={unknown}" for peer in ("sae-b", "sae-c")]
        return [(await wire.ask(kme.port, tls, "GET", path))[0] for path in paths]

    assert serve(site, further, act, owner_reachable=lambda pair: pair.link != "a-c") == [400, 503]


async def until_waiting(counts, number):
    while True:
        if sum(counts.values()) == number:
            return
        await asyncio.sleep(0.01)


def hang(keys, go_on):
    """Let a store hand nothing out before ``go_on``."""
    whole = keys.deliver_to_master

    def hanging(*args, **more):
        assert go_on.wait(60)
        return whole(*args, **more)

    keys.deliver_to_master = hanging
    return keys


def test_a_store_that_hangs_holds_up_no_other_links_keys(site, further, wire):
    put((site.database, site.keys), 100, "sae-b", here=True)
    put(further, 100, "sae-c", here=True)
    tls, go_on = site.sae_tls("sae-a"), threading.Event()
    hang(further[1], go_on)

    async def act(kme):
        async def get(peer):
            return (await wire.ask(kme.port, tls, "GET", f"/api/v1/keys/{peer}/enc_keys"))[0]

        try:
            # As many as one SAE may have waiting: they must not take its places at the other link.
            waiting = [asyncio.create_task(get("sae-c")) for _ in range(MAX_WAITING_OF_ONE)]
            async with asyncio.timeout(30):
                await until_waiting(kme._queued, MAX_WAITING_OF_ONE)
                healthy = [await get("sae-b") for _ in range(3)]
            ended = sum(task.done() for task in waiting)
        finally:
            go_on.set()
        return healthy, ended, await asyncio.gather(*waiting)

    healthy, ended, late = serve(site, further, act)
    assert healthy == [200] * 3
    assert ended == 0
    assert late == [200] * MAX_WAITING_OF_ONE


def test_a_store_that_hangs_holds_up_no_other_links_keys_of_skip(site, further, wire):
    put((site.database, site.keys), 9, "sae-b", here=True)
    put(further, 9, "sae-c", here=True)
    tls, go_on = site.sae_tls("sae-a"), threading.Event()
    keys = hang(further[1], go_on)

    async def main():
        supply = Supply(site.keys, "kme-a", PAIRS, Limits(), StoppedClock(), further={"a-c": keys})
        systems = SkipSystems("KP-A", {"KP-B": ("sae-b",), "KP-C": ("sae-c",)})
        door = SkipServer(supply, systems, SystemRandomness(), CertificateCallers(Boundary()))
        await door.start("127.0.0.1", 0, skip_server_tls(*site.kme_files))

        async def get(remote):
            return (await wire.ask(door.port, tls, "GET", f"/key?remoteSystemID={remote}"))[0]

        try:
            waiting = [asyncio.create_task(get("KP-C")) for _ in range(4)]
            async with asyncio.timeout(30):
                await until_waiting(door._waiting, 4)
                return [await get("KP-B") for _ in range(3)], sum(task.done() for task in waiting)
        finally:
            go_on.set()
            assert await asyncio.gather(*waiting) == [200] * 4
            await door.close()

    assert asyncio.run(main()) == ([200] * 3, 0)


def test_a_store_that_fails_takes_no_other_links_keys_with_it(site, further, wire):
    put((site.database, site.keys), 100, "sae-b", here=True)
    put(further, 100, "sae-c", here=True)
    tls = site.sae_tls("sae-a")

    async def act(kme):
        async def get(peer):
            return (await wire.ask(kme.port, tls, "GET", f"/api/v1/keys/{peer}/enc_keys"))[0]

        further[0].close()
        return await asyncio.gather(*(get(peer) for peer in ("sae-b", "sae-c") * 8))

    statuses = serve(site, further, act)
    assert statuses[0::2] == [200] * 8
    assert statuses[1::2] == [503] * 8
    with pytest.raises(StoreUnavailable):
        further[1].stored_key_count("sae-a", "sae-c")


def test_a_groups_keys_come_from_the_link_it_is_registered_with(site, further, wire):
    audience = GROUPS[0].audience
    (row,) = put(further, 1, "sae-c", here=True, audience=audience)
    tls = site.sae_tls("sae-a")

    async def act(kme):
        body = b'{"additional_slave_SAE_IDs": ["sae-c2"]}'
        return await wire.ask(kme.port, tls, "POST", "/api/v1/keys/sae-c/enc_keys", body)

    status, _, answer = serve(site, further, act)
    assert status == 200
    assert wire.served(answer) == [(row.key_id, row.material)]
