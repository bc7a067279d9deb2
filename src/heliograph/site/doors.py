"""By what a connection of this site's link is proved, and what a proved connection gives the link to work with."""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass

from heliograph.authentication.anchors.psk import KeyBook
from heliograph.authentication.bootstrap import SignedEpoch, has_book, has_signature
from heliograph.authentication.link_keys import chain_value
from heliograph.authentication.prefilter import connection_key
from heliograph.errors import ConfigurationError, RemoteProtocolError
from heliograph.ports import Clock, PeerTrust, RandomSource, Signer
from heliograph.protocol.handshake import DRAWN_BYTES, NONCE_BYTES, Door, Established, Presence
from heliograph.protocol.hello import HELLO_BYTES_MAX, SIGNED_HELLO_BYTES_MAX
from heliograph.protocol.registration import LinkRegistration
from heliograph.storage.link_door import Bootstrap
from heliograph.storage.link_records import LinkRecords

__all__ = ["BOOK_ALGORITHM", "LinkAnchors", "LinkDoors"]

BOOK_ALGORITHM = "psk-one-time-pads"
_INSTANCE_BYTES = 16


@dataclass(frozen=True, slots=True)
class LinkAnchors:
    """What this site's trust in its peer starts from; each is there exactly if the registered bootstrap needs it.

    ``mark``: 32 bytes that change exactly when an anchor of either site does.
    """

    book: KeyBook | None = None
    signer: Signer | None = None
    trust: PeerTrust | None = None
    mark: bytes = b""


