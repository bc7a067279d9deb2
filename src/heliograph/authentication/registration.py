"""The fingerprint of a registration: what both sites show if, and only if, they registered the same things.

It covers the link's identity (with the digest of everything the sites agreed on) and both sites' trust anchors, the
transmitter's first. A man in the middle must give each site an anchor of his own, so that the two sites cover
different anchors. He chooses both, so he may look for two choices with one fingerprint: 2^64 trials at 128 bits.
Each trial therefore costs 32 MiB of memory and about a tenth of a second (scrypt, RFC 7914).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from heliograph.errors import ConfigurationError

__all__ = ["FINGERPRINT_BYTES", "anchor_kinds", "registration_fingerprint"]

FINGERPRINT_BYTES = 16
_LABEL = b"heliograph/1 registration"
# Our choice: N * 128 * r bytes = 32 MiB.
_N, _R, _P = 1 << 15, 8, 1


def anchor_kinds(method: str) -> tuple[str, ...]:
    """Return what a site's anchor consists of under a bootstrap method: of "psk", "pki", "openpgp"."""
    return tuple(method.split("+"))


def registration_fingerprint(
    identity: bytes, method: str, transmitter: Mapping[str, str], receiver: Mapping[str, str]
) -> bytes:
    """Return the 128 bits that two people compare.

    ``identity``: ``LinkIdentity.prefix()``. ``transmitter`` and ``receiver``: each site's anchor, by kind, as
    lower-case hexadecimal: the digest of the book's marks, SHA-256 of the root certificate, the OpenPGP fingerprint.
    Raises ConfigurationError if they are not of the method's kinds.
    """
    kinds = anchor_kinds(method)
    parts = [identity, method.encode()]
    for anchors in (transmitter, receiver):
        if tuple(sorted(anchors)) != tuple(sorted(kinds)):
            raise ConfigurationError(f"bootstrap {method}: anchors of {', '.join(sorted(anchors)) or 'no'} kind")
        parts += [part for kind in kinds for part in (kind.encode(), bytes.fromhex(anchors[kind]))]
    covered = b"".join(len(part).to_bytes(4, "big") + part for part in parts)
    digest = hashlib.sha256(_LABEL + covered).digest()
    return hashlib.scrypt(digest, salt=_LABEL, n=_N, r=_R, p=_P, maxmem=2 * 128 * _N * _R, dklen=FINGERPRINT_BYTES)
