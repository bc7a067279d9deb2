"""``heliograph kme-chaos --partitions N``: parts in processes of their own or in this one, cut from each other.

Relays stand between the parts. While keys are fetched and a tunnel carries a payload, the relays of one pair after the
other are cut at a random moment, and healed: for all to see, silently in one direction or both, or so that the
connections of the time stay silent for good. No key may come twice, both ends must have the same key under one name,
nothing may be sent under a key that the other end does not hold, and each service must come back by itself.
"""

from __future__ import annotations

import asyncio
import random
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Final

from heliograph.lab.cut_agents import CutAgents
from heliograph.lab.cut_managers import CutManagers
from heliograph.lab.cut_nodes import CutNodes
from heliograph.lab.cut_parts import CutParts, Findings
from heliograph.lab.cut_sites import CutSites
from heliograph.lab.cutting_relay import CuttingRelay

__all__ = ["PairCuts", "PartitionReport", "Scene", "cut_once", "run_partitions"]


class Scene(StrEnum):
    """Parts that are cut from each other, each with what it needs of its own."""

    SITES = "sites"
    MANAGERS = "managers"
    AGENTS = "agents"
    NODES = "nodes"


_MADE_BY: Final[dict[Scene, Callable[[Path], CutParts]]] = {
    Scene.SITES: CutSites,
    Scene.MANAGERS: CutManagers,
    Scene.AGENTS: CutAgents,
    Scene.NODES: CutNodes,
}
_CUT_S: Final = (0.3, 1.0, 3.0)
_DEADLINE_S: Final = 90.0
_WAYS: Final = ((True, True), (True, False), (False, True))


@dataclass
class PairCuts:
    """What one pair went through. ``resume_s``: from the healing to the service's next success, sorted.

    ``hard``: its connections were ended; ``lost``: they stayed silent for good; ``one_way``: silent in one direction.
    """

    cuts: int = 0
    one_way: int = 0
    hard: int = 0
    lost: int = 0
    served_during: int = 0
    served_until_resumed: int = 0
    stuck: int = 0
    resume_s: list[float] = field(default_factory=list)


@dataclass
class PartitionReport(Findings):
    """What happened to each pair, and what was found."""

    pairs: dict[str, PairCuts] = field(default_factory=dict)
    not_cut: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def sound(self) -> bool:
        """Whether nothing happened that must not."""
        return self.harmless and not sum(pair.stuck for pair in self.pairs.values())


async def run_partitions(number: int, seed: int, scenes: Sequence[Scene] = ()) -> PartitionReport:
    """Cut ``number`` times, each pair in its turn. ``scenes``: every one if empty.

    Raises HeliographError if the parts do not start.
    """
    began = time.monotonic()
    report = PartitionReport()
    directory = Path(tempfile.mkdtemp(prefix="hgp"))  # short: Unix sockets have short paths
    async with AsyncExitStack() as stack:
        stack.callback(shutil.rmtree, directory, ignore_errors=True)
        chosen = [make(directory) for scene, make in _MADE_BY.items() if scene in scenes or not scenes]
        for parts in chosen:
            stack.push_async_callback(parts.close)
            await parts.start()
            report.not_cut |= parts.not_cut
        pairs = [(parts, pair) for parts in chosen for pair in parts.relays]
        report.pairs = {pair: PairCuts() for _, pair in pairs}
        chance = random.Random(seed)  # noqa: S311  - a laboratory's choice, no secret
        for turn in range(number):
            parts, pair = pairs[turn % len(pairs)]
            await cut_once(parts, pair, report.pairs[pair], chance)
        for parts in chosen:
            await parts.more(list(parts.relays)[-1])  # on without a cut
            await parts.close()
            report.add(parts.findings())
    for found in report.pairs.values():
        found.resume_s.sort()
    report.seconds = round(time.monotonic() - began, 1)
    return report


async def cut_once(parts: CutParts, pair: str, found: PairCuts, chance: random.Random) -> None:
    """Cut a pair once, heal it, and wait until its service is back."""
    await asyncio.sleep(chance.uniform(0.0, 0.6))  # any stage of a block, any step of a request
    relays = _chosen(parts.relays[pair], chance)
    kind = chance.choices(("hard", "silent", "lost"), (2, 2, pair not in parts.watched_by_tcp))[0]
    onward, back = (True, True) if kind == "hard" else chance.choice(_WAYS)
    found.cuts += 1
    found.hard += kind == "hard"
    found.lost += kind == "lost"
    found.one_way += not (onward and back)
    before = parts.fetched
    for relay in relays:
        relay.cut(hard=kind == "hard", onward=onward, back=back, lost=kind == "lost")
    await asyncio.sleep(chance.choice(_CUT_S))
    found.served_during += parts.fetched - before
    before, healed = parts.fetched, time.monotonic()
    for relay in relays:
        relay.heal()
    try:
        async with asyncio.timeout(_DEADLINE_S):
            await parts.more(pair)
        found.resume_s.append(round(time.monotonic() - healed, 3))
    except TimeoutError:
        found.stuck += 1
    found.served_until_resumed += parts.fetched - before


def _chosen(relays: Sequence[CuttingRelay], chance: random.Random) -> Sequence[CuttingRelay]:
    """Choose all, or one alone: the others then see a part that is cut from some and not from them."""
    return relays if chance.random() < 0.5 else [chance.choice(relays)]
