"""Two sources of randomness for the modules under test."""

from __future__ import annotations


class CountingRandom:
    """Draws known bytes, so that a test sees what they were used for."""

    kind = "test"

    def __init__(self, byte):
        self.byte = byte
        self.drawn = []

    def draw(self, size):
        self.drawn.append(size)
        return bytes([self.byte]) * size
