"""A site's own OpenPGP key: which files are taken, and what is said of the others. Real keys made by GnuPG."""

import threading

import pytest

from heliograph.authentication.anchors.openpgp_packets import read_packets
from heliograph.errors import ConfigurationError
from heliograph.vault import openpgp_certificate
from heliograph.vault.openpgp import OpenPgpSigner, OpenPgpVerifier
from heliograph.vault.openpgp_certificate import certificate_fingerprint, read_certificate

NAME = "Site A <site-a@qkd.test>"


def _files(path, secret, public):
    key, certificate = path / "key", path / "certificate"
    key.touch(0o600)
    key.write_bytes(secret)
    certificate.write_bytes(public)
    return key, certificate


@pytest.fixture(scope="module")
def alice(web):
    return web.make(NAME)


def test_a_signature_holds_under_the_credential_and_nowhere_else(web, alice, tmp_path):
    signer = OpenPgpSigner(*_files(tmp_path, web.secret(alice), web.public(alice)))
    assert (signer.algorithm, signer.fingerprint) == ("openpgp-ed25519", alice)
    assert signer.credential == web.public(alice)
    verifier = OpenPgpVerifier(read_certificate(signer.credential))
    assert (verifier.algorithm, verifier.fingerprint) == (signer.algorithm, alice)
    verifier.verify(b"hello", signer.sign(b"hello"))


def test_armoured_files_are_the_same(web, alice, tmp_path):
    secret = web.gpg("--armor", "--export-secret-keys", alice)
    signer = OpenPgpSigner(*_files(tmp_path, secret, b"Kept since May\n\n" + web.public(alice, armour=True)))
    assert signer.credential == web.public(alice)
    assert certificate_fingerprint(tmp_path / "certificate") == alice


def test_a_signer_works_from_any_thread(web, alice, tmp_path):
    signer = OpenPgpSigner(*_files(tmp_path, web.secret(alice), web.public(alice)))
    made = []
    thread = threading.Thread(target=lambda: made.append(signer.sign(b"hello")))
    thread.start()
    thread.join()
    OpenPgpVerifier(read_certificate(signer.credential)).verify(b"hello", made[0])


@pytest.mark.parametrize("algorithm", ["rsa2048", "nistp256", "nistp384", "nistp521"])
def test_other_kinds_of_key_sign_too(web, tmp_path, algorithm):
    made = web.gpg("--status-fd=1", "--quick-generate-key", f"Other <{algorithm}@qkd.test>", algorithm, "sign", "1y")
    key = next(line.split()[3] for line in made.decode().splitlines() if "KEY_CREATED" in line)
    try:
        signer = OpenPgpSigner(*_files(tmp_path, web.secret(key), web.public(key)))
    except ConfigurationError as refused:
        # GnuPG 2.4 exports about every second NIST secret key with a wrong length in front of it.
        assert algorithm.startswith("nist")
        assert "make an ed25519 key" in str(refused)  # noqa: PT017  - most such keys are fine
        pytest.skip("this GnuPG wrote a secret key that is not in the form of RFC 9580")
    assert signer.algorithm.removeprefix("openpgp-") in {"rsa2048", "ecdsa-p256", "ecdsa-p384", "ecdsa-p521"}
    OpenPgpVerifier(read_certificate(signer.credential)).verify(b"hello", signer.sign(b"hello"))


def test_the_primary_key_may_stay_at_home(web, tmp_path):
    """The site holds a signing subkey only; the primary key, which collects certifications, is elsewhere."""
    key = web.make("Offline <off@qkd.test>", usage="cert")
    web.gpg("--quick-add-key", key.upper(), "ed25519", "sign", "1y")
    web.gpg("--quick-add-key", key.upper(), "cv25519", "encr", "1y")
    signer = OpenPgpSigner(*_files(tmp_path, web.gpg("--export-secret-subkeys", key), web.public(key)))
    assert signer.fingerprint == key
    OpenPgpVerifier(read_certificate(signer.credential)).verify(b"hello", signer.sign(b"hello"))


