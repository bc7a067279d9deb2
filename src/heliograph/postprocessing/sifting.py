"""Sifting: both sides keep the slots where their bases agree; key bits from Z, exact test counts from X.

The same function serves both sites. Every array has one entry for each detected slot, in slot order; which slots these
are has been fixed, and tagged, before any basis is revealed (security.md 1).
"""

from __future__ import annotations

import numpy as np

from heliograph.bits import BitString
from heliograph.errors import LocalProtocolError, RemoteProtocolError
from heliograph.kernels.sifting import split
from heliograph.types import Basis, IntensityCounts, Marks, SiftedBlock

__all__ = ["bits_in_test", "pack_bases", "pack_intensities", "sift", "unpack_bases", "unpack_intensities"]


def sift(
    own_bases: Marks,
    own_bits: Marks,
    peer_bases: Marks,
    intensities: Marks,
    peer_test_bits: BitString,
    number_of_intensities: int,
) -> SiftedBlock:
    """Return the sifted key bits and the test-basis counts of the detected slots.

    ``own_bases``, ``own_bits``, ``peer_bases``, ``intensities``: shape (n,), the detected slots in order.
    ``peer_test_bits``: the peer's :func:`bits_in_test`. Raises RemoteProtocolError when what the peer sent does not fit
    the detected slots, LocalProtocolError when our own arrays do not. No slot is dropped: a sifting quota would make
    the sample depend on the outcome (security.md 1).
    """
    _check(own_bases, peer_bases)
    if len(own_bits) != len(own_bases):
        raise LocalProtocolError(f"{len(own_bits)} bits for {len(own_bases)} detected slots")
    if len(intensities) != len(own_bases):
        raise RemoteProtocolError(f"{len(intensities)} intensities for {len(own_bases)} detected slots")
    if len(intensities) and int(intensities.max()) >= number_of_intensities:
        raise RemoteProtocolError(f"intensity {int(intensities.max())} of {number_of_intensities} does not exist")
    parts = split(own_bases, own_bits, peer_bases, intensities, number_of_intensities, peer_test_bits)
    if len(peer_test_bits) != len(parts.test):
        raise RemoteProtocolError(f"{len(peer_test_bits)} test bits for {len(parts.test)} slots in the test basis")
    return SiftedBlock(parts.key, parts.kinds, IntensityCounts(parts.detections, parts.errors))


def bits_in_test(own_bases: Marks, own_bits: Marks, peer_bases: Marks) -> BitString:
    """Return our bits where both sides chose X, in slot order: what is disclosed for the exact test counts.

    Raises RemoteProtocolError if the peer's bases do not fit ours.
    """
    _check(own_bases, peer_bases)
    return BitString.from_array(own_bits[(own_bases & peer_bases) == Basis.X])


def _check(own_bases: Marks, peer_bases: Marks) -> None:
    if len(peer_bases) != len(own_bases):
        raise RemoteProtocolError(f"{len(peer_bases)} bases for {len(own_bases)} detected slots")
    if len(peer_bases) and int(peer_bases.max()) > Basis.X:
        raise RemoteProtocolError(f"basis {int(peer_bases.max())} does not exist")


def pack_bases(bases: Marks) -> BitString:
    """Return one bit for each basis, 1 = X."""
    return BitString.from_array(bases)


def unpack_bases(packed: BitString, slots: int) -> Marks:
    """Return the bases of ``slots`` detected slots. Raises RemoteProtocolError for another number."""
    if len(packed) != slots:
        raise RemoteProtocolError(f"{len(packed)} bases for {slots} detected slots")
    return packed.to_array()


def pack_intensities(intensities: Marks, number_of_intensities: int) -> BitString:
    """Return each index in ceil(log2(number_of_intensities)) bits: none for one intensity, one bit for two."""
    width = _width(number_of_intensities)
    shifts = np.arange(width - 1, -1, -1, dtype=np.uint8)
    digits: Marks = (intensities[:, None] >> shifts) & np.uint8(1)
    return BitString.from_array(digits.reshape(-1))


def unpack_intensities(packed: BitString, slots: int, number_of_intensities: int) -> Marks:
    """Return the intensity indices of ``slots`` detected slots.

    Raises RemoteProtocolError for another number of bits or an index that does not exist.
    """
    width = _width(number_of_intensities)
    if len(packed) != slots * width:
        raise RemoteProtocolError(f"{len(packed)} bits for {slots} intensities of {width} bits")
    weights = (1 << np.arange(width - 1, -1, -1)).astype(np.uint8)
    intensities: Marks = (packed.to_array().reshape(slots, width) * weights).sum(axis=1, dtype=np.uint8)
    if slots and int(intensities.max()) >= number_of_intensities:
        raise RemoteProtocolError(f"intensity {int(intensities.max())} of {number_of_intensities} does not exist")
    return intensities


def _width(number_of_intensities: int) -> int:
    if not 1 <= number_of_intensities <= 256:
        raise LocalProtocolError(f"{number_of_intensities} intensities: between 1 and 256 are possible")
    return (number_of_intensities - 1).bit_length()
