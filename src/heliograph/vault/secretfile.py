"""A secret of a fixed size in a file of its own, that only this user may read."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from heliograph.errors import ConfigurationError

__all__ = ["create_secret", "read_secret"]


def create_secret(path: str | Path, what: str, secret: bytes) -> None:
    """Write a secret with mode 0600, on the disk when this returns; an existing file is never replaced.

    ``what``: the entry that names the file, for messages. Raises ConfigurationError.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        raise ConfigurationError(f"{what} {path}: exists already; use it or name another file") from None
    except OSError as error:
        raise ConfigurationError(f"{what} {path}: {error.strerror}; name a file this user can write") from error
    with os.fdopen(descriptor, "wb") as file:
        file.write(secret)
        file.flush()
        os.fsync(file.fileno())
    directory = os.open(Path(path).parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)  # without it a crash could lose the file and with it all that hangs on it
    finally:
        os.close(directory)


def read_secret(path: str | Path, what: str, size: int) -> bytes:
    """Return the ``size`` bytes of a secret's file. Raises ConfigurationError if others could read or replace it."""
    try:
        # Not blocking: a pipe under that name must be refused, not waited for.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise ConfigurationError(f"{what} {path}: {error.strerror}; create it or correct the path") from error
    try:
        facts = os.fstat(descriptor)
        if not stat.S_ISREG(facts.st_mode):
            raise ConfigurationError(f"{what} {path}: not a plain file; name the file that holds the key")
        if facts.st_mode & 0o077:
            raise ConfigurationError(
                f"{what} {path}: others can read it; run chmod 600 {path}, and replace it if they did"
            )
        if facts.st_uid != os.geteuid():
            raise ConfigurationError(f"{what} {path}: belongs to another user; run chown to this user")
        secret = os.read(descriptor, size + 1)
    finally:
        os.close(descriptor)
    if len(secret) != size:
        raise ConfigurationError(
            f"{what} {path}: holds {facts.st_size} bytes, not {size}; restore it or create it anew"
        )
    return secret
