"""A key-encryption key in a file: for rehearsals and tests, and reported as such (``kek: file``)."""

from __future__ import annotations

from pathlib import Path

from heliograph.ports import RandomSource
from heliograph.vault.owned_file import create_file, read_exactly
from heliograph.vault.sealing import KEK_BYTES, OpenKek

__all__ = ["KEK_BYTES", "FileKek"]


class FileKek(OpenKek):
    """The 32 bytes of a file. Raises ConfigurationError if the file cannot be used as a key-encryption key."""

    def __init__(self, path: str | Path, randomness: RandomSource) -> None:
        super().__init__("file", read_exactly(Path(path), KEK_BYTES, "kek"), randomness)

    @classmethod
    def create(cls, path: str | Path, randomness: RandomSource) -> FileKek:
        """Write a fresh key-encryption key with mode 0600; an existing file is never replaced."""
        create_file(Path(path), randomness.draw(KEK_BYTES), "kek")
        return cls(path, randomness)
