"""Two key managers to test a client, an encryptor or another key manager against: real doors, stores and TLS, no light.

A dealer gives both the same keys, which are as secret as this machine, and more of them as they are fetched. All else
is what a site runs: ETSI GS QKD 014 and 004, and SKIP with certificates and with preshared keys.
"""

from __future__ import annotations

import asyncio
import json
import socket
import uuid
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from heliograph.errors import ConfigurationError
from heliograph.kme.supply import Supply
from heliograph.lab.rehearsal import Ports, Rehearsal
from heliograph.protocol.registration import SaePair
from heliograph.site.clocks import MonotonicClock, WallClock
from heliograph.site.config import SiteConfig, read_site
from heliograph.site.kek import open_kek
from heliograph.site.kme_doors import kme_tls, open_doors
from heliograph.site.live_settings import site_reloads
from heliograph.site.setup import plan_registration
from heliograph.site.site_supply import make_supply
from heliograph.site.store import SiteStore, open_store
from heliograph.storage.database import Database
from heliograph.storage.keys import NewKey
from heliograph.storage.local_keys import LocalKeys
from heliograph.vault.owned_file import create_file
from heliograph.vault.randomness import SystemRandomness

__all__ = ["FIRST_PORT", "PORTS_EACH", "KmePeer"]

FIRST_PORT, PORTS_EACH = 8443, 10  # our choice: site B's ports are ten further
_HOST, _DOORS = "127.0.0.1", 5
_STOCK, _EPOCH, _LOOK_S = 256, 1, 0.5
_ABOUT = json.dumps({"protocol": "dealt", "assurance": "computational"})
_PAIRS = (("sae-a", "sae-b"), ("router-a", "router-b"))


@dataclass(frozen=True, slots=True)
class _Running:
    config: SiteConfig
    database: Database
    store: SiteStore


