"""Two real sites and a fibre with small, fast blocks, and SAEs that fetch keys from both all the time."""

import asyncio
import hashlib
import json
import sqlite3
import tempfile
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from heliograph.errors import HeliographError, KeyNotFound, KeySupplyError
from heliograph.http.client import Etsi014Client
from heliograph.http.tls import client_tls
from heliograph.lab.rehearsal import Ports, Rehearsal
from heliograph.site.config import read_site
from heliograph.testing.links import example_registration

DISTANCE_KM = 5.0  # of example_registration
SITES = ("site_a", "site_b")


def direct_ports():
    """Ports without recorders between the sites."""
    ports = Ports.free()
    return replace(ports, classical_tap=ports.classical, control_tap=ports.control, tunnel_tap=ports.tunnel)


def small_blocks(directory=None, *, ports=None, target_bits=100_000, bootstrap="psk", **more):
    """Prepare a rehearsal whose blocks take about a quarter of a second; the directory is short, for Unix sockets."""
    directory = directory or Path(tempfile.mkdtemp(prefix="hgf"))
    limits = {"rekey_seconds": 5.0, "max_key_age_s": 60.0}
    rehearsal = Rehearsal(
        directory,
        ports or direct_ports(),
        DISTANCE_KM,
        1,
        limits,
        registration=replace(example_registration(target_bits), bootstrap=bootstrap),
        bootstrap=bootstrap,
        start_s=120.0,  # a bound on what hangs; a busy machine takes long
        **more,
    )
    rehearsal.prepare()
    return rehearsal


async def until(condition, seconds=60.0):
    """Ask again until the condition holds; an answer that cannot be had counts as no."""
    async with asyncio.timeout(seconds):
        while True:
            with suppress(HeliographError, KeyError):
                if await condition():
                    return
            await asyncio.sleep(0.02)


async def blocks(rehearsal, name="site_a"):
    return (await rehearsal.status(name)).link.blocks


async def new_block(rehearsal, seconds=90.0):
    """Wait until the link has made one more key, as site A counts."""
    seen = -1

    async def more():
        nonlocal seen
        now = await blocks(rehearsal)
        seen = now if seen < 0 else min(seen, now)
        return now > seen

    await until(more, seconds)


@dataclass
class Deliveries:
    """What SAEs received: (key_ID, digest of the key) for each side of each direction, in order."""

    masters: list = field(default_factory=list)
    slaves: list = field(default_factory=list)
    lost: int = 0

    def check(self):
        for side in (self.masters, self.slaves):
            ids = [key_id for key_id, _ in side]
            assert len(ids) == len(set(ids)), "a key_ID was delivered twice"
            keys = [key for _, key in side]
            assert len(keys) == len(set(keys)), "one key under two names"
        masters = dict(self.masters)
        both = [(key_id, key) for key_id, key in self.slaves if key_id in masters]
        assert all(masters[key_id] == key for key_id, key in both), "one key_ID, two keys"
        return len(both)


class Consumers:
    """An SAE at each site; each is master for one direction and slave for the other."""

    def __init__(self, rehearsal, keep=None):
        self.rehearsal = rehearsal
        self.deliveries = Deliveries()
        self.raw = keep
        self._tasks = []

    def client(self, name):
        config = read_site(self.rehearsal.sites[name])
        kme, agent = config.file.kme, config.file.agent
        tls = client_tls(config.path(agent.certificate), config.path(agent.key), config.path(kme.ca), kme.id)
        return Etsi014Client(f"https://{kme.listen}", tls, agent.sae, agent.peer_sae)

    def start(self):
        self._tasks = [asyncio.create_task(self._consume(*ends)) for ends in (SITES, SITES[::-1])]

    async def stop(self):
        for task in self._tasks:
            task.cancel()
        for found in await asyncio.gather(*self._tasks, return_exceptions=True):
            if not isinstance(found, asyncio.CancelledError):
                raise found

    async def _consume(self, master_site, slave_site):
        async with self.client(master_site) as master, self.client(slave_site) as slave:
            while True:
                try:
                    key = await master.get_key()
                except KeySupplyError:
                    await asyncio.sleep(0.02)
                    continue
                self._note(self.deliveries.masters, key)
                await self._fetch_named(slave, key.key_id)

    async def _fetch_named(self, slave, key_id):
        while True:
            try:
                key = await slave.get_key_with_id(key_id)
            except KeyNotFound:
                self.deliveries.lost += 1  # delivered, and the answer died with the site: burnt, never repeated
                return
            except KeySupplyError:
                await asyncio.sleep(0.02)
                continue
            self._note(self.deliveries.slaves, key)
            return

    def _note(self, side, key):
        side.append((key.key_id, hashlib.sha256(key.material).digest()))
        if self.raw is not None:
            self.raw.append(key.material)


