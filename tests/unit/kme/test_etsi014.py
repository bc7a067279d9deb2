import contextlib
import json
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heliograph.errors import (
    ConfigurationError,
    HeliographError,
    InsufficientKeys,
    KeyNotFound,
    KeySupplyError,
    NotPermitted,
    StoreUnavailable,
)
from heliograph.kme import etsi014, etsi014_consumer
from heliograph.kme.strict_json import MalformedDocument, read_document
from heliograph.kme.supply import Limits, OwnerUnreachable, RequestRefused, SupplyStatus
from heliograph.types import StoredKey

LIMITS = Limits()
KEY_IDS = st.lists(st.uuids().map(str), min_size=1, max_size=5, unique=True)


@given(number=st.integers(1, 128))
def test_a_request_that_is_written_is_read_back(number):
    assert etsi014.read_key_request(etsi014_consumer.key_request_document(number, 256), LIMITS).number == number
    assert etsi014.read_key_request_query(f"number={number}&size=256", LIMITS).number == number


@given(KEY_IDS)
def test_key_ids_that_are_written_are_read_back_in_order(key_ids):
    document = etsi014_consumer.key_ids_document(key_ids)
    assert etsi014.read_key_ids(document, LIMITS).key_ids == tuple(key_ids)
    assert etsi014.read_key_ids(
        document.upper().replace(b"KEY_IDS", b"key_IDs").replace(b"KEY_ID", b"key_ID"), LIMITS
    ).key_ids == tuple(key_ids)


@given(KEY_IDS, st.binary(min_size=32, max_size=32))
def test_keys_that_are_delivered_are_read_back(key_ids, material):
    stored = [StoredKey(key_id, "sae-a", "sae-b", material) for key_id in key_ids]
    read = etsi014_consumer.read_container(etsi014.container_document(stored), len(stored), 256)
    assert [(key.key_id, key.material) for key in read] == [(key_id, material) for key_id in key_ids]


def test_a_status_that_is_written_is_read_back():
    status = SupplyStatus("kme-a", "kme-b", "sae-a", "sae-b", 256, 7, 1000, 128)
    assert etsi014_consumer.read_status(etsi014.status_document(status)) == status


def test_the_container_has_the_members_of_clause_6_3():
    key_id = str(uuid.UUID(int=1))
    document = json.loads(etsi014.container_document([StoredKey(key_id, "sae-a", "sae-b", bytes(range(32)))]))
    assert document == {"keys": [{"key_ID": key_id, "key": "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="}]}


@given(
    st.one_of(
        st.binary(max_size=200),
        st.recursive(st.none() | st.text() | st.integers() | st.booleans(), st.lists).map(
            lambda document: json.dumps(document).encode()
        ),
    )
)
def test_any_bytes_are_a_request_or_a_refusal(body):
    with contextlib.suppress(KeySupplyError):
        assert 1 <= etsi014.read_key_request(body, LIMITS).number <= 128
    with contextlib.suppress(KeySupplyError):
        assert etsi014.read_key_ids(body, LIMITS).key_ids


@given(st.text(max_size=80))
def test_any_query_is_a_request_or_a_refusal(query):
    with contextlib.suppress(KeySupplyError):
        assert 1 <= etsi014.read_key_request_query(query, LIMITS).number <= 128
    with contextlib.suppress(KeySupplyError):
        assert len(etsi014.read_key_ids_query(query).key_ids) == 1


@given(st.binary(max_size=200))
def test_any_bytes_are_an_answer_or_a_refusal(document):
    with pytest.raises(KeySupplyError):
        etsi014_consumer.read_container(document, 1, 256)
    with pytest.raises(KeySupplyError):
        etsi014_consumer.read_status(document)
    assert "\n" not in etsi014_consumer.read_error(document)


def test_a_refused_answer_is_not_quoted():
    document = b'{"keys": [{"key_ID": "x", "key": "c2VjcmV0LW1hcmtlcg==", "secret-marker": 1}, "secret-marker"]}'
    with pytest.raises(KeySupplyError) as refusal:
        etsi014_consumer.read_container(document, 1, 256)
    assert "secret-marker" not in str(refusal.value)


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b" ",
        b"{}}",
        b"{'a': 1}",
        b"[1,]",
        b"NaN",
        b"-Infinity",
        b'{"a":1,"a":1}',
        b'[{"a":{"b":1,"b":2}}]',
        b'"\\ud800"',
        b'{"\\udfff":1}',
        b"\xef\xbb\xbf{}",
        b"\xff",
        b"[" * 100_000,
        b'{"a":' * 50_000,
        b"\x00{}",
        b"01",
    ],
)
def test_doubtful_json_is_refused(document):
    with pytest.raises(MalformedDocument):
        read_document(document)


def test_sound_json_is_read():
    assert read_document(b' {"a": [1, -2.5, "\xc3\xa4", null, true, {}]} ') == {"a": [1, -2.5, "ä", None, True, {}]}


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (NotPermitted("why"), 401, "Unauthorized"),
        (KeyNotFound("why"), 400, "one or more keys specified are not found on KME"),
        (RequestRefused("why"), 400, "why"),
        (MalformedDocument("why"), 400, "Bad request format: why"),
        (KeySupplyError("why"), 400, "why"),
        (InsufficientKeys("why"), 503, "why"),
        (OwnerUnreachable("why"), 503, "why"),
        (StoreUnavailable("store /secret/path: why"), 503, "Error on server side"),
        (ConfigurationError("/secret/path"), 503, "Error on server side"),
        (HeliographError("/secret/path"), 503, "Error on server side"),
    ],
)
def test_each_error_has_the_status_of_the_standards_tables(error, status, message):
    found, document = etsi014.error_answer(error)
    assert (found, json.loads(document)["message"]) == (status, message)
    assert b"/secret/path" not in document


@pytest.mark.parametrize("size", [7, 0, -8, 260])
def test_a_key_size_that_is_no_number_of_bytes_is_not_configured(size):
    with pytest.raises(ConfigurationError, match="multiple of 8"):
        Limits(key_size_bits=size)