class LinkDoors:
    """The doors of one link. Methods that store or check certificates block: call them outside the event loop."""

    def __init__(
        self,
        registration: LinkRegistration,
        site: str,
        anchors: LinkAnchors,
        records: LinkRecords,
        public: RandomSource,
        secret: RandomSource,
        wall: Clock,
    ) -> None:
        """Check that the anchors are those of the registered bootstrap. Raises ConfigurationError otherwise.

        Nonces and instances come from ``public``, the exchange's key from ``secret`` (security.md 6).
        """
        self.registration = registration
        self.identity = registration.identity()
        self.anchors = anchors
        self.method = registration.bootstrap
        self._site = site
        self._records = records
        self._public = public
        self._secret = secret
        self._dialled = 0
        self._wall = wall
        signs = anchors.signer is not None and anchors.trust is not None
        if has_book(self.method) != (anchors.book is not None) or has_signature(self.method) != signs:
            raise ConfigurationError(
                f"link {registration.link}: the registered bootstrap is {self.method}, and this site is not set up "
                "for it: see [link] in SITE.toml and run `heliograph site register`"
            )

    @property
    def hello_bytes_max(self) -> int:
        """How long a handshake message may be."""
        return SIGNED_HELLO_BYTES_MAX if has_signature(self.method) else HELLO_BYTES_MAX

    # Before a handshake.
    def draw(self) -> bytes:
        """Return what one handshake needs of fresh randomness."""
        return self._public.draw(NONCE_BYTES) + self._secret.draw(DRAWN_BYTES - NONCE_BYTES)

    def now(self) -> float:
        """Return the time at which credentials must be valid."""
        return self._wall.now()

    def presence(self) -> Presence:
        """Return what this site says of itself; its instance is on the disk before it is shown."""
        door = self._records.door
        instances = door.instances(self._public.draw(_INSTANCE_BYTES))
        return Presence(
            self._site,
            self._records.marks(),
            instances.pending,
            instances.confirmed,
            instances.peer,
            door.bootstrap().context,
            door.newest(),
        )

    def to_try(self) -> tuple[Door, ...]:
        """Return the doors to dial through, the newest first: the peer may not hold that one yet.

        Raises PadsExhausted if the keys were destroyed, and as ``of`` does.
        """
        self._check_anchors()
        door = self._records.door
        in_use, _ = door.generations()
        usual = self._bootstrap_door() if in_use == 0 else Door(in_use, door.in_use().resync_key)
        newest = door.keys(door.newest()) if door.newest() > in_use else None
        return (usual,) if newest is None else (Door(newest.generation, newest.resync_key), usual)

    def initial(self) -> Door:
        """Return one of them, another one at each call."""
        doors = self.to_try()
        self._dialled += 1
        return doors[(self._dialled - 1) % len(doors)]

    def believes(self, established: Established) -> bool:
        """Return whether this connection may prove to this site that it is the copy: not once newer keys are held.

        Whoever got hold of the bootstrap's anchor in the moment before its door is shut must not be able to make a
        site destroy what the first block gave it.
        """
        return established.generation >= self._records.door.newest()

    def of(self, generation: int) -> Door:
        """Return the door at which the peer knocks. Raises RemoteProtocolError if it is shut, or not there yet.

        Raises ConfigurationError if another anchor is registered than the one that this epoch was opened with.
        """
        self._check_anchors()
        _, lowest = self._records.door.generations()
        if generation == 0 and lowest == 0:
            return self._bootstrap_door()
        keys = self._records.door.keys(generation) if generation >= lowest else None
        if keys is None and generation == 0:
            raise RemoteProtocolError(
                "the peer asks for a new bootstrap, which is shut since the first block: agree with its operator, then "
                "run `heliograph site rebootstrap`"
            )
        if keys is None:
            raise RemoteProtocolError(
                f"the peer comes with the link's keys of block {generation}, which are not held here: if that lasts, "
                "run `heliograph site rebootstrap` on both sites"
            )
        return Door(generation, keys.resync_key)

    def _check_anchors(self) -> None:
        opened_with = self._records.door.bootstrap().anchors
        if opened_with and opened_with != self.anchors.mark:
            raise ConfigurationError(
                "another trust anchor is registered than the one that this epoch was opened with: run "
                "`heliograph site rebootstrap` on both sites"
            )

    def _bootstrap_door(self) -> Door:
        book = self.anchors.book
        return Door(0, b"" if book is None else book.header().resync_key, self.anchors.signer, self.anchors.trust)

    # After one.
    def accept(self, established: Established, presence: Presence) -> None:
        """Store the peer's instance before it is told. Raises TransportClosed if a later connection was faster."""
        self._records.door.accept_peer(established.instance, presence.seen)

    def confirmed(self, presence: Presence) -> None:
        """Store that the peer knows this site's instance."""
        self._records.door.confirm_own(presence.instance)

    def filters(self, established: Established) -> tuple[bytes, bytes]:
        """Return the pre-filter keys of this connection, to the receiver and to the transmitter."""
        if established.generation:
            keys = self._records.door.keys(established.generation)
            if keys is None:
                raise RemoteProtocolError("the keys of this connection were replaced while it was made")
            down, up = keys.filter_to_receiver, keys.filter_to_transmitter
        elif has_book(self.method):
            slot = self._records.filter_keys()
            down, up = slot.to_receiver, slot.to_transmitter
        else:
            down = up = bytes(32)  # nothing but the exchange keys this connection
        if established.secret:
            down = _mixed(down, b"to receiver", established.secret)
            up = _mixed(up, b"to transmitter", established.secret)
        return connection_key(down, established.transcript), connection_key(up, established.transcript)

    def bootstrap_of(self, established: Established) -> Bootstrap:
        """Return the bootstrap that this handshake is, for the epoch that it opens."""
        if established.verifier is None or self.anchors.signer is None:
            return Bootstrap(anchors=self.anchors.mark)
        own, peer = self.anchors.signer.algorithm, established.verifier.algorithm
        is_transmitter = self._site == self.registration.transmitter_site
        names = (own, peer) if is_transmitter else (peer, own)
        return Bootstrap(established.digest, established.credential, ", ".join(names), self.anchors.mark)

    def algorithms(self, method: str) -> tuple[str, ...]:
        """Return what this epoch's bootstrap, by ``method``, rested on; empty before the first."""
        book = (BOOK_ALGORITHM,) if has_book(method) else ()
        return book + tuple(filter(None, self._records.door.bootstrap().algorithms.split(", ")))

    def signed_epoch(self) -> SignedEpoch | None:
        """Return what the epoch's bootstrap blocks are signed and checked with; None without signatures."""
        signer, trust, bootstrap = self.anchors.signer, self.anchors.trust, self._records.door.bootstrap()
        if signer is None or trust is None or not bootstrap.context:
            return None
        return SignedEpoch(bootstrap.context, signer, trust.recall(bootstrap.credential))

    def chain(self, transcripts: dict[int, str]) -> str | None:
        """Return the value that two people compare; None before the first block, or if its keys are gone.

        ``transcripts``: ``BlockReport.transcript_sha256`` by block of this epoch.
        """
        generation, _ = self._records.door.generations()
        keys = self._records.door.keys(generation) if generation else None
        if keys is None or generation not in transcripts:
            return None
        context = self._records.door.bootstrap().context
        return chain_value(keys, self.identity.prefix(), self._records.marks().epoch, context, transcripts[generation])


def _mixed(key: bytes, label: bytes, secret: bytes) -> bytes:
    return hmac.new(key, b"heliograph/1 prefilter exchange " + label + secret, hashlib.sha256).digest()
