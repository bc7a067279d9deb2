"""Two sites with keys in a PostgreSQL server: they commit, reserve, deliver, burn and sweep, whatever it answers."""

from __future__ import annotations

import os
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

from heliograph.errors import HeliographError, InsufficientKeys, KeyNotFound, StoreUnavailable
from heliograph.protocol.audience import audience_name
from heliograph.site.delivery_entry import DeliveryEntry, FrontEndEntry
from heliograph.site.delivery_server import DeliveryServer
from heliograph.storage.database import Database
from heliograph.storage.front_end import FrontEnd
from heliograph.storage.group_commit import run_group
from heliograph.storage.keys import KeyRecords, NewKey
from heliograph.storage.pg_keys import PgKeys
from heliograph.storage.pg_schema import create_schema
from heliograph.storage.pg_server import PgServer
from heliograph.types import StoredKey
from heliograph.vault.anchor import FileAnchor
from heliograph.vault.filekek import FileKek
from heliograph.vault.randomness import SystemRandomness

__all__ = ["LOCAL", "MASTER", "NOBODY", "SLAVE", "Block", "PgSite", "Round", "burning", "steps_of"]

MASTER, SLAVE, LOCAL, NOBODY = "sae-a", "sae-b", "sae-c", "sae-x"  # LOCAL: a slave at the owner's site
GROUP: Final = audience_name([SLAVE, LOCAL])
_PLAIN, _SIZE = 4, 32
NOW, _OLD, _BEFORE = 1000.0, 10.0, 500.0


class _Front:
    """One front end: its own file, anchor and session."""

    def __init__(self, name: str, entry: DeliveryEntry, directory: Path, kek: FileKek) -> None:
        self._database = Database(directory / name / "front.db", kek)
        self._front_end = FrontEnd(name, entry.names, self._database, FileAnchor(directory / name / "anchor"))
        self.server = PgServer(entry.server_entry(), self._front_end.greet)
        self.keys = PgKeys(self.server, self._front_end)

    def tidy(self) -> None:
        """Do what a front end does all the time; it raises while none may hand out keys."""
        with self.server.transaction() as cursor:
            self._front_end.tidy(cursor)
        with self.server.reading() as cursor:
            self._front_end.require_unfenced(cursor)
            self._front_end.require(cursor)

    def close(self) -> None:
        self.server.close()
        self._database.close()


class PgSite:
    """One site: the link's file with its hand-over, and front ends, over one database of the server.

    They are never opened anew: whatever happens to the server, they have to go on by themselves.
    """

    def __init__(self, directory: Path, conninfo: str, names: Sequence[str]) -> None:
        directory.mkdir(mode=0o700)
        self.entry = DeliveryEntry(conninfo, [FrontEndEntry(name, "127.0.0.1:0", name) for name in names])
        kek = FileKek.create(directory / "kek", SystemRandomness())
        self.database = Database(directory / "site.db", kek)
        self._own = KeyRecords(self.database, SystemRandomness())
        self.server = DeliveryServer(self.entry, kek, self.database, self._own)
        first = PgServer(self.entry.server_entry())
        create_schema(first, kek)
        first.close()
        self.fronts = [_Front(name, self.entry, directory, kek) for name in names]

    def store(self, block: int, rows: Sequence[NewKey], metadata: str) -> bytes:
        """Store a committed block in the link's file. Returns the block's key, sealed."""
        with self.database.transaction() as cursor:
            self.server.outbox.add(cursor, 1, block, rows, metadata)
        with self.database.reading() as cursor:
            found = cursor.execute("SELECT sealed_key FROM key_segments WHERE block = ?", (block,)).fetchone()
        return bytes(found[0])

    def acknowledge(self, blocks: Sequence[int]) -> None:
        """Note that the other site has the blocks, and tell the server."""
        with self.database.transaction() as cursor:
            for block in blocks:
                self.server.outbox.acknowledge(cursor, 1, block)
        self.server.hand_over()

    def sweep(self) -> None:
        """Do what a link's process does now and then."""
        self.server.sweep([(MASTER, SLAVE)], connected=True)

    def close(self) -> None:
        """End the sessions and close the files."""
        for front in self.fronts:
            front.close()
        self.server.close()
        self.database.close()


