"""Links of other kinds: none between, a vendor's device, long keys; and what a node says to those who look."""

import asyncio
import base64
import gc
import shutil
import uuid

import msgspec
import pytest
from dealt_network import dealt_network
from structlog.testing import capture_logs

from heliograph.errors import AuthenticationFailed, RollbackDetected
from heliograph.http.client import Etsi014Client
from heliograph.kme.key_facts import KeyFacts
from heliograph.kme.one_time import SealedRequest
from heliograph.lab.network_layout import NetworkPlan
from heliograph.network.stocks import VENDOR
from heliograph.node.config import read_node
from heliograph.node.links import Link
from heliograph.site import sweeper

pytestmark = pytest.mark.slow  # real stores, sockets and TLS

CHAIN = NetworkPlan.around(1, threshold=1)


def run(scenario):
    return asyncio.run(scenario)


async def same_keys(net, number):
    async with net.sae("node-a") as a, net.sae("node-c") as c:
        keys = await a.get_keys(number)
        assert await c.get_keys_with_ids([key.key_id for key in keys]) == keys
    return keys


def test_neighbours_need_no_relay(tmp_path):
    plan = NetworkPlan((("node-a", "node-c"),), ("node-a", "node-c"))

    async def scenario():
        async with dealt_network(tmp_path, plan) as net:
            await net.transfer(2)
            await same_keys(net, 2)

    run(scenario())


def test_longer_ways_cost_each_of_their_links(tmp_path):
    edges = (("node-a", "node-r"), ("node-r", "node-s"), ("node-s", "node-c"))

    async def scenario():
        async with dealt_network(tmp_path, NetworkPlan(edges, ("node-a", "node-c"))) as net:
            await net.transfer(4)
            await same_keys(net, 4)
            (pair,) = (await net.nodes["node-a"].status()).pairs
            assert set(pair.cost_per_bit.values()) == {2.25}
            assert len(pair.cost_per_bit) == 3

    run(scenario())


def test_a_direct_link_and_a_relay_are_two_paths(tmp_path):
    edges = (("node-a", "node-c"), ("node-a", "node-r"), ("node-r", "node-c"))
    plan = NetworkPlan(edges, ("node-a", "node-c"), shares=2, threshold=2, proved=False)

    async def scenario():
        async with dealt_network(tmp_path, plan) as net:
            await net.transfer(2)
            await same_keys(net, 2)

    run(scenario())


def test_of_two_ways_the_one_with_more_key_is_taken(tmp_path):
    around = NetworkPlan.around(2, threshold=2)
    plan = NetworkPlan(around.edges, around.ends)  # one path at a time, of two that there are

    async def scenario():
        async with dealt_network(tmp_path, plan, keys=60) as net:
            carried = []
            for _ in range(5):
                await net.transfer(4)
                carried.append([net.nodes[name].relay.carried for name in ("node-r1", "node-r2")])
            # Each is tried once; from then on the fuller one, so that both are used alike.
            assert carried == [[1, 0], [1, 1], [2, 1], [2, 2], [3, 2]]
            net.link("node-r1", "node-c").deal(200)
            net.link("node-a", "node-r1").deal(200)
            for _ in range(5):  # what node-r1 has now is not known before it has told, with its next transfer
                await net.transfer(4)
            assert [net.nodes[name].relay.carried for name in ("node-r1", "node-r2")] == [7, 3]
            await net.stop("node-r1")
            with pytest.raises(AuthenticationFailed):
                await net.transfer(4)
            await net.transfer(4)  # the other one, at once
            assert net.nodes["node-r2"].relay.carried == 4

    run(scenario())


def test_a_large_stock_is_filled_by_several_transfers(tmp_path):
    plan = NetworkPlan.around(1, threshold=1, stock=70)

    async def scenario():
        async with dealt_network(tmp_path, plan) as net:
            await net.nodes["node-a"].origin.tick()
            assert await net.ready() == 70
            assert net.nodes["node-r"].relay.carried == 3

    run(scenario())


def test_keys_of_a_link_may_be_longer(tmp_path):
    async def scenario():
        async with dealt_network(tmp_path, CHAIN, key_bytes=64) as net:
            await net.transfer(4)
            await same_keys(net, 4)
            (pair,) = (await net.nodes["node-a"].status()).pairs
            assert pair.paid_bits["node-a - node-r"] == 6 * 512  # 208 bytes in four pads, and two keys for tags

    run(scenario())


def test_keys_that_crossed_a_vendors_link_say_so_whatever_the_other_links_are(tmp_path):
    async def scenario():
        async with dealt_network(tmp_path, CHAIN) as net:
            net.nodes["node-r"].parts.neighbours["node-c"].link.assurance = VENDOR
            await net.transfer(1)
            supply = net.nodes["node-a"].supply
            (key,) = supply.enc_keys("sae-node-a", "sae-node-c", 1)
            facts = KeyFacts(0.0, supply.path).of(key)
            assert facts["heliograph_assurance"] == VENDOR

    run(scenario())


