"""Two real stores that commit, reserve, deliver and burn, and what must hold of them after any fault."""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from heliograph.authentication.anchors.psk import make_book, secret_size, slot_range, slot_secrets
from heliograph.authentication.bootstrap import BOOTSTRAP_BLOCKS
from heliograph.authentication.pads import PadAddress, PadRole
from heliograph.errors import HeliographError, PadsExhausted, StoreUnavailable
from heliograph.kme.stream_records import Chunk
from heliograph.site.store import SiteStore, open_store
from heliograph.storage.database import Database
from heliograph.storage.key_rows import DELIVERABLE
from heliograph.storage.keys import NewKey
from heliograph.storage.streams import StreamRecords
from heliograph.testing.randomness import SeededRandom
from heliograph.types import StoredKey
from heliograph.vault.filekek import FileKek
from heliograph.vault.randomness import SystemRandomness

__all__ = ["Facts", "check_sites", "make_sites", "play"]

SITES = ("owner", "holder")
MASTER, SLAVE = "sae-a", "sae-b"
SIZES = (32, 16, 64)  # bytes: of each block one key of each size, so that it spans pools
_STREAM = b"s" * 16
_BURNT_ROLES = (PadRole.PROPOSAL, PadRole.CLOSURE)


def material_of(block: int, number: int) -> bytes:
    """Return the bytes that one key has on both sides."""
    return hashlib.sha512(b"chaos key %d %d" % (block, number)).digest()[: SIZES[number]]


def key_ids_of(block: int) -> dict[str, bytes]:
    """Return a block's keys by key_ID."""
    keys = [material_of(block, number) for number in range(len(SIZES))]
    return {str(uuid.UUID(bytes=hashlib.sha256(key).digest()[:16], version=4)): key for key in keys}


def _chunk_of(block: int) -> bytes:
    return hashlib.sha256(b"chaos chunk %d" % block).digest()


