"""What a forger, a thief or a former friend can do to an OpenPGP web of trust, with real keys made by GnuPG."""

import shutil
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openpgp_forge import certify_by_subkey

from heliograph.authentication.anchors.openpgp_packets import SIGNATURE, USER_ID, read_packets
from heliograph.errors import AnchorRefused, AuthenticationFailed, ConfigurationError
from heliograph.testing.openpgp_web import OpenPgpWeb
from heliograph.vault.openpgp import OpenPgpSigner
from heliograph.vault.openpgp_certificate import read_certificate
from heliograph.vault.openpgp_trust import OpenPgpTrust

pytestmark = pytest.mark.slow  # real processes: `make test` runs it

DAY, YEAR = 86_400, 365 * 86_400
BOB = "Site B <site-b@qkd.test>"


class Land:
    """Three introducers, a peer whom two of them certified, and Eve."""

    def __init__(self, web, path):
        self.web, self.path = web, path
        self.ian, self.jan, self.kim = (web.make(f"{name} <{name}@intro.test>", "3y") for name in ("Ian", "Jan", "Kim"))
        self.eve = web.make("Eve <eve@intro.test>")
        self.bob = self.peer(self.ian, self.jan)
        self.introducers = self.write("introducers.pgp", web.public(self.ian, self.jan, self.kim))
        self.good = web.public(self.bob)

    def peer(self, *introducers, name=BOB, expires="2y", at=None):
        key = self.web.make(name, expires, at=at)
        for introducer in introducers:
            self.web.certify(introducer, key)
        return key

    def write(self, name, content):
        file = self.path / name
        file.write_bytes(content)
        return file

    def trust(self, threshold=2, name=BOB, introducers=None, revocations=None):
        files = [
            self.introducers if introducers is None else self.write("others.pgp", introducers),
            None if revocations is None else self.write("revocations", revocations),
        ]
        return OpenPgpTrust(files[0], threshold, name, files[1])

    def accepts(self, credential, later=0, **trust):
        return self.trust(**trust).accept(credential, time.time() + later)

    def refuses(self, cause, credential, later=0, **trust):
        with pytest.raises(AnchorRefused) as refused:
            self.accepts(credential, later, **trust)
        assert refused.value.cause == cause, refused.value
        assert "\n" not in str(refused.value)
        return str(refused.value)

    def signer(self, key, credential=None):
        secret = self.write(f"{key}.secret", self.web.secret(key))
        secret.chmod(0o600)
        return OpenPgpSigner(secret, self.write(f"{key}.pgp", credential or self.web.public(key)))


def merged(*pieces):
    """Return what GnuPG exports after it imported all the pieces."""
    with OpenPgpWeb() as other:
        for piece in pieces:
            other.gpg("--import", data=piece)
        return other.public()


@pytest.fixture(scope="module")
def land(tmp_path_factory):
    if shutil.which("gpg") is None:
        pytest.skip("gpg is not installed: apt-get install -y gnupg")
    pytest.importorskip("pysequoia", reason="pysequoia is not installed: pip install 'heliograph[pgp]'")
    with OpenPgpWeb() as web:
        yield Land(web, tmp_path_factory.mktemp("land"))


# The introducers.


def test_enough_introducers_are_believed(land):
    verifier = land.accepts(land.good)
    assert verifier.fingerprint == land.bob
    assert verifier.algorithm == "openpgp-ed25519"
    verifier.verify(b"hello", land.signer(land.bob).sign(b"hello"))
    assert land.accepts(land.good, threshold=1).fingerprint == land.bob


def test_one_introducer_too_few_is_refused_and_each_is_named(land):
    text = land.refuses("too-few-introducers", land.good, threshold=3)
    assert "2 of 3 needed" in text
    assert "'Kim <Kim@intro.test>'): has not certified" in text
    assert text.count("vouches") == 2


