"""The outside of OpenPGP files: what is read, and that nothing else gets through."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heliograph.authentication.anchors.openpgp_listing import ListingUnreadable, read_listing
from heliograph.authentication.anchors.openpgp_packets import (
    Packet,
    Unreadable,
    blocks_of_file,
    certificates,
    is_weak_key,
    key_algorithm,
    key_fingerprint,
    read_packets,
)

# The certificate of RFC 9580 A.1 (version 4, EdDSA): its primary key, with the fingerprint printed there.
RFC_KEY = "98330453f35f0b16092b06010401da470f010107403f098994bdd916ed4053197934e4a87c80733a1280d62f8010992e43ee3b2406"
RFC_FINGERPRINT = "c959bdbafa32a2f89a153b678cfde12197965a9a"


def test_the_sample_key_of_the_standard_has_the_fingerprint_printed_there():
    (packet,) = read_packets(bytes.fromhex(RFC_KEY))
    assert key_fingerprint(packet) == RFC_FINGERPRINT
    assert key_algorithm(packet) == "ed25519"
    assert is_weak_key([packet]) is None


@pytest.mark.parametrize(
    ("framed", "length"),
    [(b"\xc2\x03", 3), (b"\xc2\xc0\x08", 200), (b"\xc2\xff\0\0\x21\0", 8448), (b"\x88\x03", 3), (b"\x89\x01\0", 256)],
)
def test_both_framings_of_the_standard_are_read(framed, length):
    body = bytes(range(256)) * 33
    (packet,) = read_packets(framed + body[:length])
    assert (packet.tag, packet.body, packet.raw) == (2, body[:length], framed + body[:length])


@pytest.mark.parametrize("bad", ["02", "c2", "c203aa", "8b00", "c2e0aa", "c2ff0000", "89", "c2c0", "c20100ff"])
def test_what_is_not_whole_packets_of_known_length_is_refused(bad):
    with pytest.raises(Unreadable):
        read_packets(bytes.fromhex(bad))


@given(st.binary(max_size=300))
def test_every_byte_belongs_to_one_packet_or_all_are_refused(data):
    try:
        packets = read_packets(data)
    except Unreadable:
        return
    assert b"".join(packet.raw for packet in packets) == data


@given(st.binary(max_size=300), st.booleans())
def test_only_certificates_get_through(data, secret):
    try:
        found = certificates(read_packets(b"\xc6\x06\x04\0\0\0\0\x16" + data), secret)
    except Unreadable:
        return
    assert {packet.tag for one in found for packet in one} <= {2, 6, 13, 14, 17}


@given(st.lists(st.binary(min_size=1, max_size=100), max_size=4), st.sampled_from([b"\n", b"\r\n"]))
def test_every_armoured_block_of_a_file_is_read(contents, end):
    def armour(data):
        lines = [b"-----BEGIN PGP PUBLIC KEY BLOCK-----", b"Comment: of Ian", b"", base64.b64encode(data), b"=AbCd"]
        return end.join([*lines, b"-----END PGP PUBLIC KEY BLOCK-----", b""])

    assert blocks_of_file(b"from Ian" + end + b"".join(map(armour, contents))) == contents


def test_a_packet_is_printed_without_its_content():
    assert repr(Packet(5, b"secret", b"\xc5\x06secret")) == "<packet 5, 6 bytes>"


def test_weak_and_unknown_kinds_of_key_are_named():
    def key(algorithm, rest):
        return Packet(6, b"\x04\0\0\0\0" + bytes([algorithm]) + rest, b"")

    assert is_weak_key([key(1, (1024).to_bytes(2, "big"))]) == "rsa1024"
    assert is_weak_key([key(1, (3072).to_bytes(2, "big"))]) is None
    assert is_weak_key([key(17, b"")]) == "dsa"
    assert is_weak_key([key(22, b"\x01\x00")]) == "algorithm-22"
    assert is_weak_key([Packet(6, b"", b"")]) == "algorithm-0"


PUB = b"pub:-:255:22:0774C615E6B9E67A:1795664439:1858736439::-:::scSC:::::ed25519:::0:\n"
FPR = b"fpr:::::::::6BD29B6B133A984D4EFF52690774C615E6B9E67A:\n"


def test_a_name_is_read_back_exactly():
    listing = PUB + FPR + b"uid:-::::1::5C::A\\x3ab\\x5cn\\n\xc3\xa9::::::::::0:\n"
    (key,) = read_listing(listing).values()
    assert key.user_ids[0].name == "A:b\\n\né"
    assert key.primary.capabilities == "sc"


@pytest.mark.parametrize("bad", [b"fpr:", b"uid:-:", PUB, PUB + FPR + PUB + FPR, PUB + FPR + b"sig:!:\n", b"pub:-:x\n"])
def test_a_listing_that_is_not_understood_is_refused(bad):
    with pytest.raises(ListingUnreadable):
        read_listing(bad)


@given(st.binary(max_size=200))
def test_no_listing_makes_the_reader_fail_otherwise(data):
    for text in (data, PUB + FPR + data, PUB + FPR + b"uid:" + data):
        try:
            read_listing(text)
        except ListingUnreadable:
            continue
