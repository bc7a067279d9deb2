"""Two encryptors' agents in this process, each with a key manager of its own, a payload in the tunnel, relays between.

The key managers get the same keys from a dealer and speak ETSI GS QKD 014 over mutual TLS. Keys change often and live
for two seconds, so that a cut of three shows whether a tunnel without a fresh key fails closed.
"""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import time
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import ClassVar, Final, Self

from heliograph.agent.agent import Agent
from heliograph.agent.config import AgentConfig
from heliograph.consumer.keys import key_id_text
from heliograph.errors import TransportClosed
from heliograph.http.client import Etsi014Client
from heliograph.http.tls import client_tls
from heliograph.lab.cleartext import PayloadIndex
from heliograph.lab.cut_parts import Findings, twice
from heliograph.lab.cutting_relay import CuttingRelay, from_port
from heliograph.lab.dealt_links import DealtLink
from heliograph.lab.hosts import HostB, send
from heliograph.lab.ports import free_ports
from heliograph.lab.wiretap import Wiretap
from heliograph.ports import KeySource
from heliograph.site.clocks import MonotonicClock
from heliograph.types import DeliveredKey
from heliograph.vault.randomness import SystemRandomness

__all__ = ["CutAgents"]

KEYS, AGENTS, TUNNEL = "agent and key manager", "agent and agent (control)", "encryptor and encryptor (tunnel)"
_HOST: Final = "127.0.0.1"
_SAES: Final = ("sae-a", "sae-b")
_RESPONDER: Final = 0  # the first agent to start, since the other one dials it
# Our choices: an agent's own limits are longer (consumer.rotation).
_AGE_S: Final = 2.0
_LIMITS: Final = {"rekey_seconds": 0.5, "max_key_age_s": _AGE_S, "overlap_seconds": 1.0}
_PATIENCE_S: Final = 1.5  # with the key manager and with the other agent
_AGAIN_S: Final = 0.3
_STOCK: Final = 40
_PAYLOAD_BYTES: Final = 48 << 10
_RATE: Final = 150_000.0
_PASS_S: Final = 4.0  # a payload that is longer on its way is given up, as a host gives up a silent connection
_PAUSE_S: Final = 0.02
_ON_THE_WAY_S: Final = 0.5  # from an encryptor to the host behind it, in a process that has much else to do


class _Noted:
    """A key source that notes what it gave, as a digest, and when the last one came."""

    def __init__(self, source: KeySource) -> None:
        self._source = source
        self.key_ids: list[str] = []
        self.digests: dict[str, bytes] = {}
        self.last_at = time.monotonic()

    async def get_key(self) -> DeliveredKey:
        return self._note(await self._source.get_key())

    async def get_key_with_id(self, key_id: str) -> DeliveredKey:
        return self._note(await self._source.get_key_with_id(key_id))

    def _note(self, key: DeliveredKey) -> DeliveredKey:
        self.key_ids.append(key.key_id)
        self.digests[key.key_id] = hashlib.sha256(key.material).digest()
        self.last_at = time.monotonic()
        return key


