"""The heavy steps of a block as pure functions: what a machine gives away as ``Compute``.

Each takes what one side holds and what the peer announced, checks the announcement whole, and returns the next record
together with the message that goes out. All of it is discardable work inside one block (security.md 1).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from heliograph.bits import BitString
from heliograph.errors import RemoteProtocolError
from heliograph.postprocessing import sifting
from heliograph.postprocessing.reconciliation.answering import Answerer
from heliograph.postprocessing.reconciliation.charging import TwoWayRule, asymmetry_sigma, charged
from heliograph.postprocessing.reconciliation.correcting import Corrected, Corrector
from heliograph.postprocessing.reconciliation.limits import Limits, unpack_parities
from heliograph.postprocessing.reconciliation.outcome import (
    ErrorReport,
    error_report,
    reconciled_by_answering,
    reconciled_by_correcting,
)
from heliograph.postprocessing.secrecy.acceptance import accept, precheck
from heliograph.postprocessing.secrecy.entropy import binary_entropy
from heliograph.protocol import messages as m
from heliograph.protocol.records import BlockReport
from heliograph.protocol.registration import Reconciliation
from heliograph.types import (
    BlockParameters,
    DetectionRecord,
    Disclosed,
    Marks,
    PulseRecord,
    Pulses,
    ReconciledBlock,
    SiftedBlock,
    Slots,
)

__all__ = [
    "Answered",
    "Asked",
    "Ended",
    "Revealed",
    "advance",
    "announced",
    "announcement",
    "answer",
    "begin_answering",
    "begin_correcting",
    "charging_rule",
    "close",
    "judge",
    "limits",
    "reference",
    "reveal",
    "sift_receiver",
    "sift_transmitter",
]

# The rule and its condition are security.md 5: the theorem in use bounds the phase error, which commutes with the
# announced error pattern; blocks whose errors depend on the bit are discarded by ``judge``.
TWO_WAY_RULE: TwoWayRule = "pattern_public"


@dataclass(frozen=True, slots=True)
class Revealed:
    """Transmitter's side after the reveal: its choices at the detected slots, the receiver's bases there."""

    pulses: Pulses
    receiver_bases: Marks
    double_clicks: int


@dataclass(frozen=True, slots=True)
class Answered:
    """Transmitter's side during reconciliation. ``answerer`` is an opaque handle; ``before``: disclosed before it."""

    sifted: SiftedBlock
    answerer: Answerer = field(repr=False)
    before: Disclosed = field(default_factory=Disclosed)


@dataclass(frozen=True, slots=True)
class Asked:
    """Receiver's side during reconciliation. ``corrector`` is an opaque handle; ``count`` parities are due."""

    sifted: SiftedBlock
    corrector: Corrector = field(repr=False)
    count: int


@dataclass(frozen=True, slots=True)
class Ended:
    """Receiver's side: nothing is left to correct."""

    block: ReconciledBlock


def limits(parameters: BlockParameters) -> Limits:
    """Return the caps of a block's reconciliation: what its acceptance set allows to be charged."""
    return Limits(parities=parameters.acceptance.disclosed_bits_max)


def _bit_string(packed: bytes, length: int, what: str) -> BitString:
    try:
        return BitString(packed, length)
    except ValueError as error:
        raise RemoteProtocolError(f"{what}: {error}") from None


def _bases(packed: bytes, detections: int) -> Marks:
    return sifting.unpack_bases(_bit_string(packed, detections, "bases"), detections)


def close(detections: DetectionRecord) -> m.QuantumPhaseClosed:
    """Announce where the receiver clicked and in which basis."""
    gaps = np.diff(detections.slots, prepend=-1)
    widest = int(gaps.max(initial=1))
    width = next(w for w in (1, 2, 4, 8) if widest < 2 ** (8 * w))
    return m.QuantumPhaseClosed(
        len(detections.slots),
        width,
        gaps.astype(f"<u{width}").tobytes(),
        sifting.pack_bases(detections.bases).to_bytes(),
        detections.double_clicks,
        detections.dead_time_clicks,
    )


