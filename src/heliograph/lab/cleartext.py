"""How many recorded bytes are covered by some 16-byte window of the payload; exact, at any alignment."""

from __future__ import annotations

import mmap
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

__all__ = ["WINDOW", "PayloadIndex"]

WINDOW = 16
_WORD = 8  # every 16-byte window holds a whole 8-byte word that is aligned in the payload
_FILTER_BITS = 26
_CHUNK = 1 << 22
_THREADS = 2
_KNOWN_MAX = 1 << 16
_PLACES_MAX = 64

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
        self._order = np.argsort(words)
        self._words = words[self._order]
        self._known: dict[bytes, bool] = {}
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
        with ThreadPoolExecutor(_THREADS) as pool:  # numpy leaves the interpreter lock for these loops
            for found in pool.map(lambda start: self._in_chunk(data, start), range(0, len(data), _CHUNK)):
                yield from found

    def _in_chunk(self, data: mmap.mmap, start: int) -> list[int]:
        piece = data[start : start + _CHUNK + _WORD]
        offsets: list[int] = []
        for shift in range(_WORD):
            count = (min(len(piece), _CHUNK + shift) - shift) // _WORD
            if count <= 0:
                continue
            words = np.frombuffer(piece, np.uint64, count, shift)
            near = np.flatnonzero(self._filter[_hash(words)])
            found = np.minimum(np.searchsorted(self._words, words[near]), len(self._words) - 1)
            offsets += (near[self._words[found] == words[near]] * _WORD + (start + shift)).tolist()
        return offsets

    def _extend(self, data: mmap.mmap, at: int, marks: NDArray[np.bool_]) -> None:
        """Mark the windows of 16 bytes around a common word that are windows of the payload."""
        first, last = max(0, at + _WORD - WINDOW), min(at, len(data) - WINDOW)
        if marks[first : last + WINDOW].all():
            return
        word = np.frombuffer(data[at : at + _WORD], np.uint64)[0]
        left, right = (int(np.searchsorted(self._words, word, side)) for side in ("left", "right"))
        if right - left > _PLACES_MAX:
            # A word that the payload repeats: ask for each window, of which there are few different ones.
            for begin in range(first, last + 1):
                if self._holds(data[begin : begin + WINDOW]):
                    marks[begin : begin + WINDOW] = True
            return
        for place in (self._order[left:right] * _WORD).tolist():
            low = 0
            while low < min(at, place, WINDOW) and data[at - low - 1] == self._payload[place - low - 1]:
                low += 1
            run = _WORD + self._run(data, at + _WORD, place + _WORD)
            piece = data[at - low : at + run]
            if len(piece) >= WINDOW and (self._distinct == 1 or len(set(piece)) >= self._distinct):
                marks[at - low : at + run] = True

    def _run(self, data: mmap.mmap, at: int, place: int) -> int:
        """Return how many bytes from here on are the same in recording and payload."""
        run, step = 0, WINDOW
        while step:
            ours, theirs = data[at + run : at + run + step], self._payload[place + run : place + run + step]
            if len(ours) == len(theirs) == step and ours == theirs:
                run += step
                step = min(2 * step, _CHUNK)
            else:
                step //= 2
        return run

    def _holds(self, window: bytes) -> bool:
        known = self._known.get(window)
        if known is None:
            known = len(set(window)) >= self._distinct and window in self._payload
            if len(self._known) < _KNOWN_MAX:
                self._known[window] = known
        return known
