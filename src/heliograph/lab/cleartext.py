"""How many recorded bytes are covered by some 16-byte window of the payload; exact, at any alignment."""

from __future__ import annotations

import mmap
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

__all__ = ["WINDOW", "PayloadIndex"]

WINDOW = 16
_WORD = 8  # every 16-byte window holds a whole 8-byte word that is aligned in the payload
_FILTER_BITS = 26
_CHUNK = 1 << 22

Words = NDArray[np.uint64]


def _hash(words: Words) -> NDArray[np.int64]:
    """Spread words over the filter (multiplicative hashing; a false positive only costs a closer look)."""
    return ((words * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(64 - _FILTER_BITS)).astype(np.int64)


class PayloadIndex:
    """Finds the payload in recordings. ``distinct``: least number of different byte values that a window must have.

    The tunnel is searched with ``distinct=1``, that is for every window. The classical channel carries bit maps with
    long runs of one value; there a window of one repeated byte says nothing about the payload and is left out.
    """

    def __init__(self, payload: bytes, distinct: int = 1) -> None:
        self._payload = payload
        self._distinct = distinct
        whole = len(payload) // _WORD * _WORD
        words = np.frombuffer(payload[:whole], np.uint64)
        self._order = np.argsort(words, kind="stable")
        self._words = words[self._order]
        self._filter = np.zeros(1 << _FILTER_BITS, np.bool_)
        self._filter[_hash(words)] = True

    def covered(self, files: Iterable[Path]) -> int:
        """Return the number of covered bytes in all files."""
        total = 0
        for path in files:
            if path.stat().st_size < WINDOW or len(self._payload) < WINDOW:
                continue
            with path.open("rb") as handle, mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ) as data:
                total += self._covered(data)
        return total

    def _covered(self, data: mmap.mmap) -> int:
        marks = np.zeros(len(data), np.bool_)
        for at in self._candidates(data):
            self._extend(data, at, marks)
        return int(marks.sum())

    def _candidates(self, data: mmap.mmap) -> Iterable[int]:
        """Yield the offsets of recorded words that are aligned words of the payload."""
        for start in range(0, len(data), _CHUNK):
            piece = data[start : start + _CHUNK + _WORD]
            for shift in range(_WORD):
                count = (min(len(piece), _CHUNK + shift) - shift) // _WORD
                if count <= 0:
                    continue
                words = np.frombuffer(piece, np.uint64, count, shift)
                near = np.flatnonzero(self._filter[_hash(words)])
                if not len(near):
                    continue
                found = np.searchsorted(self._words, words[near])
                found = np.minimum(found, len(self._words) - 1)
                for index in near[self._words[found] == words[near]].tolist():
                    yield start + shift + index * _WORD

    def _extend(self, data: mmap.mmap, at: int, marks: NDArray[np.bool_]) -> None:
        """Mark the bytes around a common word that lie in common windows of 16 bytes."""
        if marks[at : at + _WORD].all():
            return
        word = np.frombuffer(data[at : at + _WORD], np.uint64)[0]
        left = int(np.searchsorted(self._words, word, "left"))
        right = min(int(np.searchsorted(self._words, word, "right")), left + 64)
        for place in (self._order[left:right] * _WORD).tolist():
            low = 0
            while low < WINDOW and min(at, place) > low and data[at - low - 1] == self._payload[place - low - 1]:
                low += 1
            high = _WORD
            room = min(len(data) - at, len(self._payload) - place, WINDOW + _WORD)
            while high < room and data[at + high] == self._payload[place + high]:
                high += 1
            window = data[at - low : at + high]
            if len(window) >= WINDOW and len(set(window)) >= self._distinct:
                marks[at - low : at + high] = True
