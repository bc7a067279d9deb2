"""Each connection starts here: who is there, is the registration the same, where does each side stand.

No one-time pad is touched. A connection is proved by the link's own keys, cut from QKD key (``Door.generation`` > 0),
or, until those exist or when an operator asks, by the bootstrap: the key book's resynchronisation key, signatures
under the registered anchor over a fresh exchange, or both, so that an attacker must break both (security.md 4, 7).
Every proof covers the registration, both names and both messages in full: roles, nonces, marks, credentials, version.
An invalid message is refused and changes nothing at all.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from msgspec.structs import replace

from heliograph.errors import AnchorRefused, AuthenticationFailed, RemoteProtocolError, RollbackDetected
from heliograph.ports import PeerTrust, Signer, Verifier
from heliograph.protocol.conversation import LinkIdentity
from heliograph.protocol.frames import WIRE_VERSION
from heliograph.protocol.hello import (
    Hello,
    HelloConfirm,
    HelloReply,
    HelloWelcome,
    decode_hello,
    encode_hello,
    marks_tuple,
)
from heliograph.protocol.records import Marks

__all__ = ["DRAWN_BYTES", "NONCE_BYTES", "Door", "Established", "Initiator", "Presence", "Responder"]

DRAWN_BYTES = 64  # fresh bytes for each handshake: a nonce, the seed of the exchange
NONCE_BYTES = 32  # the first of them, which are public


@dataclass(frozen=True, slots=True)
class Door:
    """What proves a connection. ``key``: b"" where signatures alone do; both are given where both must hold."""

    generation: int
    key: bytes = field(default=b"", repr=False)
    signer: Signer | None = field(default=None, repr=False)
    trust: PeerTrust | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Presence:
    """What a side says of itself.

    ``context``: of its epoch's bootstrap; ``instance``, ``before``, ``seen``: see ``hello.Hello`` and ``_fence``.
    ``newest``: the newest generation of keys that it holds, which is not said.
    """

    site: str
    marks: Marks
    instance: bytes
    before: bytes = b""
    seen: bytes = b""
    context: bytes = b""
    newest: int = 0


@dataclass(frozen=True, slots=True)
class Established:
    """The peer is who the registration names, now.

    ``transcript`` and ``secret`` key the pre-filter of this connection; ``verifier`` and ``credential`` are the peer's
    where signatures took part; ``digest``: of both messages, the context of an epoch that this handshake opens.
    """

    peer: Marks
    generation: int
    transcript: bytes = field(repr=False)
    context: bytes = b""
    instance: bytes = b""
    secret: bytes = field(default=b"", repr=False)
    verifier: Verifier | None = field(default=None, repr=False)
    credential: bytes = field(default=b"", repr=False)

    @property
    def digest(self) -> bytes:
        """SHA-256 over the handshake's two long messages."""
        return hashlib.sha256(b"heliograph/1 context" + self.transcript).digest()