@pytest.mark.slow  # GnuPG first measures how slow this machine can make a passphrase
def test_a_key_with_a_passphrase_is_refused_with_the_remedy(web, tmp_path):
    key = web.make("Locked <l@qkd.test>")
    with pytest.raises(ConfigurationError, match=r"passphrase.*gpg --edit-key"):
        OpenPgpSigner(*_files(tmp_path, _locked(web, key), web.public(key)))


def _locked(web, key):
    web.gpg("--passphrase=secret", "--change-passphrase", key)
    return web.gpg("--passphrase=secret", "--export-secret-keys", key)


def test_a_key_that_others_can_read_is_refused(web, alice, tmp_path):
    key, certificate = _files(tmp_path, web.secret(alice), web.public(alice))
    key.chmod(0o640)
    with pytest.raises(ConfigurationError, match="chmod 600"):
        OpenPgpSigner(key, certificate)


def test_a_pair_of_two_keys_is_refused(web, alice, tmp_path):
    other = web.make("Other <o@qkd.test>")
    with pytest.raises(ConfigurationError, match="name the pair"):
        OpenPgpSigner(*_files(tmp_path, web.secret(alice), web.public(other)))
    with pytest.raises(ConfigurationError, match="2 secret keys"):
        OpenPgpSigner(*_files(tmp_path, web.secret(alice) + web.secret(other), web.public(alice)))
    with pytest.raises(ConfigurationError, match="2 keys instead of one"):
        OpenPgpSigner(*_files(tmp_path, web.secret(alice), web.public(alice) + web.public(other)))


def test_swapped_or_wrong_files_are_refused_without_their_content(web, alice, tmp_path):
    secret, public = web.secret(alice), web.public(alice)
    for one, two in ((public, secret), (public, public), (secret, secret), (b"", public), (secret, b""), (b"x", b"y")):
        with pytest.raises(ConfigurationError) as refused:
            OpenPgpSigner(*_files(tmp_path, one, two))
        assert str(tmp_path) in str(refused.value)
        assert "\n" not in str(refused.value)
    _, certificate = _files(tmp_path, secret, public)
    with pytest.raises(ConfigurationError, match=r"not a file|Is a directory"):
        OpenPgpSigner(tmp_path, certificate)
    with pytest.raises(ConfigurationError, match="No such file"):
        OpenPgpSigner(tmp_path / "none", certificate)


def test_a_certificate_without_the_signing_subkey_is_refused(web, tmp_path):
    key = web.make("Late <late@qkd.test>", usage="cert")
    before = web.public(key)
    web.gpg("--quick-add-key", key.upper(), "ed25519", "sign", "1y")
    with pytest.raises(ConfigurationError, match="export both again"):
        OpenPgpSigner(*_files(tmp_path, web.secret(key), before))


def test_an_expired_key_is_refused(web, tmp_path):
    key = web.make("Old <old@qkd.test>", "1d", at=1_700_000_000)
    with pytest.raises(ConfigurationError, match="cannot sign now"):
        OpenPgpSigner(*_files(tmp_path, web.secret(key), web.public(key)))


def test_no_secret_is_in_a_printed_form(web, alice, tmp_path):
    signer = OpenPgpSigner(*_files(tmp_path, web.secret(alice), web.public(alice)))
    packet = read_packets(web.secret(alice))[0]
    seed = packet.body[-34:-2]  # before the checksum: an MPI of up to 32 bytes
    told = repr(signer) + repr(vars(signer)) + repr(packet) + "".join(map(repr, vars(signer).values()))
    for form in (seed.hex(), seed.hex().upper(), repr(seed)[2:-1]):
        assert form[-20:] not in told


def test_a_panic_in_the_library_is_a_refusal():
    panic = type("PanicException", (BaseException,), {})
    with pytest.raises(openpgp_certificate.SequoiaRefused, match=r"^first$"), openpgp_certificate.sequoia_errors():
        raise panic("first\nsecond")
    with pytest.raises(KeyboardInterrupt), openpgp_certificate.sequoia_errors():
        raise KeyboardInterrupt
