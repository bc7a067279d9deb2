"""One hop's message: every byte of it is covered, and a pad is as long as its share."""

import os
import uuid

import msgspec
import pytest

from heliograph.errors import AuthenticationFailed, ConfigurationError, HeliographError, RemoteProtocolError
from heliograph.kme.one_time import read_request
from heliograph.network.hop import keys_needed, open_share, pad_ids, seal_hop
from heliograph.network.letters import (
    Hop,
    Receipt,
    Status,
    encode,
    read_carry,
    read_letter,
    read_receipt,
    refused,
)
from heliograph.types import StoredKey


def keys(number, size=32):
    return [StoredKey(str(uuid.uuid4()), "node-a", "node-r", os.urandom(size)) for _ in range(number)]


@pytest.mark.parametrize(("share", "size"), [(1, 32), (32, 32), (33, 32), (200, 32), (200, 64)])
def test_what_was_sealed_is_opened_with_the_named_keys(share, size):
    secret = os.urandom(share)
    taken = keys(keys_needed(share, size), size)
    hop = seal_hop(taken, b"letter", 1, 1, secret)
    body = hop.keys.open(read_request(hop.wire))
    carry = read_carry(body)
    assert pad_ids(carry) == tuple(key.key_id for key in taken[2:])
    assert open_share(carry, taken[2:]) == secret
    assert secret not in hop.wire or share == 1


def test_a_pad_too_few_or_too_many_is_refused():
    taken = keys(6)
    hop = seal_hop(taken[:4], b"letter", 1, 1, bytes(64))
    carry = read_carry(hop.keys.open(read_request(hop.wire)))
    for number in (1, 3):
        with pytest.raises(HeliographError):
            open_share(carry, taken[2 : 2 + number])
    for number in (3, 6):
        with pytest.raises(HeliographError):
            seal_hop(taken[:number], b"letter", 1, 1, bytes(64))


def test_every_byte_of_a_hop_is_covered():
    hop = seal_hop(keys(3), b"letter", 1, 1, bytes(20))
    for at in range(len(hop.wire)):
        forged = hop.wire[:at] + bytes([hop.wire[at] ^ 1]) + hop.wire[at + 1 :]
        with pytest.raises((RemoteProtocolError, AuthenticationFailed)):
            hop.keys.open(read_request(forged))
    for at in range(len(hop.wire)):
        with pytest.raises((RemoteProtocolError, AuthenticationFailed)):
            hop.keys.open(read_request(hop.wire[:at]))


def test_short_keys_are_no_pads():
    with pytest.raises(ConfigurationError):
        keys_needed(32, 16)


@pytest.mark.parametrize("read", [read_letter, read_carry, read_receipt])
@pytest.mark.parametrize("junk", [b"", b"\xc0", b"\x90", b"\x81" * 400, b"\x91" * 3000, os.urandom(64)], ids=len)
def test_junk_is_refused_in_one_line(read, junk):
    with pytest.raises(RemoteProtocolError):
        read(junk)


@pytest.mark.parametrize(
    "change",
    [
        {"suspects": (300,)},
        {"suspects": (0,)},
        {"suspects": (-1,)},
        {"reason": "\x1b[2J"},
        {"reason": "two\nlines"},
        {"reason": "x" * 501},
        {"hops": (Hop("link", -1, 0, ""),)},
        {"hops": (Hop("link", 2**40, 0, ""),)},
        {"hops": (Hop("link", 1, 0, ""),) * 9},
    ],
    ids=lambda change: str(change)[:40],
)
def test_a_receipt_that_would_harm_its_reader_is_refused(change):
    """A relay writes it: what it says goes to accounts, terminals and further checks."""
    assert read_receipt(encode(Receipt(Status.REFUSED, reason="why not"))).reason == "why not"
    with pytest.raises(RemoteProtocolError):
        read_receipt(encode(msgspec.structs.replace(Receipt(Status.STORED), **change)))


def test_a_refusal_is_one_line_of_bounded_length():
    assert refused("a\nb" + "x" * 1000).reason == "a b" + "x" * 497