@dataclass(frozen=True, slots=True)
class Block:
    """One block's keys by key_ID, and whom they are for."""

    number: int
    keys: dict[str, bytes] = field(repr=False)
    slaves: dict[str, str]
    created_at: dict[str, float]

    @classmethod
    def of(cls, number: int, wanted: Sequence[tuple[str, float]]) -> Block:
        """Draw a key for each (slave, time)."""
        ids = [str(uuid.uuid4()) for _ in wanted]
        keys = {key_id: os.urandom(_SIZE) for key_id in ids}
        slaves = dict(zip(ids, (slave for slave, _ in wanted), strict=True))
        return cls(number, keys, slaves, dict(zip(ids, (at for _, at in wanted), strict=True)))

    def rows(self, *, here: bool) -> list[NewKey]:
        """Return what the owner (``here``) or the other site stores."""
        local = {SLAVE: (), NOBODY: (), GROUP: (LOCAL,) if here else (SLAVE,)}
        return [
            NewKey(key_id, MASTER, slave, here, self.keys[key_id], self.created_at[key_id], local[slave])
            for key_id, slave in self.slaves.items()
        ]


@dataclass
class Round:
    """Two blocks' way through both sites, and what the world saw of it.

    ``sealed``: the blocks' keys as they cross; ``given``: how often an SAE was given a key; ``asked``: keys that the
    master asked for in vain, and whose answer may have been lost, ``tried``: the same of slaves; ``burnt``: keys that a
    site said are destroyed; ``returned``: names of steps that were done.
    """

    blocks: tuple[Block, Block]
    given: Counter[tuple[str, str]] = field(default_factory=Counter)
    asked: int = 0
    tried: set[tuple[str, str]] = field(default_factory=set)
    burnt: set[str] = field(default_factory=set)
    returned: set[str] = field(default_factory=set)
    sealed: list[bytes] = field(default_factory=list, repr=False)
    wrong: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, number: int) -> Round:
        """Draw a round's keys: plain ones, a group's, one that is too old, and a block that is discarded."""
        plain = [(SLAVE, NOW)] * _PLAIN
        first = Block.of(2 * number + 1, [*plain, (GROUP, NOW), (NOBODY, _OLD)])
        return cls((first, Block.of(2 * number + 2, [(NOBODY, NOW)] * 2)))

    @property
    def keys(self) -> dict[str, bytes]:
        """Every key by key_ID."""
        return {key_id: key for block in self.blocks for key_id, key in block.keys.items()}

    @property
    def slaves(self) -> dict[str, str]:
        """Whom every key is for, by key_ID."""
        return {key_id: slave for block in self.blocks for key_id, slave in block.slaves.items()}

    def of_master(self, slave: str) -> list[str]:
        """Return the key_IDs that the master was given for ``slave``."""
        slaves = self.slaves
        return [key_id for sae, key_id in self.given if sae == MASTER and slaves.get(key_id) == slave]

    def take(self, sae: str, keys: Sequence[StoredKey]) -> None:
        """Note keys that were handed out."""
        mine = self.keys
        for key in keys:
            self.given[sae, key.key_id] += 1
            if self.given[sae, key.key_id] > 1:
                self.wrong.append(f"twice to {sae}: {key.key_id}")
            if key.key_id in self.burnt:
                self.wrong.append(f"delivered after it was burnt: {key.key_id}")
            if mine.get(key.key_id) != key.material:
                self.wrong.append(f"other bytes, or of another round: {key.key_id}")

    def attempt(self, name: str, step: Callable[[], object]) -> bool:
        """Do one step; what the server does not let it do is left for later. Returns whether it was done."""
        try:
            step()
        except (InsufficientKeys, KeyNotFound, StoreUnavailable) as why:
            if not str(why) or "\n" in str(why):
                self.wrong.append(f"{name}: not one line: {str(why)!r}")
            return False
        except HeliographError as why:  # a rollback that there was not, a configuration that is sound
            self.wrong.append(f"{name}: {type(why).__name__}: {why}")
            return False
        self.returned.add(name)
        return True

    def deliver(self, front: _Front, slave: str) -> None:
        """Ask for one key as the master."""
        self.asked += 1
        keys: list[StoredKey] = []
        with self._not_in_vain():
            keys = front.keys.deliver_to_master(MASTER, slave, 1, NOW, size_bytes=_SIZE)
        self.take(MASTER, keys)

    def deliver_together(self, front: _Front, number: int) -> None:
        """Ask as several callers at once, whose answers wait for one commit (ADR 0038)."""
        self.asked += number
        calls = [lambda: front.keys.deliver_to_master(MASTER, SLAVE, 1, NOW, size_bytes=_SIZE)] * number
        for outcome in run_group(front.server, calls):
            with self._not_in_vain():
                if isinstance(outcome, BaseException):
                    raise outcome
            self.take(MASTER, outcome)

    @contextmanager
    def _not_in_vain(self) -> Iterator[None]:
        """Count a request as answered, also where the answer was that there is no key."""
        try:
            yield
        except InsufficientKeys:
            self.asked -= 1
            raise
        self.asked -= 1

    def fetch(self, front: _Front, sae: str, key_ids: Sequence[str]) -> None:
        """Ask for named keys as a slave, one by one, until it has them; a lost answer is asked for again."""
        for key_id in key_ids:
            if (sae, key_id) in self.given:
                continue
            try:
                keys = front.keys.deliver_to_slave(sae, MASTER, [key_id], NOW)
            except KeyNotFound:
                if (sae, key_id) in self.tried:  # it left, and its answer did not come
                    continue
                self.wrong.append(f"not there for {sae}: {key_id}")
                raise
            except StoreUnavailable as why:
                if "has not reached" not in str(why):  # then nothing was touched
                    self.tried.add((sae, key_id))
                raise
            self.take(sae, keys)