def test_a_device_whose_certificate_names_no_key_manager_is_known_by_its_host(tmp_path):
    """``kme`` is left out: the certificate must be of the CA that was given, and name the host that was dialled."""

    async def scenario():
        async with dealt_network(tmp_path, CHAIN, assurance=VENDOR) as net:
            await net.stop("node-a")
            text = net.files["node-a"].read_text()
            before, entry, after = text.partition('kme = "kme-node-a-to-node-r"\n')
            assert entry
            net.files["node-a"].write_text(before + after)
            await net.open("node-a")
            await net.transfer(1)
            await same_keys(net, 1)

    run(scenario())


def test_no_key_in_what_nodes_say(tmp_path, capsys):
    plan = NetworkPlan.around(2, threshold=2, layer="ml-kem-768")

    async def scenario():
        async with dealt_network(tmp_path, plan) as net:
            secrets = []
            for node in net.nodes.values():
                for neighbour in node.parts.neighbours.values():
                    link, honest = neighbour.link, neighbour.link.draw

                    async def draw(number, honest=honest):
                        keys = await honest(number)
                        secrets.extend(key.material for key in keys)
                        return keys

                    link.draw = draw
            await net.transfer(2)
            said = repr(net.nodes["node-a"].parts) + "".join(
                [msgspec.json.encode(await node.status()).decode() for node in net.nodes.values()]
            )
            secrets += [key.material for key in await same_keys(net, 2)]
            return secrets, said

    with capture_logs() as lines:  # whatever another test has configured
        secrets, said = run(scenario())
    said += "".join(capsys.readouterr()) + repr(lines)
    assert "keys acknowledged" in said
    assert len(secrets) > 30
    assert not spelled(secrets, said)
    assert spelled(secrets, said + base64.b64encode(secrets[-1]).decode())  # the search finds a planted one


def spelled(secrets, text):
    return [s for s in secrets if any(t[:16] in text for t in (s.hex(), base64.b64encode(s).decode(), repr(s)[2:-1]))]


def test_a_node_whose_store_was_put_back_does_not_start_and_is_made_anew(tmp_path):
    async def scenario():
        async with dealt_network(tmp_path, CHAIN) as net:
            await net.transfer(2)
            await net.stop("node-a")
            home = net.files["node-a"].parent
            shutil.copytree(home / "store", tmp_path / "copy")
            await net.open("node-a")
            async with net.sae("node-a") as a:
                await a.get_keys(2)
            await net.stop("node-a")
            shutil.rmtree(home / "store")
            shutil.copytree(tmp_path / "copy", home / "store")
            for _ in range(2):
                with pytest.raises(RollbackDetected):
                    await net.open("node-a")
                await net.stop("node-a")
            shutil.rmtree(home / "store")
            for anchor in home.glob("anchor*"):
                anchor.unlink()
            await net.open("node-a")
            await net.transfer(2)
            await same_keys(net, 2)

    run(scenario())


def test_a_nodes_log_is_emptied_now_and_then(tmp_path, monkeypatch):
    monkeypatch.setattr(sweeper, "SWEEP_S", 0.0)

    async def scenario():
        async with dealt_network(tmp_path, CHAIN) as net, asyncio.timeout(20):
            path = read_node(net.files["node-a"])
            log = path.path(path.file.store + "-wal")
            await net.transfer(2)
            for _ in range(1000):
                await net.nodes["node-a"].parts.in_store(lambda: None)  # takes turns with the sweeper
                if log.stat().st_size == 0:
                    break
            assert log.stat().st_size == 0

    run(scenario())


def test_a_neighbour_that_hangs_up_on_a_silent_key_manager_leaves_no_traceback_in_the_log(tmp_path):
    """The fetch goes on alone, for the message that may still come; when it fails nobody is there to hear of it."""

    async def scenario():
        asked, told, connections = asyncio.Event(), [], []

        async def silent(reader, writer):
            connections.append(writer)
            await reader.readuntil(b"}")
            asked.set()

        asyncio.get_running_loop().set_exception_handler(lambda _, what: told.append(what["message"]))
        server = await asyncio.start_unix_server(silent, tmp_path / "kme.sock")
        client = Etsi014Client.over_socket(tmp_path / "kme.sock", "node-r", "node-a")
        link = Link("node-a - node-r", "node-a", client, ("node-r", "node-a"), VENDOR)
        names = str(uuid.uuid4()), str(uuid.uuid4())
        async with asyncio.timeout(20):
            taking = asyncio.create_task(link.take(SealedRequest("node-a", "node-r", names, b"body", bytes(32))))
            await asked.wait()
            taking.cancel()
            await asyncio.wait({taking})
            (fetch,) = link._fetching.values()
            connections[0].close()
            await asyncio.wait({fetch})
        del taking, fetch
        gc.collect()  # what nobody asked for is told of when the task goes
        await asyncio.sleep(0)
        gc.collect()
        await link.close()
        server.close()
        assert not told

    run(scenario())
