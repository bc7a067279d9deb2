"""Two copies of one site, both alive: the peer goes on with one, and the other learns that it is the copy."""

from __future__ import annotations

import sqlite3
from dataclasses import replace

import pytest

from heliograph.errors import RemoteProtocolError, RollbackDetected, TransportClosed
from heliograph.protocol.handshake import Initiator, Responder
from heliograph.testing.links import quick_channel, quick_registration
from heliograph.testing.pair import Pair, shake_hands


def make(directory, method="psk"):
    return Pair(replace(quick_registration(), bootstrap=method), quick_channel(), directory)


def snapshot(side):
    copy = sqlite3.connect(":memory:", check_same_thread=False)
    side.database._connection.backup(copy)
    return copy


def become(side, copy):
    """Let the process that holds this store be the one that runs on the other copy, anchors and all."""
    copy.backup(side.database._connection)
    side.restart()


@pytest.mark.parametrize("method", ["psk", "pki"])
@pytest.mark.parametrize("name", ["tx", "rx"])
def test_a_clone_is_fenced_though_no_block_was_made_since(tmp_path, name, method):
    """The gap that marks leave: store and anchors copied together, nothing but connections since."""
    pair = make(tmp_path / "pair", method)
    pair.run_block()
    side = getattr(pair, name)
    clone, anchor = snapshot(side), side.anchor.mark
    pair.connect()  # the live one goes on
    live = snapshot(side)
    side.anchor.mark = anchor
    become(side, clone)
    with pytest.raises((RemoteProtocolError, RollbackDetected), match=r"fenced|has met a later instance"):
        pair.connect()
    # The live one is as welcome as before.
    become(side, live)
    pair.connect()
    assert pair.run_block() == 9


def test_a_clone_that_dials_is_told_and_its_peer_keeps_its_pool(tmp_path):
    pair = make(tmp_path / "pair")
    pair.run_block()
    clone = snapshot(pair.tx)
    pair.connect()
    before = pair.rx.records.marks()
    become(pair.tx, clone)
    with pytest.raises(RollbackDetected, match="a restored backup or a clone"):
        shake_hands(pair.tx, pair.rx)
    assert pair.rx.records.marks() == before


def test_a_peer_that_was_rolled_back_does_not_make_the_live_site_destroy_its_pool(tmp_path):
    """Seen from the live site: the other one is the copy, whatever it says that it has met."""
    pair = make(tmp_path / "pair")
    pair.run_block()
    old = snapshot(pair.rx)
    for _ in range(3):
        pair.connect()
    become(pair.rx, old)
    with pytest.raises(RemoteProtocolError, match="fenced"):
        shake_hands(pair.tx, pair.rx)


def test_a_confirmation_held_back_on_the_way_undoes_nothing(tmp_path):
    """Eve delivers the end of an old handshake after a later one: no live site becomes a stranger by it."""
    pair = make(tmp_path / "pair")
    pair.run_block()
    doors, other = pair.tx.doors, pair.rx.doors
    own, theirs = doors.presence(), other.presence()
    dialling = Initiator(doors.identity, own, doors.draw(), 0.0)
    listening = Responder(other.identity, theirs, other.draw(), 0.0)
    held, established = dialling.confirm(listening.reply(dialling.hello(doors.initial()), other.of))
    doors.accept(established, own)
    for _ in range(3):  # the site gave that connection up and made others
        pair.connect()
    late = listening.finish(held)
    with pytest.raises(TransportClosed, match="a later connection"):
        other.accept(late, theirs)
    pair.connect()
    assert pair.run_block() == 9


def test_crashes_at_every_step_of_the_handshake_fence_nobody(tmp_path):
    """Whatever message is lost, and whoever forgets it, both sites meet again."""
    pair = make(tmp_path / "pair")
    pair.run_block()
    for steps in range(7):
        for _ in range(2):
            doors, other = pair.tx.doors, pair.rx.doors
            own, theirs = doors.presence(), other.presence()
            dialling = Initiator(doors.identity, own, doors.draw(), 0.0)
            listening = Responder(other.identity, theirs, other.draw(), 0.0)
            last, at_tx = dialling.confirm(listening.reply(dialling.hello(doors.initial()), other.of))
            if steps > 0:
                doors.accept(at_tx, own)
            if steps > 1:
                at_rx = listening.finish(last)
            if steps > 2:
                other.accept(at_rx, theirs)
            if steps > 3:
                other.confirmed(theirs)
            if steps > 4:
                dialling.welcome(listening.welcome())
            if steps > 5:
                doors.confirmed(own)
            for side in pair.sides:
                side.restart()
    pair.connect()
    assert pair.run_block() == 9


def test_an_operator_may_start_over_with_a_restored_copy(tmp_path):
    pair = make(tmp_path / "pair")
    pair.run_block()
    clone = snapshot(pair.tx)
    pair.connect()
    become(pair.tx, clone)
    with pytest.raises(RollbackDetected):
        pair.connect()
    for side in pair.sides:
        side.records.request_rebootstrap()
        side.restart()
    pair.connect()
    pair.run_block()
    assert pair.tx.finished()[-1] == pair.rx.finished()[-1] == 1
    assert pair.tx.running.epoch == pair.rx.running.epoch == 2
