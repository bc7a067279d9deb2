"""The call before a pad is fetched: only the peer's answer to this very call counts."""

from __future__ import annotations

import pytest

from heliograph.errors import RemoteProtocolError
from heliograph.establishment.combiner import Combiner
from heliograph.establishment.exchange import Settings
from heliograph.establishment.greeting import answer_call, call, check_here
from heliograph.establishment.messages import Answer, PeerKeys, Tagged, tagged
from heliograph.establishment.policy import Policy, Requirement

NONCE, ANOTHER = bytes(range(16)), bytes(16)


def settings(secret: bytes = b"k" * 32) -> Settings:
    return Settings(
        "sae-a", "sae-b", Requirement(Policy.QKD_ONLY), Combiner.HKDF_SHA_512, "one-time-pad", PeerKeys.derive(secret)
    )


def test_the_peer_answers_a_call_and_an_old_answer_is_none():
    here = answer_call(settings(), call(settings(), NONCE))
    assert here is not None
    check_here(settings(), NONCE, here)
    with pytest.raises(RemoteProtocolError, match="another call"):
        check_here(settings(), ANOTHER, here)


def test_who_has_another_peer_key_neither_calls_nor_answers():
    stranger = settings(b"s" * 32)
    with pytest.raises(RemoteProtocolError, match="wrong tag"):
        answer_call(settings(), call(stranger, NONCE))
    forged = answer_call(stranger, call(stranger, NONCE))
    with pytest.raises(RemoteProtocolError, match="wrong tag"):
        check_here(settings(), NONCE, forged)


def test_a_call_sent_back_is_no_answer_and_every_changed_byte_is_seen():
    asked = call(settings(), NONCE)
    with pytest.raises(RemoteProtocolError, match="wrong tag"):
        check_here(settings(), NONCE, asked)
    here = answer_call(settings(), asked)
    for at in range(len(here.signed)):
        bent = bytearray(here.signed)
        bent[at] ^= 1
        with pytest.raises(RemoteProtocolError):
            check_here(settings(), NONCE, Tagged(bytes(bent), here.tag))


def test_an_answer_to_an_offer_is_none_to_a_call():
    other = tagged(Answer(NONCE, ["qkd"], [NONCE], bytes(48)), settings().keys)
    with pytest.raises(RemoteProtocolError, match="another call"):
        check_here(settings(), NONCE, other)
