"""A certification that no honest program makes: signed by an introducer's subkey, which may sign data only."""

import hashlib
import time

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from heliograph.authentication.anchors.openpgp_packets import SECRET_SUBKEY, SIGNATURE, read_packets


def certify_by_subkey(secret, certificate, user_id):
    """Add to ``certificate`` (one name) a generic certification by the first subkey in ``secret`` (RFC 9580 5.2.4)."""
    subkey = next(p for p in read_packets(secret) if p.tag == SECRET_SUBKEY)
    # Public part: version, time, algorithm, OID of 9 bytes, MPI of 263 bits; then S2K usage 0 and the secret's MPI.
    public = subkey.body[: 6 + 10 + 2 + 33]
    assert subkey.body[len(public)] == 0
    at = len(public) + 1
    size = (int.from_bytes(subkey.body[at : at + 2], "big") + 7) // 8
    key = Ed25519PrivateKey.from_private_bytes(subkey.body[at + 2 : at + 2 + size].rjust(32, b"\0"))
    fingerprint = hashlib.sha1(b"\x99" + len(public).to_bytes(2, "big") + public).digest()
    hashed = b"\x16\x21\x04" + fingerprint + b"\x05\x02" + int(time.time()).to_bytes(4, "big")
    head = bytes([4, 0x10, 22, 8]) + len(hashed).to_bytes(2, "big") + hashed
    primary, name = read_packets(certificate)[0].body, user_id.encode()
    digest = hashlib.sha256(
        b"\x99" + len(primary).to_bytes(2, "big") + primary
        + b"\xb4" + len(name).to_bytes(4, "big") + name
        + head + b"\x04\xff" + len(head).to_bytes(4, "big")
    ).digest()  # fmt: skip
    signature = key.sign(digest)
    unhashed = b"\x09\x10" + fingerprint[-8:]
    body = head + len(unhashed).to_bytes(2, "big") + unhashed + digest[:2] + _mpi(signature[:32]) + _mpi(signature[32:])
    return certificate + bytes([0xC0 | SIGNATURE, len(body)]) + body


def _mpi(number):
    value = number.lstrip(b"\0")
    return (8 * len(value) - (8 - value[0].bit_length())).to_bytes(2, "big") + value
