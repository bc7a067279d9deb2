"""Networks for tests: nodes with real stores, sockets and TLS in one process, over links whose keys a dealer gives."""

import contextlib
from contextlib import AsyncExitStack

from heliograph.http.client import Etsi014Client
from heliograph.http.tls import client_tls
from heliograph.lab.dealt_links import DealtLink
from heliograph.lab.network_layout import lay_out
from heliograph.network.stocks import VENDOR
from heliograph.node.config import read_node
from heliograph.node.node import Node
from heliograph.vault.randomness import SystemRandomness


class DealtNetwork:
    """``nodes``: by name; nothing runs by itself: a test calls ``node.origin``."""

    def __init__(self, directory, plan, stack):
        self.directory, self.plan, self.stack = directory, plan, stack
        self.links, self.files, self.nodes, self.stacks = {}, {}, {}, {}

    async def start(self, keys, assurance, key_bytes):
        access = {}
        for one, other in self.plan.edges:
            link = DealtLink(
                self.directory / f"{one}--{other}",
                (one, other),
                SystemRandomness(),
                assurance="" if assurance == VENDOR else assurance,
                key_bytes=key_bytes,
            )
            self.stack.push_async_callback(link.close)
            await link.start(keys)
            self.links[frozenset((one, other))] = link
            access |= {(one, other): link.access(one, assurance), (other, one): link.access(other, assurance)}
        self.files = lay_out(self.directory, self.plan, access)
        self.stack.push_async_callback(self.stop_all)
        for name in self.files:
            await self.open(name)

    async def open(self, name):
        stack = self.stacks[name] = AsyncExitStack()
        self.nodes[name] = await Node.open(read_node(self.files[name]), stack)

    async def stop(self, name):
        await self.stacks.pop(name).aclose()
        self.nodes.pop(name, None)

    async def stop_all(self):
        for name in list(self.stacks):
            await self.stop(name)

    def link(self, one, other):
        return self.links[frozenset((one, other))]

    def stocks(self):
        return {
            f"{name} to {peer}": link.keys[name].stored_key_count(name, peer)
            for link in self.links.values()
            for name, peer in (link.names, link.names[::-1])
        }

    async def transfer(self, number=4, name="node-a"):
        node = self.nodes[name]
        return await node.origin.transfer(node.parts.routes[0], number)

    @contextlib.asynccontextmanager
    async def sae(self, name):
        """Give the SAE's client of its node's key manager."""
        other = next(end for end in self.plan.ends if end != name)
        pki = self.files[name].parent / "pki"
        tls = client_tls(pki / "sae.pem", pki / "sae.key", pki / "ca.pem", f"kme-{name}")
        url = f"https://127.0.0.1:{self.nodes[name].kme_port}"
        async with Etsi014Client(url, tls, f"sae-{name}", f"sae-{other}") as client:
            yield client

    async def ready(self, name="node-a"):
        async with self.sae(name) as sae:
            return (await sae.status()).stored_key_count


@contextlib.asynccontextmanager
async def dealt_network(directory, plan, keys=120, assurance="information-theoretic", key_bytes=32):
    """Give a running network; ``keys``: of each link and direction; ``assurance``: said and demanded."""
    async with AsyncExitStack() as stack:
        network = DealtNetwork(directory, plan, stack)
        await network.start(keys, assurance, key_bytes)
        yield network
