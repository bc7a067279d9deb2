"""A key-encryption key in a file: for rehearsals and tests, and reported as such (``kek: file``)."""

from __future__ import annotations

from pathlib import Path

from heliograph.errors import ConfigurationError
from heliograph.ports import RandomSource
from heliograph.vault.owned_file import create_file, read_owned
from heliograph.vault.sealing import KEK_BYTES, OpenKek

__all__ = ["KEK_BYTES", "FileKek"]


class FileKek(OpenKek):
    """The 32 bytes of a file. Raises ConfigurationError if the file cannot be used as a key-encryption key."""

    def __init__(self, path: str | Path, randomness: RandomSource) -> None:
        secret = read_owned(Path(path), KEK_BYTES, "kek")
        if len(secret) != KEK_BYTES:
            size = Path(path).stat().st_size
            raise ConfigurationError(f"kek {path}: holds {size} bytes, not {KEK_BYTES}; restore it or create it anew")
        super().__init__("file", secret, randomness)

    @classmethod
    def create(cls, path: str | Path, randomness: RandomSource) -> FileKek:
        """Write a fresh key-encryption key with mode 0600; an existing file is never replaced."""
        create_file(Path(path), randomness.draw(KEK_BYTES), "kek")
        return cls(path, randomness)
