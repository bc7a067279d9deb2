"""A site's link key comes from two files that belong together, or from none."""

from datetime import UTC, datetime

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, mldsa, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PrivateFormat

from heliograph.errors import AuthenticationFailed, ConfigurationError
from heliograph.vault.rehearsal_ca import RehearsalCa
from heliograph.vault.x509_algorithms import ALGORITHMS
from heliograph.vault.x509_credential import decode_chain
from heliograph.vault.x509_keys import X509Signer, X509Verifier

PLAIN = serialization.NoEncryption()


@pytest.fixture
def ca(tmp_path):
    return RehearsalCa.create(tmp_path / "ca", "rehearsal", "ed25519", 365)


@pytest.fixture
def files(ca, tmp_path):
    return ca.issue("a", 30).write(tmp_path / "a")


def test_the_credential_is_the_chain_in_its_order_and_the_root_may_be_in_it(ca, files, tmp_path):
    chain, key = files
    assert [one.subject for one in decode_chain(X509Signer(chain, key).credential)][1] == ca.intermediate.subject
    with chain.open("ab") as file:
        file.write((tmp_path / "ca" / "root.pem").read_bytes())
    assert decode_chain(X509Signer(chain, key).credential)[2] == ca.root


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_each_algorithm_signs_what_its_verifier_accepts(ca, tmp_path, algorithm):
    identity = ca.issue("a", 30, algorithm)
    signer = X509Signer(*identity.write(tmp_path / "a"))
    verifier = X509Verifier(identity.certificate)
    assert signer.algorithm == verifier.algorithm == algorithm
    for message in (b"", b"message", bytes(1 << 20)):
        verifier.verify(message, signer.sign(message))
        with pytest.raises(AuthenticationFailed):
            verifier.verify(message + b"\x00", signer.sign(message))


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o660])
def test_a_key_that_others_can_read_is_refused(files, mode):
    chain, key = files
    key.chmod(mode)
    with pytest.raises(ConfigurationError, match="chmod 600"):
        X509Signer(chain, key)


def test_the_key_of_another_certificate_is_refused(ca, files, tmp_path):
    _, other_key = ca.issue("a", 30).write(tmp_path / "other")
    with pytest.raises(ConfigurationError, match=r"link\.key: does not belong to the first certificate"):
        X509Signer(files[0], other_key)


def test_a_chain_out_of_order_or_with_a_stranger_in_it_is_refused(ca, files, tmp_path):
    chain, key = files
    leaf, intermediate = x509.load_pem_x509_certificates(chain.read_bytes())
    stranger = RehearsalCa.create(tmp_path / "stranger", "rehearsal", "ed25519", 365)
    for order in ((intermediate, leaf), (leaf, ca.root), (leaf, stranger.intermediate)):
        chain.write_bytes(b"".join(one.public_bytes(Encoding.PEM) for one in order))
        with pytest.raises(ConfigurationError, match="did not issue"):
            X509Signer(chain, key)


def test_a_chain_too_long_to_be_sent_is_refused(files, ca):
    chain, key = files
    with chain.open("ab") as file:
        file.write(ca.root.public_bytes(Encoding.PEM) * 7)
    with pytest.raises(ConfigurationError, match=r"link\.pem: the chain has 9 certificates"):
        X509Signer(chain, key)


def _pem(key, form=PrivateFormat.PKCS8, lock=PLAIN):
    return key.private_bytes(Encoding.PEM, form, lock)


P256 = ec.generate_private_key(ec.SECP256R1())


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "no plain PEM key"),
        (b"-----BEGIN PRIVATE KEY-----\nMAo=\n-----END PRIVATE KEY-----\n", "cannot be read"),
        (_pem(P256, PrivateFormat.TraditionalOpenSSL), "openssl pkcs8 -topk8 -nocrypt"),
        (_pem(P256, lock=serialization.BestAvailableEncryption(b"secret")), "openssl pkcs8 -topk8 -nocrypt"),
        (_pem(rsa.generate_private_key(65537, 2048)), "RSA keys are not accepted"),
        (_pem(ec.generate_private_key(ec.SECP521R1())), "P-521 keys are not accepted"),
        (_pem(ec.generate_private_key(ec.BrainpoolP256R1())), "brainpoolP256r1 keys are not accepted"),
        (_pem(ed448.Ed448PrivateKey.generate()), "Ed448 keys are not accepted"),
        (_pem(mldsa.MLDSA44PrivateKey.generate()), "ML-DSA-44 keys are not accepted"),
        (bytes(1 << 20), "no plain PEM key"),
    ],
    ids=["empty", "damaged", "sec1", "encrypted", "rsa", "p-521", "brainpool", "ed448", "ml-dsa-44", "large"],
)
def test_a_key_of_another_form_or_kind_is_refused_by_name(files, content, says):
    chain, key = files
    key.write_bytes(content)
    with pytest.raises(ConfigurationError, match=says) as why:
        X509Signer(chain, key)
    assert str(key) in str(why.value)


def test_files_that_are_not_there_are_named(files, tmp_path):
    with pytest.raises(ConfigurationError, match=r"absent.*No such file"):
        X509Signer(tmp_path / "absent", files[1])
    with pytest.raises(ConfigurationError, match=r"absent.*No such file"):
        X509Signer(files[0], tmp_path / "absent")
    with pytest.raises(ConfigurationError, match="holds no sound PEM certificates"):
        X509Signer(files[1], files[1])


def test_a_private_key_does_not_print(ca, files):
    identity = ca.issue("a", 1, "ed25519")
    secret = identity.key.private_bytes_raw()
    for text in (repr(identity), repr(X509Signer(*files)), repr(ca)):
        assert secret.hex() not in text
        assert "PRIVATE" not in text
        assert "PrivateKey" not in text


def test_a_signer_takes_a_certificate_that_is_not_valid_yet_since_the_peer_decides(ca, tmp_path):
    identity = ca.issue("a", 1, "ed25519", moment=datetime(2026, 12, 1, tzinfo=UTC))
    assert X509Signer(*identity.write(tmp_path / "later")).algorithm == "ed25519"


def test_an_ed25519_key_signs_the_published_vector(tmp_path):
    """RFC 8032 7.1, test 2: the message is signed as it is, with no label or hash of ours around it."""
    key = ed25519.Ed25519PrivateKey.from_private_bytes(
        bytes.fromhex("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb")
    )
    name = x509.Name([])
    start = datetime(2026, 1, 1, tzinfo=UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(1).not_valid_before(start).not_valid_after(start)
    (tmp_path / "c.pem").write_bytes(builder.sign(key, None).public_bytes(Encoding.PEM))
    (tmp_path / "c.key").write_bytes(_pem(key))
    (tmp_path / "c.key").chmod(0o600)
    assert X509Signer(tmp_path / "c.pem", tmp_path / "c.key").sign(b"\x72").hex() == (
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
        "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
    )