def _announced_slots(closure: m.QuantumPhaseClosed, parameters: BlockParameters) -> Slots:
    if closure.width not in (1, 2, 4, 8) or len(closure.slots) != closure.detections * closure.width:
        raise RemoteProtocolError(f"{len(closure.slots)} bytes for {closure.detections} slots")
    gaps = np.frombuffer(closure.slots, f"<u{closure.width}").astype(np.uint64)
    # Bounded before the sum, so that it cannot wrap.
    if len(gaps) and (int(gaps.min()) < 1 or int(gaps.max()) > parameters.light.pulses):
        raise RemoteProtocolError("slots that are repeated, out of order or out of range")
    slots = np.cumsum(gaps.astype(np.int64)) - 1
    if len(slots) and int(slots[-1]) >= parameters.light.pulses:
        raise RemoteProtocolError(f"slot {int(slots[-1])} in a block of {parameters.light.pulses} pulses")
    return slots


def reveal(
    record: PulseRecord, closure: m.QuantumPhaseClosed, parameters: BlockParameters
) -> tuple[Revealed, m.BasisReveal]:
    """Look up the transmitter's choices at the announced slots; only ever called with a checked closure."""
    slots = _announced_slots(closure, parameters)
    receiver_bases = _bases(closure.bases, closure.detections)
    if closure.double_clicks > closure.detections:
        raise RemoteProtocolError(f"{closure.double_clicks} double clicks in {closure.detections} detections")
    pulses = record.at(slots)
    test = sifting.bits_in_test(pulses.bases, pulses.bits, receiver_bases)
    message = m.BasisReveal(
        sifting.pack_bases(pulses.bases).to_bytes(),
        sifting.pack_intensities(pulses.intensities, len(parameters.light.intensities)).to_bytes(),
        len(test),
        test.to_bytes(),
    )
    return Revealed(pulses, receiver_bases, closure.double_clicks), message


def _precheck(sifted: SiftedBlock, parameters: BlockParameters) -> None:
    counts = np.bincount(sifted.intensities, minlength=len(parameters.light.intensities))
    precheck(parameters, tuple(int(c) for c in counts), sifted.test)


def sift_receiver(
    detections: DetectionRecord, reveal_: m.BasisReveal, parameters: BlockParameters
) -> tuple[SiftedBlock, BitString]:
    """Return the receiver's sifted block and its own test bits; a hopeless block is discarded here."""
    n, levels = len(detections.slots), len(parameters.light.intensities)
    bases = _bases(reveal_.bases, n)
    packed = _bit_string(reveal_.intensities, n * (levels - 1).bit_length(), "intensities")
    intensities = sifting.unpack_intensities(packed, n, levels)
    peer_test = _bit_string(reveal_.test_bits, reveal_.test_detections, "test bits")
    sifted = sifting.sift(detections.bases, detections.bits, bases, intensities, peer_test, levels)
    _precheck(sifted, parameters)
    own_test = sifting.bits_in_test(detections.bases, detections.bits, bases)
    return sifted, own_test


def sift_transmitter(
    revealed: Revealed, test_detections: int, test_bits: bytes, parameters: BlockParameters
) -> SiftedBlock:
    """Return the transmitter's sifted block, from the receiver's test bits; a hopeless block is discarded here."""
    peer_test = _bit_string(test_bits, test_detections, "test bits")
    pulses = revealed.pulses
    levels = len(parameters.light.intensities)
    sifted = sifting.sift(pulses.bases, pulses.bits, revealed.receiver_bases, pulses.intensities, peer_test, levels)
    _precheck(sifted, parameters)
    return sifted


def begin_correcting(
    detections: DetectionRecord, reveal_: m.BasisReveal, seed: bytes, parameters: BlockParameters
) -> tuple[Asked, m.ReconciliationStart]:
    """Sift on the receiver's side and send the first parities. ``seed`` is fresh: drawn after the closure."""
    sifted, own_test = sift_receiver(detections, reveal_, parameters)
    corrector = Corrector(sifted.bits, seed, sifted.test.error_rate, limits(parameters))
    first = corrector.first_parities()
    start = m.ReconciliationStart(len(own_test), own_test.to_bytes(), seed, len(first), first.to_bytes())
    return Asked(sifted, corrector, len(first)), start


