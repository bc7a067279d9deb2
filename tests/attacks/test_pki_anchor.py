"""Whoever is not the registered peer under its CA is not believed, and the refusal says why."""

from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp
from cryptography.x509.oid import ExtendedKeyUsageOID
from hypothesis import given
from hypothesis import strategies as st
from pki_chains import (
    FOREIGN_KEYS,
    KEYS,
    NOW,
    YEAR,
    Desk,
    Node,
    credential,
    make,
    make_chain,
    make_crl,
    make_intermediate,
    make_leaf,
    make_ocsp,
    make_root,
    signed_with_sha1,
    usage,
)

from heliograph.errors import AnchorRefused, AuthenticationFailed, ConfigurationError
from heliograph.kme.identity import SITE_SCHEME, identity_uri
from heliograph.vault.certificates import SiteCa
from heliograph.vault.x509_algorithms import sign
from heliograph.vault.x509_credential import CREDENTIAL_BYTES_MAX
from heliograph.vault.x509_keys import X509Signer
from heliograph.vault.x509_trust import LINK_AUTHENTICATION, X509Trust

ROOT, INTERMEDIATE, LEAF = make_chain()
DAY = timedelta(days=1)


def refused(cause, desk, *nodes, match=None, at=NOW):
    with pytest.raises(AnchorRefused, match=match) as why:
        desk.accept(*nodes, at=at)
    assert why.value.cause == cause, why.value
    assert "\n" not in str(why.value)


@pytest.fixture
def desk(tmp_path):
    return Desk(tmp_path, ROOT)


# Who issued it.


@pytest.mark.parametrize("kind", KEYS)
def test_a_three_level_chain_of_each_algorithm_is_believed_and_its_key_signs(tmp_path, kind):
    root, intermediate, leaf = make_chain(kind)
    desk = Desk(tmp_path, root, crls=[make_crl(intermediate), make_crl(root)], response=make_ocsp(leaf, intermediate))
    (tmp_path / "link.pem").write_bytes(leaf.pem + intermediate.pem)
    (tmp_path / "link.key").write_bytes(leaf.key_pem)
    (tmp_path / "link.key").chmod(0o600)
    signer = X509Signer(tmp_path / "link.pem", tmp_path / "link.key")
    verifier = desk.trust.accept(signer.credential, NOW.timestamp())
    assert verifier.algorithm == signer.algorithm == kind
    assert verifier.fingerprint == leaf.certificate.fingerprint(hashes.SHA256()).hex()
    verifier.verify(b"transcript", signer.sign(b"transcript"))
    with pytest.raises(AuthenticationFailed):
        verifier.verify(b"transcripT", signer.sign(b"transcript"))


@pytest.mark.parametrize("leaf_kind", KEYS)
def test_an_ecdsa_or_any_leaf_below_an_ml_dsa_root_is_believed(tmp_path, leaf_kind):
    root = make_root(key=KEYS["ml-dsa-87"]())
    intermediate = make_intermediate(root, key=KEYS["ml-dsa-65"]())
    leaf = make_leaf(intermediate, key=KEYS[leaf_kind]())
    assert Desk(tmp_path, root).accept(leaf, intermediate).algorithm == leaf_kind


def test_the_root_may_be_sent_along_and_a_chain_may_have_four_levels(tmp_path):
    root = make_root(path_length=2)
    middle = make("a middle CA", root, ca=True, path_length=1)
    low = make("a low CA", middle, ca=True, path_length=0)
    leaf = make_leaf(low)
    assert Desk(tmp_path, root).accept(leaf, low, middle, root).algorithm == "ecdsa-p256-sha256"


def test_a_chain_to_another_ca_of_the_same_name_is_untrusted(tmp_path):
    other_root, other_intermediate, other_leaf = make_chain()
    desk = Desk(tmp_path, ROOT)
    refused("untrusted", desk, other_leaf, other_intermediate, match="does not lead to the registered CA")
    refused("untrusted", desk, other_leaf, other_intermediate, other_root)