class _Side:
    """What both ends hold: the identity, what this site says of itself, one fresh nonce and exchange."""

    def __init__(self, identity: LinkIdentity, presence: Presence, drawn: bytes, now: float) -> None:
        """``drawn``: DRAWN_BYTES fresh bytes; ``now``: seconds since 1970, for the validity of credentials."""
        self._identity = identity
        self._own = presence
        self._peer = identity.receiver_site if presence.site == identity.transmitter_site else identity.transmitter_site
        self._nonce = drawn[:NONCE_BYTES]
        self._exchange = X25519PrivateKey.from_private_bytes(drawn[NONCE_BYTES:DRAWN_BYTES])
        self._now = now
        self._key = b""

    def _public(self, door: Door) -> tuple[bytes, bytes]:
        if door.signer is None:
            return b"", b""
        return self._exchange.public_key().public_bytes_raw(), door.signer.credential

    def _agree(self, door: Door, exchange: bytes, credential: bytes) -> bytes:
        """Return the secret of the exchange, b"" without signatures; key every MAC of this connection."""
        if bool(exchange) != (door.signer is not None) or bool(credential) != (door.signer is not None):
            raise RemoteProtocolError(
                f"{self._peer} uses another kind of bootstrap than the registration of link {self._identity.link!r}"
            )
        secret = b""
        if exchange:
            try:
                secret = self._exchange.exchange(X25519PublicKey.from_public_bytes(exchange))
            except ValueError:
                raise RemoteProtocolError("the peer's exchange is not a point of X25519") from None
        self._key = hmac.new(door.key, b"heliograph/1 door" + secret, hashlib.sha256).digest()
        return secret

    def _covered(self, label: bytes, *parts: bytes) -> bytes:
        framed = b"".join(len(part).to_bytes(4, "big") + part for part in (self._identity.prefix(), *parts))
        return b"heliograph/1 resync " + label + framed

    def _mac(self, label: bytes, *parts: bytes) -> bytes:
        return hmac.new(self._key, self._covered(label, *parts), hashlib.sha256).digest()

    def _sign(self, door: Door, label: bytes, *parts: bytes) -> bytes:
        return b"" if door.signer is None else door.signer.sign(self._covered(label, *parts))

    def _check_mac(self, mac: bytes, label: bytes, *parts: bytes) -> None:
        if not hmac.compare_digest(mac, self._mac(label, *parts)):
            raise RemoteProtocolError(
                f"{self._peer} does not prove itself: its keys or its registration of link "
                f"{self._identity.link!r} are not the same as here"
            )

    def _check_signature(
        self, door: Door, credential: bytes, signature: bytes, label: bytes, *parts: bytes
    ) -> Verifier | None:
        """Believe the peer's key: first that it made this signature, which is cheap, then whose it is."""
        if door.trust is None:
            if signature:
                raise RemoteProtocolError("a signature where the registration has none")
            return None
        try:
            door.trust.recall(credential).verify(self._covered(label, *parts), signature)
        except AuthenticationFailed:
            raise AnchorRefused(
                "untrusted", f"{self._peer} does not prove itself: its signature is not good for its credential"
            ) from None
        return door.trust.accept(credential, self._now)

    def _check_name(self, version: int, site: str) -> None:
        if version != WIRE_VERSION:
            raise RemoteProtocolError(f"the peer speaks wire version {version}, this site {WIRE_VERSION}")
        if site != self._peer:
            raise RemoteProtocolError(f"the peer calls itself {site!r}; registered is {self._peer!r}")

    def _fence(self, generation: int, message: Hello | HelloReply) -> None:
        """Tell copies from sites (security.md 4). The message is authentic; each site has one line of instances.

        The peer must know the instance that was last accepted from it here, or it is a copy that has not lived since.
        And if the peer, who is none, accepted an instance of this site that this site does not know, then this one is
        the copy; but that must be proved by the newest keys that this site holds. Where each side seems old to the
        other, the marks decide: no copy can prove a block that the living site has not sent.
        """
        peer, own = Marks(*message.marks), self._own.marks
        if peer.epoch == own.epoch and peer.proved > own.touched and generation >= self._own.newest:
            raise RollbackDetected(
                f"the peer proves block {peer.proved} from this site, which remembers none after {own.touched}: "
                "the store is an old copy. Its pads and keys are destroyed; run `heliograph site rebootstrap`"
            )
        if self._own.seen and self._own.seen not in (message.instance, message.before):
            raise RemoteProtocolError(
                f"{self._peer} is a copy of a site that has connected since: fenced; its operator has to stop one of "
                "them and run `heliograph site rebootstrap` on both sites"
            )
        if message.seen and message.seen not in (self._own.instance, self._own.before):
            if generation < self._own.newest:
                raise RemoteProtocolError(f"{self._peer} has met another instance of this site, says an older key")
            raise RollbackDetected(
                f"{self._peer} has met a later instance of this site: this is a restored backup or a clone. Its pads "
                "and keys are destroyed; run `heliograph site rebootstrap`"
            )