def begin_answering(
    revealed: Revealed, start: m.ReconciliationStart, parameters: BlockParameters
) -> tuple[Answered, m.ParityReply]:
    """Sift on the transmitter's side and answer the first parities.

    Both sides start from the error rate of the test basis, whose bits both have by now.
    """
    sifted = sift_transmitter(revealed, start.test_detections, start.test_bits, parameters)
    answerer = Answerer(sifted.bits, start.seed, sifted.test.error_rate, limits(parameters))
    answered = Answered(sifted, answerer)
    return answered, answer(answered, start.count, start.parities)


def answer(answered: Answered, count: int, parities: bytes) -> m.ParityReply:
    """Answer one round."""
    ours = answered.answerer.answer(unpack_parities(parities, count))
    return m.ParityReply(len(ours), ours.to_bytes())


def advance(asked: Asked, reply: m.ParityReply) -> tuple[Asked | Ended, m.ParityRequest | m.ReconciliationEnd]:
    """Correct with one round's parities; ask for more or end."""
    if reply.count != asked.count:
        raise RemoteProtocolError(f"{reply.count} parities where {asked.count} were due")
    result = asked.corrector.advance(unpack_parities(reply.parities, reply.count))
    if not isinstance(result, Corrected):
        return Asked(asked.sifted, asked.corrector, len(result)), m.ParityRequest(len(result), result.to_bytes())
    block = reconciled_by_correcting(asked.sifted, result)
    return Ended(block), announcement(error_report(block))


def announcement(found: ErrorReport) -> m.ReconciliationEnd:
    """Return the message that carries the receiver's counts."""
    return m.ReconciliationEnd(
        found.key_errors,
        found.zeros,
        found.errors_given_0,
        found.ones,
        found.errors_given_1,
        found.disclosed.parities_a,
        found.disclosed.parities_b,
    )


def announced(end: m.ReconciliationEnd) -> ErrorReport:
    """Return the counts in the message."""
    return ErrorReport(
        tuple(end.key_errors),
        end.zeros,
        end.errors_given_0,
        end.ones,
        end.errors_given_1,
        Disclosed(end.parities_a, end.parities_b),
    )


def reference(answered: Answered, end: m.ReconciliationEnd) -> ReconciledBlock:
    """Make the transmitter's record from the receiver's exact counts, checked against what this side knows."""
    disclosed = answered.before + answered.answerer.disclosed
    return reconciled_by_answering(answered.sifted, disclosed, announced(end), answered.answerer.pattern())


def charging_rule(reconciliation: Reconciliation) -> TwoWayRule:
    """Return what a block of this registered method is charged by (security.md 5)."""
    return "one_way" if reconciliation == "ldpc" else TWO_WAY_RULE


def judge(
    block: ReconciledBlock, parameters: BlockParameters, double_clicks: int, rule: TwoWayRule = TWO_WAY_RULE
) -> BlockReport:
    """Accept the block into the preset length, or raise the BlockDiscarded that says why not (security.md 5).

    Both sides call it on the same announced counts, so both come to the same verdict.
    """
    bits = charged(block.disclosed, rule)
    terms = accept(parameters, block.key, block.test, bits, asymmetric=asymmetry_sigma(block).significant)
    sifted = sum(block.key.detections)
    floor = sifted * binary_entropy(block.key.error_rate)
    return BlockReport(
        parameters=parameters.name,
        pulses=parameters.light.pulses,
        sifted_bits=sifted,
        key=block.key,
        test=block.test,
        disclosed=block.disclosed,
        two_way_rule=rule,
        efficiency=bits / floor if floor > 0 else None,
        phase_error_upper=terms.phase_error_upper,
        secret_key_length=parameters.secret_key_length,
        double_clicks=double_clicks,
        eps_sec=parameters.eps_sec,
        eps_cor=parameters.eps_cor,
    )
