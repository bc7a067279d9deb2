"""OpenPGP certificates as files and credentials, and the door to Sequoia (the extra ``pgp``)."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from heliograph.authentication.anchors.openpgp_packets import (
    PUBLIC_KEY,
    PUBLIC_SUBKEY,
    Packet,
    Unreadable,
    blocks_of_file,
    certificates,
    key_fingerprint,
    read_packets,
)
from heliograph.errors import ConfigurationError

__all__ = [
    "CREDENTIAL_BYTES_MAX",
    "Certificate",
    "SequoiaRefused",
    "certificate_fingerprint",
    "read_certificate",
    "read_certificate_file",
    "read_file",
    "sequoia",
    "sequoia_errors",
]

CREDENTIAL_BYTES_MAX: Final = 64 * 1024


class SequoiaRefused(Exception):
    """Sequoia would not do it; the text is the first line of its reason."""


def sequoia() -> Any:  # noqa: ANN401  - a module
    """Return the library. Raises ConfigurationError naming the extra to install."""
    try:
        import pysequoia  # noqa: PLC0415  - an extra: only a site that uses OpenPGP needs it
    except ImportError:
        raise ConfigurationError("OpenPGP needs pysequoia: run  pip install 'heliograph[pgp]'") from None
    return pysequoia


@contextmanager
def sequoia_errors() -> Iterator[None]:
    """Turn whatever the library raises into SequoiaRefused, a panic of its Rust side too."""
    try:
        yield
    except Exception as error:  # noqa: BLE001  - it raises RuntimeError, ValueError, TypeError and OSError
        raise SequoiaRefused(_first_line(error)) from None
    except BaseException as error:
        if type(error).__name__ == "PanicException":
            raise SequoiaRefused(_first_line(error)) from None
        raise


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]  # the rest is a stack trace


class Certificate:
    """One OpenPGP certificate, parsed but not believed. ``packets``: the primary key first."""

    def __init__(self, packets: list[Packet]) -> None:
        self.packets = packets
        self.fingerprint = key_fingerprint(packets[0])
        self.content = b"".join(packet.raw for packet in packets)

    @property
    def keys(self) -> dict[str, Packet]:
        """Return primary key and subkeys by fingerprint."""
        return {key_fingerprint(p): p for p in self.packets if p.tag in {PUBLIC_KEY, PUBLIC_SUBKEY}}


def read_certificate(credential: bytes) -> Certificate:
    """Read exactly one binary certificate of at most 64 KiB. Raises Unreadable."""
    if len(credential) > CREDENTIAL_BYTES_MAX:
        raise Unreadable(f"it is larger than {CREDENTIAL_BYTES_MAX} bytes; export with --export-options export-minimal")
    found = certificates(read_packets(credential))
    if len(found) != 1:
        raise Unreadable(f"it holds {len(found)} keys instead of one")
    return Certificate(found[0])


def read_file(path: Path, limit: int, what: str, *, private: bool = False) -> bytes:
    """Read a file of at most ``limit`` bytes. Raises ConfigurationError naming file and remedy."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise ConfigurationError(f"{what} {path}: not a file; name the file that gpg exported")
            if private and status.st_mode & 0o077:
                raise ConfigurationError(f"{what} {path}: others can read it; run chmod 600 {path}")
            content = file.read(limit + 1)
    except OSError as error:
        raise ConfigurationError(f"{what} {path}: {error.strerror}; export it with gpg and name it here") from None
    if len(content) > limit:
        raise ConfigurationError(f"{what} {path}: larger than {limit} bytes; export only the keys that are needed")
    return content


def read_certificate_file(path: Path) -> Certificate:
    """Read a file with one certificate, armoured or binary. Raises ConfigurationError naming file and remedy."""
    content = read_file(path, 2 * CREDENTIAL_BYTES_MAX, "OpenPGP certificate")
    try:
        return read_certificate(b"".join(blocks_of_file(content)))
    except Unreadable as why:
        raise ConfigurationError(f"OpenPGP certificate {path}: {why}") from None


def certificate_fingerprint(path: Path) -> str:
    """Return the fingerprint of the certificate in a file, lower-case hexadecimal. Raises ConfigurationError."""
    return read_certificate_file(path).fingerprint
