"""ETSI GS QKD 020 V1.1.1 against what its published OpenAPI description says: names, codes, limits and shapes."""

import copy
import json
from pathlib import Path

import pytest

from heliograph.errors import InsufficientKeys, NotPermitted
from heliograph.kme import etsi020
from heliograph.kme.etsi020_records import Ack, AckStatus, ExtKey, ExtKeys, InterworkingError, Slug, Void
from heliograph.kme.supply import RequestRefused

PUBLISHED = json.loads((Path(__file__).parent / "etsi020/published.json").read_text())
ID = PUBLISHED["void_document"]["key_ids"][0]


def read(what, document):
    data = json.dumps(document).encode()
    if what == "ext_keys":
        return etsi020.read_ext_keys(data)
    return etsi020.read_acks(data) if what == "ack" else etsi020.read_void(data)


DOCUMENTS = {
    "ext_keys": (PUBLISHED["ext_keys_document"], ()),
    "key": (PUBLISHED["ext_keys_document"], ("keys", 0)),
    "ack": (PUBLISHED["ack_document"], (0,)),
    "key_id": (PUBLISHED["ack_document"], (0, "key_id_container", 0)),
    "void": (PUBLISHED["void_document"], ()),
}


def changed(what, change):
    """Return the published-shape document with one object in it changed."""
    document, path = copy.deepcopy(DOCUMENTS[what][0]), DOCUMENTS[what][1]
    part = document
    for step in path:
        part = part[step]
    change(part)
    return {"key": "ext_keys", "key_id": "ack"}.get(what, what), document


@pytest.mark.parametrize("what", PUBLISHED["members"])
def test_every_member_of_the_description_is_read_and_no_other(what):
    members = PUBLISHED["members"][what]
    extra = {"all_confirmation": False, "extension_mandatory": None}
    for name in members["required"]:
        kind, document = changed(what, lambda part, name=name: part.pop(name))
        with pytest.raises(InterworkingError):
            read(kind, document)
    for name in members["optional"]:
        kind, document = changed(what, lambda part, name=name: part.pop(name, None))
        assert read(kind, document)
        if name in extra and extra[name] is not None:
            kind, document = changed(what, lambda part, name=name: part.update({name: extra[name]}))
            assert read(kind, document)
    kind, document = changed(what, lambda part: part.update(colour="red"))
    with pytest.raises(InterworkingError):
        read(kind, document)


def test_what_is_written_has_the_members_of_the_description_only():
    key = ExtKey(ID, bytes(32))
    written = {
        "ext_keys": etsi020.ext_keys_document(ExtKeys((key,), "a", ("b",), "https://k/ack")),
        "void": etsi020.void_document(Void((), "a", ("b",), "https://k/ack")),
    }
    parts = {name: json.loads(data) for name, data in written.items()}
    (ack,) = json.loads(etsi020.acks_document([Ack((ID,), AckStatus.RELAYED, "a", ("b",), "said")]))
    parts |= {"key": parts["ext_keys"]["keys"][0], "ack": ack, "key_id": ack["key_id_container"][0]}
    for what, part in parts.items():
        members = PUBLISHED["members"][what]
        assert set(members["required"]) <= set(part) <= {*members["required"], *members["optional"]}, what


def test_the_synchronous_answer_is_the_array_that_ack_takes():
    acks = read("ack", PUBLISHED["ack_document"])
    assert read("ack", json.loads(etsi020.acks_document(acks)))[0].key_ids == acks[0].key_ids
    assert isinstance(json.loads(etsi020.acks_document(acks)), list)
    with pytest.raises(InterworkingError):
        read("ack", {"ack_containers": PUBLISHED["ack_document"]})


def test_statuses_and_error_types_are_those_of_the_description():
    assert sorted(AckStatus) == sorted(PUBLISHED["ack_status"])
    assert sorted(Slug) == sorted(PUBLISHED["errors"])
    for slug, (status, name) in PUBLISHED["errors"].items():
        found, body = etsi020.error_answer(InterworkingError(Slug(slug), "why"))
        document = json.loads(body)
        assert (found, document["status"], document["type"]) == (status, status, PUBLISHED["type"] + slug)
        assert document["title"] == slug.replace("-", " ")
        assert document["details"] == {name: "why"}


def test_refusals_of_the_supply_have_a_type_too_and_the_store_proves_nothing():
    for error, slug in (
        (NotPermitted("x"), "unauthorized"),
        (InsufficientKeys("x"), "insufficient-key-material"),
        (RequestRefused("x"), "missing-parameters"),
    ):
        assert json.loads(etsi020.error_answer(error)[1])["type"] == PUBLISHED["type"] + slug


@pytest.mark.parametrize(
    ("what", "limit", "make"),
    [
        ("void", "sae_id", lambda part, n: part.update(initiator_sae_id="s" * n)),
        ("void", "ack_callback_url", lambda part, n: part.update(ack_callback_url="https://k/".ljust(n, "a"))),
        ("ack", "message", lambda part, n: part.update(message="m" * n)),
        ("void", "extension_members", lambda part, n: part.update(extension={f"E1_{i}": i for i in range(n)})),
        ("ack", "key_ids_of_an_ack", lambda part, n: part.update(key_id_container=[{"key_id": ID}] * n)),
    ],
)
def test_each_limit_of_the_description_is_served_to_its_end_and_no_further(what, limit, make):
    most = PUBLISHED["limits"][limit]
    assert read(*changed(what, lambda part: make(part, most)))
    with pytest.raises(InterworkingError):
        read(*changed(what, lambda part: make(part, most + 1)))


def test_as_many_acknowledgements_as_the_description_allows_are_taken_at_once():
    most = PUBLISHED["limits"]["acks"]
    assert len(read("ack", PUBLISHED["ack_document"] * most)) == most
    with pytest.raises(InterworkingError):
        read("ack", PUBLISHED["ack_document"] * (most + 1))


@pytest.mark.parametrize("sae", ["a", "urn:sae:4", "a/b?c#d", "[x]@y!$&'()*+,;=", "%41%ff", "s" * 64])
def test_an_sae_id_has_the_characters_of_a_uri(sae):
    assert read(*changed("void", lambda part: part.update(initiator_sae_id=sae))).initiator == sae


@pytest.mark.parametrize("sae", ["", " ", "a b", "\u00e4", "a%4", "a%zz", 'a"b', "a\\b", "a\n", "{a}"])
def test_an_sae_id_with_another_character_is_refused(sae):
    with pytest.raises(InterworkingError, match="RFC 3986"):
        read(*changed("void", lambda part: part.update(initiator_sae_id=sae)))
