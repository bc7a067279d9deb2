"""Keeps each pair's stock: transfers of fresh keys, by the paths with the most key, until enough keys are ready."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from itertools import pairwise
from typing import Final

import structlog

from heliograph.errors import AuthenticationFailed, HeliographError, InsufficientKeys, KeySupplyError
from heliograph.kme.supply import Supply
from heliograph.network.blame import judge
from heliograph.network.letters import KEYS_MAX, Receipt
from heliograph.network.routes import Route
from heliograph.network.stocks import VENDOR, PathBook, weakest
from heliograph.network.topology import Path, describe, link_name
from heliograph.network.transfer import Transfer, key_id_text, plan_transfer
from heliograph.node.relay import NodeParts, about
from heliograph.ports import PendingShare, RandomSource
from heliograph.site.bugs import place
from heliograph.storage.keys import NewKey

__all__ = ["KEY_BYTES", "Origin"]

KEY_BYTES: Final = 32  # our choice: keys of 256 bits, as the combiner gives them
# Our choices.
TICK_S: Final = 1.0
TRANSFERS_MAX: Final = 8  # of one pair in a tick

log = structlog.get_logger("heliograph.network")


class Origin:
    """``secret``: draws keys, shares and their tags' keys; ``public``: names, another instance (security.md 6)."""

    def __init__(self, parts: NodeParts, supply: Supply, secret: RandomSource, public: RandomSource) -> None:
        self._parts, self._supply, self._secret, self._public = parts, supply, secret, public
        self.books = {(route.local_sae, route.remote_sae): PathBook() for route in parts.routes}
        self.last: dict[tuple[str, str], str] = {}
        self.suspected: dict[str, int] = {}

    def follow(self, routes: Sequence[Route]) -> None:
        """Keep a book for each pair that is about to come; a pair that is there keeps its own."""
        for route in routes:
            self.books.setdefault((route.local_sae, route.remote_sae), PathBook())

    async def run(self) -> None:
        """Keep the stocks, for ever. What fails is said and tried again."""
        while True:
            await self.tick()
            await asyncio.sleep(TICK_S)

    async def tick(self) -> None:
        """Top up every pair once."""
        for route in self._parts.routes:
            pair = route.local_sae, route.remote_sae
            try:
                made = await self.top_up(route)
            except HeliographError as why:
                if self.last.get(pair) != str(why):
                    log.warning("no keys by relay", pair=" - ".join(pair), reason=str(why))
                self.last[pair] = str(why)
            except Exception as why:  # noqa: BLE001  - a bug costs its transfer; its text might quote key material
                self.last[pair] = f"internal error ({type(why).__name__} at {place(why)}): please report it"
                log.error("internal error", kind=type(why).__name__, at=place(why))  # noqa: TRY400
            else:
                if made:
                    self.last[pair] = ""

    async def top_up(self, route: Route) -> int:
        """Make the keys that a pair lacks. Returns how many. Raises as ``transfer``; what was made before it stays."""
        made = 0
        for _ in range(TRANSFERS_MAX):  # then it is the next pair's turn
            lacking = min(await self._lacking(route), KEYS_MAX)
            if lacking < 1:
                break
            await self.transfer(route, lacking)
            made += lacking
        return made

    async def _lacking(self, route: Route) -> int:
        status = await self._parts.in_store(lambda: self._supply.status(route.local_sae, route.remote_sae))
        return route.stock - status.stored_key_count

    async def transfer(self, route: Route, number: int) -> tuple[str, ...]:
        """Make ``number`` keys and return their key_IDs: they are at both ends now, durably.

        Raises InsufficientKeys if too few paths may be tried, AuthenticationFailed if the target does not acknowledge.
        """
        pair, parts = (route.local_sae, route.remote_sae), self._parts
        paths = await self._chosen(route)
        pending: PendingShare | None = await parts.exchanges[route.layer].offer() if route.layer else None
        share = pending.share if pending else b""
        draws = self._secret.draw, self._public.draw
        transfer = plan_transfer(route, paths, number, KEY_BYTES, draws, parts.end_of(route), share)
        receipts = await asyncio.gather(
            *(parts.send(transfer.letter, transfer.wire, n, 1, parcel) for n, parcel in enumerate(transfer.parcels, 1))
        )
        await self._pay(pair, paths, receipts)
        acknowledged = self._acknowledged(pair, transfer, receipts)
        keys = transfer.keys
        if pending is not None:
            end = parts.end_of(route)
            assert end is not None  # Route
            secret = pending.finish(end.read_answer(transfer.letter, acknowledged.answer))
            keys = end.combined(transfer.letter, acknowledged.answer, secret, keys)
        await self._release(transfer, keys, receipts)
        return tuple(map(key_id_text, transfer.letter.key_ids))

    async def _chosen(self, route: Route) -> tuple[Path, ...]:
        local, why = dict[str, int](), ""
        for name in {path[1] for path in route.paths}:
            try:
                local[name] = await self._parts.neighbours[name].link.look()
            except KeySupplyError as error:
                why = f"; {error}"
        now = self._parts.clock.now()
        usable = [path for path in route.paths if path[1] in local]
        if len(usable) < route.shares:
            raise InsufficientKeys(f"{len(usable)} of {route.shares} paths have a link with a key manager now{why}")
        return self.books[route.local_sae, route.remote_sae].choose(usable, route.shares, local, now)

    async def _pay(self, pair: tuple[str, str], paths: Sequence[Path], receipts: Sequence[Receipt]) -> None:
        paid: dict[str, int] = {}
        for path, receipt in zip(paths, receipts, strict=True):
            # As the hops told, but only of links that are on the path: no relay adds accounts here.
            for ends, hop in zip(pairwise(path), receipt.hops, strict=False):
                name = link_name(*ends)
                paid[name] = paid.get(name, 0) + hop.bits
        await self._parts.in_store(lambda: self._parts.relayed.pay(pair, paid))

    def _acknowledged(self, pair: tuple[str, str], transfer: Transfer, receipts: Sequence[Receipt]) -> Receipt:
        """Return a receipt that the target made, and note what each path did. Raises AuthenticationFailed."""
        now, book = self._parts.clock.now(), self.books[pair]
        verdict = judge(transfer, receipts, self._parts.ends.get(pair))
        for path, receipt in zip(transfer.letter.paths, receipts, strict=True):
            if path in verdict.failed:
                book.failed(path, verdict.failed[path], now)
            else:
                book.succeeded(path, receipt.hops)
        for path in verdict.proved:
            self.suspected[describe(path)] = self.suspected.get(describe(path), 0) + 1
        if verdict.proved:
            log.error("a relay lies", suspected=sorted(map(describe, verdict.proved)))
        if verdict.acknowledged is None:
            reasons = "; ".join(f"{describe(path)}: {why}" for path, why in verdict.failed.items())
            raise AuthenticationFailed(f"the target did not acknowledge: {reasons or 'shares are missing'}")
        return verdict.acknowledged

    async def _release(self, transfer: Transfer, keys: Sequence[bytes], receipts: Sequence[Receipt]) -> None:
        letter, now = transfer.letter, self._parts.clock.now()
        rows = [
            NewKey(key_id_text(key_id), letter.master, letter.slave, owner_here=True, material=key, created_at=now)
            for key_id, key in zip(letter.key_ids, keys, strict=True)
        ]
        # What a path did not tell of each of its hops may be anything; a timeout hides the rest of a path.
        told = all(len(one.hops) == len(path) - 1 for path, one in zip(letter.paths, receipts, strict=True))
        assurance = weakest([hop for receipt in receipts for hop in receipt.hops]) if told else VENDOR
        facts = about(letter, assurance)
        await self._parts.in_store(lambda: self._parts.relayed.release(rows, facts, now))
        log.info("keys acknowledged", target=letter.target, keys=len(rows), paths=list(map(describe, letter.paths)))
