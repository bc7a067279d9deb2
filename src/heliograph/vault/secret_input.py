"""Where a passphrase or a PIN comes from: a terminal, a file descriptor, a systemd credential; never argv or env."""

from __future__ import annotations

import getpass
import os
from pathlib import Path

from heliograph.errors import ConfigurationError, SiteSealed
from heliograph.vault.owned_file import read_owned

__all__ = ["SECRET_BYTES_MAX", "check_source", "read_secret", "take_secret"]

SECRET_BYTES_MAX = 1024  # our choice


def check_source(source: str) -> None:
    """Raise ConfigurationError unless ``source`` is "terminal", "fd:N" or "credential:/PATH"."""
    kind, _, name = source.partition(":")
    if source == "terminal" or (kind == "fd" and name.isascii() and name.isdecimal() and len(name) <= 6):
        return
    if kind == "credential" and name.startswith("/") and "\0" not in name:
        return
    raise ConfigurationError(f"secret = {source!r}: write terminal, fd:N or credential:/PATH")


def read_secret(source: str, what: str, *, again: bool = False) -> bytes:
    """Return the secret from ``source``, or from the terminal if the source is not there.

    ``what``: "passphrase" or "PIN", for the prompt; ``again``: ask a person twice, for a new one. Raises SiteSealed
    if there is neither the source nor a terminal, ConfigurationError for a source that cannot be used.
    """
    secret = take_secret(source, what)
    if secret is not None:
        return secret
    if not _has_terminal():
        raise SiteSealed(
            f"no {what}: {source} is not there, and there is no terminal to ask for it; run it in a terminal, or name "
            "fd:N or credential:/PATH as its source"
        )
    typed = getpass.getpass(f"{what}: ")
    if again and getpass.getpass(f"{what} again: ") != typed:
        raise ConfigurationError(f"{what}: the two are not the same; nothing was written")
    return _checked(typed.encode(), what)


def take_secret(source: str, what: str) -> bytes | None:
    """Return the secret from a descriptor or a credential, None if it is not there; asks nobody."""
    check_source(source)
    kind, _, name = source.partition(":")
    if kind == "fd":
        data = _descriptor(int(name))
    elif kind == "credential":
        data = _credential(Path(name), what)
    else:
        data = None
    return None if data is None else _checked(data, what)


def _descriptor(number: int) -> bytes | None:
    # Closed after it was read: neither a child nor the program that follows this one by `site seal` has it.
    try:
        with os.fdopen(number, "rb") as file:
            return file.read(SECRET_BYTES_MAX + 2)
    except OSError:
        return None


def _credential(path: Path, what: str) -> bytes | None:
    # systemd.exec(5), CREDENTIALS: below /run/credentials/UNIT. Named whole in SITE.toml, since no environment variable
    # changes what a site does.
    if not path.exists():
        return None
    return read_owned(path, SECRET_BYTES_MAX + 1, what, handed_over=True)


def _checked(data: bytes, what: str) -> bytes:
    secret = data.removesuffix(b"\n").removesuffix(b"\r")
    if not secret or len(secret) > SECRET_BYTES_MAX or b"\n" in secret or b"\0" in secret:
        raise ConfigurationError(f"{what}: one line of 1 to {SECRET_BYTES_MAX} bytes; correct it")
    return secret


def _has_terminal() -> bool:
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return False
    return True