class CutAgents:
    """``relays``: to each key manager, of the control connection, and of the tunnel's own connections."""

    not_cut: ClassVar[dict[str, str]] = {}
    watched_by_tcp: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, directory: Path) -> None:
        self._directory, self._stack = directory / "agents", AsyncExitStack()
        self._directory.mkdir(mode=0o700)
        self._dealer = DealtLink(self._directory, _SAES, SystemRandomness())
        self._ports = {"control": 0, "tunnel": 0, **dict.fromkeys(_SAES, 0)}
        self.relays: dict[str, list[CuttingRelay]] = {
            KEYS: [self._relay(name) for name in _SAES],
            AGENTS: [self._relay("control")],
            TUNNEL: [self._relay("tunnel")],
        }
        self.payload = SystemRandomness().draw(_PAYLOAD_BYTES)
        self.taps: list[Wiretap] = []
        self.agents: list[Agent] = []
        self.sources: list[_Noted] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._used: list[set[str]] = [set(), set()]
        self._alone_since = [0.0, 0.0]
        self._host = HostB()
        self.seen = Findings()

    def _relay(self, name: str) -> CuttingRelay:
        relay = CuttingRelay(from_port(lambda: self._ports[name]))
        self._stack.push_async_callback(relay.close)
        return relay

    @property
    def fetched(self) -> int:
        """Keys that both agents have."""
        if len(self.sources) < 2:
            return 0
        first, second = (source.digests.keys() for source in self.sources)
        return len(first & second)

    async def start(self) -> Self:
        """Start both ends; return when a payload crossed."""
        self._stack.push_async_callback(self._dealer.close)
        await self._dealer.start(2 * _STOCK)
        for name in _SAES:
            self._ports[name] = self._dealer.servers[name].port
        doors = [await relay.listen() for relay in self.relays[KEYS]]
        await self._host.start(_HOST, free := free_ports(1)[0])
        self._stack.push_async_callback(self._host.close)
        ends = {"role": "responder", "control": f"{_HOST}:0", "outer_listen": f"{_HOST}:0"}
        responder = await self._agent({**ends, "targets": {"host-b": f"{_HOST}:{free}"}}, _SAES[1], doors[1])
        assert responder.control_address is not None
        assert responder.forwarder.outer_address is not None
        control = await self._way("control", responder.control_address.port, self.relays[AGENTS][0])
        tunnel = await self._way("tunnel", responder.forwarder.outer_address.port, self.relays[TUNNEL][0])
        ends = {"role": "initiator", "control": f"{_HOST}:{control}", "outer_connect": f"{_HOST}:{tunnel}"}
        initiator = await self._agent({**ends, "forwards": {"host-b": f"{_HOST}:0"}}, _SAES[0], doors[0])
        inner = initiator.forwarder.inner_addresses["host-b"].port
        work = self._carry(inner), self._watch(), self._deal()
        self._tasks = [asyncio.create_task(each) for each in work]
        await self.more(TUNNEL)
        return self

    async def _way(self, name: str, port: int, relay: CuttingRelay) -> int:
        """Put relay and recorder before a port; return where the other end is to dial."""
        tap, at = Wiretap(name, self._directory), free_ports(1)[0]
        await tap.start((_HOST, at), (_HOST, port))
        self._stack.push_async_callback(tap.close)
        self.taps.append(tap)
        self._ports[name] = at
        return await relay.listen()

    async def _agent(self, document: dict[str, object], name: str, port: int) -> Agent:
        way = self._dealer.access(name, "")
        certificate, key, ca = way.files
        other = _SAES[1 - _SAES.index(name)]
        client = Etsi014Client(f"https://{_HOST}:{port}", client_tls(certificate, key, ca, way.kme), name, other)
        self._stack.push_async_callback(client.close)
        self.sources.append(_Noted(client))
        config = AgentConfig.from_mapping({**document, **_LIMITS})
        rotation = dataclasses.replace(
            config.rotation,
            fetch_seconds=_PATIENCE_S,
            answer_seconds=_PATIENCE_S,
            resend_seconds=_AGAIN_S,
            retry_max_seconds=_AGE_S,
        )
        agent = Agent(dataclasses.replace(config, rotation=rotation), self.sources[-1], MonotonicClock())
        await agent.start()
        self._stack.push_async_callback(agent.close)
        self.agents.append(agent)
        return agent

    async def more(self, pair: str) -> None:
        """Wait until both agents changed to keys that were fetched after this call, and a payload crossed under them.

        One change may have been under way, with a key that had come before.
        """
        assert pair in self.relays
        goals = [agent.status().rekeys + 2 for agent in self.agents]
        await self._until(lambda: all(a.status().rekeys >= goal for a, goal in zip(self.agents, goals, strict=True)))
        goal = self.seen.payloads + 1
        await self._until(lambda: self.seen.payloads >= goal)

    async def _until(self, done: Callable[[], bool]) -> None:
        while not done():
            for task in self._tasks:
                if task.done():
                    task.result()
            await asyncio.sleep(_PAUSE_S)

    async def _carry(self, port: int) -> None:
        """Be a host behind the initiator that sends its payload again and again."""
        wanted = hashlib.sha256(self.payload).hexdigest()
        while True:
            answer = ""
            with suppress(TransportClosed, TimeoutError):
                async with asyncio.timeout(_PASS_S):
                    answer = await send(_HOST, port, self.payload, _RATE)
            self.seen.payloads += answer == wanted
            self.seen.disagreements += answer not in {wanted, ""}
            await asyncio.sleep(_PAUSE_S)

    async def _watch(self) -> None:
        """Look at both ends between any two steps of theirs, as often as the processor allows."""
        arrived, closed = 0, False
        while True:
            self._look_at_keys()
            age = time.monotonic() - max(source.last_at for source in self.sources)
            if self._host.progress > arrived and age > _AGE_S + _ON_THE_WAY_S:
                self.seen.under_old_key += 1
            arrived = self._host.progress
            before, closed = closed, all(agent.status().mode == "fail-closed" for agent in self.agents)
            self.seen.closed += closed and not before
            await asyncio.sleep(_PAUSE_S / 2)

    def _look_at_keys(self) -> None:
        now, rings = time.monotonic(), [agent.forwarder.keyring for agent in self.agents]
        for at, ring in enumerate(rings):
            generation, other = ring.sending, rings[1 - at]
            if generation is None or other.holds(generation.key_id):
                self._alone_since[at] = now
                self._used[at] |= {key_id_text(generation.key_id)} if generation else set()
                continue
            alone = now - self._alone_since[at]
            if at == _RESPONDER and other.seen(generation.key_id):
                # It counts the key's age from its own fetch, the initiator from the one before, which may be slow.
                self.seen.outlived_s = max(self.seen.outlived_s, round(alone, 3))
                self.seen.under_unknown_key += alone > _PATIENCE_S + _ON_THE_WAY_S
            else:
                self.seen.under_unknown_key += 1

    async def _deal(self) -> None:
        """Be the QKD link: a stock at both key managers, the same."""
        while True:
            if self._dealer.keys[_SAES[0]].stored_key_count(*_SAES) < _STOCK:
                self._dealer.deal(_STOCK)
            await asyncio.sleep(10 * _PAUSE_S)

    async def close(self) -> None:
        """End everything."""
        for task in self._tasks:
            task.cancel()
        ended = await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []
        alarms = [agent.status().alarm or "" for agent in self.agents]
        self.agents = []
        self.seen.log_errors += sum("internal error" in alarm for alarm in alarms)
        await self._stack.aclose()
        for one in ended:
            if not isinstance(one, asyncio.CancelledError | None):
                raise one

    def findings(self) -> Findings:
        """Compare the ends' keys, and search the recordings."""
        first, second = (source.digests for source in self.sources)
        both = first.keys() & second.keys()
        wrong = sum(first[key_id] != second[key_id] for key_id in both)
        wrong += len((self._used[0] | self._used[1]) - both)  # used at an end, and the other one never had it
        index = PayloadIndex(self.payload)
        found = Findings(
            fetched=len(both),
            duplicates=twice(source.key_ids for source in self.sources),
            disagreements=wrong,
            bytes_in_clear=sum(index.covered(tap.files) for tap in self.taps),
        )
        found.add(self.seen)
        return found
