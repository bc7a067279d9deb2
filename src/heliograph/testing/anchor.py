"""An anti-rollback anchor in memory: it outlives its site's restarts, and a test may turn it back."""

from __future__ import annotations

__all__ = ["MemoryAnchor"]


class MemoryAnchor:
    """Implements ``ports.Anchor``. ``mark`` is the highest (epoch, block) ever marked."""

    def __init__(self, mark: tuple[int, int] = (0, 0)) -> None:
        self.mark = mark

    def read(self) -> tuple[int, int]:
        """Return the highest mark."""
        return self.mark

    def advance(self, epoch: int, block: int) -> None:
        """Take a mark; a lower one changes nothing."""
        self.mark = max(self.mark, (epoch, block))