def test_a_chain_of_a_stranger_is_untrusted(desk):
    root = make("a stranger", ca=True)
    refused("untrusted", desk, make_leaf(root), root)


def test_a_self_signed_intruder_is_untrusted(desk):
    intruder = make("b", uris=("site:b",), purposes=(LINK_AUTHENTICATION,))
    refused("untrusted", desk, intruder)
    refused("untrusted", desk, intruder, INTERMEDIATE, ROOT)


def test_an_intruder_who_takes_the_names_of_root_and_intermediate_is_untrusted(desk):
    false_root = make_root(serial=ROOT.serial)
    false_intermediate = make_intermediate(false_root, serial=INTERMEDIATE.serial)
    refused("untrusted", desk, make_leaf(false_intermediate), false_intermediate)
    refused("untrusted", desk, make_leaf(false_intermediate), INTERMEDIATE)


def test_a_missing_or_replaced_intermediate_is_untrusted(desk):
    refused("untrusted", desk, LEAF, match="must send its intermediate certificates")
    refused("untrusted", desk, LEAF, make_intermediate(ROOT))


def test_an_altered_leaf_is_untrusted(desk):
    der = bytearray(LEAF.certificate.public_bytes(Encoding.DER))
    at = der.index(b"site:b")
    der[at : at + 6] = b"site:c"
    refused("untrusted", desk, Node(x509.load_der_x509_certificate(bytes(der)), None), INTERMEDIATE)


# When.


@pytest.mark.parametrize("level", ["leaf", "intermediate", "root"])
def test_what_has_expired_or_is_not_yet_valid_is_refused_by_the_given_time(tmp_path, level):
    def times(name):
        return {"start": NOW - DAY, "end": NOW + DAY} if name == level else {}

    root = make_root(**times("root"))
    intermediate = make_intermediate(root, **times("intermediate"))
    leaf = make_leaf(intermediate, **times("leaf"))
    desk = Desk(tmp_path, root)
    for at in (NOW - DAY, NOW, NOW + DAY):
        desk.accept(leaf, intermediate, at=at)
    refused("not-yet-valid", desk, leaf, intermediate, at=NOW - DAY - timedelta(seconds=1), match="is valid from 2031")
    refused("expired", desk, leaf, intermediate, at=NOW + DAY + timedelta(seconds=1), match="expired on 2031-05-02")


# Revocation lists.


def test_a_revoked_leaf_is_refused_by_the_list(tmp_path):
    desk = Desk(tmp_path, ROOT, crls=[make_crl(INTERMEDIATE, [LEAF]), make_crl(ROOT)])
    refused("revoked", desk, LEAF, INTERMEDIATE, match=rf"serial {LEAF.serial:x}\) was revoked on 2031-04-30")


def test_a_revoked_intermediate_is_refused_by_the_list(tmp_path):
    desk = Desk(tmp_path, ROOT, crls=[make_crl(INTERMEDIATE), make_crl(ROOT, [INTERMEDIATE])])
    refused("revoked", desk, LEAF, INTERMEDIATE, match="the intermediate")


def test_a_new_list_counts_at_once(tmp_path):
    desk = Desk(tmp_path, ROOT, crls=[make_crl(INTERMEDIATE), make_crl(ROOT)])
    desk.accept(LEAF, INTERMEDIATE)
    desk.crl.write_bytes(make_crl(INTERMEDIATE, [LEAF]) + make_crl(ROOT))
    refused("revoked", desk, LEAF, INTERMEDIATE)


def test_a_stale_list_or_one_of_the_future_leaves_revocation_unknown(tmp_path):
    desk = Desk(tmp_path, ROOT, crls=[make_crl(INTERMEDIATE), make_crl(ROOT)])
    refused("revocation-unknown", desk, LEAF, INTERMEDIATE, at=NOW + 6 * DAY + timedelta(seconds=1), match="2031-05-07")
    refused("revocation-unknown", desk, LEAF, INTERMEDIATE, at=NOW - 2 * DAY)
    desk.crl.write_bytes(make_crl(INTERMEDIATE) + make_crl(ROOT, end=NOW - timedelta(seconds=1)))
    refused("revocation-unknown", desk, LEAF, INTERMEDIATE, match="of CN=the root is valid from")


