"""Small secret files: written once and synced, read only if nobody else can read them."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path

from heliograph.errors import ConfigurationError

__all__ = ["create_file", "read_exactly", "read_owned", "shred"]


def create_file(path: Path, content: bytes, what: str) -> None:
    """Write ``content`` with mode 0600, durably; an existing file is never replaced. Raises ConfigurationError."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        raise ConfigurationError(f"{what} {path}: exists already; use it or name another file") from None
    except OSError as error:
        raise ConfigurationError(f"{what} {path}: {error.strerror}; name a file this user can write") from error
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        sync_directory(path.parent)  # without it a crash could lose the file and with it all that hangs on it
    except OSError as error:
        with suppress(OSError):
            path.unlink()  # half a secret would be taken for the whole one's name, and never replaced
        raise ConfigurationError(f"{what} {path}: {error.strerror}; nothing was left there, try again") from error


def read_owned(path: Path, size_max: int, what: str, *, handed_over: bool = False) -> bytes:
    """Return at most ``size_max`` + 1 bytes of a plain file that belongs to this user and nobody else can read.

    ``handed_over``: it may belong to root, and show a group that reads: systemd gives a credential to its service's
    user by an access list, whose mask stands where the group's bits are. Raises ConfigurationError.
    """
    try:
        # Not blocking: a pipe under that name must be refused, not waited for.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise ConfigurationError(f"{what} {path}: {error.strerror}; create it or correct the path") from error
    try:
        facts = os.fstat(descriptor)
        if not stat.S_ISREG(facts.st_mode):
            raise ConfigurationError(f"{what} {path}: not a plain file; name the file that holds the key")
        if facts.st_mode & (0o037 if handed_over else 0o077):
            raise ConfigurationError(
                f"{what} {path}: others can read it; run chmod 600 {path}, and replace it if they did"
            )
        if facts.st_uid != os.geteuid() and not (handed_over and facts.st_uid == 0):
            raise ConfigurationError(f"{what} {path}: belongs to another user; run chown to this user")
        return os.read(descriptor, size_max + 1)
    finally:
        os.close(descriptor)


def read_exactly(path: Path, size: int, what: str) -> bytes:
    """Return the ``size`` bytes of such a file. Raises ConfigurationError, also for another size."""
    secret = read_owned(path, size, what)
    if len(secret) != size:
        raise ConfigurationError(
            f"{what} {path}: holds {path.stat().st_size} bytes, not {size}; restore it or create it anew"
        )
    return secret


def shred(path: Path, what: str) -> bool:
    """Overwrite a file's bytes in place, sync, and remove it. Returns False if there is none.

    A copy-on-write file system or a flash drive may keep the old bytes; whoever fears that keeps the key in a token.
    Raises ConfigurationError if it cannot be done.
    """
    with suppress(OSError):  # a file of mode 0400 is ours to destroy too
        reading = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            if stat.S_ISREG(os.fstat(reading).st_mode):
                os.fchmod(reading, 0o600)
        finally:
            os.close(reading)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise ConfigurationError(f"{what} {path}: {error.strerror}; destroy it by hand") from error
    try:
        facts = os.fstat(descriptor)
        if not stat.S_ISREG(facts.st_mode):
            raise ConfigurationError(f"{what} {path}: not a plain file; destroy it by hand")
        left = facts.st_size
        while left > 0:
            left -= os.write(descriptor, bytes(min(left, 1 << 20)))
        os.fsync(descriptor)
        path.unlink()
        sync_directory(path.parent)
    except OSError as error:
        raise ConfigurationError(f"{what} {path}: {error.strerror}; destroy it by hand") from error
    finally:
        os.close(descriptor)
    return True


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable."""
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
