"""One agent alone in a process, on keys that both sides compute from a seed: for measurements, never for traffic.

Standard input: a line of JSON, {"agent": the table of SITE.toml, "seed": hex, "stock": keys}; then any line asks for a
line of JSON with the agent's status; the end of input ends the process.
"""

from __future__ import annotations

import asyncio
import dataclasses
import hmac
import json
import sys
import time
import uuid
from typing import Any

from heliograph.agent.agent import Agent
from heliograph.agent.config import AgentConfig
from heliograph.agent.identity import PeerIdentity
from heliograph.consumer.keys import Role
from heliograph.errors import HeliographError, InsufficientKeys
from heliograph.types import DeliveredKey
from heliograph.vault.randomness import SystemRandomness

__all__ = ["SeededKeys", "main"]


class SeededKeys:
    """``ports.KeySource`` without a key manager: a key is a function of its name. ``stock``: keys to give as master."""

    def __init__(self, seed: bytes, stock: int) -> None:
        self._seed = seed
        self.stock = stock

    async def get_key(self) -> DeliveredKey:
        """Give a fresh key. Raises InsufficientKeys."""
        if self.stock <= 0:
            raise InsufficientKeys("no key is left for this pair of SAEs: the stock of the measurement is used up")
        self.stock -= 1
        return await self.get_key_with_id(str(uuid.uuid4()))

    async def get_key_with_id(self, key_id: str) -> DeliveredKey:
        """Give the key with this name."""
        return DeliveredKey(key_id, hmac.digest(self._seed, key_id.encode(), "sha256"))


class _Clock:
    def now(self) -> float:
        return time.monotonic()


async def _serve(order: dict[str, Any]) -> None:
    config, seed = AgentConfig.from_mapping(order["agent"]), bytes.fromhex(order["seed"])
    identity = None
    if config.peer_key is not None:
        names = ("sae-a", "sae-b") if config.role is Role.INITIATOR else ("sae-b", "sae-a")
        identity = PeerIdentity(*names, hmac.digest(seed, b"peer key", "sha256"), SystemRandomness())
    agent = Agent(config, SeededKeys(seed, int(order["stock"])), _Clock(), identity)
    await agent.start()
    try:
        loop = asyncio.get_running_loop()
        while await loop.run_in_executor(None, sys.stdin.readline):
            status = dataclasses.asdict(agent.status()) | {"cpu_s": time.process_time()}
            print(json.dumps(status), flush=True)  # noqa: T201  - the parent reads it
    finally:
        await agent.close()


def main() -> None:
    """Run until the end of input. An error is one line of JSON."""
    try:
        asyncio.run(_serve(json.loads(sys.stdin.readline())))
    except HeliographError as why:
        print(json.dumps({"error": str(why)}), flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
