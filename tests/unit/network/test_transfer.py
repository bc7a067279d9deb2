"""Shares over several paths: what a relay that lies can do, and what is known of it afterwards."""

from itertools import permutations

import msgspec
import pytest
from network_ends import END, Target, bent, route, transfer

from heliograph.errors import AuthenticationFailed, ConfigurationError, RemoteProtocolError
from heliograph.network.letters import Receipt, Status, encode, read_letter
from heliograph.network.parcels import ACK_KEY_BYTES, parcel_bytes
from heliograph.network.routes import Route, check_letter
from heliograph.network.topology import Topology

EDGES = Topology([edge for n in (1, 2, 3) for edge in (("a", f"r{n}"), (f"r{n}", "c"))])


@pytest.mark.parametrize(("shares", "threshold"), [(1, 1), (2, 2), (3, 2), (3, 3)])
def test_the_target_has_what_the_origin_drew_and_says_so(shares, threshold):
    for order in permutations(range(1, shares + 1)):
        sent, target = transfer(route(shares, threshold)), Target()
        receipts = [target.take(sent, number) for number in order]
        assert [r.status for r in receipts[: threshold - 1]] == [Status.HELD] * (threshold - 1)
        assert all(r == receipts[-1] for r in receipts[threshold - 1 :])  # what comes late hears the same again
        assert sent.check(receipts[-1]) == ()
        assert target.stored == [sent.secret]


