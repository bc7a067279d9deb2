"""What a node does with a message of a neighbour: hand the share on, or, at the end of the path, take it.

A relay has the share in memory for as long as one connection lasts, and stores nothing of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeVar

import msgspec
import structlog

from heliograph.errors import ConfigurationError, KeySupplyError, RemoteProtocolError, TransportClosed
from heliograph.kme.one_time import SealedRequest, read_request
from heliograph.network.collecting import Collector, Complete
from heliograph.network.endtoend import EndToEnd
from heliograph.network.hop import SealedHop, keys_needed, open_share, pad_ids, seal_hop
from heliograph.network.letters import (
    Carry,
    Hop,
    Letter,
    Receipt,
    Status,
    encode,
    read_carry,
    read_letter,
    read_receipt,
    refused,
)
from heliograph.network.routes import Route, check_letter
from heliograph.network.topology import Topology, describe
from heliograph.network.transfer import acknowledge, key_id_text, keys_of
from heliograph.node.links import Link
from heliograph.ports import Clock, KeyEstablishment
from heliograph.storage.keys import NewKey
from heliograph.storage.relayed_keys import RelayedKeys
from heliograph.transport.hop_channel import HopClient

__all__ = ["Neighbour", "NodeParts", "Relay", "about"]

log = structlog.get_logger("heliograph.network")
_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A link, and the node at its other end."""

    link: Link
    client: HopClient


@dataclass(slots=True)
class NodeParts:
    """What relay and origin share. ``ends``: the secret with each route's other end; ``carries``: pairs of end nodes
    whose shares this node hands on; ``store``: the thread of all store calls. Only ``follow`` changes it.
    """  # noqa: D205  - one sentence of two lines

    name: str
    topology: Topology
    neighbours: Mapping[str, Neighbour]
    routes: tuple[Route, ...]
    ends: Mapping[tuple[str, str], EndToEnd] = field(repr=False)
    carries: frozenset[frozenset[str]]
    exchanges: Mapping[str, KeyEstablishment]
    relayed: RelayedKeys
    store: ThreadPoolExecutor
    clock: Clock

    def follow(
        self,
        routes: tuple[Route, ...],
        ends: Mapping[tuple[str, str], EndToEnd],
        exchanges: Mapping[str, KeyEstablishment],
        carries: frozenset[frozenset[str]],
    ) -> None:
        """Serve these pairs from now on, and carry for these ends."""
        # What is under way for a pair that is gone ends in order, with the secret that it began with.
        self.ends, self.exchanges = {**self.ends, **ends}, {**self.exchanges, **exchanges}
        self.routes, self.carries = routes, carries

    def end_of(self, route: Route) -> EndToEnd | None:
        """Return the secret with a route's other end, None if it has none."""
        return self.ends.get((route.local_sae, route.remote_sae))

    async def in_store(self, call: Callable[[], _Result]) -> _Result:
        """Run a call on the store's thread."""
        return await asyncio.get_running_loop().run_in_executor(self.store, call)

    async def send(self, letter: Letter, wire: bytes, number: int, position: int, share: bytes) -> Receipt:
        """Send a share to the node at ``position`` of its path; the receipt with this hop's cost in front.

        A failure is a receipt too, since what it cost is told in any case.
        """
        path = letter.paths[number - 1]
        neighbour = self.neighbours.get(path[position])
        if neighbour is None:
            return refused(f"{self.name} has no link to {path[position]}")
        link, spent = neighbour.link, 0

        async def sealed() -> SealedHop:
            nonlocal spent
            keys = await link.draw(keys_needed(len(share), link.key_bytes))
            spent = 8 * sum(len(key.material) for key in keys)
            names = [key.key_id for key in keys]
            await self.in_store(lambda: self.relayed.use(link.name, names, spent))
            return seal_hop(keys, wire, number, position, share)

        try:
            if link.key_bytes == 0 or position > 1:
                await link.look()  # a relay's receipt tells what is left; an origin has looked to choose its path
            receipt = read_receipt(await neighbour.client.request(sealed))
        except (KeySupplyError, TransportClosed, RemoteProtocolError, ConfigurationError) as why:
            receipt = refused(f"{self.name} to {path[position]}: {why}")
        hop = Hop(link.name, spent, link.stock, link.assurance)
        return msgspec.structs.replace(receipt, hops=(hop, *receipt.hops))


