"""One site of a test pair: real store, real machines, and what it did. It can be stopped and started."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

from heliograph.authentication.authenticator import Authenticator
from heliograph.authentication.bootstrap import has_book
from heliograph.authentication.methods.registry import running_method
from heliograph.authentication.pads import PadAddress
from heliograph.authentication.prefilter import FrameFilter
from heliograph.errors import LocalProtocolError
from heliograph.ports import PeerTrust, Signer
from heliograph.protocol import actions as a
from heliograph.protocol.frames import Direction
from heliograph.protocol.handshake import Established
from heliograph.protocol.registration import LinkRegistration
from heliograph.protocol.resynchronisation import Resumption, resynchronise
from heliograph.protocol.session import BlockAction, Session
from heliograph.site.doors import LinkAnchors, LinkDoors
from heliograph.storage.commit_records import CommitRecords
from heliograph.storage.database import Database
from heliograph.storage.keys import KeyRecords
from heliograph.storage.link_records import LinkRecords
from heliograph.testing.anchor import MemoryAnchor, MemoryBook
from heliograph.testing.clock import ManualClock
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
    signer: Signer | None = field(default=None, repr=False)
    trust: PeerTrust | None = field(default=None, repr=False)
    mark: bytes = b""

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
        authenticator = Authenticator(records, running_method(registration.mac))
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

    @property
    def anchors(self) -> LinkAnchors:
        """What this site's trust starts from: its book in memory, and what a test gave it to sign and check with."""
        method = self.registration.bootstrap
        book = MemoryBook(self.book) if has_book(method) else None
        return LinkAnchors(book, self.signer, self.trust, self.mark)

    @property
    def doors(self) -> LinkDoors:
        """The doors of its link, as a running site has them."""
        return LinkDoors(
            self.registration, self.site, self.anchors, self.records, self.randomness, self.randomness, ManualClock()
        )

    def plan(self, established: Established) -> Resumption:
        """Return how the link goes on after a handshake."""
        return resynchronise(
            self.records.marks(),
            established.peer,
            self.records.operator_epoch(),
            has_book=has_book(self.registration.bootstrap),
            contexts_differ=established.context != self.records.door.bootstrap().context,
            in_doubt=self.commits.doubtful() or (self.session is not None and bool(self.session.doubtful_blocks())),
        )

    def resume(self, plan: Resumption, established: Established, *, prefilter: bool) -> None:
        """Go on as resynchronisation decided: open the epoch, make or raise the session, key the pre-filter."""
        doors = self.doors
        if plan.opens:
            book = doors.anchors.book
            secrets = None if book is None else book.burn_slot(plan.epoch)
            self.records.open_epoch(plan.epoch, secrets, doors.method, doors.bootstrap_of(established))
        elif plan.rebinds:
            self.records.door.rebind(doors.bootstrap_of(established))
        self.authenticator.sign_for(doors.signed_epoch())
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
            down, up = (FrameFilter(key) for key in doors.filters(established))
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