def test_a_name_that_was_not_registered_is_refused(land):
    land.refuses("wrong-name", land.good, name="Site C <site-b@qkd.test>")
    land.refuses("wrong-name", land.good, name="site-b@qkd.test")


def test_a_second_name_gains_nothing_from_the_certified_one(land):
    bob = land.peer(land.ian, land.jan)
    land.web.gpg("--quick-add-uid", bob.upper(), "Site Z <z@qkd.test>")
    assert land.accepts(land.web.public(bob)).fingerprint == bob
    land.refuses("untrusted", land.web.public(bob), name="Site Z <z@qkd.test>")


def test_a_revoked_name_is_refused(land):
    bob = land.peer(land.ian, land.jan)
    land.web.gpg("--quick-add-uid", bob.upper(), "Site Z <z@qkd.test>")
    land.web.gpg("--quick-revoke-uid", bob.upper(), BOB)
    land.refuses("revoked", land.web.public(bob))


def test_a_strangers_key_with_the_right_name_is_refused(land):
    land.refuses("untrusted", land.web.public(land.peer()))
    land.refuses("untrusted", land.web.public(land.peer(land.eve)))


def test_the_certified_key_of_another_site_is_refused(land):
    other = land.peer(land.ian, land.jan, land.kim, name="Site D <site-d@qkd.test>")
    land.refuses("wrong-name", land.web.public(other))


def test_an_introducer_that_the_credential_brings_along_does_not_count(land):
    bob = land.peer(land.ian, land.eve)
    text = land.refuses("too-few-introducers", land.web.public(bob))
    assert land.eve[-4:].upper() not in text
    land.refuses("malformed", land.web.public(bob) + land.web.public(land.eve))
    land.refuses("malformed", land.web.public(land.eve) + land.web.public(bob))


def test_an_introducers_friend_does_not_become_an_introducer(land):
    """A trust signature of depth 2, with and without a domain: GnuPG's own model would extend trust along it."""
    for domain in ("", "qkd.test"):
        friend = land.web.make(f"Friend {domain} <f@intro.test>")
        for introducer in (land.ian, land.jan):
            land.web.edit(friend, "tsign", "y", "2", "2", domain, "y", user=introducer)
        bob = land.peer(friend, land.kim)
        land.refuses("too-few-introducers", land.web.public(bob))
        introducers = land.web.public(land.ian, land.jan, land.kim)
        updates = land.web.public(friend)
        land.refuses("too-few-introducers", land.web.public(bob), introducers=introducers, revocations=updates)


def test_a_trust_signature_on_the_peer_counts_as_a_certification_and_makes_it_no_introducer(land):
    bob = land.peer(land.ian)
    land.web.edit(bob, "tsign", "y", "2", "1", "elsewhere.test", "y", user=land.jan)
    assert land.accepts(land.web.public(bob)).fingerprint == bob
    carol = land.peer(bob, land.ian)
    land.refuses("too-few-introducers", land.web.public(carol), revocations=land.web.public(bob))


def test_a_peer_cannot_vouch_for_itself(land):
    bob = land.peer(land.ian)
    introducers = land.web.public(land.ian, bob)
    text = land.refuses("too-few-introducers", land.web.public(bob), introducers=introducers)
    assert "cannot vouch for itself" in text


def test_one_introducer_that_certifies_twice_counts_once(land):
    bob = land.web.make(BOB)
    now = int(time.time())
    land.web.certify(land.ian, bob)
    land.web.certify(land.ian, bob, "--force-sign-key", "--default-cert-level=3", at=now + 5)
    credential = land.web.public(bob)
    _, *made_by_ian = [p for p in read_packets(credential) if p.tag == SIGNATURE]
    assert len(made_by_ian) == 2
    land.refuses("too-few-introducers", credential, later=10)
    twice = credential + made_by_ian[-1].raw  # the same certification again, as an attacker would put it
    land.refuses("too-few-introducers", twice, later=10)


