"""One site of a test pair: real store, real machines, and what it did. It can be stopped and started."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

from heliograph.authentication.anchors.psk import book_size, parse_header, slot_range, slot_secrets
from heliograph.authentication.authenticator import Authenticator
from heliograph.authentication.pads import PadAddress
from heliograph.authentication.prefilter import FrameFilter, connection_key
from heliograph.errors import LocalProtocolError
from heliograph.protocol import actions as a
from heliograph.protocol.frames import Direction
from heliograph.protocol.handshake import Established
from heliograph.protocol.registration import LinkRegistration
from heliograph.protocol.resynchronisation import Resumption
from heliograph.protocol.session import BlockAction, Session
from heliograph.storage.commit_records import CommitRecords
from heliograph.storage.database import Database
from heliograph.storage.keys import KeyRecords
from heliograph.storage.link_records import LinkRecords
from heliograph.testing.anchor import MemoryAnchor
from heliograph.testing.randomness import SeededRandom
from heliograph.types import BlockId
from heliograph.vault.filekek import KEK_BYTES, FileKek

__all__ = ["Side"]


@dataclass
class Side:
    """One site. ``session`` is None while the site is stopped or before its first connection.

    ``tagged`` holds (address, SHA-256 of the covered bytes) of each tag made, in order; ``attempts`` counts the tags
    checked; ``refused`` names the frames that changed nothing.
    """

    name: str
    registration: LinkRegistration
    book: bytearray = field(repr=False)
    anchor: MemoryAnchor
    randomness: SeededRandom
    database: Database
    records: LinkRecords
    commits: CommitRecords
    keys: KeyRecords
    authenticator: Authenticator
    session: Session | None = None
    outgoing: FrameFilter | None = None
    incoming: FrameFilter | None = None
    done: list[BlockAction] = field(default_factory=list)
    tagged: list[tuple[PadAddress, bytes]] = field(default_factory=list)
    attempts: int = 0
    refused: list[str] = field(default_factory=list)

    @classmethod
    def create(cls, name: str, registration: LinkRegistration, directory: Path, book: bytes, seed: int) -> Side:
        """Set up a site with an empty store in memory, its own copy of the book, and its KEK in ``directory``."""
        randomness = SeededRandom(seed, name)
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        kek = directory / f"{name}.kek"
        kek.touch(mode=0o600)
        kek.write_bytes(randomness.draw(KEK_BYTES))  # not synced: the disk would take most of a test's time
        database = Database(":memory:", FileKek(kek, randomness))
        return cls._over(name, registration, bytearray(book), MemoryAnchor(), randomness, database)

    @classmethod
    def _over(
        cls,
        name: str,
        registration: LinkRegistration,
        book: bytearray,
        anchor: MemoryAnchor,
        randomness: SeededRandom,
        database: Database,
    ) -> Side:
        records = LinkRecords(database, anchor, lambda: 0.0)
        keys = KeyRecords(database, randomness)
        commits = CommitRecords(database, records, keys, registration, is_transmitter=name == "tx", now=lambda: 0.0)
        authenticator = Authenticator(records)
        return cls(name, registration, book, anchor, randomness, database, records, commits, keys, authenticator)

    @property
    def is_transmitter(self) -> bool:
        """Whether this is the transmitter's site."""
        return self.name == "tx"

    @property
    def site(self) -> str:
        """This site's registered name."""
        return self.registration.transmitter_site if self.is_transmitter else self.registration.receiver_site

    @property
    def own(self) -> Direction:
        """The direction in which this site sends."""
        return Direction.TO_RECEIVER if self.is_transmitter else Direction.TO_TRANSMITTER

    @property
    def running(self) -> Session:
        """The session. Raises LocalProtocolError while there is none."""
        if self.session is None:
            raise LocalProtocolError(f"{self.name} is stopped")
        return self.session

    def restart(self) -> None:
        """Forget everything that is not in the store, as a crash does. Raises RollbackDetected as a start does."""
        fresh = self._over(self.name, self.registration, self.book, self.anchor, self.randomness, self.database)
        self.records, self.commits, self.keys = fresh.records, fresh.commits, fresh.keys
        self.authenticator = fresh.authenticator
        self.session = self.outgoing = self.incoming = None

    def resync_key(self) -> bytes:
        """Return the book's key for the handshake."""
        return parse_header(bytes(self.book)).resync_key

    def resume(self, plan: Resumption, established: Established, *, prefilter: bool) -> None:
        """Go on as resynchronisation decided: open the epoch, make or raise the session, key the pre-filter."""
        if plan.opens:
            start, stop = slot_range(plan.epoch - 1)
            secrets = slot_secrets(bytes(self.book[start:stop]))
            self.book[start:stop] = bytes(stop - start)
            assert len(self.book) == book_size()
            self.records.open_epoch(plan.epoch, secrets, "psk")
        if self.session is None or self.session.epoch != plan.epoch:
            self.session = Session.resumed(
                self.registration,
                is_transmitter=self.is_transmitter,
                epoch=plan.epoch,
                floor=plan.floor,
                stored=self.commits.in_doubt(),
            )
        else:
            self.session = self.session.raised(plan.floor)
        if prefilter:
            keys = self.records.filter_keys()
            down = FrameFilter(connection_key(keys.to_receiver, established.transcript))
            up = FrameFilter(connection_key(keys.to_transmitter, established.transcript))
            self.outgoing, self.incoming = (down, up) if self.is_transmitter else (up, down)

    def tag(self, address: PadAddress, covered: tuple[bytes, ...]) -> bytes:
        """Tag as the authenticator does, and note what was covered."""
        tag = self.authenticator.tag(address, covered)
        self.tagged.append((address, hashlib.sha256(b"".join(covered)).digest()))
        return tag

    def discards(self) -> list[str]:
        """Return the causes of the blocks this side discarded."""
        return [item.action.cause for item in self.done if isinstance(item.action, a.Discard)]

    def finished(self) -> list[BlockId]:
        """Return the blocks whose keys are supplied here."""
        return [item.block for item in self.done if isinstance(item.action, a.Finish)]

    def deliverable(self, master: str, slave: str, number: int) -> list[tuple[str, bytes]]:
        """Take at most ``number`` keys as the site's KME would for a master SAE."""
        number = min(number, self.keys.counts(master, slave).deliverable)
        if not number:
            return []
        return [(k.key_id, k.material) for k in self.keys.deliver_to_master(master, slave, number, 0.0)]
