import subprocess
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from hypothesis import given
from hypothesis import strategies as st

from heliograph.errors import ConfigurationError, NotPermitted
from heliograph.kme.identity import identity_uri, kme_id_from_certificate
from heliograph.vault.certificates import SiteCa, sae_id_from_certificate

CA = SiteCa.create("site A")


def parsed(identity):
    return x509.load_pem_x509_certificate(identity.certificate)


@pytest.mark.parametrize(
    "sae_id", ["sae-a", "sae/with slash", "encryptor 7 (rack 2)", "café-α", "100%", "sae:sae", "x" * 300]
)
def test_an_sae_id_of_any_form_comes_back_from_its_certificate(sae_id):
    certificate = parsed(CA.issue_sae(sae_id))
    assert sae_id_from_certificate(certificate) == sae_id
    assert sae_id_from_certificate(certificate.public_bytes(serialization.Encoding.DER)) == sae_id
    with pytest.raises(NotPermitted):
        kme_id_from_certificate(certificate)


@given(st.text(st.characters(categories=("L", "N", "P", "S")), min_size=1, max_size=40))
def test_different_ids_have_different_uris(name):
    assert identity_uri("sae", name).isascii()
    assert identity_uri("sae", name) != identity_uri("sae", name + "x")


@pytest.mark.parametrize("sae_id", ["", " ", "a\nb", "a\x00b"])
def test_an_id_that_is_not_printable_is_not_issued(sae_id):
    with pytest.raises(ConfigurationError, match="cannot be an ID"):
        CA.issue_sae(sae_id)


def test_garbage_is_no_identity():
    for certificate in (b"", b"\x30\x03\x02\x01\x01", b"x" * 500):
        with pytest.raises(NotPermitted):
            sae_id_from_certificate(certificate)
    with pytest.raises(NotPermitted, match="has 0 URI names"):
        sae_id_from_certificate(x509.load_pem_x509_certificate(CA.certificate))


def test_a_kme_certificate_names_its_hosts_and_its_kme():
    certificate = parsed(CA.issue_kme("kme-a", ["127.0.0.1", "::1", "kme.example"], days=2))
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["kme.example"]
    assert [str(address) for address in names.get_values_for_type(x509.IPAddress)] == ["127.0.0.1", "::1"]
    assert kme_id_from_certificate(certificate) == "kme-a"
    left = certificate.not_valid_after_utc - datetime.now(UTC)
    assert timedelta(days=1, hours=23) < left <= timedelta(days=2)


def test_openssl_accepts_the_chain_strictly_and_for_one_purpose_each(tmp_path):
    CA.issue_kme("kme-a", ["localhost"]).write(tmp_path, "kme")
    CA.issue_sae("sae-a").write(tmp_path, "sae")

    def verify(name, purpose):
        program = ["openssl", "verify", "-x509_strict", "-purpose", purpose, "-CAfile", "ca.pem", f"{name}.pem"]
        return subprocess.run(program, cwd=tmp_path, capture_output=True, check=False).returncode == 0

    assert verify("kme", "sslserver")
    assert verify("sae", "sslclient")
    assert not verify("kme", "sslclient")
    assert not verify("sae", "sslserver")


def test_an_authority_can_be_stored_and_used_again(tmp_path):
    ca = SiteCa.create("site A")
    ca.write(tmp_path)
    assert (tmp_path / "ca.key").stat().st_mode & 0o777 == 0o600
    again = SiteCa.load(tmp_path)
    parsed(again.issue_sae("sae-a")).verify_directly_issued_by(x509.load_pem_x509_certificate(ca.certificate))
    with pytest.raises(ConfigurationError, match="exists already"):
        SiteCa.create("site A").write(tmp_path)
    with pytest.raises(ConfigurationError, match="is of another CA"):
        SiteCa.create("site A").issue_sae("sae-a").write(tmp_path, "sae")


def test_an_authority_that_cannot_be_used_is_named(tmp_path):
    with pytest.raises(ConfigurationError, match=r"ca\.pem: No such file"):
        SiteCa.load(tmp_path)
    SiteCa.create("site A").write(tmp_path)
    (tmp_path / "other").mkdir()
    SiteCa.create("site B").write(tmp_path / "other")
    (tmp_path / "other" / "ca.key").replace(tmp_path / "ca.key")
    with pytest.raises(ConfigurationError, match="does not belong"):
        SiteCa.load(tmp_path)
    (tmp_path / "ca.key").write_text("nothing")
    with pytest.raises(ConfigurationError, match="not plain PEM"):
        SiteCa.load(tmp_path)


def test_a_private_key_does_not_print():
    identity = CA.issue_sae("sae-a")
    assert "PRIVATE" not in repr(identity)
    assert "PRIVATE" in identity.key.decode()