def test_an_introducer_with_two_names_that_is_listed_twice_counts_once(land):
    two = land.web.make("Lea <lea@intro.test>")
    land.web.gpg("--quick-add-uid", two.upper(), "Lea again <lea@intro.test>")
    bob = land.peer(two)
    introducers = land.web.public(two) + land.web.public(land.ian) + land.web.public(two)
    land.refuses("too-few-introducers", land.web.public(bob), introducers=introducers)
    assert land.accepts(land.web.public(bob), introducers=introducers, threshold=1).fingerprint == bob


def test_a_certification_by_an_introducers_subkey_does_not_count(land):
    lea = land.web.make("Lea <lea@sub.test>")
    land.web.gpg("--quick-add-key", lea.upper(), "ed25519", "sign", "1y")
    bob = land.peer(land.ian)
    forged = certify_by_subkey(land.web.secret(lea), land.web.public(bob), BOB)
    introducers = land.web.public(land.ian, lea)
    text = land.refuses("too-few-introducers", forged, introducers=introducers)
    assert "'Lea <lea@sub.test>'): has not certified" in text


def test_a_certification_moved_to_another_key_or_name_does_not_count(land):
    theirs = [p for p in read_packets(land.good) if p.tag == SIGNATURE][1:]
    assert len(theirs) == 2
    mallory = land.peer()
    land.refuses("untrusted", land.web.public(mallory) + b"".join(one.raw for one in theirs))
    renamed = land.peer(name="Site E <e@qkd.test>")
    land.refuses(
        "untrusted", land.web.public(renamed) + b"".join(one.raw for one in theirs), name="Site E <e@qkd.test>"
    )


def test_a_sha1_certification_does_not_count(land):
    bob = land.peer(land.ian)
    land.web.certify(land.jan, bob, "--cert-digest-algo=SHA1", "--allow-weak-key-signatures")
    text = land.refuses("weak-algorithm", land.web.public(bob))
    assert "weak hash" in text


def test_a_backdated_sha1_certification_does_not_count(land):
    """GnuPG itself still believes those dated before 2019-01-19."""
    long_ago = 1_500_000_000
    old = land.web.make("Old <old@intro.test>", "0", at=long_ago)
    bob = land.peer(land.ian, expires="0", at=long_ago)
    land.web.certify(old, bob, "--cert-digest-algo=SHA1", "--allow-weak-key-signatures", at=long_ago + DAY)
    introducers = land.web.public(land.ian, old)
    land.refuses("weak-algorithm", land.web.public(bob), introducers=introducers)


def test_a_local_or_unchecked_certification_does_not_count(land):
    local = land.peer(land.ian)
    land.web.gpg(f"--local-user={land.jan}", "--quick-lsign-key", local.upper())
    exported = land.web.gpg("--export-options=export-local-sigs", "--export", local)
    assert len(exported) > len(land.web.public(local))
    land.refuses("too-few-introducers", exported)
    unchecked = land.peer(land.ian)
    land.web.certify(land.jan, unchecked, "--default-cert-level=1")
    assert "level 1" in land.refuses("too-few-introducers", land.web.public(unchecked))


# Expiry and revocation.


def test_an_expired_peer_key_is_refused(land):
    land.refuses("expired", land.good, later=2 * YEAR + DAY)


def test_an_introducer_whose_key_expired_does_not_count(land):
    short = land.web.make("Short <s@intro.test>", "1y")
    bob = land.peer(land.ian, short)
    introducers = land.web.public(land.ian, short)
    assert land.accepts(land.web.public(bob), introducers=introducers).fingerprint == bob
    text = land.refuses("too-few-introducers", land.web.public(bob), later=YEAR + DAY, introducers=introducers)
    assert "its key expired on" in text


def test_an_expired_certification_does_not_count(land):
    bob = land.peer(land.ian)
    land.web.certify(land.jan, bob, "--default-cert-expire=10d")
    assert land.accepts(land.web.public(bob)).fingerprint == bob
    assert "certification expired" in land.refuses("too-few-introducers", land.web.public(bob), later=11 * DAY)


