"""Others judge our chains, lists and responses as we do, and TLS takes no link certificate."""

import shutil
import ssl
import subprocess
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import verification

from heliograph.errors import AnchorRefused, NotPermitted
from heliograph.http.tls import client_tls, server_tls
from heliograph.kme.identity import kme_id_from_certificate, sae_id_from_certificate, site_name_from_certificate
from heliograph.vault.certificates import SiteCa
from heliograph.vault.rehearsal_ca import RehearsalCa
from heliograph.vault.x509_keys import X509Signer
from heliograph.vault.x509_trust import LINK_AUTHENTICATION, X509Trust, anchor_fingerprint

NOW = datetime(2031, 5, 1, 12, tzinfo=UTC)
CLASSICAL = ("ecdsa-p256-sha256", "ecdsa-p384-sha384", "ed25519")  # what Debian 12's openssl 3.0 knows
openssl_needed = pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed: apt-get install")


class Place:
    """A rehearsal CA with one site, its files, and our own verdict."""

    def __init__(self, directory, algorithm, moment=NOW):
        self.directory, self.moment = directory, moment
        self.ca = RehearsalCa.create(directory / "ca", "rehearsal", algorithm, 365, moment)
        identity = self.ca.issue("b", 30, moment=moment)
        self.leaf, self.paths = identity.certificate, identity.write(directory / "b")
        self.lists()
        self.response()
        self.credential = X509Signer(*self.paths).credential

    def lists(self):
        (self.directory / "crl.pem").write_bytes(self.ca.revocation_lists(7, self.moment))

    def response(self):
        (self.directory / "response.der").write_bytes(self.ca.ocsp_response(self.leaf, 1, self.moment))

    def verdict(self, at, name="b"):
        trust = X509Trust(self.directory / "ca/root.pem", name, self.directory / "crl.pem")
        try:
            trust.accept(self.credential, at.timestamp())
        except AnchorRefused as why:
            return why.cause
        return "accepted"

    def openssl(self, *arguments):
        done = subprocess.run(
            ["openssl", *map(str, arguments)], cwd=self.directory, capture_output=True, text=True, check=False
        )
        return done.returncode == 0, done.stdout + done.stderr

    def openssl_verdict(self, at):
        return self.openssl(
            *("verify", "-x509_strict", "-crl_check_all", "-attime", int(at.timestamp())),
            *("-CAfile", "ca/root.pem", "-CRLfile", "crl.pem", "-untrusted", "b/link.pem", "b/link.pem"),
        )


@openssl_needed
@pytest.mark.parametrize("algorithm", CLASSICAL)
def test_the_openssl_command_agrees_on_chains_dates_and_lists(tmp_path, algorithm):
    place = Place(tmp_path, algorithm)
    for days, expected in ((0, "accepted"), (-1, "not-yet-valid"), (31, "expired"), (8, "revocation-unknown")):
        at = NOW + timedelta(days=days)
        assert place.verdict(at) == expected
        assert place.openssl_verdict(at)[0] == (expected == "accepted")
    place.ca.revoke(place.leaf.serial_number, NOW)
    place.lists()
    assert place.verdict(NOW) == "revoked"
    good, text = place.openssl_verdict(NOW)
    assert not good
    assert "certificate revoked" in text


@openssl_needed
@pytest.mark.parametrize("algorithm", CLASSICAL[:2])
def test_the_openssl_command_agrees_on_ocsp_responses(tmp_path, algorithm):
    place = Place(tmp_path, algorithm, datetime.now(UTC))  # it takes no other time for a response's own dates

    def ask():
        good, said = place.openssl(
            *("ocsp", "-respin", "response.der", "-issuer", "ca/intermediate.pem", "-sha256", "-cert", "b/link.pem"),
            *("-CAfile", "ca/root.pem", "-verify_other", "ca/intermediate.pem"),
        )
        assert good
        assert "Response verify OK" in said
        return said

    assert "b/link.pem: good" in ask()
    place.ca.revoke(place.leaf.serial_number)
    place.response()
    assert "b/link.pem: revoked" in ask()


@openssl_needed
@pytest.mark.parametrize("algorithm", CLASSICAL[:2])
def test_the_openssl_command_verifies_our_signatures(tmp_path, algorithm):
    place = Place(tmp_path, algorithm)
    (tmp_path / "message").write_bytes(b"message")
    (tmp_path / "signature").write_bytes(X509Signer(*place.paths).sign(b"message"))
    place.openssl("x509", "-in", "b/link.pem", "-pubkey", "-noout", "-out", "public")
    digest = {"ecdsa-p256-sha256": "-sha256", "ecdsa-p384-sha384": "-sha384"}[algorithm]
    assert place.openssl("dgst", digest, "-verify", "public", "-signature", "signature", "message")[0]
    (tmp_path / "message").write_bytes(b"massage")
    assert not place.openssl("dgst", digest, "-verify", "public", "-signature", "signature", "message")[0]