@pytest.mark.parametrize("required", [True, False])
def test_a_stale_list_counts_as_unknown_even_where_lists_are_not_required(tmp_path, required):
    old = make_crl(INTERMEDIATE, [LEAF], end=NOW - timedelta(seconds=1))
    desk = Desk(tmp_path, ROOT, crls=[old], crl_required=required)
    refused("revocation-unknown", desk, LEAF, INTERMEDIATE)


@pytest.mark.parametrize("missing", ["root", "intermediate"])
def test_a_missing_list_leaves_revocation_unknown_where_lists_are_required(tmp_path, missing):
    have = INTERMEDIATE if missing == "root" else ROOT
    desk = Desk(tmp_path, ROOT, crls=[make_crl(have)])
    refused("revocation-unknown", desk, LEAF, INTERMEDIATE, match=f"its issuer CN=the {missing}; fetch")
    Desk(tmp_path, ROOT, crls=[make_crl(have)], crl_required=False).accept(LEAF, INTERMEDIATE)


def test_the_lists_that_are_there_count_where_lists_are_not_required(tmp_path):
    for crls, culprit in (
        ([make_crl(INTERMEDIATE, [LEAF])], LEAF),
        ([make_crl(ROOT, [INTERMEDIATE])], INTERMEDIATE),
    ):
        desk = Desk(tmp_path, ROOT, crls=crls, crl_required=False)
        refused("revoked", desk, LEAF, INTERMEDIATE, match=f"{culprit.serial:x}")


def test_a_forged_list_leaves_revocation_unknown(tmp_path):
    forged = make_crl(INTERMEDIATE, signer=make("intruder", ca=True))
    desk = Desk(tmp_path, ROOT, crls=[forged, make_crl(ROOT)])
    refused("revocation-unknown", desk, LEAF, INTERMEDIATE)


def test_a_list_of_a_ca_that_may_not_sign_lists_leaves_revocation_unknown(tmp_path):
    intermediate = make_intermediate(ROOT, key_usage=usage(key_cert_sign=True))
    desk = Desk(tmp_path, ROOT, crls=[make_crl(intermediate), make_crl(ROOT)])
    refused("revocation-unknown", desk, make_leaf(intermediate), intermediate)


@pytest.mark.parametrize("content", [None, b"", b"nothing", make_crl(INTERMEDIATE)[:-40], b"cut"])
@pytest.mark.parametrize("required", [True, False])
def test_a_list_file_that_is_gone_empty_or_damaged_leaves_revocation_unknown(tmp_path, content, required):
    desk = Desk(tmp_path, ROOT, crls=[b""], crl_required=required)
    if content is None:
        desk.crl.unlink()
    elif content == b"cut":
        desk.crl.write_bytes(make_crl(ROOT) + make_crl(INTERMEDIATE)[:-40])
    else:
        desk.crl.write_bytes(content)
    refused("revocation-unknown", desk, LEAF, INTERMEDIATE, match=r"crl\.pem")


# OCSP.

DELEGATE = make("responder", INTERMEDIATE, purposes=(ExtendedKeyUsageOID.OCSP_SIGNING,))


def test_a_good_response_of_the_issuer_or_of_its_delegate_is_believed(tmp_path):
    for response in (
        make_ocsp(LEAF, INTERMEDIATE),
        make_ocsp(LEAF, INTERMEDIATE, naming=hashes.SHA1()),  # only a name: what counts is the signature
        make_ocsp(LEAF, INTERMEDIATE, signer=DELEGATE, include=[DELEGATE]),
    ):
        Desk(tmp_path, ROOT, response=response).accept(LEAF, INTERMEDIATE)


