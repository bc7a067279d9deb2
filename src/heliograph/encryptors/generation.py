"""One generation of keys at the record layer: seals and opens records, and owns every counter.

A generation lives in memory only and is never resumed: after a restart a fresh key is fetched, so a nonce cannot come
back. Within its life it hands out each (connection, counter) once and accepts each once, in order.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Final

from cryptography.exceptions import InvalidTag

from heliograph.consumer.keys import Cipher, Role, TunnelKeys, key_id_text
from heliograph.encryptors.ciphers import Opener, Sealer, make_opener, make_sealer
from heliograph.encryptors.record_filter import FilteredOpener, FilteredSealer, filter_key
from heliograph.encryptors.records import MAX_PAYLOAD_BYTES, RecordHeader, RecordType
from heliograph.errors import ConfigurationError, KeySupplyError, RemoteProtocolError

__all__ = ["Generation", "GenerationLimits"]

# From NIST SP 800-38D 8.3: at most 2^32 invocations under one key. Ours stays below, per direction key.
MAX_RECORDS: Final = 2**32 - 1
# From RFC 8446 5.5: about 2^24.5 full records under one key of AES-GCM. Ours stays below, in bytes.
_REKEY_BYTES_MAX: Final = 1 << 38


@dataclass(frozen=True, slots=True)
class GenerationLimits:
    """What one generation may carry. Raises ConfigurationError.

    ``rekey_bytes``: payload bytes per direction, a hard limit for data; the rotation is asked for at half of it.
    ``max_key_age_s``: nothing is accepted under an older key, and the sender stops a little before (a tenth, at most
    5 s), so that what it sent still arrives in time. ``max_records``: per direction, at most 2^32 - 1.
    ``chunk_bytes``: the longest payload of a data record, short where a pad is.
    """

    rekey_bytes: int = 1 << 30
    max_key_age_s: float = 300.0
    max_records: int = MAX_RECORDS
    chunk_bytes: int = MAX_PAYLOAD_BYTES

    def __post_init__(self) -> None:
        if self.rekey_bytes > _REKEY_BYTES_MAX:
            raise ConfigurationError(f"rekey_bytes = {self.rekey_bytes}: at most {_REKEY_BYTES_MAX} (256 GiB)")
        if self.rekey_bytes < 65536:
            raise ConfigurationError(f"rekey_bytes = {self.rekey_bytes}: at least 65536, one record, is needed")
        if not 16 <= self.max_records <= MAX_RECORDS:
            raise ConfigurationError(f"max_records = {self.max_records}: must lie between 16 and {MAX_RECORDS}")
        if not self.max_key_age_s > 0:
            raise ConfigurationError(f"max_key_age_s = {self.max_key_age_s}: must be positive")

    @property
    def send_age_s(self) -> float:
        """The age at which a sender stops."""
        return self.max_key_age_s - min(5.0, self.max_key_age_s / 10)


class Generation:
    """Direction keys, counters and limits of one generation, seen from the site with ``role``.

    ``since``: when the key was fetched, in the clock's seconds. Counts: records and payload bytes, each way.
    """

    __slots__ = (
        "_expected",
        "_limits",
        "_next",
        "_opening",
        "_sealing",
        "_send_age",
        "key_id",
        "received_bytes",
        "received_records",
        "role",
        "sent_bytes",
        "sent_records",
        "since",
    )

    def __init__(self, keys: TunnelKeys, role: Role, limits: GenerationLimits, since: float) -> None:
        self.key_id: Final = keys.key_id
        self.role: Final = role
        self.since: Final = since
        self._limits: Final = limits
        self._send_age: Final = limits.send_age_s
        sealing = make_sealer(keys.cipher, keys.sending_key(role).to_bytes())
        opening = make_opener(keys.cipher, keys.sending_key(role.peer).to_bytes())
        if keys.cipher is Cipher.ONE_TIME_PAD:
            confirmation = keys.confirmation_key.to_bytes()
            sealing = FilteredSealer(sealing, filter_key(confirmation, role))
            opening = FilteredOpener(opening, filter_key(confirmation, role.peer))
        self._sealing: Sealer = sealing
        self._opening: Opener = opening
        self._next: defaultdict[int, int] = defaultdict(int)
        self._expected: defaultdict[int, int] = defaultdict(int)
        self.sent_records = self.sent_bytes = self.received_records = self.received_bytes = 0

    def __repr__(self) -> str:
        return f"<generation {key_id_text(self.key_id)}, {self.role.name.lower()}>"

    def may_send(self, size: int, now: float) -> bool:
        """Whether a data record with ``size`` payload bytes is within all limits now."""
        # Markers and closes go on a little beyond the byte limit; a 16th of the records is kept for them.
        return (
            now - self.since < self._send_age
            and self.sent_bytes + size <= self._limits.rekey_bytes
            and self.sent_records < self._limits.max_records - self._limits.max_records // 16
            and self._sealing.room(size)
        )

    @property
    def pad_left(self) -> int | None:
        """Bytes of one-time pad left to send under; None for another cipher."""
        return self._sealing.left

    @property
    def nearly_used(self) -> bool:
        """Whether half of a limit is used in either direction: time to ask for the next generation."""
        used_bytes = max(self.sent_bytes, self.received_bytes)
        used_records = max(self.sent_records, self.received_records)
        used_pad = self._sealing.half_used or self._opening.half_used
        return used_pad or 2 * used_bytes >= self._limits.rekey_bytes or 2 * used_records >= self._limits.max_records

    def seal(self, kind: RecordType, connection: int, payload: bytes, now: float) -> bytes:
        """Return the next record of ``connection``: header and ciphertext. Raises KeySupplyError over a limit."""
        if now - self.since >= self._send_age or self.sent_records >= self._limits.max_records:
            raise KeySupplyError(f"{self!r} is over its age or record limit: nothing is sent until a new key comes")
        if kind in (RecordType.DATA, RecordType.PACKET) and not self.may_send(len(payload), now):
            raise KeySupplyError(f"{self!r} is over its byte limit: data waits for the next generation")
        counter = self._next[connection]
        self._next[connection] = counter + 1  # burnt before use: whatever happens below, never again
        header = RecordHeader(kind, self.role, connection, counter, self.key_id, len(payload) + self._sealing.overhead)
        packed = header.pack()
        self.sent_records += 1
        self.sent_bytes += len(payload)
        return packed + self._sealing.seal(header.nonce(), payload, packed)

    def open(self, header: RecordHeader, body: bytes, now: float) -> bytes:
        """Return the payload of the exactly next record of its connection. Raises RemoteProtocolError, unchanged."""
        self._check(header, now)
        expected = self._expected.get(header.connection, 0)
        if header.counter != expected:
            raise RemoteProtocolError(
                f"{self!r}: record {header.counter} of connection {header.connection} instead of {expected}: "
                "replayed, reordered or left out"
            )
        payload = self._opened(header, body)
        self._expected[header.connection] = expected + 1
        return payload

    def _check(self, header: RecordHeader, now: float) -> None:
        if header.sender is not self.role.peer:
            raise RemoteProtocolError(f"{self!r}: a record of our own came back (reflected)")
        if now - self.since >= self._limits.max_key_age_s or self.received_records >= self._limits.max_records:
            raise RemoteProtocolError(f"{self!r} is over its age or record limit: nothing is accepted under it")

    def _opened(self, header: RecordHeader, body: bytes) -> bytes:
        try:
            payload = self._opening.open(header.nonce(), body, header.pack())
        except InvalidTag:
            raise RemoteProtocolError(
                f"{self!r}: record {header.counter} of connection {header.connection} is damaged or forged"
            ) from None
        self.received_records += 1
        self.received_bytes += len(payload)
        return payload
