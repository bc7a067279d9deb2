"""Files of one distillation: a recorded key in, a secret key out."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import numpy as np

from heliograph.bits import BitString
from heliograph.errors import ConfigurationError
from heliograph.kme.strict_json import MalformedDocument, read_document
from heliograph.postprocessing.recorded import BYTES_MAX, form_of, format_bits, parse_bits
from heliograph.postprocessing.secrecy.recorded import PhaseSample

__all__ = ["Recording", "check_new", "read_recording", "read_test_counts", "write_key"]

_COUNTS_BYTES_MAX = 1 << 16
_THEOREM = "tomamichel2012"


def _read(path: Path, bytes_max: int) -> bytes:
    """Return a regular file's content. Raises ConfigurationError in one line; at most ``bytes_max`` bytes are held."""
    try:
        # Not blocking: a pipe without a writer must not stop us before we see that it is no file.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode):
                raise ConfigurationError(f"{path}: not a regular file; save it to a file first")
            if found.st_size > bytes_max:
                raise ConfigurationError(
                    f"{path}: {found.st_size} bytes; at most {bytes_max} are held at once; cut it into parts, "
                    "or name packed bits .bin and give --block-bits"
                )
            with os.fdopen(descriptor, "rb", closefd=False) as file:
                return file.read(bytes_max + 1)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise ConfigurationError(f"{path}: {error.strerror}; name a file that can be read") from None


def read_recording(path: Path) -> BitString:
    """Return the bits in a file; its name tells the form. Raises ConfigurationError in one line."""
    data = _read(path, BYTES_MAX)
    try:
        return parse_bits(data, form_of(path.name))
    except ConfigurationError as why:
        raise ConfigurationError(f"{path}: {why}") from None


class Recording:
    """A recorded key that is taken in parts.

    Packed files are read part by part, so that they may be far larger than what is held; other forms are held whole.
    """

    def __init__(self, path: Path, *, in_parts: bool) -> None:
        """Open; ``in_parts``: more than one will be asked for. Raises ConfigurationError in one line."""
        self._path = path
        self._whole: BitString | None = None
        if in_parts and form_of(path.name) == "packed":
            self.bits = 8 * _size(path)
            if not self.bits:
                raise ConfigurationError(f"{path}: there is not a single bit in it; record a key first")
        else:
            self._whole = read_recording(path)
            self.bits = len(self._whole)

    def ones(self) -> int:
        """Return how many of all the bits are ones. Raises as ``part`` does."""
        if self._whole is not None:
            return _ones(self._whole.to_bytes())
        step = 8 << 20
        return sum(
            _ones(self.part(first, min(step, self.bits - first)).to_bytes()) for first in range(0, self.bits, step)
        )

    def part(self, first: int, bits: int) -> BitString:
        """Return ``bits`` bits from bit ``first`` on, both multiples of 8 unless all is held.

        Raises ConfigurationError if the file is not what it was.
        """
        if self._whole is not None:
            return self._whole[first : first + bits]
        try:
            with self._path.open("rb", buffering=0) as file:
                data = os.pread(file.fileno(), bits // 8, first // 8)
        except OSError as error:
            raise ConfigurationError(f"{self._path}: {error.strerror}; name a file that can be read") from None
        if len(data) != bits // 8:
            raise ConfigurationError(f"{self._path}: it became shorter while it was read")
        return BitString(data, bits)


def _ones(data: bytes) -> int:
    return int(np.bitwise_count(np.frombuffer(data, dtype=np.uint8)).sum())


def _size(path: Path) -> int:
    """Return the bytes of a regular file. Raises ConfigurationError in one line."""
    try:
        found = path.stat()
    except OSError as error:
        raise ConfigurationError(f"{path}: {error.strerror}; name a file that can be read") from None
    if not stat.S_ISREG(found.st_mode):
        raise ConfigurationError(f"{path}: not a regular file; save it to a file first")
    return found.st_size


def read_test_counts(path: Path) -> PhaseSample:
    """Return test-basis counts from ``{"protocol": "tomamichel2012", "k": bits, "errors": errors}``.

    Raises ConfigurationError in one line.
    """
    try:
        document = read_document(_read(path, _COUNTS_BYTES_MAX))
    except MalformedDocument as why:
        raise ConfigurationError(f"{path}: {why}") from None
    if not isinstance(document, dict) or set(document) != {"protocol", "k", "errors"}:
        raise ConfigurationError(f'{path}: exactly "protocol", "k" and "errors" are needed')
    if document["protocol"] != _THEOREM:
        raise ConfigurationError(f'{path}: "protocol" must be "{_THEOREM}", the theorem for single photons and BBM92')
    for name in ("k", "errors"):
        if type(document[name]) is not int:
            raise ConfigurationError(f'{path}: "{name}" must be a whole number')
    try:
        return PhaseSample(document["k"], document["errors"])
    except ConfigurationError as why:
        raise ConfigurationError(f"{path}: {why}") from None


def check_new(path: Path, option: str) -> None:
    """Raise ConfigurationError unless a new file can be made at ``path``."""
    if os.path.lexists(path):
        raise ConfigurationError(f"{option} {path}: it exists; name another, a key never overwrites anything")
    if not path.parent.is_dir():
        raise ConfigurationError(f"{option} {path}: {path.parent} is not a directory; make it first")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise ConfigurationError(f"{option} {path}: {path.parent} cannot be written; name another place")


def write_key(path: Path, key: BitString) -> None:
    """Write a new file, mode 0600, whole or not at all, and on the disk when this returns.

    Raises ConfigurationError if anything has that name by now or the file cannot be written; then nothing is left.
    """
    partial = path.with_name(f".heliograph-{os.getpid()}.partial")
    try:
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(format_bits(key, form_of(path.name)))
                file.flush()
                os.fsync(descriptor)
            os.link(partial, path)  # unlike a rename, it never replaces anything
        finally:
            partial.unlink()
    except OSError as error:
        raise ConfigurationError(f"{path}: {error.strerror}; the key was not written") from None
