"""The rehearsal CA keeps its keys to itself, overwrites nothing, and what it issues is what a link accepts."""

import itertools
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.x509 import ocsp

from heliograph.errors import AnchorRefused, ConfigurationError
from heliograph.vault.rehearsal_ca import RehearsalCa
from heliograph.vault.x509_algorithms import ALGORITHMS
from heliograph.vault.x509_keys import X509Signer
from heliograph.vault.x509_trust import X509Trust, anchor_fingerprint

NOW = datetime(2031, 5, 1, 12, tzinfo=UTC)


@pytest.fixture
def ca(tmp_path):
    return RehearsalCa.create(tmp_path / "ca", "rehearsal", "ed25519", 365, NOW)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_what_it_issues_is_accepted_until_it_is_revoked(tmp_path, algorithm):
    directory = tmp_path / "ca"
    RehearsalCa.create(directory, "rehearsal", algorithm, 365, NOW)
    ca = RehearsalCa.load(directory)
    identity = ca.issue("b", 30, moment=NOW)
    credential = X509Signer(*identity.write(tmp_path / "b")).credential
    crl, response = tmp_path / "crl.pem", tmp_path / "response.der"

    def publish():
        crl.write_bytes(RehearsalCa.load(directory).revocation_lists(7, NOW))
        response.write_bytes(RehearsalCa.load(directory).ocsp_response(identity.certificate, 1, NOW))

    publish()
    trust = X509Trust(directory / "root.pem", "b", crl, response)
    by_ocsp = X509Trust(directory / "root.pem", "b", None, response, crl_required=False)
    assert trust.accept(credential, NOW.timestamp()).algorithm == algorithm
    assert by_ocsp.accept(credential, NOW.timestamp()).algorithm == algorithm
    ca.revoke(identity.certificate.serial_number, NOW)
    publish()
    for one in (trust, by_ocsp):
        with pytest.raises(AnchorRefused) as why:
            one.accept(credential, NOW.timestamp())
        assert why.value.cause == "revoked"


def test_revoking_the_intermediate_refuses_every_site_below_it(ca, tmp_path):
    credential = X509Signer(*ca.issue("b", 30, moment=NOW).write(tmp_path / "b")).credential
    ca.revoke(ca.intermediate.serial_number, NOW)
    (tmp_path / "crl.pem").write_bytes(ca.revocation_lists(7, NOW))
    with pytest.raises(AnchorRefused, match=r"CN=rehearsal intermediate .* was revoked"):
        X509Trust(tmp_path / "ca/root.pem", "b", tmp_path / "crl.pem").accept(credential, NOW.timestamp())
    status = ocsp.load_der_ocsp_response(ca.ocsp_response(ca.intermediate, 1, NOW)).certificate_status
    assert status is ocsp.OCSPCertStatus.REVOKED


def test_private_keys_are_0600_and_nothing_is_overwritten(ca, tmp_path):
    identity = ca.issue("b", 30, moment=NOW)
    _, key = identity.write(tmp_path / "b")
    for path in (key, tmp_path / "ca/root.key", tmp_path / "ca/intermediate.key"):
        assert path.stat().st_mode & 0o777 == 0o600
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(ConfigurationError, match="never overwritten"):
        RehearsalCa.create(tmp_path / "ca", "another", "ed25519", 365)
    with pytest.raises(ConfigurationError, match="never overwritten"):
        ca.issue_to(tmp_path / "b", "b", 1)
    for one in ("link.pem", "link.key"):
        (tmp_path / one).write_text("mine")
        with pytest.raises(ConfigurationError, match="never overwritten"):
            identity.write(tmp_path)
        (tmp_path / one).unlink()
    assert before == {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}


def test_a_revocation_keeps_its_first_date_and_lists_grow_in_number(ca):
    leaf = ca.issue("b", 30, moment=NOW).certificate
    for days in range(3):
        ca.revoke(leaf.serial_number, NOW + timedelta(days=days))
    lists = [x509.load_pem_x509_crl(ca.revocation_lists(7, NOW + timedelta(days=days))) for days in range(3)]
    assert {one.get_revoked_certificate_by_serial_number(leaf.serial_number).revocation_date_utc for one in lists} == {
        NOW
    }
    numbers = [one.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number for one in lists]
    assert all(earlier < later for earlier, later in itertools.pairwise(numbers))


