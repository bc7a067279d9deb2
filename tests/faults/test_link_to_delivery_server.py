"""A running link whose site A keeps its keys in a delivery server: none is on one side only when that dies."""

import asyncio
import signal

import pytest
from fault_rehearsal import new_block, small_blocks, until
from front_end_processes import FrontEndProcess, add_delivery, heliograph

from heliograph.errors import KeySupplyError
from heliograph.http.client import Etsi014Client
from heliograph.http.tls import client_tls
from heliograph.site.config import read_site

pytestmark = pytest.mark.slow


def client(toml):
    config = read_site(toml)
    kme, agent = config.file.kme, config.file.agent
    tls = client_tls(config.path(agent.certificate), config.path(agent.key), config.path(kme.ca), kme.id)
    return Etsi014Client(f"https://{kme.listen}", tls, agent.sae, agent.peer_sae)


async def fetched(get):
    """Ask until there is a key."""
    found = []

    async def once():
        try:
            found.append(await get())
        except KeySupplyError:
            return False
        return True

    await until(once)
    return found[-1]


async def exchange(a, b, seen, times):
    """Every key that a master is given is there for its slave at once: both sites handed it over before."""
    for master, slave in ((a, b), (b, a)):
        for _ in range(times):
            key = await fetched(master.get_key)
            assert (await slave.get_key_with_id(key.key_id)).material == key.material
            seen.append(key.key_id)


def test_a_link_hands_over_before_it_tells_the_peer_and_outlives_its_server(server):
    rehearsal = small_blocks()
    site_a, site_b = rehearsal.sites["site_a"], rehearsal.sites["site_b"]
    listen = read_site(
        site_a
    ).file.kme.listen  # where the encryptor of site A, and every SAE, looks for its key manager
    add_delivery(site_a, server, ("fe-1",), {"fe-1": listen})
    moved = heliograph("store", "move", site_a)
    assert (moved.returncode, moved.stdout) == (0, "The delivery server has its tables now.\n0 keys moved.\n"), (
        moved.stderr
    )

    async def act():
        front, seen = FrontEndProcess(site_a, "fe-1", listen), []
        await front.start()
        try:
            await rehearsal.start_all()
            async with client(site_a) as a, client(site_b) as b:
                await exchange(a, b, seen, 5)

                async def counted():
                    # What front ends did, as the link's process counts it now and then; the encryptor fetches too.
                    kme = (await rehearsal.status("site_a")).kme
                    return min(kme.delivered_to_masters, kme.delivered_to_slaves) >= 5

                await until(counted)
                server.stop("immediate")

                async def stopped():
                    # Without its server site A acknowledges no block.
                    return (await rehearsal.status("site_b")).link.state != "running"

                await until(stopped)
                server.start()
                await new_block(rehearsal, 90.0)
                await exchange(a, b, seen, 5)
            await rehearsal.stop("site_a", signal.SIGKILL)
            await rehearsal.start("site_a")
            async with client(site_a) as a, client(site_b) as b:
                await new_block(rehearsal, 90.0)
                await exchange(a, b, seen, 5)
        finally:
            await rehearsal.stop_all()
            code = await front.end(signal.SIGTERM)
        assert code == 0, front.log.read_text()[-500:]
        assert len(seen) == len(set(seen)) == 30

    asyncio.run(act())
    with server.session() as session:
        kept = session.execute("SELECT count(*) FROM heliograph.key_records").fetchone()[0]
        assert session.execute("SELECT count(*) FROM heliograph.handed_over").fetchone()[0] > 0
    assert kept > 0
    rehearsal.remove()
