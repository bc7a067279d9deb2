"""One key of several secrets: secret as long as any one of them is, and bound to all that was said.

Default, after the combiners of NIST SP 800-56C r2 and draft-ounsworth-cfrg-kem-combiners:

    IKM  = framed(secret 1) || framed(secret 2) || ...          framed(x) = length of x (u32) || x
    info = framed(label) || framed(each entry of the context)
    key  = HKDF-SHA-512(salt none, IKM, info, 32 bytes)

Beside it CatKDF of ETSI TS 103 744 (7.2.3, 7.4.2, 8.2), for those who must name a standard:

    info = SHA-384(framed(context) || framed(MA) || framed(MB))
    key  = HKDF-SHA-384(salt = label, psk || k_1 || ... || k_n, info)

A key of a combiner is computational, whatever its inputs: a one-time pad never goes through here.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from cryptography.hazmat.primitives.hashes import SHA384, SHA512
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from heliograph.errors import LocalProtocolError

__all__ = ["COMBINED_KEY_BYTES", "Combiner", "Context", "cat_kdf", "combine", "framed"]

COMBINED_KEY_BYTES: Final = 32
_LABEL: Final = b"heliograph/1 combined key"
_LENGTH: Final = struct.Struct(">I")
_SECRET_BYTES_MIN: Final = 32


class Combiner(StrEnum):
    """How secrets become one key."""

    HKDF_SHA_512 = "hkdf-sha-512"
    CATKDF = "etsi-catkdf"


@dataclass(frozen=True, slots=True)
class Context:
    """Everything public that the key depends on; two sites that differ in any of it have different keys.

    ``offered`` and ``answered``: the exact bytes that were authenticated, with all public keys and ciphertexts.
    ``usage``: what the key is for, such as a cipher; ``components``: the names of the secrets, in order.
    """

    initiator: str
    responder: str
    key_id: bytes
    policy: str
    components: tuple[str, ...]
    usage: str
    offered: bytes = field(repr=False)
    answered: bytes = field(repr=False)

    def parts(self) -> list[bytes]:
        """Return the public entries in a fixed order, without what crossed the wire."""
        names = (self.initiator, self.responder, self.policy, self.usage, *self.components)
        return [self.key_id, *(name.encode() for name in names)]


def framed(part: bytes) -> bytes:
    """Return the part behind its length, so that no two lists of parts give the same bytes."""
    return _LENGTH.pack(len(part)) + part


def combine(kind: Combiner, secrets: Sequence[bytes], context: Context, psk: bytes) -> bytes:
    """Return 32 bytes. ``secrets``: one for each component, in order; ``psk``: shared out of band, one more input.

    Raises LocalProtocolError if a component is missing or too short: a combiner never makes up for one.
    """
    if len(secrets) != len(context.components) or not secrets:
        raise LocalProtocolError(f"{len(secrets)} secrets for {len(context.components)} components")
    if any(len(secret) < _SECRET_BYTES_MIN for secret in (*secrets, psk)):
        raise LocalProtocolError(f"a component has fewer than {8 * _SECRET_BYTES_MIN} bits")
    public = b"".join(framed(part) for part in context.parts())
    if kind is Combiner.CATKDF:
        return cat_kdf(psk, secrets, _LABEL, public, context.offered, context.answered, COMBINED_KEY_BYTES)
    material = b"".join(framed(secret) for secret in (*secrets, psk))
    # Said once in full on the wire; here by its digest, which no peer can choose freely enough to matter.
    said = hashlib.sha512(framed(context.offered) + framed(context.answered)).digest()
    info = framed(_LABEL) + public + framed(said) + _LENGTH.pack(COMBINED_KEY_BYTES)
    return HKDF(SHA512(), COMBINED_KEY_BYTES, None, info).derive(material)


def cat_kdf(
    psk: bytes, secrets: Sequence[bytes], label: bytes, context: bytes, offered: bytes, answered: bytes, size: int
) -> bytes:
    """Return ``size`` bytes by ETSI TS 103 744 CatKDF with HKDF-SHA-384; each secret must have its fixed length."""
    formatted = hashlib.sha384(framed(context) + framed(offered) + framed(answered)).digest()
    return HKDF(SHA384(), size, label, formatted).derive(psk + b"".join(secrets))