def test_only_what_was_issued_here_can_be_revoked_or_vouched_for(ca, tmp_path):
    other = RehearsalCa.create(tmp_path / "other", "rehearsal", "ed25519", 365, NOW)
    stranger = other.issue("b", 30, moment=NOW).certificate
    for act in (lambda: ca.revoke(stranger.serial_number), lambda: ca.ocsp_response(stranger, 1, NOW)):
        with pytest.raises(ConfigurationError, match="issued no such certificate"):
            act()
    with pytest.raises(ConfigurationError, match="issued no such certificate"):
        ca.revoke(ca.root.serial_number)
    assert not (tmp_path / "ca/revoked.json").exists()


def test_a_certificate_never_outlives_its_ca(ca):
    with pytest.raises(ConfigurationError, match="would outlive its CA"):
        ca.issue("b", 366, moment=NOW)
    ca.issue("b", 365, moment=NOW)


@pytest.mark.parametrize("name", ["", " ", "a\nb", "a\x00b"])
def test_a_name_that_is_not_printable_is_not_issued(ca, tmp_path, name):
    with pytest.raises(ConfigurationError, match="cannot be an ID"):
        ca.issue(name, 30, moment=NOW)
    with pytest.raises(ConfigurationError, match="cannot be an ID"):
        RehearsalCa.create(tmp_path / "new", name, "ed25519", 30)
    assert not (tmp_path / "new").exists()


def test_a_directory_that_cannot_be_used_is_named(ca, tmp_path):
    directory = tmp_path / "ca"
    with pytest.raises(ConfigurationError, match=r"absent/root\.pem: No such file"):
        RehearsalCa.load(tmp_path / "absent")
    (directory / "revoked.json").write_text("[]")
    with pytest.raises(ConfigurationError, match=r"revoked\.json: is not the JSON"):
        ca.revocation_lists(7)
    (directory / "intermediate.key").chmod(0o644)
    with pytest.raises(ConfigurationError, match="chmod 600"):
        RehearsalCa.load(directory)
    (directory / "intermediate.key").unlink()
    (directory / "root.key").rename(directory / "intermediate.key")
    with pytest.raises(ConfigurationError, match="No such file"):
        RehearsalCa.load(directory)


def test_the_anchor_fingerprint_is_of_the_certificates_not_of_the_file(ca, tmp_path):
    root, other = tmp_path / "ca/root.pem", RehearsalCa.create(tmp_path / "other", "other", "ed25519", 365, NOW)
    mark = anchor_fingerprint(root)
    assert len(mark) == 64
    (tmp_path / "same.pem").write_bytes(b"a comment\n" + root.read_bytes() * 2)
    assert anchor_fingerprint(tmp_path / "same.pem") == mark
    first, second = root.read_bytes(), (tmp_path / "other/root.pem").read_bytes()
    (tmp_path / "ab.pem").write_bytes(first + second)
    (tmp_path / "ba.pem").write_bytes(second + first)
    assert anchor_fingerprint(tmp_path / "ab.pem") == anchor_fingerprint(tmp_path / "ba.pem")
    assert len({mark, anchor_fingerprint(tmp_path / "ab.pem"), anchor_fingerprint(tmp_path / "other/root.pem")}) == 3
    assert other.root != ca.root
    for path, says in (
        (tmp_path / "ca/intermediate.pem", "not the self-signed"),
        (tmp_path / "ca/root.key", "no sound"),
    ):
        with pytest.raises(ConfigurationError, match=says):
            anchor_fingerprint(path)


def test_an_anchor_that_went_away_is_an_error_of_this_site(ca, tmp_path):
    credential = X509Signer(*ca.issue("b", 30, moment=NOW).write(tmp_path / "b")).credential
    trust = X509Trust(tmp_path / "ca/root.pem", "b", crl_required=False)
    (tmp_path / "ca/root.pem").unlink()
    with pytest.raises(ConfigurationError, match="self-signed certificate of the peer's CA is needed"):
        trust.accept(credential, NOW.timestamp())


def test_lists_that_are_required_must_be_named(ca, tmp_path):
    with pytest.raises(ConfigurationError, match="revocation lists are required"):
        X509Trust(tmp_path / "ca/root.pem", "b")
    assert ca.root
