"""The lab's dice: what the fibre, its detectors and Eve draw from. The sites never do (security.md 6)."""

from __future__ import annotations

from numpy.random import Generator, SeedSequence, default_rng

__all__ = ["Generator", "fresh_lab_seed", "lab_generator"]


def lab_generator(lab_seed: int, block: int = 0) -> Generator:
    """Return the dice of one block: the same for the same pair, whatever else the fibre carried before.

    Reproducible within a release only.
    """
    return default_rng(SeedSequence(lab_seed, spawn_key=(block,)))


def fresh_lab_seed() -> int:
    """Return a seed that nobody chose, 128 bits from the operating system."""
    entropy = SeedSequence().entropy
    assert isinstance(entropy, int)  # numpy's own choice is always one integer
    return entropy