class Initiator(_Side):
    """The end that dials."""

    def hello(self, door: Door) -> bytes:
        """Return the first message."""
        self._door = door
        exchange, credential = self._public(door)
        own = self._own
        self._hello = encode_hello(
            Hello(
                WIRE_VERSION,
                self._identity.link,
                own.site,
                door.generation,
                self._nonce,
                marks_tuple(own.marks),
                own.context,
                own.instance,
                own.before,
                own.seen,
                exchange,
                credential,
            )
        )
        return self._hello

    def confirm(self, wire: bytes) -> tuple[bytes, Established]:
        """Check the reply; return the confirmation and the result. Raises RemoteProtocolError, RollbackDetected.

        The peer's instance in the result must be stored before the confirmation is sent.
        """
        reply = decode_hello(wire, HelloReply)
        self._check_name(reply.version, reply.site)
        secret = self._agree(self._door, reply.exchange, reply.credential)
        bare = encode_hello(_bare(reply))
        self._check_mac(reply.mac, b"reply", self._hello, bare)
        verifier = self._check_signature(self._door, reply.credential, reply.signature, b"reply", self._hello, bare)
        self._fence(self._door.generation, reply)
        mac = self._mac(b"confirm", self._hello, wire)
        self._confirm = encode_hello(HelloConfirm(mac, self._sign(self._door, b"confirm", self._hello, wire)))
        established = Established(
            Marks(*reply.marks),
            self._door.generation,
            self._hello + wire,
            reply.context,
            reply.instance,
            secret,
            verifier,
            reply.credential,
        )
        return self._confirm, established

    def welcome(self, wire: bytes) -> None:
        """Check that the responder took the confirmation: it knows this site's instance now."""
        self._check_mac(decode_hello(wire, HelloWelcome).mac, b"welcome", self._confirm)


class Responder(_Side):
    """The end that listens."""

    def reply(self, wire: bytes, door_of: Callable[[int], Door]) -> bytes:
        """Check the form of a Hello; return the answer. Raises RemoteProtocolError.

        ``door_of``: the door of a generation; it raises RemoteProtocolError for one that is shut here.
        """
        hello = decode_hello(wire, Hello)
        self._check_name(hello.version, hello.site)
        if hello.link != self._identity.link:
            raise RemoteProtocolError(f"the peer asks for link {hello.link!r}; here is {self._identity.link!r}")
        self._door = door = door_of(hello.generation)
        self._hello, self._message = wire, hello
        self._secret = self._agree(door, hello.exchange, hello.credential)
        exchange, credential = self._public(door)
        own = self._own
        bare = HelloReply(
            WIRE_VERSION,
            own.site,
            self._nonce,
            marks_tuple(own.marks),
            own.context,
            own.instance,
            own.before,
            own.seen,
            exchange,
            credential,
            bytes(32),
            b"",
        )
        covered = encode_hello(bare)
        mac, signature = self._mac(b"reply", wire, covered), self._sign(door, b"reply", wire, covered)
        self._reply = encode_hello(replace(bare, mac=mac, signature=signature))
        return self._reply

    def finish(self, wire: bytes) -> Established:
        """Check the confirmation. Only now is the peer known. Raises RemoteProtocolError, RollbackDetected."""
        confirm = decode_hello(wire, HelloConfirm)
        self._check_mac(confirm.mac, b"confirm", self._hello, self._reply)
        hello = self._message
        verifier = self._check_signature(
            self._door, hello.credential, confirm.signature, b"confirm", self._hello, self._reply
        )
        self._fence(self._door.generation, hello)
        self._confirmed = wire
        return Established(
            Marks(*hello.marks),
            self._door.generation,
            self._hello + self._reply,
            hello.context,
            hello.instance,
            self._secret,
            verifier,
            hello.credential,
        )

    def welcome(self) -> bytes:
        """Return the last message, to be sent when the peer's instance is stored."""
        return encode_hello(HelloWelcome(self._mac(b"welcome", self._confirmed)))


def _bare(reply: HelloReply) -> HelloReply:
    """Return the reply as its proofs cover it."""
    return replace(reply, mac=bytes(32), signature=b"")