def _address(block: int) -> PadAddress:
    return PadAddress(1, 1 + block % BOOTSTRAP_BLOCKS, _BURNT_ROLES[block // BOOTSTRAP_BLOCKS])


ROUNDS_MAX = BOOTSTRAP_BLOCKS * len(_BURNT_ROLES)


def make_sites(directory: Path) -> None:
    """Make both sites' stores, empty but for an epoch's pads."""
    book = make_book(SeededRandom(1, "chaos").draw(secret_size()))
    start, stop = slot_range(0)
    for name in SITES:
        (directory / name).mkdir(mode=0o700, parents=True)
        FileKek.create(directory / name / "kek", SystemRandomness())
        database, store = _open(directory / name)
        store.records.open_epoch(1, slot_secrets(book[start:stop]), "psk")
        StreamRecords(database)
        database.close()


def _open(site: Path) -> tuple[Database, SiteStore]:
    database = Database(site / "store" / "site.db", FileKek(site / "kek", SystemRandomness()))
    try:
        return database, open_store(database, site / "anchor", SystemRandomness())
    except BaseException:
        database.close()
        raise


@dataclass
class Facts:
    """What the world saw before the fault: steps that began, and steps that returned, which nothing may undo."""

    began: set[tuple[str, int]] = field(default_factory=set)
    returned: set[tuple[str, int]] = field(default_factory=set)
    left: set[str] = field(default_factory=set)  # key_IDs whose bytes reached the master

    def take(self, mark: str) -> None:
        """Take one mark of ``play``."""
        when, step, block, key_ids = json.loads(mark)
        (self.began if when == "began" else self.returned).add((step, block))
        self.left.update(key_ids)


def play(directory: Path, rounds: int, mark: Callable[[str], None], plant: str = "") -> None:
    """Run ``rounds`` blocks through both stores; each step is marked as it begins and as it returns.

    A step that fails is left behind, as a site does. ``plant``: a bug to be found, "no-sync" or "answer-first".
    """
    opened = [_open(directory / name) for name in SITES]
    (_, owner), (_, holder) = opened
    if plant == "no-sync":
        for database, _ in opened:
            database._open().execute("PRAGMA synchronous=OFF")  # noqa: SLF001  - the planted bug
    streams = StreamRecords(opened[0][0], owner.seal)
    for block in range(rounds):
        for step, work in _steps(owner, holder, streams, block):
            early = list(key_ids_of(block))[:1] if plant == "answer-first" and step == "deliver" else []
            mark(json.dumps(["began", step, block, early]))
            try:
                left = work()
            except HeliographError:
                continue
            mark(json.dumps(["returned", step, block, left]))
    for database, _ in opened:
        database.close()


def _steps(
    owner: SiteStore, holder: SiteStore, streams: StreamRecords, block: int
) -> Iterator[tuple[str, Callable[[], list[str]]]]:
    keys = key_ids_of(block)
    taken: list[str] = []

    def commit(site: SiteStore, *, here: bool) -> list[str]:
        rows = [NewKey(key_id, MASTER, SLAVE, here, key, 1.0) for key_id, key in keys.items()]
        with site.database.transaction() as cursor:
            site.keys.add(cursor, 1, block, rows)
        return []

    def acknowledge() -> list[str]:
        with owner.database.transaction() as cursor:
            owner.keys.acknowledge(cursor, 1, block)
        return []

    def burn() -> list[str]:
        owner.records.burn(_address(block))
        return []

    def deliver() -> list[str]:
        size = SIZES[block % len(SIZES)]
        taken.extend(key.key_id for key in owner.keys.deliver_to_master(MASTER, SLAVE, 1, 2.0, size_bytes=size))
        return list(taken)

    def fetch() -> list[str]:
        holder.keys.deliver_to_slave(SLAVE, MASTER, taken, 2.0)
        return []

    def reserve() -> list[str]:
        chunk = Chunk(block, (), agreed=True, at=1.0, material=_chunk_of(block))
        streams.add_chunks(_STREAM, [chunk], block + 1)
        return []

    def release() -> list[str]:
        streams.take(_STREAM, block)
        return []

    yield "commit-holder", lambda: commit(holder, here=False)
    # The owner's keys wait until the holder has them: an acknowledgement follows a commit, never overtakes it.
    yield "commit-owner", lambda: commit(owner, here=True)
    if holder.keys.known(next(iter(keys))):
        yield "acknowledge", acknowledge
    yield "burn", burn
    yield "deliver", deliver
    yield "fetch", fetch
    yield "reserve", reserve
    yield "release", release


def check_sites(directory: Path, rounds: int, facts: Facts) -> list[str]:
    """Open both stores as after a restart and return what does not hold. Empties them."""
    opened: list[tuple[Database, SiteStore]] = []
    try:
        for name in SITES:
            opened.append(_open(directory / name))  # noqa: PERF401  - what is open must be closed
        return list(_wrong(opened, rounds, facts))
    except HeliographError as why:
        return [f"a store does not open or answer: {type(why).__name__}: {why}"]
    finally:
        for database, _ in opened:
            database.close()


def _rows(database: Database) -> tuple[dict[str, int], dict[str, str]]:
    with database.reading() as cursor:
        keys = dict(cursor.execute("SELECT key_id, state FROM key_records").fetchall())
        return keys, dict(cursor.execute("SELECT key_id, fate FROM key_tombstones").fetchall())


def _wrong(opened: list[tuple[Database, SiteStore]], rounds: int, facts: Facts) -> Iterator[str]:
    (owner_db, owner), (holder_db, holder) = opened
    for database, name in ((owner_db, "owner"), (holder_db, "holder")):
        with database.reading() as cursor:
            if (found := cursor.execute("PRAGMA integrity_check").fetchone()[0]) != "ok":
                yield f"{name}: damaged: {found}"
    here, gone = _rows(owner_db)
    there, fetched = _rows(holder_db)
    every = {key_id: key for block in range(rounds) for key_id, key in key_ids_of(block).items()}
    for block in range(rounds):
        for key_id in key_ids_of(block):
            if ("commit-owner", block) in facts.returned and key_id not in here and key_id not in gone:
                yield f"lost at the owner: {key_id}"
            if ("commit-holder", block) in facts.returned and key_id not in there and key_id not in fetched:
                yield f"lost at the holder: {key_id}"
        yield from _burnt(owner, StreamRecords(owner_db, owner.seal), block, facts)
    for key_id in facts.left & here.keys():
        yield f"would be delivered twice: {key_id}"
    waiting = [key_id for key_id, state in here.items() if state == DELIVERABLE]
    for key_id in waiting:
        if key_id not in there:
            yield f"deliverable on one side only: {key_id}"
    # The rest of the life of every key: what the owner hands out is what the holder hands out.
    handed = _hand_out(owner, [len(every[key_id]) for key_id in waiting])
    unfetched = [key_id for key_id in facts.left if not _fetch_began(key_id, rounds, facts)]
    for key_id in [key.key_id for key in handed] + unfetched:
        try:
            (key,) = holder.keys.deliver_to_slave(SLAVE, MASTER, [key_id], 3.0)
        except HeliographError as why:
            yield f"not at the holder: {key_id}: {why}"
            continue
        if key.material != every[key_id]:
            yield f"other bytes at the holder: {key_id}"
    for key in handed:
        if key.material != every[key.key_id]:
            yield f"other bytes at the owner: {key.key_id}"


def _hand_out(owner: SiteStore, sizes: list[int]) -> list[StoredKey]:
    keys: list[StoredKey] = []
    for size in sorted(set(sizes)):
        keys += owner.keys.deliver_to_master(MASTER, SLAVE, sizes.count(size), 3.0, size_bytes=size)
    return keys


def _fetch_began(key_id: str, rounds: int, facts: Facts) -> bool:
    return any(step == "fetch" for step, _ in facts.began) and any(
        key_id in key_ids_of(block) and ("fetch", block) in facts.began for block in range(rounds)
    )


def _burnt(owner: SiteStore, streams: StreamRecords, block: int, facts: Facts) -> Iterator[str]:
    if ("burn", block) in facts.returned:
        try:
            owner.records.burn(_address(block))
            yield f"a pad is back: {_address(block)}"
        except PadsExhausted:
            pass
    waiting = streams.chunk(_STREAM, block)
    if ("release", block) in facts.returned and waiting is not None:
        yield f"a chunk is back: {block}"
    if ("reserve", block) in facts.returned and ("release", block) not in facts.began:
        try:
            if waiting is None or streams.take(_STREAM, block) != _chunk_of(block):
                yield f"a reserved chunk is lost: {block}"
        except StoreUnavailable as why:
            yield f"a reserved chunk does not open: {block}: {why}"
