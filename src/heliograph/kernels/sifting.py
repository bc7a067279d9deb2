"""Splitting detected slots by basis: key bits, test bits, counts for each intensity (the twin of ``sifting.c``)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from heliograph.bits import BitString
from heliograph.kernels.cascade import Kernel
from heliograph.kernels.native import compiled

__all__ = ["Split", "split"]

Marks = NDArray[np.uint8]

_KINDS: Final = 4  # intensities that the compiled kernel counts


@dataclass(frozen=True, slots=True)
class Split:
    """``key``: our bits where both bases are 0, with their intensities ``kinds``; ``test``: where both are 1.

    ``detections``, ``errors``: test slots by intensity, and those that differ from the peer's test bits.
    """

    key: BitString
    kinds: Marks = field(repr=False)
    test: BitString
    detections: tuple[int, ...]
    errors: tuple[int, ...]


def split(
    own_bases: Marks,
    own_bits: Marks,
    peer_bases: Marks,
    kinds: Marks,
    number_of_kinds: int,
    peer_test: BitString | None,
    *,
    kernel: Kernel | None = None,
) -> Split:
    """Return the parts of the slots. Arrays: shape (n,); bases and bits 0 or 1, ``kinds`` below ``number_of_kinds``.

    ``peer_test``: the peer's test bits; without them, or where they are of another number, errors mean nothing.
    """
    if kernel == "numpy" or compiled is None or number_of_kinds > _KINDS:
        return _reference(own_bases, own_bits, peer_bases, kinds, number_of_kinds, peer_test)
    peer, peer_bits = (b"", 0) if peer_test is None else (peer_test.to_bytes(), len(peer_test))
    arrays = (np.ascontiguousarray(array) for array in (own_bases, own_bits, peer_bases, kinds))
    key_bits, key, key_kinds, test_bits, test, detections, errors = compiled.sift(*arrays, peer, peer_bits)
    return Split(
        BitString(key, key_bits),
        np.frombuffer(key_kinds, dtype=np.uint8),
        BitString(test, test_bits),
        detections[:number_of_kinds],
        errors[:number_of_kinds],
    )


def _reference(
    own_bases: Marks, own_bits: Marks, peer_bases: Marks, kinds: Marks, number: int, peer_test: BitString | None
) -> Split:
    key, test = (own_bases + peer_bases) == 0, (own_bases + peer_bases) == 2
    kind, ours = kinds[test], own_bits[test]
    wrong = np.zeros(len(ours), dtype=np.bool_)
    if peer_test is not None and len(peer_test) == len(ours):
        wrong = ours != peer_test.to_array()
    return Split(
        BitString.from_array(own_bits[key]),
        kinds[key],
        BitString.from_array(ours),
        tuple(np.bincount(kind, minlength=number).tolist()),
        tuple(np.bincount(kind[wrong], minlength=number).tolist()),
    )
