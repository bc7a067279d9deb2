"""The computational methods against published vectors, one file each, and GMAC against a slow oracle of its own."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES256
from cryptography.hazmat.primitives.ciphers.modes import ECB
from hypothesis import given
from hypothesis import strategies as st

from heliograph import errors
from heliograph.authentication.methods.registry import TAG_METHODS

HERE = Path(__file__).parent
HMAC_FILES = sorted(HERE.glob("hmac_sha_*/*.txt"))
GMAC_FILES = sorted(HERE.glob("aes_gmac/*.txt"))
FIXED_NONCE = bytes(12)
GMAC = TAG_METHODS["aes-gmac"]


def read(path):
    entries = dict(
        line.split(": ", 1) if ": " in line else (line.rstrip(":"), "") for line in path.read_text().splitlines()
    )
    assert set(entries) - {"nonce"} == {"source", "key", "message", "tag", "expect"}
    hexadecimal = {name: bytes.fromhex(text) for name, text in entries.items() if name not in {"source", "expect"}}
    return {**entries, **hexadecimal}


def method_of(path):
    return TAG_METHODS[path.parent.name.replace("_", "-")]


def slow_gmac(key, nonce, message):
    """SP 800-38D 6.3, 6.4 and 7.1 with whole numbers and one AES block at a time: an independent oracle."""

    def aes(block):
        return Cipher(AES256(key), ECB()).encryptor().update(block)

    def times(x, y):
        product, v = 0, y
        for bit in range(127, -1, -1):
            product ^= v if x >> bit & 1 else 0
            v = v >> 1 ^ (0xE1 << 120 if v & 1 else 0)
        return product

    h = int.from_bytes(aes(bytes(16)), "big")
    blocks = message + bytes(-len(message) % 16) + (8 * len(message)).to_bytes(8, "big") + bytes(8)
    total = 0
    for start in range(0, len(blocks), 16):
        total = times(total ^ int.from_bytes(blocks[start : start + 16], "big"), h)
    mask = aes(nonce + b"\0\0\0\x01")
    return (total ^ int.from_bytes(mask, "big")).to_bytes(16, "big")


@pytest.mark.parametrize("path", HMAC_FILES, ids=lambda p: f"{p.parent.name}-{p.stem}")
def test_vector(path):
    vector, method = read(path), method_of(path)
    if vector["expect"] == "success":
        assert method.tag(vector["key"], (vector["message"],)) == vector["tag"]
        method.check(vector["key"], (vector["message"],), vector["tag"])
    else:
        with pytest.raises(getattr(errors, vector["expect"])):
            method.check(vector["key"], (vector["message"],), vector["tag"])


@pytest.mark.parametrize("path", GMAC_FILES, ids=lambda p: p.stem)
def test_gmac_vector(path):
    """Published vectors have nonces of their own: those judge the oracle, which judges the method below."""
    vector = read(path)
    right = slow_gmac(vector["key"], vector["nonce"], vector["message"]) == vector["tag"]
    assert right == (vector["expect"] == "success")
    if vector["nonce"] == FIXED_NONCE:
        if right:
            GMAC.check(vector["key"], (vector["message"],), vector["tag"])
        else:
            with pytest.raises(getattr(errors, vector["expect"])):
                GMAC.check(vector["key"], (vector["message"],), vector["tag"])


def test_the_vectors_are_all_there():
    sources = {read(path)["source"] for path in (*HMAC_FILES, *GMAC_FILES)}
    for section in ("4.2,", "4.3,", "4.4,", "4.5,", "4.7,", "4.8,"):
        assert any(source.startswith(f"RFC 4231 {section}") for source in sources)
    nonces = [read(path)["nonce"] for path in GMAC_FILES if read(path)["expect"] == "success"]
    assert len(nonces) == 3
    assert FIXED_NONCE in nonces


@given(st.binary(min_size=32, max_size=32), st.lists(st.binary(max_size=50), max_size=4))
def test_gmac_is_that_of_the_slow_oracle_under_the_fixed_nonce(key, parts):
    assert GMAC.tag(key, parts) == slow_gmac(key, FIXED_NONCE, b"".join(parts))
