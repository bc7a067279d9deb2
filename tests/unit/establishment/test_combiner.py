"""The combiner's output by a second way of computing it, and that everything it should depend on changes it."""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import replace

import pytest

from heliograph.errors import LocalProtocolError
from heliograph.establishment.combiner import Combiner, Context, cat_kdf, combine, framed

SECRETS = [bytes([i]) * 32 for i in (1, 2, 3)]
PSK = b"p" * 32
CONTEXT = Context(
    "sae-a", "sae-b", bytes(16), "hybrid-required", ("qkd", "ml-kem-768", "x25519"), "aes-256-gcm", b"offer", b"answer"
)


def hkdf(digest: str, salt: bytes, material: bytes, info: bytes, size: int) -> bytes:
    """RFC 5869 from its text, with the standard library only."""
    key = hmac.digest(salt or bytes(hashlib.new(digest).digest_size), material, digest)
    out, block = b"", b""
    for counter in range(1, 256):
        if len(out) >= size:
            break
        block = hmac.digest(key, block + info + bytes([counter]), digest)
        out += block
    return out[:size]


def test_the_second_way_gives_the_published_hkdf_vector():
    # RFC 5869 A.1.
    okm = hkdf("sha256", bytes(range(13)), b"\x0b" * 22, bytes(range(0xF0, 0xFA)), 42)
    assert okm.hex().startswith("3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf")


def test_the_default_combiner_is_hkdf_over_framed_parts():
    def frame(part):
        return len(part).to_bytes(4, "big") + part

    public = b"".join(
        frame(part)
        for part in (
            bytes(16),
            b"sae-a",
            b"sae-b",
            b"hybrid-required",
            b"aes-256-gcm",
            b"qkd",
            b"ml-kem-768",
            b"x25519",
        )
    )
    said = hashlib.sha512(frame(b"offer") + frame(b"answer")).digest()
    info = frame(b"heliograph/1 combined key") + public + frame(said) + (32).to_bytes(4, "big")
    material = b"".join(frame(secret) for secret in (*SECRETS, PSK))
    assert combine(Combiner.HKDF_SHA_512, SECRETS, CONTEXT, PSK) == hkdf("sha512", b"", material, info, 32)


def test_catkdf_is_what_ts_103_744_says():
    # 8.2: secret = psk || k_1 || ... || k_n; 7.2.3: hash of length-prefixed parts; 7.4.2: HKDF with the label as salt.
    formatted = hashlib.sha384()
    for part in (b"context", b"MA", b"MB"):
        formatted.update(len(part).to_bytes(4, "big") + part)
    expected = hkdf("sha384", b"label", PSK + SECRETS[0] + SECRETS[1], formatted.digest(), 48)
    assert cat_kdf(PSK, SECRETS[:2], b"label", b"context", b"MA", b"MB", 48) == expected


@pytest.mark.parametrize("kind", list(Combiner))
def test_the_key_changes_with_every_secret_and_every_part_of_the_context(kind):
    keys = [combine(kind, SECRETS, CONTEXT, PSK), combine(kind, SECRETS, CONTEXT, b"q" * 32)]
    for index in range(3):
        other = list(SECRETS)
        other[index] = bytes(32)
        keys.append(combine(kind, other, CONTEXT, PSK))
    keys.append(combine(kind, SECRETS[::-1], CONTEXT, PSK))
    changes = (
        {"initiator": "sae-c"},
        {"responder": "sae-c"},
        {"initiator": "sae-as", "responder": "ae-b"},  # moved across a border between two parts
        {"key_id": b"\1" * 16},
        {"policy": "pqc-only"},
        {"components": ("qkd", "ml-kem-1024", "x25519")},
        {"usage": "chacha20-poly1305"},
        {"offered": b"offe", "answered": b"ranswer"},
        {"answered": b"answers"},
    )
    keys.extend(combine(kind, SECRETS, replace(CONTEXT, **change), PSK) for change in changes)
    assert len(set(keys)) == len(keys)


@pytest.mark.parametrize("secrets", [[], SECRETS[:2], [*SECRETS[:2], b"short"], [*SECRETS, bytes(32)]])
def test_a_missing_or_short_component_gives_no_key(secrets):
    with pytest.raises(LocalProtocolError):
        combine(Combiner.HKDF_SHA_512, secrets, CONTEXT, PSK)


def test_framing_keeps_parts_apart():
    assert framed(b"ab") + framed(b"c") != framed(b"a") + framed(b"bc")
