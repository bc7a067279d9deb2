"""Control messages and derived keys: strict parsing, independent derivation, nothing secret in a repr."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import uuid

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from heliograph.consumer import messages
from heliograph.consumer.keys import Proven, Role, check_proof, derive, key_id_text, proof
from heliograph.errors import KeySupplyError, RemoteProtocolError
from heliograph.types import DeliveredKey

KEY = DeliveredKey("9f2c1c1e-4d3b-4e52-9c1b-0a1b2c3d4e5f", bytes(range(32)))
key_ids = st.binary(min_size=16, max_size=16)
proofs = st.binary(min_size=32, max_size=32)
numbers = st.integers(1, 2**62 - 1)


@given(
    st.one_of(
        st.builds(messages.Prepare, key_ids, st.none() | key_ids, numbers, proofs),
        *(
            st.builds(kind, key_ids, numbers, proofs)
            for kind in (messages.Ready, messages.Commit, messages.Confirm, messages.RekeyRequest)
        ),
        st.builds(messages.Refusal, key_ids, numbers, st.sampled_from(["unknown key", "wrong proof"])),
        st.builds(messages.Standing, st.none() | key_ids, st.none() | numbers, st.none() | proofs),
    )
)
def test_what_is_encoded_is_decoded(message):
    encoded = messages.encode(message)
    assert messages.decode(encoded) == message
    assert len(encoded) < 256
    with pytest.raises(RemoteProtocolError):
        messages.decode(encoded + b"\0")
    with pytest.raises(RemoteProtocolError):
        messages.decode(encoded[:-1])


@given(st.binary(max_size=1100))
def test_random_bytes_give_a_message_or_a_refusal(data):
    with contextlib.suppress(RemoteProtocolError):
        assert isinstance(messages.decode(data), messages.Message)


@pytest.mark.parametrize(
    "fields",
    [
        {"type": "commit", "key_id": bytes(16), "number": 1, "proof": bytes(32), "more": 1},
        {"type": "commit", "key_id": bytes(15), "number": 1, "proof": bytes(32)},
        {"type": "commit", "key_id": bytes(16), "number": 0, "proof": bytes(32)},
        {"type": "commit", "key_id": bytes(16), "number": 2**63, "proof": bytes(32)},
        {"type": "commit", "key_id": bytes(16), "number": True, "proof": bytes(32)},
        {"type": "commit", "key_id": bytes(16), "number": 1, "proof": bytes(31)},
        {"type": "commit", "key_id": bytes(16), "number": 1},
        {"type": "refusal", "key_id": bytes(16), "number": 1, "reason": "no"},
        {"type": "else"},
        {},
    ],
    ids=str,
)
def test_a_message_with_a_wrong_field_is_refused(fields):
    with pytest.raises(RemoteProtocolError):
        messages.decode(msgspec.msgpack.encode(fields))


def test_derived_keys_are_hkdf_with_a_label_for_each_use():
    def hkdf(info):  # RFC 5869 with one output block, written out
        extracted = hmac.digest(bytes(32), KEY.material, hashlib.sha256)
        return hmac.digest(extracted, info + b"\x01", hashlib.sha256)

    keys = derive(KEY)
    base = b"heliograph/1 tunnel" + uuid.UUID(KEY.key_id).bytes + b"initiator>responder\0"
    assert keys.sending_key(Role.INITIATOR).to_bytes() == hkdf(base + b"initiator records")
    assert keys.sending_key(Role.RESPONDER).to_bytes() == hkdf(base + b"responder records")
    assert keys.confirmation_key.to_bytes() == hkdf(base + b"confirmation")
    assert key_id_text(keys.key_id) == KEY.key_id


def test_key_material_prints_nowhere():
    keys = derive(KEY)
    shown = repr(keys) + repr(KEY)
    for secret in (KEY.material, keys.initiator_key.to_bytes(), keys.confirmation_key.to_bytes()):
        assert secret.hex() not in shown
        assert repr(secret) not in shown


@pytest.mark.parametrize("size", [0, 16, 31, 33, 64])
def test_a_key_of_another_size_is_refused_with_a_remedy(size):
    with pytest.raises(KeySupplyError, match="key size"):
        derive(DeliveredKey(KEY.key_id, bytes(size)))


def test_a_key_id_that_is_no_uuid_is_refused():
    with pytest.raises(KeySupplyError, match="UUID"):
        derive(DeliveredKey("key-1", bytes(32)))


def test_a_proof_holds_for_one_kind_key_previous_key_and_number_only():
    keys, other = derive(KEY), derive(DeliveredKey(KEY.key_id, bytes(32)))
    good = proof(keys, Proven.READY, b"p" * 16, 7)
    check_proof(keys, Proven.READY, b"p" * 16, 7, good)
    for wrong in (
        (other, Proven.READY, b"p" * 16, 7),
        (keys, Proven.PREPARE, b"p" * 16, 7),
        (keys, Proven.READY, b"q" * 16, 7),
        (keys, Proven.READY, None, 7),
        (keys, Proven.READY, b"p" * 16, 8),
    ):
        with pytest.raises(RemoteProtocolError):
            check_proof(*wrong, good)
    # No previous key is not the same as the all-zero key_ID.
    with pytest.raises(RemoteProtocolError):
        check_proof(keys, Proven.READY, bytes(16), 7, proof(keys, Proven.READY, None, 7))