class Relay:
    """Answers neighbours. ``answer`` raises HeliographError for what gets no answer at all."""

    def __init__(self, parts: NodeParts) -> None:
        self._parts = parts
        self._collector = Collector()
        self._turn = asyncio.Lock()  # two shares of one transfer may come at once
        self.carried = 0
        self.suspected: dict[str, int] = {}

    async def answer(self, data: bytes, proved: Callable[[], None] = lambda: None) -> bytes:
        """Return the reply to a neighbour's message. ``proved`` is called once its tag was right."""
        request = read_request(data)
        neighbour = self._sender(request)
        # (1) Two keys of the link, and the tag; nothing in the message is believed before.
        keys, body = await neighbour.link.take(request)
        proved()
        await self._use(neighbour, request.key_ids)
        carry = read_carry(body)
        letter = read_letter(carry.letter)
        try:
            receipt = await self._act(neighbour, carry, letter)
        except (KeySupplyError, RemoteProtocolError) as why:
            log.warning("share refused", origin=letter.origin, target=letter.target, reason=str(why))
            receipt = refused(f"{self._parts.name}: {why}")
        return keys.seal_reply(encode(receipt))

    def _sender(self, request: SealedRequest) -> Neighbour:
        for neighbour in self._parts.neighbours.values():
            if (neighbour.link.peer_sae, neighbour.link.sae) == (request.sender, request.receiver):
                return neighbour
        raise RemoteProtocolError("a message of no link of this node")

    async def _act(self, neighbour: Neighbour, carry: Carry, letter: Letter) -> Receipt:
        # (2) The letter is this node's business, and came from the node before it in the path.
        if not 1 <= carry.number <= len(letter.paths):
            raise RemoteProtocolError("a share of no path")
        path, at = letter.paths[carry.number - 1], carry.position
        if not 1 <= at < len(path) or path[at] != self._parts.name or path[at - 1] != neighbour.link.peer:
            raise RemoteProtocolError("a share on another path than its letter says")
        is_end = at == len(path) - 1
        route = self._route(letter) if is_end else None
        if not is_end and frozenset((letter.origin, letter.target)) not in self._parts.carries:
            raise RemoteProtocolError(f"this node carries nothing between {letter.origin} and {letter.target}")
        # (3) Only now the pads, which the tagged message names: they are gone at the key manager when they are here.
        await self._use(neighbour, pad_ids(carry))
        share = open_share(carry, await neighbour.link.take_named(pad_ids(carry)))
        if route is not None:
            return await self._take(neighbour, carry, letter, share, route)
        self.carried += 1
        log.info("share carried", origin=letter.origin, target=letter.target, path=describe(path))
        return await self.hand_on(letter, carry, share)

    async def hand_on(self, letter: Letter, carry: Carry, share: bytes) -> Receipt:
        """Send a share to the next node of its path."""
        return await self._parts.send(letter, carry.letter, carry.number, carry.position + 1, share)

    async def _use(self, neighbour: Neighbour, key_ids: tuple[str, ...]) -> None:
        await self._parts.in_store(lambda: self._parts.relayed.use(neighbour.link.name, key_ids))

    def _route(self, letter: Letter) -> Route:
        for route in self._parts.routes:
            if (route.remote_sae, route.local_sae) == (letter.master, letter.slave):
                check_letter(letter, route, self._parts.topology)
                return route
        raise RemoteProtocolError("a letter for a pair of SAEs that is not declared at its target")

    async def _take(self, neighbour: Neighbour, carry: Carry, letter: Letter, share: bytes, route: Route) -> Receipt:
        end, wire = self._parts.end_of(route), carry.letter
        async with self._turn:
            found = self._collector.take(neighbour.link.peer, letter, wire, carry.number, share, end)
            if isinstance(found, Receipt):
                self._note(letter, found)
                if end is not None and found.status is Status.REFUSED:
                    found = end.refuse(wire, found)  # the origin believes it over any path
                return found
            try:
                receipt = await self._settle(found, end)
            except RemoteProtocolError as why:
                receipt = refused(f"{self._parts.name}: {why}")
            self._collector.settle(wire, receipt)
        self._note(letter, receipt)
        return receipt

    def _note(self, letter: Letter, receipt: Receipt) -> None:
        if receipt.suspects:
            paths = [describe(letter.paths[number - 1]) for number in receipt.suspects]
            log.error("a relay lies", suspected=paths, reason=receipt.reason or "its share vouches for no other")
            for path in paths:
                self.suspected[path] = self.suspected.get(path, 0) + 1

    async def _settle(self, found: Complete, end: EndToEnd | None) -> Receipt:
        """Combine, store, and only then acknowledge (security.md 8)."""
        letter, keys = found.letter, keys_of(found.letter, found.secret)
        answer = b"", b""
        if letter.layer:
            assert end is not None  # Route
            secret, ciphertext = await self._parts.exchanges[letter.layer].answer(end.read_offer(letter))
            answer = end.answer(letter, ciphertext)
            keys = end.combined(letter, answer, secret, keys)
        now = self._parts.clock.now()
        rows = [
            NewKey(key_id_text(key_id), letter.master, letter.slave, owner_here=False, material=key, created_at=now)
            for key_id, key in zip(letter.key_ids, keys, strict=True)
        ]
        facts = about(letter, None)
        await self._parts.in_store(lambda: self._parts.relayed.hold(rows, facts, now))
        log.info("keys stored", origin=letter.origin, keys=len(rows))
        return acknowledge(found.wire, found.secret, found.suspects, answer)


def about(letter: Letter, assurance: str | None) -> dict[str, object]:
    """Return the metadata of a transfer's keys. ``assurance``: of the weakest hop, where it is known."""
    facts: dict[str, object] = {
        "protocol": "relay",
        "paths": [list(path) for path in letter.paths],
        "threshold": letter.threshold,
    }
    if letter.layer:
        facts["layer"] = letter.layer
    if assurance is not None:
        facts["assurance"] = assurance
    return facts
