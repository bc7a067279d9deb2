"""Chains of certificates, honest and not, for a peer named ``b``, all in the year 2031: no test looks at the clock."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, mldsa, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509 import ocsp
from cryptography.x509.oid import NameOID

from heliograph.vault.x509_trust import LINK_AUTHENTICATION, X509Trust

NOW = datetime(2031, 5, 1, 12, tzinfo=UTC)
YEAR = timedelta(days=365)

KEYS = {
    "ecdsa-p256-sha256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "ecdsa-p384-sha384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "ed25519": ed25519.Ed25519PrivateKey.generate,
    "ml-dsa-65": mldsa.MLDSA65PrivateKey.generate,
    "ml-dsa-87": mldsa.MLDSA87PrivateKey.generate,
}
FOREIGN_KEYS = {
    "RSA": lambda: rsa.generate_private_key(65537, 2048),
    "P-521": lambda: ec.generate_private_key(ec.SECP521R1()),
    "secp256k1": lambda: ec.generate_private_key(ec.SECP256K1()),
    "brainpoolP256r1": lambda: ec.generate_private_key(ec.BrainpoolP256R1()),
    "Ed448": ed448.Ed448PrivateKey.generate,
    "ML-DSA-44": mldsa.MLDSA44PrivateKey.generate,
}


def usual_hash(key):
    """Return the hash for signing with ``key``, None where the algorithm has its own."""
    if isinstance(key, rsa.RSAPrivateKey):
        return hashes.SHA256()
    if isinstance(key, ec.EllipticCurvePrivateKey):
        return hashes.SHA384() if key.curve.key_size > 300 else hashes.SHA256()
    return None


@dataclass
class Node:
    """A certificate with its key."""

    certificate: x509.Certificate
    key: object

    @property
    def pem(self):
        return self.certificate.public_bytes(Encoding.PEM)

    @property
    def key_pem(self):
        return self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())

    @property
    def serial(self):
        return self.certificate.serial_number


def usage(**on):
    """Return a key usage with only the named bits."""
    names = ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement")
    names += ("key_cert_sign", "crl_sign", "encipher_only", "decipher_only")
    return x509.KeyUsage(**{name: on.get(name, False) for name in names})


def make(
    subject,
    issuer=None,
    *,
    key=None,
    ca=None,
    path_length=None,
    key_usage="usual",
    purposes=(),
    uris=(),
    start=NOW - YEAR,
    end=NOW + YEAR,
    hash_="usual",
    serial=None,
):
    """Return a certificate of ``issuer`` (self-signed if None); ``ca`` as its basic constraints, None for a leaf."""
    key = key or ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)])
    above = issuer or Node(None, key)
    if key_usage == "usual":
        key_usage = usage(key_cert_sign=True, crl_sign=True) if ca else usage(digital_signature=True)
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(issuer.certificate.subject if issuer else name)
        .public_key(key.public_key())
        .serial_number(serial or x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(end)
        .add_extension(x509.BasicConstraints(ca=bool(ca), path_length=path_length), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(above.key.public_key()), critical=False)
    )
    if key_usage is not None:
        builder = builder.add_extension(key_usage, critical=True)
    if purposes:
        builder = builder.add_extension(x509.ExtendedKeyUsage(purposes), critical=True)
    if uris:
        names = [x509.UniformResourceIdentifier(uri) for uri in uris]
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return Node(builder.sign(above.key, usual_hash(above.key) if hash_ == "usual" else hash_), key)


def make_root(**how):
    return make("the root", ca=True, **how)


def make_intermediate(root, **how):
    return make("the intermediate", root, **{"ca": True, "path_length": 0, **how})


def make_leaf(issuer, **how):
    return make("b", issuer, **{"uris": ("site:b",), "purposes": (LINK_AUTHENTICATION,), **how})


def make_chain(kind="ecdsa-p256-sha256"):
    """Return root, intermediate and leaf with keys of one kind."""
    root = make_root(key=KEYS[kind]())
    intermediate = make_intermediate(root, key=KEYS[kind]())
    return root, intermediate, make_leaf(intermediate, key=KEYS[kind]())


def credential(*nodes):
    """Return what a peer would send: the leaf first."""
    return msgspec.msgpack.encode([node.certificate.public_bytes(Encoding.DER) for node in nodes])


def make_crl(
    issuer, revoked=(), *, start=NOW - timedelta(days=1), end=NOW + timedelta(days=6), signer=None, hash_="usual"
):
    """Return a revocation list as PEM; ``signer`` makes a forged one."""
    key = (signer or issuer).key
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(issuer.certificate.subject)
        .last_update(start)
        .next_update(end)
        .add_extension(x509.CRLNumber(1), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.key.public_key()), critical=False)
    )
    for node in revoked:
        entry = x509.RevokedCertificateBuilder().serial_number(node.serial).revocation_date(start)
        builder = builder.add_revoked_certificate(entry.build())
    return builder.sign(key, usual_hash(key) if hash_ == "usual" else hash_).public_bytes(Encoding.PEM)


def signed_with_sha1(signed, key):
    """Return the DER of a certificate or list of a P-256 key, signed anew as ecdsa-with-SHA1: no library issues it."""
    tbs = signed.tbs_certificate_bytes if isinstance(signed, x509.Certificate) else signed.tbs_certlist_bytes
    sha256 = bytes.fromhex("300a06082a8648ce3d040302")
    sha1 = bytes.fromhex("300906072a8648ce3d0401")
    content = tbs[2 + (tbs[1] & 0x7F) :] if tbs[1] & 0x80 else tbs[2:]
    assert sha256 in content
    weak = _der(0x30, content.replace(sha256, sha1, 1))
    return _der(0x30, weak + sha1 + _der(0x03, b"\x00" + key.sign(weak, ec.ECDSA(hashes.SHA1()))))


def _der(tag, content):
    size = len(content)
    length = (
        bytes([size])
        if size < 0x80
        else bytes([0x80 | (size.bit_length() + 7) // 8]) + size.to_bytes(2 - (size < 0x100))
    )
    return bytes([tag]) + length + content


def make_ocsp(
    leaf,
    issuer,
    *,
    status=ocsp.OCSPCertStatus.GOOD,
    signer=None,
    include=(),
    start=NOW - timedelta(hours=1),
    end=NOW + timedelta(hours=23),
    naming=None,
    critical=False,
):
    """Return an OCSP response (DER) signed by ``signer``, the issuer if None; ``include`` sends certificates along."""
    signer = signer or issuer
    builder = ocsp.OCSPResponseBuilder().add_response(
        cert=leaf.certificate,
        issuer=issuer.certificate,
        algorithm=naming or hashes.SHA256(),
        cert_status=status,
        this_update=start,
        next_update=end,
        revocation_time=start if status is ocsp.OCSPCertStatus.REVOKED else None,
        revocation_reason=None,
    )
    builder = builder.responder_id(ocsp.OCSPResponderEncoding.HASH, signer.certificate)
    if critical:
        builder = builder.add_extension(x509.OCSPNonce(bytes(16)), critical=True)
    if include:
        builder = builder.certificates([node.certificate for node in include])
    return builder.sign(signer.key, usual_hash(signer.key)).public_bytes(Encoding.DER)


class Desk:
    """One link's anchor on disk: ``ca.pem``, and ``crl.pem`` and ``response.der`` where a test writes them."""

    def __init__(self, directory, *roots, crls=None, response=None, **how):
        self.directory = directory
        self.ca, self.crl, self.response = (directory / name for name in ("ca.pem", "crl.pem", "response.der"))
        self.ca.write_bytes(b"".join(root.pem for root in roots))
        if crls is not None:
            self.crl.write_bytes(b"".join(crls))
        if response is not None:
            self.response.write_bytes(response)
        self.trust = X509Trust(
            self.ca,
            how.pop("name", "b"),
            self.crl if crls is not None else None,
            self.response if response is not None else None,
            **{"crl_required": crls is not None, **how},
        )

    def accept(self, *nodes, at=NOW):
        return self.trust.accept(credential(*nodes), at.timestamp())
