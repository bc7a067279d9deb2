"""Two sites in processes of their own, SAEs, and with PostgreSQL a front end; relays between that can be cut."""

from __future__ import annotations

import asyncio
import signal
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Final, Self

from heliograph.errors import HeliographError
from heliograph.lab.cut_consumers import Consumers, sae_of_site
from heliograph.lab.cut_parts import Findings, errors_in, twice
from heliograph.lab.cutting_relay import CuttingRelay, from_port, from_socket
from heliograph.lab.front_end_process import FrontEndProcess, add_delivery, move_keys
from heliograph.lab.ports import free_ports
from heliograph.lab.postgres import postgres_programs, running_postgres
from heliograph.lab.rehearsal import Ports, Rehearsal
from heliograph.site.config import read_site
from heliograph.testing.links import example_registration

__all__ = ["CutSites"]

LINK, SAES, FRONT_END, OUTBOX = (
    "site and site", "key manager and SAEs", "front end and PostgreSQL", "link's process and PostgreSQL",
)  # fmt: skip
_START_S: Final = 90.0
_BLOCK_BITS: Final = 100_000  # blocks of about a quarter of a second
_KILOMETRES: Final = 5.0  # of example_registration


class CutSites:
    """With PostgreSQL, a front end stands in place of site A's own key manager."""

    watched_by_tcp = frozenset({LINK, FRONT_END, OUTBOX})

    def __init__(self, directory: Path) -> None:
        self._directory, self._stack = directory, AsyncExitStack()
        ports = Ports.free()
        self._rehearsal = Rehearsal(
            directory,
            Ports(**{**{name: getattr(ports, name) for name in ports.__slots__}, "control_tap": ports.control,
                     "tunnel_tap": ports.tunnel}),
            _KILOMETRES,
            1,
            {"rekey_seconds": 5.0, "max_key_age_s": 60.0},
            registration=example_registration(_BLOCK_BITS),
            start_s=_START_S,
        )  # fmt: skip
        self.relays: dict[str, list[CuttingRelay]] = {}
        self.not_cut: dict[str, str] = {}
        self._front: FrontEndProcess | None = None
        self._consumers = Consumers([])

    @property
    def fetched(self) -> int:
        """Keys that the SAEs of both sites have."""
        return self._consumers.fetched

    async def start(self) -> Self:
        """Start the sites; return when keys come. Raises HeliographError if they do not start."""
        self._rehearsal.prepare()
        ports = self._rehearsal.ports
        link = self._relay(LINK, CuttingRelay(from_port(ports.classical)))
        await link.listen(ports.classical_tap)
        doors = []
        for port in (ports.kme_a, ports.kme_b):
            door = self._relay(SAES, CuttingRelay(from_port(port)))
            doors.append(await door.listen(free_ports(1)[0]))
        await self._with_postgres()
        self._stack.push_async_callback(self._rehearsal.stop_all)
        await self._rehearsal.start_all()
        sites = zip(self._rehearsal.sites.values(), doors, strict=True)
        self._consumers = Consumers([partial(sae_of_site, path, port) for path, port in sites])
        self._stack.push_async_callback(self._consumers.stop)
        self._consumers.start()
        for pair in (LINK, SAES):
            await self.more(pair)
        return self

    def _relay(self, pair: str, relay: CuttingRelay) -> CuttingRelay:
        self.relays.setdefault(pair, []).append(relay)
        self._stack.push_async_callback(relay.close)
        return relay

    async def _with_postgres(self) -> None:
        if postgres_programs() is None:
            why = "PostgreSQL is not installed (apt-get install postgresql-15)"
            self.not_cut = {FRONT_END: why, OUTBOX: why}
            return
        server = await self._stack.enter_async_context(running_postgres())
        toml = self._rehearsal.sites["site_a"]
        texts = []
        plain = toml.read_text(encoding="utf-8")
        for pair, name in ((OUTBOX, "o"), (FRONT_END, "f")):
            place = self._directory / name
            place.mkdir()
            relay = self._relay(pair, CuttingRelay(from_socket(server.directory / ".s.PGSQL.5432")))
            await relay.listen_unix(place / ".s.PGSQL.5432")
            toml.write_text(plain, encoding="utf-8")
            listen = {"fe-1": read_site(toml).file.kme.listen}
            add_delivery(toml, server.conninfo().replace(str(server.directory), str(place)), listen)
            texts.append(toml.read_text(encoding="utf-8"))
        toml.write_text(texts[0], encoding="utf-8")
        own = toml.with_name("FRONT.toml")  # the same site, but for the way to the server
        own.write_text(texts[1], encoding="utf-8")
        await move_keys(toml)
        self._front = FrontEndProcess(own, "fe-1")
        self._stack.push_async_callback(self._front.end, signal.SIGTERM)
        await self._front.start()

    async def more(self, pair: str) -> None:
        """Wait until keys come at both sites, or the link makes a block."""
        if pair in {SAES, FRONT_END}:
            await self._consumers.more()
            return
        seen = await self._blocks()
        while await self._blocks() <= seen:  # noqa: ASYNC110  - a question to another process
            await asyncio.sleep(0.02)

    async def _blocks(self) -> int:
        while True:
            try:
                return (await self._rehearsal.status("site_a")).link.blocks
            except HeliographError:
                await asyncio.sleep(0.05)

    async def close(self) -> None:
        """End everything."""
        await self._stack.aclose()

    def findings(self) -> Findings:
        """Return what SAEs and logs tell."""
        consumers = self._consumers
        logs = [self._directory / f"{name}.log" for name in self._rehearsal.sites]
        logs += [self._front.log] if self._front is not None else []
        return Findings(
            fetched=consumers.fetched,
            burnt=consumers.burnt,
            duplicates=twice(consumers.key_ids),
            disagreements=consumers.disagreements,
            log_errors=errors_in(logs),
        )
