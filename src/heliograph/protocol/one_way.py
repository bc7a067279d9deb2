"""The heavy steps of a block that is reconciled one way, beside those of ``jobs``: pure functions for ``Compute``.

    R (corrects)               T (reference)
    SyndromeRequest    ->
                       <-      Syndrome
    MoreSyndrome       ->                   only if some frames did not decode, a few times
                       <-      Syndrome
    ReconciliationEnd  ->

Which code is used follows from the test basis, whose bits both sides have by then.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from heliograph.bits import BitString
from heliograph.errors import RemoteProtocolError
from heliograph.postprocessing.reconciliation.correcting import Corrected
from heliograph.postprocessing.reconciliation.limits import unpack_parities
from heliograph.postprocessing.reconciliation.one_way import Finder, Source, planned_rate
from heliograph.postprocessing.reconciliation.outcome import (
    error_report,
    reconciled_by_answering,
    reconciled_by_correcting,
)
from heliograph.protocol import jobs
from heliograph.protocol import messages as m
from heliograph.types import BlockParameters, DetectionRecord, Disclosed, ReconciledBlock, SiftedBlock

__all__ = ["Sent", "Wanted", "begin_finding", "begin_sending", "find", "reference", "send_more"]


@dataclass(frozen=True, slots=True)
class Sent:
    """Transmitter's side: the syndrome is out. ``source`` is an opaque handle; ``before``: disclosed before it."""

    sifted: SiftedBlock
    source: Source = field(repr=False)
    before: Disclosed = field(default_factory=Disclosed)


@dataclass(frozen=True, slots=True)
class Wanted:
    """Receiver's side: a syndrome is due. ``finder`` is an opaque handle; ``before``: disclosed before it."""

    sifted: SiftedBlock
    finder: Finder = field(repr=False)
    before: Disclosed = field(default_factory=Disclosed)


def _rate(sifted: SiftedBlock) -> float:
    return planned_rate(sifted.test.error_rate, sum(sifted.test.detections))


def begin_finding(
    detections: DetectionRecord, reveal: m.BasisReveal, parameters: BlockParameters
) -> tuple[Wanted, m.SyndromeRequest]:
    """Sift on the receiver's side and ask for the syndrome."""
    sifted, own_test = jobs.sift_receiver(detections, reveal, parameters)
    finder = Finder(sifted.bits, _rate(sifted), jobs.limits(parameters))
    return Wanted(sifted, finder), m.SyndromeRequest(len(own_test), own_test.to_bytes())


def begin_sending(
    revealed: jobs.Revealed, request: m.SyndromeRequest, parameters: BlockParameters
) -> tuple[Sent, m.Syndrome]:
    """Sift on the transmitter's side and send the syndrome."""
    sifted = jobs.sift_transmitter(revealed, request.test_detections, request.test_bits, parameters)
    source = Source(sifted.bits, _rate(sifted), jobs.limits(parameters))
    return Sent(sifted, source), _syndrome(source.first())


def send_more(sent: Sent, request: m.MoreSyndrome) -> m.Syndrome:
    """Send the rows kept back of the frames that the peer names."""
    return _syndrome(sent.source.more(unpack_parities(request.failed, request.frames)))


def find(wanted: Wanted, syndrome: m.Syndrome) -> tuple[Wanted | jobs.Ended, m.MoreSyndrome | m.ReconciliationEnd]:
    """Look for the errors; end, or ask for more."""
    if syndrome.count != wanted.finder.expected:
        raise RemoteProtocolError(f"a syndrome of {syndrome.count} bits came where {wanted.finder.expected} were due")
    result = wanted.finder.take(unpack_parities(syndrome.parities, syndrome.count))
    if not isinstance(result, Corrected):
        return wanted, m.MoreSyndrome(len(result), result.to_bytes())
    everything = Corrected(result.bits, wanted.before + result.disclosed, result.rounds)
    block = reconciled_by_correcting(wanted.sifted, everything)
    return jobs.Ended(block), jobs.announcement(error_report(block))


def reference(sent: Sent, end: m.ReconciliationEnd) -> ReconciledBlock:
    """Make the transmitter's record from the receiver's exact counts, checked against what this side knows."""
    return reconciled_by_answering(sent.sifted, sent.before + sent.source.disclosed, jobs.announced(end))


def _syndrome(bits: BitString) -> m.Syndrome:
    return m.Syndrome(len(bits), bits.to_bytes())