@pytest.mark.parametrize("signer", [INTERMEDIATE, DELEGATE])
def test_a_leaf_revoked_by_ocsp_is_refused(tmp_path, signer):
    response = make_ocsp(LEAF, INTERMEDIATE, status=ocsp.OCSPCertStatus.REVOKED, signer=signer, include=[DELEGATE])
    refused("revoked", Desk(tmp_path, ROOT, response=response), LEAF, INTERMEDIATE, match="revoked on 2031-05-01")


def test_a_good_response_does_not_outvote_a_list(tmp_path):
    crls = [make_crl(INTERMEDIATE, [LEAF]), make_crl(ROOT)]
    desk = Desk(tmp_path, ROOT, crls=crls, response=make_ocsp(LEAF, INTERMEDIATE))
    refused("revoked", desk, LEAF, INTERMEDIATE)


def _forgeries():
    intruder_root, intruder_ca, _ = make_chain()
    stranger = make("responder", intruder_ca, purposes=(ExtendedKeyUsageOID.OCSP_SIGNING,))
    above = make("responder", ROOT, purposes=(ExtendedKeyUsageOID.OCSP_SIGNING,))
    purposeless = make("responder", INTERMEDIATE)
    silent = make(
        "responder", INTERMEDIATE, purposes=(ExtendedKeyUsageOID.OCSP_SIGNING,), key_usage=usage(crl_sign=True)
    )
    old = make("responder", INTERMEDIATE, purposes=(ExtendedKeyUsageOID.OCSP_SIGNING,), end=NOW - DAY)
    good = make_ocsp(LEAF, INTERMEDIATE)
    bent = bytearray(good)
    bent[-1] ^= 1
    another = make_leaf(INTERMEDIATE)
    return {
        "signed by the intruder's CA of the same name": make_ocsp(LEAF, INTERMEDIATE, signer=intruder_ca),
        "the same with its chain": make_ocsp(
            LEAF, INTERMEDIATE, signer=intruder_ca, include=[intruder_ca, intruder_root]
        ),
        "a stranger's responder": make_ocsp(LEAF, INTERMEDIATE, signer=stranger, include=[stranger, intruder_ca]),
        "a responder of the CA above": make_ocsp(LEAF, INTERMEDIATE, signer=above, include=[above]),
        "the root itself": make_ocsp(LEAF, INTERMEDIATE, signer=ROOT, include=[ROOT]),
        "a site's certificate signs": make_ocsp(LEAF, INTERMEDIATE, signer=LEAF, include=[LEAF]),
        "a certificate without the purpose": make_ocsp(LEAF, INTERMEDIATE, signer=purposeless, include=[purposeless]),
        "a responder that may not sign": make_ocsp(LEAF, INTERMEDIATE, signer=silent, include=[silent]),
        "an expired responder": make_ocsp(LEAF, INTERMEDIATE, signer=old, include=[old]),
        "a delegate that was not sent": make_ocsp(LEAF, INTERMEDIATE, signer=DELEGATE),
        "a stranger's signature beside the real responder": make_ocsp(
            LEAF, INTERMEDIATE, signer=stranger, include=[DELEGATE, stranger]
        ),
        "an unknown critical extension": make_ocsp(LEAF, INTERMEDIATE, critical=True),
        "a bit flipped": bytes(bent),
        "about another certificate": make_ocsp(another, INTERMEDIATE),
        "about another CA's certificate of this serial": make_ocsp(
            make_leaf(ROOT, serial=LEAF.serial), ROOT, signer=INTERMEDIATE
        ),
        "stale": make_ocsp(LEAF, INTERMEDIATE, end=NOW - timedelta(seconds=1)),
        "of the future": make_ocsp(LEAF, INTERMEDIATE, start=NOW + timedelta(seconds=1)),
        "without an end": make_ocsp(LEAF, INTERMEDIATE, end=None),
        "unknown to the responder": make_ocsp(LEAF, INTERMEDIATE, status=ocsp.OCSPCertStatus.UNKNOWN),
        "an error": ocsp.OCSPResponseBuilder.build_unsuccessful(ocsp.OCSPResponseStatus.TRY_LATER).public_bytes(
            Encoding.DER
        ),
        "garbage": b"garbage",
        "empty": b"",
        "trailing bytes": good + b"\x00",
    }


