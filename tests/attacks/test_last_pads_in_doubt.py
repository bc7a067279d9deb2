"""The link is cut while its last pads are in use: a block in doubt that refills the pool is ended, not given up."""

import pytest

from heliograph.authentication.pads import PadRole
from heliograph.errors import PadsExhausted
from heliograph.protocol.frames import parse_frame
from heliograph.testing.links import quick_channel, quick_registration
from heliograph.testing.pair import Pair


def cut_at(pair, role):
    """Lose the connection at the frame that carries this tag, in the last block that has pads."""

    def wire(_, sealed):
        frame = parse_frame(sealed[:-16])
        if frame.tagged and frame.sequence == role and frame.block > 8:
            pair.connected = False
        return (sealed,) if pair.connected else ()

    pair.wire = wire
    pair.run_block(refills=2)
    pair.disconnect()
    pair.wire = lambda _, sealed: (sealed,)


@pytest.mark.parametrize("role", [PadRole.DECISION, PadRole.ACKNOWLEDGEMENT])
@pytest.mark.parametrize("crash", [(), ("tx",), ("rx",), ("tx", "rx")])
def test_a_doubt_that_would_refill_an_empty_pool_is_ended_by_the_next_connection(tmp_path, role, crash):
    pair = Pair(quick_registration(), quick_channel(), tmp_path / "pair")
    pair.run_block(refills=1)
    assert [side.records.marks().pads for side in pair.sides] == [1, 1]
    cut_at(pair, role)
    assert pair.tx.records.marks().pads == 0
    for name in crash:
        pair.crash(getattr(pair, name))
    pair.connect()
    assert [side.records.marks().pads for side in pair.sides] == [2, 2]
    assert pair.run_block() == 10
    assert pair.tx.finished()[-1] == pair.rx.finished()[-1] == 10


def test_an_empty_pool_without_a_doubt_needs_an_operator(tmp_path):
    pair = Pair(quick_registration(), quick_channel(), tmp_path / "pair")
    pair.run_block(refills=1)
    cut_at(pair, PadRole.CLOSURE)
    with pytest.raises(PadsExhausted, match="rebootstrap"):
        pair.connect()
