"""The end of reconciliation: exact error counts, announced by the receiver's side and checked by the transmitter's."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from heliograph.bits import BitString
from heliograph.errors import LocalProtocolError, RemoteProtocolError
from heliograph.postprocessing.reconciliation.correcting import Corrected
from heliograph.types import Disclosed, IntensityCounts, Marks, ReconciledBlock, SiftedBlock

__all__ = [
    "ErrorReport",
    "announcement_charge",
    "error_report",
    "reconciled_by_answering",
    "reconciled_by_correcting",
]


@dataclass(frozen=True, slots=True)
class ErrorReport:
    """What the receiver's side announces: key-basis errors for each intensity, and split by the bit's value."""

    key_errors: tuple[int, ...]
    zeros: int
    errors_given_0: int
    ones: int
    errors_given_1: int
    disclosed: Disclosed


def announcement_charge(length_bits: int, number_of_intensities: int) -> Disclosed:
    """Return what an ErrorReport itself discloses: each count is one of n + 1 values, so at most log2(n + 1) bits.

    Counts: errors for each intensity, errors given 0, zeros; ones and errors given 1 follow from them. How many zeros
    there are says something about the transmitter's bits, the errors about both sides'. All are charged both ways.
    """
    bits = (number_of_intensities + 2) * length_bits.bit_length()
    return Disclosed(parities_a=bits, parities_b=bits)


def reconciled_by_correcting(sifted: SiftedBlock, corrected: Corrected) -> ReconciledBlock:
    """Return the receiver's block: its corrected bits, with the errors that were in its sifted bits.

    Counts are exact only if the corrected bits equal the transmitter's, which verification decides next.
    """
    if len(sifted.bits) != len(corrected.bits):
        raise LocalProtocolError(f"{len(corrected.bits)} corrected bits for {len(sifted.bits)} sifted ones")
    wrong, n = sifted.bits ^ corrected.bits, len(corrected.bits)
    kinds = len(sifted.test.detections)
    ones, errors = _ones(corrected.bits), _ones(wrong)
    errors_given_1 = _ones_in_both(wrong, corrected.bits)
    return ReconciledBlock(
        bits=corrected.bits,
        test=sifted.test,
        key=IntensityCounts(
            detections=_detections(sifted.intensities, kinds),
            errors=_errors(sifted, wrong),
        ),
        zeros=n - ones,
        errors_given_0=errors - errors_given_1,
        ones=ones,
        errors_given_1=errors_given_1,
        disclosed=corrected.disclosed + announcement_charge(n, kinds),
    )


def error_report(block: ReconciledBlock) -> ErrorReport:
    """Return what the receiver's side announces of its block."""
    return ErrorReport(
        key_errors=block.key.errors,
        zeros=block.zeros,
        errors_given_0=block.errors_given_0,
        ones=block.ones,
        errors_given_1=block.errors_given_1,
        disclosed=block.disclosed,
    )


def reconciled_by_answering(
    sifted: SiftedBlock, answered: Disclosed, report: ErrorReport, pattern: BitString | None = None
) -> ReconciledBlock:
    """Return the transmitter's block: its own bits, with the errors that the receiver's side announced.

    ``answered``: :attr:`Answerer.disclosed`; ``pattern``: the errors this side knows from comparing parities. Raises
    RemoteProtocolError if the report contradicts what this side knows: its bits, the detections of each intensity, the
    errors, its own ledger, and sums.
    """
    kinds = len(sifted.test.detections)
    detections = _detections(sifted.intensities, kinds)
    ones = _ones(sifted.bits)
    zeros = len(sifted.bits) - ones
    disclosed = answered + announcement_charge(len(sifted.bits), kinds)
    if len(report.key_errors) != kinds:
        raise RemoteProtocolError(f"errors of {len(report.key_errors)} intensities were announced, not {kinds}")
    if not all(0 <= m <= n for m, n in zip(report.key_errors, detections, strict=True)):
        raise RemoteProtocolError(f"{report.key_errors} errors were announced in {detections} detections")
    if (report.zeros, report.ones) != (zeros, ones):
        raise RemoteProtocolError("the numbers of zeros and ones announced are not those of this side's bits")
    if not (0 <= report.errors_given_0 <= zeros and 0 <= report.errors_given_1 <= ones):
        raise RemoteProtocolError("more errors were announced for a bit value than there are such bits")
    if sum(report.key_errors) != report.errors_given_0 + report.errors_given_1:
        raise RemoteProtocolError("errors by intensity and errors by bit value have different sums")
    if pattern is not None and _counted(sifted, pattern) != (report.key_errors, report.errors_given_1):
        raise RemoteProtocolError("the errors announced are not those that were found")
    if report.disclosed != disclosed:
        raise RemoteProtocolError(f"the peer counts {report.disclosed}, this side {disclosed}")
    return ReconciledBlock(
        bits=sifted.bits,
        test=sifted.test,
        key=IntensityCounts(detections=detections, errors=report.key_errors),
        zeros=zeros,
        errors_given_0=report.errors_given_0,
        ones=ones,
        errors_given_1=report.errors_given_1,
        disclosed=disclosed,
    )


def _counted(sifted: SiftedBlock, pattern: BitString) -> tuple[tuple[int, ...], int]:
    """Return the errors of each intensity, and those where our bit is 1."""
    return _errors(sifted, pattern), _ones_in_both(pattern, sifted.bits)


def _errors(sifted: SiftedBlock, wrong: BitString) -> tuple[int, ...]:
    """Return the errors of each intensity."""
    kinds = len(sifted.test.detections)
    if kinds == 1:
        return (_ones(wrong),)
    return _detections(sifted.intensities[wrong.to_array().view(np.bool_)], kinds)


def _detections(intensities: Marks, kinds: int) -> tuple[int, ...]:
    if kinds == 1:
        return (len(intensities),)
    # Kinds are few: a comparison for each is several times as fast as numpy.bincount, which makes integers first.
    return tuple(int(np.count_nonzero(intensities == kind)) for kind in range(kinds))


def _ones_in_both(a: BitString, b: BitString) -> int:
    return int(np.bitwise_count(_words(a) & _words(b)).sum(dtype=np.int64))


def _ones(bits: BitString) -> int:
    return int(np.bitwise_count(_words(bits)).sum(dtype=np.int64))


def _words(bits: BitString) -> NDArray[np.uint64]:
    packed = bits.to_bytes()
    return np.frombuffer(packed + bytes(-len(packed) % 8), dtype=np.uint64)