FORGERIES = _forgeries()


@pytest.mark.parametrize("name", FORGERIES)
def test_a_forged_or_useless_ocsp_response_leaves_revocation_unknown(tmp_path, name):
    desk = Desk(tmp_path, ROOT, response=FORGERIES[name])
    refused("revocation-unknown", desk, LEAF, INTERMEDIATE, match=r"response\.der")


def test_a_response_that_names_another_algorithm_than_the_issuers_is_refused(tmp_path):
    root, intermediate, leaf = make_chain("ed25519")
    good = make_ocsp(leaf, intermediate)
    ed25519, ed448 = bytes.fromhex("300506032b6570"), bytes.fromhex("300506032b6571")
    assert good.count(ed25519) == 1  # outside of what is signed
    Desk(tmp_path, root, response=good).accept(leaf, intermediate)
    desk = Desk(tmp_path, root, response=good.replace(ed25519, ed448))
    refused("revocation-unknown", desk, leaf, intermediate)


def test_a_revoked_responder_leaves_revocation_unknown(tmp_path):
    crls = [make_crl(INTERMEDIATE, [DELEGATE]), make_crl(ROOT)]
    response = make_ocsp(LEAF, INTERMEDIATE, signer=DELEGATE, include=[DELEGATE])
    desk = Desk(tmp_path, ROOT, crls=crls, response=response)
    refused("revocation-unknown", desk, LEAF, INTERMEDIATE, match="was revoked")


GOOD_RESPONSE = make_ocsp(LEAF, INTERMEDIATE)