class KmePeer:
    """``directory``: where both sites' files go, new or empty; ``first_port``: site A listens from there on."""

    def __init__(self, directory: Path, first_port: int = FIRST_PORT) -> None:
        if not 1024 <= first_port <= 65_000:
            raise ConfigurationError(f"--first-port {first_port}: write one between 1024 and 65000")
        if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
            raise ConfigurationError(f"{directory}: no new or empty directory; name another, or remove it")
        self._directory, self._first = directory, first_port
        for site in "ab":  # before a file is written: the directory would be refused the next time
            for door in range(_DOORS):
                _require_free(self._port(site, door))
        self._sites: list[_Running] = []
        self._blocks = 0

    def _port(self, site: str, door: int) -> str:
        return f"{_HOST}:{self._first + door + (PORTS_EACH if site == 'b' else 0)}"

    def prepare(self) -> None:
        """Write both sites' configurations, certificates and preshared keys. Raises ConfigurationError."""
        planned = plan_registration("a--b", ("site-a", "site-b"), _PAIRS[0], 25.0)
        registration = replace(
            planned,
            transmitter_pairs=tuple(SaePair(a, b) for a, b in _PAIRS),
            receiver_pairs=tuple(SaePair(b, a) for a, b in _PAIRS),
        )
        ports = replace(Ports.free(), kme_a=self._first, kme_b=self._first + PORTS_EACH)
        Rehearsal(self._directory, ports, registration=registration).prepare()
        for here, there in (("a", "b"), ("b", "a")):
            where = self._directory / here
            create_file(where / f"router-{here}.psk", SystemRandomness().draw(32).hex().encode(), "preshared key")
            toml = where / "SITE.toml"
            text, _, _ = toml.read_text(encoding="utf-8").partition("\n[agent]")  # no encryptor of our own
            toml.write_text(text + self._doors(here, there), encoding="utf-8")

    def _doors(self, here: str, there: str) -> str:
        return f"""
[skip]
listen = "{self._port(here, 1)}"
psk_listen = "{self._port(here, 2)}"
psk = {{ "router-{here}" = {{ sae = "router-{here}", file = "router-{here}.psk" }} }}
local_system_id = "key-provider-{here}"
remote_systems = {{ "key-provider-{there}" = ["sae-{there}", "router-{there}"] }}

[etsi004]
listen = "{self._port(here, 3)}"
promised_bps = 100000
peer_listen = "{self._port(here, 4)}"
peer_dial = "{self._port(there, 4)}"
"""

    def describe(self) -> str:
        """Return what a person needs to begin."""
        lines = ["Two key managers with dealt keys: for tests of clients, not for traffic."]
        for site in "ab":
            doors = [self._port(site, door) for door in range(4)]
            lines += [
                f"site {site.upper()}  ETSI GS QKD 014    https://{doors[0]}/api/v1/keys/...   SAE sae-{site}",
                f"        SKIP               https://{doors[1]}               SAE sae-{site}",
                f"        SKIP, PSK          {doors[2]}    identity router-{site}",
                f"        its key            {self._directory}/{site}/router-{site}.psk",
                f"        ETSI GS QKD 004    {doors[3]}    URI sae:sae-{site}",
                f"        certificates       {self._directory}/{site}/pki/  ca.pem  sae.pem  sae.key",
            ]
        return "\n".join(lines)

    async def run(self, ready: Callable[[], None], stop: asyncio.Event) -> None:
        """Serve until ``stop`` is set; ``ready`` is called once every door is open. Raises ConfigurationError."""
        async with AsyncExitStack() as stack:
            for site in "ab":
                config = read_site(self._directory / site / "SITE.toml")
                database = Database(config.path(config.file.store), open_kek(config))
                stack.callback(database.close)
                store = open_store(database, config.path(config.file.anchor), SystemRandomness())
                self._sites.append(_Running(config, database, store))
            self._deal(_STOCK)
            for running in self._sites:
                supply = _supply(running)
                tls = kme_tls(running.config)
                await open_doors(stack, running.config, supply, {"": running.store}, tls, site_reloads(running.config))
            ready()
            while not stop.is_set():
                lacking = _STOCK - min(self._stored())
                if lacking > _STOCK // 2:
                    await asyncio.to_thread(partial(self._deal, lacking))
                try:
                    async with asyncio.timeout(_LOOK_S):
                        await stop.wait()
                except TimeoutError:
                    continue

    def _stored(self) -> list[int]:
        owned = zip(self._sites, (_PAIRS, [(b, a) for a, b in _PAIRS]), strict=True)
        return [site.store.keys.stored_key_count(*pair) for site, pairs in owned for pair in pairs]

    def _deal(self, number: int) -> None:
        """Give both sites ``number`` more keys of each pair and direction."""
        self._blocks += 1
        randomness, now = SystemRandomness(), WallClock().now()
        size = self._sites[0].config.registration.key_size_bits // 8
        made = [
            (str(uuid.UUID(bytes=randomness.draw(16), version=4)), pair, randomness.draw(size), of_a)
            for a, b in _PAIRS
            for pair, of_a in (((a, b), True), ((b, a), False))
            for _ in range(number)
        ]
        for running, is_a in zip(self._sites, (True, False), strict=True):
            rows = [NewKey(key_id, *pair, of_a == is_a, material, now) for key_id, pair, material, of_a in made]
            with running.database.transaction() as cursor:
                running.store.keys.add(cursor, _EPOCH, self._blocks, rows, _ABOUT)
                running.store.keys.acknowledge(cursor, _EPOCH, self._blocks)


def _supply(running: _Running) -> Supply:
    issue = LocalKeys(running.database, running.store.keys, SystemRandomness()).issue
    return make_supply(running.config, running.store.keys, (MonotonicClock(), WallClock()), lambda _: True, issue=issue)


def _require_free(address: str) -> None:
    host, _, port = address.rpartition(":")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, int(port)))
        except OSError as why:
            raise ConfigurationError(f"{address}: {why.strerror}; name another --first-port") from None