def test_a_certification_or_key_from_the_future_does_not_count(land):
    land.refuses("not-yet-valid", land.good, later=-DAY)
    old = int(time.time()) - 30 * DAY
    lea = land.web.make("Lea <lea@old.test>", at=old)
    bob = land.peer(at=old)
    land.web.certify(lea, bob, at=old + 10 * DAY)
    introducers = land.web.public(lea)
    credential = land.web.public(bob)
    assert land.accepts(credential, introducers=introducers, threshold=1).fingerprint == bob
    text = land.refuses("too-few-introducers", credential, later=-25 * DAY, introducers=introducers, threshold=1)
    assert "later than this site's time" in text


def test_a_revoked_peer_key_is_refused(land):
    revocation = land.web.revocation(land.bob)
    land.refuses("revoked", merged(land.good, revocation))
    land.refuses("revoked", land.good, revocations=revocation)
    land.refuses("revoked", land.good, revocations=merged(land.good, revocation))


def test_a_revoked_introducer_does_not_count(land):
    revocation = land.web.revocation(land.jan)
    everybody = land.web.public(land.ian, land.jan, land.kim)
    for trust in (
        {"introducers": merged(everybody, revocation)},
        {"revocations": revocation},
        {"revocations": merged(land.web.public(land.jan), revocation)},
    ):
        assert "its key is revoked" in land.refuses("too-few-introducers", land.good, **trust)


def test_every_revocation_in_the_file_is_honoured(land):
    """Several armoured blocks, in any order, among revocations that concern nobody here."""
    lone, both = land.web.revocation(land.eve), [land.web.revocation(land.ian), land.web.revocation(land.jan)]
    for blocks in ([lone, *both], [*both, lone], [both[1], lone, both[0]]):
        assert "0 of 1" in land.refuses("too-few-introducers", land.good, revocations=b"\n".join(blocks), threshold=1)
    assert land.accepts(land.good, revocations=lone).fingerprint == land.bob


def test_a_revocation_added_later_is_honoured_at_the_next_accept(land):
    file = land.write("growing", b"")
    trust = OpenPgpTrust(land.introducers, 2, BOB, file)
    assert trust.accept(land.good, time.time()).fingerprint == land.bob
    file.write_bytes(land.web.revocation(land.ian))
    with pytest.raises(AnchorRefused, match="1 of 2 needed"):
        trust.accept(land.good, time.time())


def test_a_revoked_certification_does_not_count(land):
    bob = land.peer(land.ian, land.jan)
    before = land.web.public(bob)
    land.web.gpg("--quick-revoke-sig", bob.upper(), land.jan.upper())
    after = land.web.public(bob)
    assert "revoked its certification" in land.refuses("too-few-introducers", after)
    assert land.accepts(before).fingerprint == bob  # who leaves the revocation out is believed ...
    assert "revoked its certification" in land.refuses("too-few-introducers", before, revocations=after)  # ... until


def test_a_certification_given_again_after_its_revocation_counts(land):
    bob = land.peer(land.ian, land.jan)
    now = int(time.time())
    land.web.gpg("--quick-revoke-sig", bob.upper(), land.jan.upper(), at=now + 5)
    land.web.certify(land.jan, bob, "--force-sign-key", at=now + 10)
    assert land.accepts(land.web.public(bob), later=20).fingerprint == bob


def test_a_sha1_revocation_still_revokes(land):
    bob = land.peer(land.ian, land.jan)
    land.web.gpg(
        "--cert-digest-algo=SHA1", "--allow-weak-key-signatures", "--quick-revoke-sig", bob.upper(), land.jan.upper()
    )
    assert "revoked its certification" in land.refuses("too-few-introducers", land.web.public(bob))


def test_a_false_revocation_stops_the_link_and_says_so(land):
    """A damaged revocation of a key that matters is never passed over."""
    block = bytearray(read_packets(_binary(land.web.revocation(land.jan)))[0].raw)
    block[-1] ^= 1
    with pytest.raises(ConfigurationError, match=r"revocations .*GnuPG"):
        land.accepts(land.good, revocations=bytes(block))