@pytest.mark.slow
@given(st.integers(0, len(GOOD_RESPONSE) * 8 - 1))
def test_a_bit_flipped_in_an_ocsp_response_is_refused_or_changes_nothing_that_was_signed(tmp_path_factory, bit):
    damaged = bytearray(GOOD_RESPONSE)
    damaged[bit // 8] ^= 1 << bit % 8
    desk = Desk(tmp_path_factory.mktemp("ocsp"), ROOT, response=bytes(damaged))
    try:
        read = ocsp.load_der_ocsp_response(bytes(damaged))
        harmless = read.tbs_response_bytes == ocsp.load_der_ocsp_response(GOOD_RESPONSE).tbs_response_bytes
    except ValueError:
        harmless = False
    try:
        desk.accept(LEAF, INTERMEDIATE)
    except AnchorRefused:
        return
    assert harmless


# Whose name.


@pytest.mark.parametrize(
    "uris",
    [
        (),
        ("site:c",),
        ("site:B",),
        ("site:b%20",),
        ("kme:b",),
        ("sae:b",),
        ("site:b", "site:b"),
        ("site:b", "kme:b"),
        ("site:",),
        ("site:%ff",),
        ("https://b",),
    ],
)
def test_a_certificate_with_another_name_is_refused(desk, uris):
    refused("wrong-name", desk, make_leaf(INTERMEDIATE, uris=uris), INTERMEDIATE)


def test_the_certificate_of_another_site_is_refused_with_both_names(desk):
    another = make("b", INTERMEDIATE, uris=("site:another",), purposes=(LINK_AUTHENTICATION,))
    refused("wrong-name", desk, another, INTERMEDIATE, match=r"'another'; the registered peer is 'b'.*site:b")


def test_the_common_name_is_never_looked_at(desk):
    nameless = make("b", INTERMEDIATE, purposes=(LINK_AUTHENTICATION,))
    refused("wrong-name", desk, nameless, INTERMEDIATE)


@pytest.mark.parametrize("name", ["site b", "b/c", "café-α", "100%", "site:b"])
def test_a_name_of_any_form_is_matched_exactly(tmp_path, name):
    leaf = make_leaf(INTERMEDIATE, uris=(identity_uri(SITE_SCHEME, name),))
    Desk(tmp_path, ROOT, name=name).accept(leaf, INTERMEDIATE)
    refused("wrong-name", Desk(tmp_path, ROOT, name=name + "x"), leaf, INTERMEDIATE)


# For what.


@pytest.mark.parametrize("bits", [None, {"key_agreement": True}, {"content_commitment": True}])
def test_a_leaf_that_may_not_sign_is_refused(desk, bits):
    leaf = make_leaf(INTERMEDIATE, key_usage=usage(**bits) if bits else None)
    refused("wrong-key-usage", desk, leaf, INTERMEDIATE, match="digitalSignature")


@pytest.mark.parametrize(
    "purposes",
    [
        (ExtendedKeyUsageOID.SERVER_AUTH,),
        (ExtendedKeyUsageOID.CLIENT_AUTH,),
        (ExtendedKeyUsageOID.OCSP_SIGNING,),
        (ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE,),
        (LINK_AUTHENTICATION, ExtendedKeyUsageOID.SERVER_AUTH),
        (LINK_AUTHENTICATION, ExtendedKeyUsageOID.CLIENT_AUTH),
        (LINK_AUTHENTICATION, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE),
    ],
)
def test_a_certificate_that_also_opens_something_else_is_refused(desk, purposes):
    refused("wrong-key-usage", desk, make_leaf(INTERMEDIATE, purposes=purposes), INTERMEDIATE)


def test_a_ca_that_writes_no_extended_key_usage_may_vouch_for_a_site(desk):
    desk.accept(make_leaf(INTERMEDIATE, purposes=()), INTERMEDIATE)


def test_the_tls_certificates_of_kme_and_sae_are_no_link_credentials(tmp_path):
    site_ca = SiteCa.create("b", moment=NOW)
    (tmp_path / "ca.pem").write_bytes(site_ca.certificate)
    trust = X509Trust(tmp_path / "ca.pem", "b", crl_required=False)
    for identity in (site_ca.issue_kme("b", ["b"], moment=NOW), site_ca.issue_sae("b", moment=NOW)):
        node = Node(x509.load_pem_x509_certificate(identity.certificate), None)
        with pytest.raises(AnchorRefused) as why:
            trust.accept(credential(node), NOW.timestamp())
        assert why.value.cause == "wrong-key-usage"


def test_a_tls_certificate_without_its_purpose_still_has_the_wrong_name(desk):
    refused("wrong-name", desk, make("b", INTERMEDIATE, uris=("kme:b",)), INTERMEDIATE)


# Who may issue.


def test_a_leaf_that_acts_as_a_ca_is_refused(desk):
    other_site = make_leaf(INTERMEDIATE, uris=("site:c",))
    refused("wrong-key-usage", desk, make_leaf(other_site), other_site, INTERMEDIATE)


def test_a_ca_certificate_that_may_not_sign_certificates_is_refused(desk):
    intermediate = make_intermediate(ROOT, key_usage=usage(crl_sign=True))
    refused("wrong-key-usage", desk, make_leaf(intermediate), intermediate)


def test_a_ca_certificate_without_a_key_usage_is_refused(desk):
    for path_length in (0, None):
        intermediate = make_intermediate(ROOT, key_usage=None, path_length=path_length)
        refused("wrong-key-usage", desk, make_leaf(intermediate), intermediate)


def test_a_site_that_may_sign_certificates_is_refused(desk):
    leaf = make_leaf(INTERMEDIATE, key_usage=usage(digital_signature=True, key_cert_sign=True))
    refused("wrong-key-usage", desk, leaf, INTERMEDIATE, match="keyCertSign")


def test_a_ca_is_not_a_site(desk):
    site_ca = make_intermediate(ROOT, uris=("site:b",), key_usage=usage(key_cert_sign=True, digital_signature=True))
    refused("wrong-key-usage", desk, site_ca, match="is of a CA")
    refused("wrong-key-usage", desk, ROOT)


def test_a_path_longer_than_a_ca_allows_is_refused(tmp_path, desk):
    below = make("a CA below", INTERMEDIATE, ca=True)
    refused("path-length", desk, make_leaf(below), below, INTERMEDIATE)
    root = make_root(path_length=0)
    intermediate = make_intermediate(root)
    refused("path-length", Desk(tmp_path, root), make_leaf(intermediate), intermediate)


# With what.


@pytest.mark.parametrize("kind", FOREIGN_KEYS)
@pytest.mark.parametrize("level", ["leaf", "intermediate", "root"])
def test_a_chain_with_a_key_that_is_not_on_the_list_is_refused_by_name(tmp_path, kind, level):
    def key(name):
        return {"key": FOREIGN_KEYS[kind]()} if name == level else {}

    root = make_root(**key("root"))
    intermediate = make_intermediate(root, **key("intermediate"))
    leaf = make_leaf(intermediate, **key("leaf"))
    if level == "root":
        with pytest.raises(ConfigurationError, match=f"{kind} keys are not accepted"):
            Desk(tmp_path, root)
        refused("weak-algorithm", Desk(tmp_path, ROOT), leaf, intermediate, root)
    else:
        refused("weak-algorithm", Desk(tmp_path, root), leaf, intermediate, match=f"(?i){kind}.*not accepted")


def test_a_chain_signed_with_sha_1_is_refused(desk):
    leaf = Node(x509.load_der_x509_certificate(signed_with_sha1(LEAF.certificate, INTERMEDIATE.key)), LEAF.key)
    refused("weak-algorithm", desk, leaf, INTERMEDIATE, match="signed it with ECDSA-WITH-SHA1")
    intermediate = Node(x509.load_der_x509_certificate(signed_with_sha1(INTERMEDIATE.certificate, ROOT.key)), None)
    refused("weak-algorithm", desk, LEAF, intermediate, match="the intermediate.*ECDSA-WITH-SHA1")
    refused("weak-algorithm", desk, make_leaf(ROOT, hash_=hashes.SHA224()), match="ECDSA-WITH-SHA224")


def test_a_root_signed_with_sha_1_cannot_be_registered(tmp_path):
    root = Node(x509.load_der_x509_certificate(signed_with_sha1(ROOT.certificate, ROOT.key)), ROOT.key)
    with pytest.raises(ConfigurationError, match="ECDSA-WITH-SHA1"):
        Desk(tmp_path, root)


def test_a_list_signed_with_sha_1_is_refused(tmp_path):
    listed = x509.load_pem_x509_crl(make_crl(INTERMEDIATE))
    weak = x509.load_der_x509_crl(signed_with_sha1(listed, INTERMEDIATE.key)).public_bytes(Encoding.PEM)
    desk = Desk(tmp_path, ROOT, crls=[weak, make_crl(ROOT)])
    refused("weak-algorithm", desk, LEAF, INTERMEDIATE, match="ECDSA-WITH-SHA1")


def test_a_weak_certificate_is_refused_even_if_the_chain_does_not_need_it(desk):
    refused("weak-algorithm", desk, LEAF, INTERMEDIATE, make_root(key=FOREIGN_KEYS["RSA"]()))


# Bytes.

GOOD = credential(LEAF, INTERMEDIATE)


@pytest.fixture(scope="module")
def trust(tmp_path_factory):
    return Desk(tmp_path_factory.mktemp("anchor"), ROOT).trust


def believed(trust, offered):
    """Return whether ``accept`` believed; anything but a verifier or a refusal fails the test."""
    try:
        assert trust.recall(offered).algorithm
    except AnchorRefused:
        with pytest.raises(AnchorRefused):
            trust.accept(offered, NOW.timestamp())
        return False
    try:
        return trust.accept(offered, NOW.timestamp()).fingerprint != ""
    except AnchorRefused:
        return False


@given(st.binary(max_size=400))
def test_any_bytes_are_refused(trust, offered):
    assert not believed(trust, offered)


@given(st.integers(0, len(GOOD) * 8 - 1))
def test_a_credential_with_any_bit_flipped_is_refused(trust, bit):
    offered = bytearray(GOOD)
    offered[bit // 8] ^= 1 << bit % 8
    assert not believed(trust, bytes(offered))


@given(st.integers(0, len(GOOD) - 1))
def test_a_truncated_credential_is_refused(trust, length):
    assert not believed(trust, GOOD[:length])


@given(st.data())
def test_a_credential_with_bytes_put_in_or_taken_out_is_refused(trust, data):
    at = data.draw(st.integers(0, len(GOOD)))
    skip = data.draw(st.integers(0, 8))
    put = data.draw(st.binary(max_size=8))
    offered = GOOD[:at] + put + GOOD[at + skip :]
    assert believed(trust, offered) == (offered == GOOD)


def test_a_credential_in_another_encoding_or_with_trailing_bytes_is_malformed(trust):
    first = LEAF.certificate.public_bytes(Encoding.DER)
    for offered in (
        b"\xdc\x00\x02" + GOOD[1:],  # the array's length in three bytes
        GOOD + b"\x00",
        first,
        LEAF.pem,
        b"\x90",
        b"\x91\xc4\x00",
        b"\x91\xc5" + (len(first) + 1).to_bytes(2) + first + b"\x00",
        b"\x91" * 100_000,
    ):
        for ask in (lambda data: trust.accept(data, NOW.timestamp()), trust.recall):
            with pytest.raises(AnchorRefused) as why:
                ask(offered)
            assert why.value.cause == "malformed"


def test_an_oversize_credential_is_malformed(trust):
    eight = credential(LEAF, INTERMEDIATE, *[ROOT] * 6)
    trust.accept(eight, NOW.timestamp())
    for offered in (credential(LEAF, INTERMEDIATE, *[ROOT] * 7), bytes(CREDENTIAL_BYTES_MAX + 1)):
        with pytest.raises(AnchorRefused) as why:
            trust.accept(offered, NOW.timestamp())
        assert why.value.cause == "malformed"


def test_what_a_peer_wrote_into_its_certificate_stays_in_one_line(desk):
    loud = make("evil\nheliograph: all is well\x1b[2J" + "x" * 20, uris=("site:b",))
    refused("untrusted", desk, loud, match=r"evil\?heliograph")


def test_recall_believes_what_has_expired_since(trust):
    old = make_leaf(INTERMEDIATE, end=NOW - YEAR / 2)
    verifier = trust.recall(credential(old, INTERMEDIATE))
    assert verifier.fingerprint == old.certificate.fingerprint(hashes.SHA256()).hex()
    with pytest.raises(AnchorRefused):
        trust.accept(credential(old, INTERMEDIATE), NOW.timestamp())


# Signatures.


@pytest.mark.parametrize("kind", KEYS)
def test_a_signature_with_any_bit_flipped_cut_or_prolonged_is_refused(tmp_path, kind):
    root, intermediate, leaf = make_chain(kind)
    verifier = Desk(tmp_path, root).accept(leaf, intermediate)
    (tmp_path / "link.pem").write_bytes(leaf.pem)
    (tmp_path / "link.key").write_bytes(leaf.key_pem)
    (tmp_path / "link.key").chmod(0o600)
    signature = X509Signer(tmp_path / "link.pem", tmp_path / "link.key").sign(b"message")
    verifier.verify(b"message", signature)
    bits = range(0, len(signature) * 8, max(1, len(signature) // 25))
    flips = [signature[: b // 8] + bytes([signature[b // 8] ^ (1 << b % 8)]) + signature[b // 8 + 1 :] for b in bits]
    for forged in (*flips, b"", signature[:-1], signature + b"\x00", bytes(len(signature)), b"\x30\x00", bytes(10_000)):
        with pytest.raises(AuthenticationFailed, match=kind):
            verifier.verify(b"message", forged)


def test_the_signature_of_one_site_is_not_that_of_another(desk):
    other = make_leaf(INTERMEDIATE)
    verifier = desk.accept(LEAF, INTERMEDIATE)
    verifier.verify(b"m", sign(LEAF.key, b"m"))
    with pytest.raises(AuthenticationFailed):
        verifier.verify(b"m", sign(other.key, b"m"))