def steps_of(owner: PgSite, holder: PgSite, play: Round, metadata: str) -> Iterator[tuple[str, Callable[[], object]]]:
    """Yield the steps of a round in order, by name; each may fail, and the next is tried all the same."""
    first, second = owner.fronts
    (there,) = holder.fronts
    numbers = [block.number for block in play.blocks]

    # Commit: each site has its block, and hands it over before it tells the other one.
    for block in play.blocks:
        for site in (owner, holder):
            play.sealed.append(site.store(block.number, block.rows(here=site is owner), metadata))
    yield "hand over at the holder", holder.server.hand_over
    yield "hand over at the owner", owner.server.hand_over
    if {"hand over at the holder", "hand over at the owner"} <= play.returned:
        yield "acknowledge", lambda: owner.acknowledge(numbers)
    for front in (first, second, there):
        yield "tidy", front.tidy
    yield "deliver", lambda: play.deliver(first, SLAVE)
    yield "deliver together", lambda: play.deliver_together(second, 2)
    yield "reserve", lambda: play.deliver(first, GROUP)
    yield "share", lambda: play.fetch(second, LOCAL, play.of_master(GROUP))
    yield "fetch", lambda: play.fetch(there, SLAVE, play.of_master(SLAVE) + play.of_master(GROUP))
    yield from burning(owner, holder, play)
    for site in (owner, holder):
        yield "sweep", site.sweep


def burning(owner: PgSite, holder: PgSite, play: Round) -> Iterator[tuple[str, Callable[[], object]]]:
    """Yield the steps that destroy keys, and ask for them once that was said to be done."""
    for site in (owner, holder):
        name = "the owner" if site is owner else "the holder"
        yield f"discard at {name}", partial(site.server.keys.discard, 1, play.blocks[1].number, NOW)
        yield f"expire at {name}", partial(site.server.keys.expire, _BEFORE, NOW)
    if {"discard at the owner", "expire at the owner"} <= play.returned:
        play.burnt |= {key_id for key_id, slave in play.slaves.items() if slave == NOBODY} - set(play.of_master(NOBODY))

    def ask() -> None:
        with suppress(InsufficientKeys):
            play.deliver(owner.fronts[0], NOBODY)

    yield "ask for what was burnt", ask