@dataclass
class Store:
    """A stopped site's store, read with nothing but SQLite."""

    epoch: int
    touched: int
    proved: int
    blocks: dict
    pads: dict
    tombstones: dict
    keys: dict

    @classmethod
    def of(cls, rehearsal, name, link=None):
        config = read_site(rehearsal.sites[name]).of_link(link)
        with sqlite3.connect(f"file:{config.path(config.file.store)}?mode=ro", uri=True) as store:
            epoch, touched, proved = store.execute("SELECT epoch, touched, proved FROM link_state").fetchone()
            blocks = {
                (e, b): (stage, bool(made), _alike(report), bool(wire))
                for e, b, stage, made, report, wire in store.execute(
                    "SELECT epoch, block, stage, made_key, report, length(wire) FROM link_blocks"
                )
            }
            pads = {
                (e, b, role): (bool(sealed), attempts)
                for e, b, role, sealed, attempts in store.execute(
                    "SELECT epoch, block, role, sealed IS NOT NULL, attempts FROM link_pads"
                )
            }
            tombstones = dict(store.execute("SELECT key_id, fate FROM key_tombstones"))
            keys = {
                key_id: (owner, state)
                for key_id, owner, state in store.execute("SELECT key_id, owner_here, state FROM key_records")
            }
            assert store.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        store.close()
        return cls(epoch, touched, proved, blocks, pads, tombstones, keys)


def _alike(report):
    """Return what both sites report of a block: when it was stored is each site's own."""
    return {name: told for name, told in json.loads(report).items() if name != "stored_at"}


def check_stores(a, b):
    """Check what two stores must agree on, whenever both sites were stopped (security.md 3)."""
    assert a.epoch == b.epoch
    for where, (stage, made, report, wire) in a.blocks.items():
        other = b.blocks.get(where)
        if made and stage == "ended":  # acknowledged: the participant has obeyed
            assert other is not None
            assert other[1]
            assert other[0] in {"obeyed", "ended"}
        elif made:  # decided, unacknowledged: the participant holds the key and will hear the decision again
            assert other is not None
            assert other[0] in {"local", "obeyed"}
            assert wire or where[0] < a.epoch  # an order opened the next epoch since: nobody asks for it any more
        else:  # decided abort
            assert other is None or not other[1]
        if made:
            assert other[2] == report
    for where, (stage, made, _, wire) in b.blocks.items():
        if made:
            assert a.blocks[where][1]
        elif stage == "local":  # in doubt, with the proof that makes the decider answer
            assert wire or where[0] < b.epoch
    for site in (a, b):
        assert not site.tombstones.keys() & site.keys.keys()
        for _, attempts in site.pads.values():
            assert attempts <= 1024
    both = a.tombstones.keys() | a.keys.keys(), b.tombstones.keys() | b.keys.keys()
    # Every key of a block that both have settled is, or was, on both sides.
    if all(stage == "ended" for s in (a, b) for stage, made, *_ in s.blocks.values() if made):
        assert both[0] == both[1]