@pytest.mark.parametrize("proved", [False, True])
def test_a_share_that_was_changed_is_left_out_and_its_path_named(proved):
    """Two of three: the two honest ones vouch for each other, whichever lies and in whatever order they come."""
    way = route(3, 2, proved=proved)
    sent = transfer(way)
    size = parcel_bytes(sent.letter, proved=proved)
    for order in permutations((1, 2, 3)):
        for liar in (1, 2, 3):
            for at in (0, ACK_KEY_BYTES, size // 2, size - 1):  # the share, the other paths' keys, its tags
                target = Target(proved=proved)
                receipts = [target.take(sent, n, bent(sent.parcels[n - 1], at) if n == liar else None) for n in order]
                assert target.stored == [sent.secret]
                suspects = sent.check(next(r for r in receipts if r.status is Status.STORED))
                assert suspects in ((), (way.paths[liar - 1],))
                # It came before there were enough others, and lied about more than one of its tags.
                if order[-1] != liar and (proved or at == 0):
                    assert suspects == (way.paths[liar - 1],)


def test_where_all_shares_are_needed_a_lie_stores_nothing_and_names_whom_it_can():
    plain, proved = transfer(route(2, 2)), transfer(route(2, 2, proved=True))
    target = Target()
    target.take(plain, 1, bent(plain.parcels[0]))
    receipt = target.take(plain, 2)
    assert (receipt.status, receipt.suspects, target.stored) == (Status.REFUSED, (1, 2), [])
    # With a secret between the ends it is one of the two, and a lone relay is caught as well.
    target = Target(proved=True)
    assert target.take(proved, 1, bent(proved.parcels[0])).suspects == (1,)
    assert target.take(proved, 2).suspects == (1,)
    lone, target = transfer(route(1, 1, proved=True)), Target(proved=True)
    receipt = target.take(lone, 1, bent(lone.parcels[0]))
    assert (receipt.status, receipt.suspects, target.stored) == (Status.REFUSED, (1,), [])


def test_every_byte_of_a_parcel_is_vouched_for():
    sent = transfer(route(2, 2), number=1)
    for at in range(len(sent.parcels[0])):
        target = Target()
        target.take(sent, 2)
        assert target.take(sent, 1, bent(sent.parcels[0], at)).status is Status.REFUSED, at


def test_a_relay_cannot_acknowledge_in_the_targets_place():
    sent = transfer(route(2, 2))
    for ack in (bytes(16), sent.parcels[0][:16]):
        with pytest.raises(AuthenticationFailed):
            sent.check(Receipt(Status.STORED, ack))
    target = Target()
    target.take(sent, 1)
    true = target.take(sent, 2)
    for forged in (
        msgspec.structs.replace(true, suspects=(1,)),
        msgspec.structs.replace(true, answer=(b"a", b"")),
        msgspec.structs.replace(true, status=Status.HELD),
        msgspec.structs.replace(true, ack=bent(true.ack)),
    ):
        with pytest.raises(AuthenticationFailed):
            sent.check(forged)
    with pytest.raises(AuthenticationFailed):
        transfer(route(2, 2), seed=2).check(true)  # of another transfer


def test_keys_that_are_not_the_same_at_both_ends_are_not_acknowledged():
    """Were all tags of the shares broken: the acknowledgement is over the keys themselves."""
    sent = transfer(route(1, 1))
    target = Target()
    receipt = target.take(sent, 1, bent(sent.parcels[0], ACK_KEY_BYTES))
    assert receipt.status is Status.STORED  # a lone relay is believed by the target
    with pytest.raises(AuthenticationFailed):
        sent.check(receipt)


def test_a_letter_that_was_changed_meets_no_share_of_the_true_one():
    sent, target = transfer(route(2, 2)), Target()
    other = msgspec.structs.replace(sent.letter, key_ids=sent.letter.key_ids[::-1])
    target.take(sent, 1, letter=other, wire=encode(other))
    assert target.take(sent, 2).status is Status.HELD
    assert target.take(sent, 2, letter=other, wire=encode(other)).status is Status.REFUSED
    assert target.take(sent, 1).status is Status.STORED
    assert target.stored == [sent.secret]


def test_a_share_that_comes_twice_counts_once_and_another_one_under_its_number_not_at_all():
    sent, target = transfer(route(3, 2)), Target()
    assert [target.take(sent, 1).status for _ in range(3)] == [Status.HELD] * 3
    with pytest.raises(RemoteProtocolError, match="another share"):
        target.take(sent, 1, bent(sent.parcels[0]))
    with pytest.raises(RemoteProtocolError, match="does not fit"):
        target.take(sent, 2, sent.parcels[1][:-1])
    assert target.take(sent, 2).status is Status.STORED
    assert [target.take(sent, 3).status for _ in range(2)] == [Status.STORED] * 2
    assert len(target.stored) == 1


def test_a_flood_of_one_neighbour_pushes_out_nobody_elses_shares():
    sent, target = transfer(route(2, 2)), Target()
    target.take(sent, 2)
    for seed in range(2, 100):
        target.take(transfer(route(2, 2), seed=seed), 1)
    assert target.take(sent, 1).status is Status.STORED


def test_a_neighbour_that_was_first_with_a_share_does_not_push_out_what_others_brought_of_the_same_transfer():
    sent, target = transfer(route(3, 3)), Target()
    for number in (1, 2):
        target.take(sent, number)
    for seed in range(2, 100):
        target.take(transfer(route(3, 3), seed=seed), 1)
    assert target.take(sent, 3).status is Status.STORED


@pytest.mark.parametrize(
    "change",
    [
        {"threshold": 1},
        {"layer": "ml-kem-768"},
        {"master": "sae-x"},
        {"slave": "sae-a2"},
        {"paths": (("a", "r1", "c"),)},
        {"paths": (("a", "r1", "c"), ("a", "r1", "c"))},
        {"paths": (("a", "r1", "c"), ("a", "r9", "c"))},
        {"paths": (("a", "r1", "c"), ("a", "r1", "r2", "c"))},
    ],
    ids=str,
)
def test_no_letter_lowers_what_its_target_has_decided(change):
    here = route(2, 2)
    there = Route("c", "a", "sae-c", "sae-a", tuple(path[::-1] for path in here.paths), 2, 2)
    letter = transfer(here).letter
    check_letter(letter, there, EDGES)
    with pytest.raises(RemoteProtocolError):
        check_letter(msgspec.structs.replace(letter, **change), there, EDGES)


@pytest.mark.parametrize("change", [{"layer": "ml-kem-768"}, {"shares": 3}, {"stock": 0}, {"layer": "rsa"}], ids=str)
def test_a_route_that_cannot_be_is_refused(change):
    settings = {"shares": 2, "threshold": 2, "stock": 8, "layer": "", "proved": False} | change
    with pytest.raises(ConfigurationError):
        Route("a", "c", "sae-a", "sae-c", route(2, 2).paths, **settings)


def test_the_layer_needs_the_other_ends_secret_and_binds_the_transfer():
    sent = transfer(route(1, 1, proved=True, layer="ml-kem-768"))
    assert END.read_offer(sent.letter) == b"k" * 8
    stranger = type(END).derive(bytes(32))
    with pytest.raises(RemoteProtocolError):
        stranger.read_offer(sent.letter)
    for change in ({"transfer": bytes(16)}, {"layer": "ml-kem-1024"}, {"origin": "b"}):
        with pytest.raises(RemoteProtocolError):
            END.read_offer(msgspec.structs.replace(sent.letter, **change))
    answer = END.answer(sent.letter, b"c" * 8)
    assert END.read_answer(sent.letter, answer) == b"c" * 8
    for forged in (stranger.answer(sent.letter, b"c" * 8), sent.letter.offer, (answer[0], bent(answer[1]))):
        with pytest.raises(RemoteProtocolError):
            END.read_answer(sent.letter, forged)


def test_combined_keys_need_both_secrets_and_differ_by_name():
    letter = transfer(route(1, 1, proved=True, layer="ml-kem-768")).letter
    answer, keys = END.answer(letter, b"c" * 8), [bytes(32)] * 3
    combined = END.combined(letter, answer, b"s" * 32, keys)
    assert len(set(combined)) == 3
    assert not set(combined) & set(END.combined(letter, answer, b"t" * 32, keys))
    assert not set(combined) & set(END.combined(letter, answer, b"s" * 32, [b"1" * 32] * 3))
    assert read_letter(encode(letter)) == letter