def _binary(armoured):
    with OpenPgpWeb() as other:
        return other.gpg("--dearmor", data=armoured)


# Damaged and hostile credentials.


def test_a_tampered_credential_is_refused_or_still_says_the_same(land):
    """Every 61st bit: whatever is accepted is the registered peer's key, with the name and the certifications."""
    accepted = 0
    trust = land.trust()
    evil = land.signer(land.eve).sign(b"hello")
    bits = range(0, 8 * len(land.good), 61)
    for bit in bits:
        damaged = bytearray(land.good)
        damaged[bit // 8] ^= 1 << (bit % 8)
        try:
            verifier = trust.accept(bytes(damaged), time.time())
        except AnchorRefused:
            continue
        accepted += 1
        assert verifier.fingerprint == land.bob
        with pytest.raises(AuthenticationFailed):
            verifier.verify(b"hello", evil)
    assert accepted < len(bits) // 10


def test_a_credential_that_is_cut_short_or_too_long_is_refused(land):
    land.refuses("malformed", land.good[:-1])
    land.refuses("malformed", b"")
    land.refuses("malformed", land.good + b"\xcd\x00" * 33_000)
    land.refuses("malformed", land.web.public(land.bob, armour=True))
    land.refuses("malformed", land.web.secret(land.bob))


def test_a_credential_without_its_owners_signature_is_refused(land):
    first, name, own, *others = read_packets(land.good)
    assert (name.tag, own.tag) == (USER_ID, SIGNATURE)
    land.refuses("malformed", b"".join(p.raw for p in (first, name, *others)))
    land.refuses("malformed", b"".join(p.raw for p in (first, own, *others)))


def test_garbage_is_refused_and_never_more_than_that(land):
    trust = land.trust()

    @settings(max_examples=150, deadline=None)
    @given(st.binary(max_size=400) | st.binary(max_size=80).map(lambda tail: land.good[:120] + tail))
    def check(credential):
        for use in (lambda: trust.accept(credential, time.time()), lambda: trust.recall(credential)):
            try:
                use()
            except AnchorRefused as refused:
                assert refused.cause  # noqa: PT017  - another error must fail this test

    check()


# Signatures.


def test_no_bit_of_a_signature_may_change(land):
    verifier = land.accepts(land.good)
    signature = land.signer(land.bob).sign(b"hello")
    verifier.verify(b"hello", signature)
    for bit in range(8 * len(signature)):
        damaged = bytearray(signature)
        damaged[bit // 8] ^= 1 << (bit % 8)
        with pytest.raises(AuthenticationFailed):
            verifier.verify(b"hello", bytes(damaged))


def test_a_signature_by_another_key_is_refused(land):
    verifier = land.accepts(land.good)
    with pytest.raises(AuthenticationFailed):
        verifier.verify(b"hello", land.signer(land.eve).sign(b"hello"))
    with pytest.raises(AuthenticationFailed):
        verifier.verify(b"hello", land.signer(land.ian).sign(b"hello"))


def test_a_signature_over_other_bytes_is_refused(land):
    verifier = land.accepts(land.good)
    signature = land.signer(land.bob).sign(b"hello\n")
    for message in (b"hello", b"hello\r\n", b"hello\n\n", b""):
        with pytest.raises(AuthenticationFailed):
            verifier.verify(message, signature)


def test_only_a_detached_binary_signature_counts(land):
    verifier = land.accepts(land.good)

    def made(*options):
        return land.web.gpg(f"--local-user={land.bob}", "--output=-", *options, data=b"hello")

    good = made("--detach-sign")
    verifier.verify(b"hello", good)  # GnuPG's own are welcome
    for bad in (
        made("--detach-sign", "--textmode"),
        made("--sign"),
        made("--sign", "--compress-algo=none"),
        made("--clear-sign"),
        made("--armor", "--detach-sign"),
        made("--detach-sign", "--digest-algo=SHA1"),
        good + good,
        good + land.signer(land.eve).sign(b"hello"),
        b"",
        good[:-1],
    ):
        with pytest.raises(AuthenticationFailed):
            verifier.verify(b"hello", bad)


def test_an_expired_signature_is_refused(land):
    past = int(time.time()) - 10 * DAY
    bob = land.peer(land.ian, land.jan, at=past)
    verifier = land.accepts(land.web.public(bob))

    def made(expire):
        options = ("--default-sig-expire=" + expire, "--output=-", "--detach-sign")
        return land.web.gpg(f"--local-user={bob}", *options, at=past + DAY, data=b"hello")

    verifier.verify(b"hello", made("20d"))
    with pytest.raises(AuthenticationFailed):
        verifier.verify(b"hello", made("2d"))


def test_a_subkey_that_may_not_sign_is_refused(land):
    """The same subkey, the same signature: once it may sign, once its owner changed it to another use, once revoked."""
    bob = land.peer(land.ian, land.jan)
    land.web.gpg("--quick-add-key", bob.upper(), "ed25519", "sign", "1y")
    before = land.web.public(bob)
    signature = land.web.gpg(f"--local-user={bob}", "--output=-", "--detach-sign", data=b"hello")
    verifier = land.accepts(before)
    verifier.verify(b"hello", signature)
    land.web.edit(bob, "key 1", "revkey", "y", "1", "", "y")
    revoked = land.web.public(bob)
    with pytest.raises(AuthenticationFailed):
        land.accepts(revoked).verify(b"hello", signature)
    with pytest.raises(AuthenticationFailed):
        land.accepts(before, revocations=revoked).verify(b"hello", signature)
    with pytest.raises(AuthenticationFailed):
        land.trust().recall(revoked).verify(b"hello", signature)


def test_a_subkey_for_another_use_is_refused(land):
    bob = land.peer(land.ian, land.jan)
    land.web.gpg("--quick-add-key", bob.upper(), "ed25519", "sign", "1y")
    signature = land.web.gpg(f"--local-user={bob}", "--output=-", "--detach-sign", data=b"hello")
    land.accepts(land.web.public(bob)).verify(b"hello", signature)
    land.web.edit(bob, "key 1", "change-usage", "s", "a", "q", at=int(time.time()) + 5)
    with pytest.raises(AuthenticationFailed):
        land.accepts(land.web.public(bob), later=10).verify(b"hello", signature)


def test_a_key_that_may_only_certify_is_refused(land):
    bob = land.web.make(BOB, usage="cert")
    for introducer in (land.ian, land.jan):
        land.web.certify(introducer, bob)
    land.refuses("wrong-key-usage", land.web.public(bob))


def test_a_weak_peer_key_is_refused(land):
    made = land.web.gpg("--status-fd=1", "--quick-generate-key", BOB, "rsa1024", "sign", "1y")
    bob = next(line.split()[3] for line in made.decode().splitlines() if "KEY_CREATED" in line)
    for introducer in (land.ian, land.jan):
        land.web.certify(introducer, bob)
    land.refuses("weak-algorithm", land.web.public(bob))


def test_an_accepted_credential_is_recalled_without_trust(land):
    """For messages made under it then: expired since, or no longer certified, it still checks what was signed."""
    past = int(time.time()) - 2 * YEAR
    old = land.web.make(BOB, "1y", at=past)
    signature = land.web.gpg(f"--local-user={old}", "--output=-", "--detach-sign", at=past + DAY, data=b"hello")
    credential = land.web.public(old)
    assert read_certificate(credential).fingerprint == old
    land.refuses("expired", credential)
    recalled = land.trust().recall(credential)
    recalled.verify(b"hello", signature)
    with pytest.raises(AuthenticationFailed):
        recalled.verify(b"hallo", signature)
