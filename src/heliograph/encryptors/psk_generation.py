"""One generation as preshared keys of TLS 1.3: a key of its own for each connection, good for that one connection.

    identity  = key_ID "/" number                           number: the opener's count of connections, decimal
    PSK       = HMAC-SHA-256(opener's key of the generation, label || identity)
    proof     = HMAC-SHA-256(confirmation key, label || role || exporter of the connection)

An identity is public and says which key is meant. The opener never offers a number twice; the other side refuses one
that has come into being as a connection before. It is counted when the handshake and the proof are complete, not when
it is named: who only names identities, which anybody can read, must not use up those of the peer.
"""

from __future__ import annotations

import hmac
from typing import Final

from heliograph.consumer.keys import Role, TunnelKeys, key_id_text
from heliograph.encryptors.generation import GenerationLimits
from heliograph.errors import RemoteProtocolError

__all__ = ["PSK_BYTES", "PskGeneration", "read_identity"]

PSK_BYTES: Final = 32
_PSK: Final = b"heliograph/1 tls-psk "
_PROOF: Final = b"heliograph/1 tls-psk confirmation "
_NUMBER_MAX: Final = 2**32  # our choice: far above what one generation's age lets anybody open


def read_identity(identity: bytes) -> tuple[str, int] | None:
    """Return key_ID text and number of an identity in its one canonical form; None for anything else."""
    key_id, slash, number = identity.partition(b"/")
    if not slash or not number.isdigit() or not identity.isascii() or len(number) > 10:
        return None
    value = int(number)
    return (key_id.decode(), value) if str(value).encode() == number and value < _NUMBER_MAX else None


class PskGeneration:
    """Keys, counts and limits of one generation, seen from the site with ``role``. ``since``: when it was fetched."""

    pad_left = None

    def __init__(self, keys: TunnelKeys, role: Role, limits: GenerationLimits, since: float) -> None:
        self.key_id: Final = keys.key_id
        self.role: Final = role
        self.since: Final = since
        self._limits: Final = limits
        self._keys = keys
        self._offered = 0
        self._taken: set[int] = set()
        self.sent_records = self.sent_bytes = self.received_records = self.received_bytes = 0

    def __repr__(self) -> str:
        return f"<TLS generation {key_id_text(self.key_id)}, {self.role.name.lower()}>"

    def offer(self) -> bytes:
        """Return an identity that was never used, for a connection that we open."""
        self._offered += 1  # burnt before use
        return f"{key_id_text(self.key_id)}/{self._offered - 1}".encode()

    def psk(self, opener: Role, identity: bytes) -> bytes:
        """Return the preshared key of the connection that ``opener`` opens under this identity."""
        return hmac.digest(self._keys.sending_key(opener).to_bytes(), _PSK + identity, "sha256")

    def proof(self, role: Role, exported: bytes) -> bytes:
        """Return what the site with ``role`` says to show that it holds this generation, bound to the connection."""
        return hmac.digest(self._keys.confirmation_key.to_bytes(), _PROOF + bytes([role]) + exported, "sha256")

    def check_proof(self, offered: bytes, exported: bytes) -> None:
        """Return if the peer said its proof. Raises RemoteProtocolError; comparison in constant time."""
        if not hmac.compare_digest(self.proof(self.role.peer, exported), offered):
            raise RemoteProtocolError(f"{self!r}: the peer did not prove this key on its TLS connection")

    def take(self, number: int) -> None:
        """Use up the peer's identity with this number. Raises RemoteProtocolError if it was used before."""
        if self.was_taken(number):
            raise RemoteProtocolError(f"{self!r}: the preshared key of connection {number} was used before: replayed")
        self._taken.add(number)

    def was_taken(self, number: int) -> bool:
        """Whether a connection under this number of the peer's has been."""
        return number in self._taken

    def may_send(self, size: int, now: float) -> bool:
        """Whether ``size`` payload bytes are within all limits now."""
        return now - self.since < self._limits.send_age_s and self.sent_bytes + size <= self._limits.rekey_bytes

    def may_receive(self, now: float) -> bool:
        """Whether this generation is young enough to accept anything under it."""
        return now - self.since < self._limits.max_key_age_s

    @property
    def nearly_used(self) -> bool:
        """Whether half of the byte limit is used in either direction."""
        return 2 * max(self.sent_bytes, self.received_bytes) >= self._limits.rekey_bytes