@openssl_needed
def test_the_anchor_fingerprint_is_the_one_that_openssl_prints(tmp_path):
    place = Place(tmp_path, "ecdsa-p256-sha256")
    shown = place.openssl("x509", "-in", "ca/root.pem", "-noout", "-fingerprint", "-sha256")[1]
    assert shown.strip().partition("=")[2].replace(":", "").lower() == anchor_fingerprint(tmp_path / "ca/root.pem")


@pytest.mark.parametrize("algorithm", ["ecdsa-p256-sha256", "ecdsa-p384-sha384", "ml-dsa-65", "ml-dsa-87"])
def test_the_verifier_of_cryptography_agrees_on_chains_and_dates(tmp_path, algorithm):
    place = Place(tmp_path, algorithm)
    leaf, intermediate = x509.load_pem_x509_certificates(place.paths[0].read_bytes())

    def purpose(_policy, _certificate, found):
        # That verifier has no such purpose of its own.
        if LINK_AUTHENTICATION not in found:
            raise ValueError

    critical, present = verification.Criticality.AGNOSTIC, verification.ExtensionPolicy.permit_all()
    ee = present.require_present(x509.ExtendedKeyUsage, critical, purpose).require_present(
        x509.SubjectAlternativeName, critical, None
    )
    ca_policy = verification.ExtensionPolicy.webpki_defaults_ca()

    def accepts(at, *others):
        builder = verification.PolicyBuilder().store(verification.Store([place.ca.root])).time(at)
        verifier = builder.extension_policies(ca_policy=ca_policy, ee_policy=ee).build_client_verifier()
        try:
            verifier.verify(leaf, list(others))
        except verification.VerificationError:
            return False
        return True

    for days in (0, -1, 6, 31, 400):
        at = NOW + timedelta(days=days)
        ours = place.verdict(at)
        assert accepts(at, intermediate) == (ours == "accepted"), (days, ours)
    assert not accepts(NOW)
    stranger = RehearsalCa.create(tmp_path / "stranger", "rehearsal", algorithm, 365, NOW)
    assert not accepts(NOW, stranger.intermediate)


def _handshake(server, client):
    """Let the two contexts shake hands in memory. Raises ssl.SSLError of whoever refuses."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [
        server.wrap_bio(to_server, to_client, server_side=True),
        client.wrap_bio(to_client, to_server, server_hostname="b"),
    ]
    for _ in range(6):
        for end in ends:
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue


def test_tls_takes_no_link_certificate_for_a_kme_or_an_sae(tmp_path):
    """Even of a CA that TLS trusts, and with the host's name as its common name."""
    ca = RehearsalCa.create(tmp_path / "ca", "rehearsal", "ecdsa-p256-sha256", 365)
    link, key = ca.issue("b", 30).write(tmp_path / "b")
    root = tmp_path / "ca/root.pem"
    site = SiteCa.create("b")
    server = site.issue_kme("b", ["b"]).write(tmp_path, "kme")
    client = site.issue_sae("b").write(tmp_path, "sae")
    both = tmp_path / "both.pem"
    both.write_bytes(root.read_bytes() + site.certificate)
    _handshake(server_tls(*server), client_tls(*client))
    with pytest.raises(ssl.SSLCertVerificationError, match=r"unsuitable certificate purpose|unsupported"):
        _handshake(server_tls(link, key, both), client_tls(client[0], client[1], both))
    with pytest.raises(ssl.SSLCertVerificationError, match=r"unsuitable certificate purpose|unsupported"):
        _handshake(server_tls(server[0], server[1], both), client_tls(link, key, both))


def test_a_link_certificate_names_a_site_and_neither_a_kme_nor_an_sae(tmp_path):
    ca = RehearsalCa.create(tmp_path / "ca", "rehearsal", "ed25519", 365)
    der = ca.issue("site b/ü", 30).certificate.public_bytes(Encoding.DER)
    assert site_name_from_certificate(der) == "site b/ü"
    for other in (kme_id_from_certificate, sae_id_from_certificate):
        with pytest.raises(NotPermitted):
            other(der)
