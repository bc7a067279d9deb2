"""Whom a transfer's receipts blame: a relay that accuses others, with and without the target's word."""

import msgspec
import pytest
from network_ends import END, Target, bent, route, transfer

from heliograph.errors import InsufficientKeys
from heliograph.network.blame import judge
from heliograph.network.letters import Receipt, Status
from heliograph.network.stocks import PathBook


def slander(*numbers, ack=b""):
    return Receipt(Status.REFUSED, ack, numbers, reason="the others lie")


def named(paths):
    return {path[1] for path in paths}


def refusal(sent, target, liar):
    """Send every share, the liar's bent; return each path's receipt as an honest target gave it."""
    receipts = []
    for number in range(1, len(sent.parcels) + 1):
        parcel = bent(sent.parcels[number - 1]) if number == liar else None
        found = target.take(sent, number, parcel)
        if target.end is not None and found.status is Status.REFUSED:
            found = target.end.refuse(sent.wire, found)  # as the node does
        receipts.append(found)
    return receipts


@pytest.mark.parametrize("proved", [False, True])
def test_a_relay_that_accuses_others_of_an_acknowledged_transfer_is_blamed_alone(proved):
    sent, target = transfer(route(3, 2, proved=proved)), Target(proved=proved)
    target.take(sent, 2)
    stored = target.take(sent, 3)
    verdict = judge(sent, [slander(2, 3), Receipt(Status.HELD), stored], END if proved else None)
    assert named(verdict.failed) == {"r1"}
    assert verdict.proved == frozenset()  # it refused, which is no proof that it lied
    assert verdict.acknowledged == stored


def test_with_a_secret_between_the_ends_an_accusation_without_proof_harms_the_accuser_alone():
    sent = transfer(route(2, 2, proved=True))
    for forged in (b"", bytes(48), END.refuse(sent.wire, slander(1)).ack, END.refuse(b"x" + sent.wire, slander(2)).ack):
        verdict = judge(sent, [slander(2, ack=forged), Receipt(Status.HELD)], END)
        assert named(verdict.failed) == {"r1"}
        assert verdict.proved == frozenset()


def test_a_number_of_no_path_under_a_proof_is_no_proof():
    sent = transfer(route(2, 2, proved=True))
    receipt = END.refuse(sent.wire, slander(7))
    assert named(judge(sent, [receipt, Receipt(Status.HELD)], END).failed) == {"r1"}


@pytest.mark.parametrize("liar", [1, 2])
def test_the_targets_own_word_names_the_liar_and_clears_who_brought_it(liar):
    sent = transfer(route(2, 2, proved=True))
    verdict = judge(sent, refusal(sent, Target(proved=True), liar), END)
    assert verdict.acknowledged is None
    assert named(verdict.failed) == named(verdict.proved) == {f"r{liar}"}


def test_where_nobody_can_tell_all_paths_of_the_transfer_are_blamed_alike_whoever_is_named():
    sent = transfer(route(2, 2))
    honest = judge(sent, refusal(sent, Target(), 2), None)
    assert named(honest.failed) == {"r1", "r2"}
    for receipts in ([slander(2), Receipt(Status.HELD)], [Receipt(Status.HELD), slander(1)], [slander(1), slander(1)]):
        verdict = judge(sent, receipts, None)
        assert named(verdict.failed) == {"r1", "r2"}
        assert verdict.proved == frozenset()  # nobody is said to have been caught


def test_a_made_up_acknowledgement_is_its_own_paths_lie_whatever_it_names():
    sent = transfer(route(2, 2))
    verdict = judge(sent, [Receipt(Status.STORED, bytes(16), (2,)), Receipt(Status.HELD)], None)
    assert named(verdict.failed) == named(verdict.proved) == {"r1"}


@pytest.mark.parametrize("proved", [False, True])
def test_a_relay_that_slanders_for_an_hour_costs_the_honest_paths_little(proved):
    """It names both others whenever it is asked. What the honest ones wait is bounded, and they go on."""
    way, book, end = route(3, 2, proved=proved), PathBook(), END if proved else None
    made, late = 0, 0
    for now in range(3600):
        try:
            chosen = book.choose(way.paths, 2, {f"r{n}": 100 for n in (1, 2, 3)}, float(now))
        except InsufficientKeys:
            continue
        slandered = any(path[1] == "r1" for path in chosen)
        target, sent = Target(proved=proved), transfer(route(2, 2, proved=proved), seed=now)
        letter = msgspec.structs.replace(sent.letter, paths=chosen)
        sent = type(sent)(letter, sent.wire, sent.secret, sent.parcels)
        if slandered:
            receipts = [slander(1, 2) if path[1] == "r1" else Receipt(Status.HELD) for path in chosen]
        else:
            target.take(sent, 1, letter=sent.letter)
            receipts = [Receipt(Status.HELD), target.take(sent, 2, letter=sent.letter)]
        verdict = judge(sent, receipts, end)
        for path in chosen:
            if path in verdict.failed:
                book.failed(path, verdict.failed[path], float(now))
            else:
                book.succeeded(path, ())
        made += verdict.acknowledged is not None
        late += verdict.acknowledged is not None and now >= 1800
    assert made > 0.9 * 3600
    assert late > 0.9 * 1800
    assert "failed" in book.report()["a - r1 - c"]
