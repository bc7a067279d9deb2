"""Both ends of a link in one process: real runners, engines, stores, TCP and fibre; a test bends single calls."""

import asyncio
import contextlib
from concurrent.futures import ThreadPoolExecutor

from heliograph.authentication.authenticator import Authenticator
from heliograph.lab.ports import free_ports
from heliograph.sim.address import Address
from heliograph.sim.config import FibreConfig
from heliograph.sim.fibre import Fibre
from heliograph.sim.modules import open_receiver, open_transmitter
from heliograph.site.clocks import MonotonicClock, WallClock
from heliograph.site.doors import LinkAnchors, LinkDoors
from heliograph.site.engine import EngineParts
from heliograph.site.link import LinkRunner
from heliograph.site.link_plan import LinkPlan, SupplyHooks
from heliograph.site.store import open_store
from heliograph.site.workers import Workers
from heliograph.storage.commit_records import CommitRecords
from heliograph.storage.database import Database
from heliograph.testing.links import quick_channel, quick_registration
from heliograph.vault.filekek import FileKek
from heliograph.vault.pskfile import PskFile, create_book, write_book
from heliograph.vault.randomness import SystemRandomness

REGISTRATION, CHANNEL = quick_registration(), quick_channel()


class End:
    """One site's end, without a KME."""

    def __init__(self, directory, book, *, is_transmitter, port, module, registration=REGISTRATION, anchors=None):
        directory.mkdir(mode=0o700)
        write_book(directory / "psk.book", book)
        self.is_transmitter = is_transmitter
        kek = FileKek.create(directory / "kek", SystemRandomness())
        self.database = Database(directory / "store" / "site.db", kek)
        self.store = open_store(self.database, directory / "anchor", SystemRandomness())
        self.commits = CommitRecords(
            self.database,
            self.store.records,
            self.store.keys,
            registration,
            is_transmitter=is_transmitter,
            now=lambda: 0.0,
        )
        self.workers, self.store_thread = Workers(2), ThreadPoolExecutor(1)
        parts = EngineParts(
            self.store.records, self.commits, Authenticator(self.store.records), SystemRandomness(),
            MonotonicClock(), module, self.workers, self.store_thread, 20.0,
        )  # fmt: skip
        here = registration.transmitter_site if is_transmitter else registration.receiver_site
        where = ("127.0.0.1", port)
        plan = LinkPlan(
            here, is_transmitter, dial=where if is_transmitter else None, listen=None if is_transmitter else where
        )
        hooks = SupplyHooks(lambda: 0, self.store.probe, self.store.destroy_all)
        anchors = anchors or LinkAnchors(PskFile(directory / "psk.book"))
        doors = LinkDoors(
            registration, here, anchors, self.store.records, SystemRandomness(), SystemRandomness(), WallClock()
        )
        self.link = LinkRunner(plan, registration, doors, parts, hooks)

    def committed(self):
        return {(epoch, block): report for epoch, block, report in self.commits.committed_blocks()}

    def stages(self):
        with self.database.reading() as cursor:
            return dict(cursor.execute("SELECT block, stage FROM link_blocks ORDER BY block").fetchall())

    def key_ids(self):
        with self.database.reading() as cursor:
            return {key_id for (key_id,) in cursor.execute("SELECT key_id FROM key_records")}


@contextlib.asynccontextmanager
async def link_pair(directory, registrations=(REGISTRATION, REGISTRATION)):
    """Both ends, not yet running; ``run`` them inside."""
    create_book(directory / "book", SystemRandomness())
    book = (directory / "book").read_bytes()
    ends = Address(path=str(directory / "t.sock")), Address(path=str(directory / "r.sock"))
    fibre = Fibre(FibreConfig(*ends, lab_seed=1, realtime=False, channel=CHANNEL, attack=None))
    stop, ready = asyncio.Event(), asyncio.Event()
    light = asyncio.create_task(fibre.run(stop, ready.set))
    await ready.wait()
    modules = (
        await open_transmitter({"address": str(ends[0])}, SystemRandomness()),
        await open_receiver(
            {"address": str(ends[1]), "dead_time_s": CHANNEL.detectors.dead_time_s}, SystemRandomness()
        ),
    )
    (port,) = free_ports(1)
    tx = End(directory / "tx", book, is_transmitter=True, port=port, module=modules[0], registration=registrations[0])
    rx = End(directory / "rx", book, is_transmitter=False, port=port, module=modules[1], registration=registrations[1])
    try:
        yield tx, rx
    finally:
        for module in modules:
            await module.close()
        for end in (tx, rx):
            end.workers.close()
            end.store_thread.shutdown()
            end.database.close()
        stop.set()
        await light


@contextlib.asynccontextmanager
async def running(tx, rx):
    await rx.link.listen()
    tasks = [asyncio.create_task(end.link.run()) for end in (tx, rx)]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for end in (tx, rx):
            await end.link.close()


async def until(condition, seconds=60.0):
    async with asyncio.timeout(seconds):
        while True:
            if condition():
                return
            await asyncio.sleep(0.005)


def settled(tx, rx):
    """Whether both sides have ended the same blocks and hold the same keys."""
    return (
        tx.committed().keys() == rx.committed().keys()
        and set(tx.stages().values()) <= {"ended"}
        and (set(rx.stages().values()) <= {"ended"} and tx.key_ids() == rx.key_ids())
    )


__all__ = ["End", "link_pair", "running", "settled", "until"]
