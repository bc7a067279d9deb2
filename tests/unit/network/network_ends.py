"""Both ends of a transfer in memory: the machines alone, and paths that a test may bend."""

from heliograph.network.collecting import Collector, Complete
from heliograph.network.endtoend import EndToEnd
from heliograph.network.letters import Receipt
from heliograph.network.routes import Route
from heliograph.network.transfer import acknowledge, plan_transfer
from heliograph.testing.randomness import SeededRandom

END = EndToEnd.derive(bytes(range(32)))


def route(shares=1, threshold=1, *, proved=False, layer=""):
    paths = tuple(("a", f"r{n}", "c") for n in range(1, shares + 1))
    return Route("a", "c", "sae-a", "sae-c", paths, shares, threshold, 8, layer, proved=proved)


def transfer(way, number=3, seed=1):
    end = END if way.proved else None
    draws = SeededRandom(seed, "secret").draw, SeededRandom(seed, "public").draw
    return plan_transfer(way, way.paths, number, 32, draws, end, b"k" * 8 if way.layer else b"")


class Target:
    """The other end: what it says to each share, and what it stored."""

    def __init__(self, *, proved=False):
        self.collector, self.end, self.stored = Collector(), END if proved else None, []

    def take(self, sent, number, parcel=None, *, letter=None, wire=None):
        letter, wire = letter or sent.letter, wire or sent.wire
        data = sent.parcels[number - 1] if parcel is None else parcel
        found = self.collector.take(f"r{number}", letter, wire, number, data, self.end)
        if isinstance(found, Complete):
            self.stored.append(found.secret)
            receipt = acknowledge(wire, found.secret, found.suspects, (b"", b""))
            self.collector.settle(wire, receipt)
            return receipt
        assert isinstance(found, Receipt)
        return found


def bent(parcel, at=0):
    """Return the parcel with one bit changed; one of those that Poly1305 does not clear in its key (RFC 8439 2.5)."""
    return parcel[:at] + bytes([parcel[at] ^ 4]) + parcel[at + 1 :]
