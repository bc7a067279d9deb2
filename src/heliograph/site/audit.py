"""What operators did to a site's trust: one line of JSON for each act, chained by SHA-256, synced before the act.

A line that was changed, removed or moved breaks the chain. Lines cut off the end leave a whole chain, so their count
and the last line's digest stand in a second file (``audit.jsonl.head``). That stops an accident, and whoever can write
the log only, such as a rotation or collection tool; who can write both files can write a whole new history. Against
that, note count and head elsewhere: a head once noted must still be found in a log that verifies.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, BinaryIO, Final

import msgspec

from heliograph.errors import ConfigurationError, HeliographError, StoreUnavailable
from heliograph.site.clocks import WallClock
from heliograph.site.files import replace_file, sync_directory

__all__ = [
    "AUDIT_NAME",
    "TIME_END",
    "AuditEntry",
    "AuditLog",
    "AuditTampered",
    "Audited",
    "check_approver",
    "head_path",
]

AUDIT_NAME = "audit.jsonl"
TIME_END: Final = 253_402_300_800  # the year 10000: no calendar has what comes later
_START = "0" * 64
_APPROVER_CHARS_MAX = 64  # our choice
_LINE_BYTES_MAX = 1 << 16  # our choice


class AuditTampered(HeliographError):
    """The audit log is not what was written: the text names the line. Compare with a copy kept elsewhere."""


class AuditEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One act. ``time``: seconds since 1970; ``previous``: the digest of the line before, zeros for the first."""

    sequence: int
    time: Annotated[float, msgspec.Meta(ge=0, lt=TIME_END)]
    event: str
    approver: str
    details: dict[str, str | int | float | bool | list[str] | dict[str, str] | None]
    previous: str

    def line(self) -> bytes:
        """Return the one encoding of this act, with its digest at the end."""
        body = msgspec.json.encode(self)
        return body[:-1] + b',"digest":"' + self.digest().encode() + b'"}\n'

    def digest(self) -> str:
        """Return SHA-256 over everything in the line."""
        return hashlib.sha256(b"heliograph/1 audit" + msgspec.json.encode(self)).hexdigest()


class _Head(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How far the log goes. ``next``: the digest of a line that is being written now, empty otherwise."""

    count: int
    size: int
    head: str
    next: str = ""


@dataclass(frozen=True, slots=True)
class Audited:
    """A log that verified: its entries, its last digest, and whether its end was checked too."""

    entries: tuple[AuditEntry, ...]
    head: str
    end_checked: bool


def check_approver(name: str) -> str:
    """Return who answers for an act. Raises ConfigurationError for what is no name."""
    if not 1 <= len(name) <= _APPROVER_CHARS_MAX or not name.isprintable() or name != name.strip():
        raise ConfigurationError(
            f"--approver {name!r}: write who approves this, 1 to {_APPROVER_CHARS_MAX} printable characters"
        )
    return name


def head_path(log: Path) -> Path:
    """Return where a log's count and last digest are kept."""
    return log.with_name(log.name + ".head")


class AuditLog:
    """A site's audit log; several processes may append, one at a time."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def append(self, event: str, approver: str, details: Mapping[str, object]) -> AuditEntry:
        """Write one line, durably, before the act that it tells of. Raises AuditTampered, StoreUnavailable."""
        check_approver(approver)
        with self._locked() as file:
            head = self._mend(file)
            entry = msgspec.convert(
                {
                    "sequence": head.count + 1,
                    "time": WallClock().now(),
                    "event": event,
                    "approver": approver,
                    "details": dict(details),
                    "previous": head.head,
                },
                AuditEntry,
            )
            line = entry.line()
            if len(line) > _LINE_BYTES_MAX:
                raise StoreUnavailable(f"{self._path}: an entry of {len(line)} bytes; at most {_LINE_BYTES_MAX}")
            self._write_head(msgspec.structs.replace(head, next=entry.digest()))
            try:
                file.seek(head.size)
                file.write(line)
                file.flush()
                os.fsync(file.fileno())
            except OSError as error:
                raise StoreUnavailable(f"{self._path}: {error.strerror}; nothing was done") from None
            self._write_head(_Head(entry.sequence, head.size + len(line), entry.digest()))
        return entry

    def verify(self, *, needs_head: bool = False) -> Audited:
        """Check the whole log. Raises AuditTampered with the first line that is wrong, ConfigurationError if absent.

        ``needs_head``: refuse a log whose second file is missing; else its end goes unchecked then.
        """
        try:
            with self._path.open("rb") as file:
                if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                    raise ConfigurationError(
                        f"{self._path}: is no regular file, so no audit log; name SITE.toml or audit.jsonl"
                    )
                fcntl.flock(file, fcntl.LOCK_SH)
                if (
                    len(file.readline(_LINE_BYTES_MAX + 1)) > _LINE_BYTES_MAX
                ):  # whatever it is, it may not fit in memory
                    raise AuditTampered(f"{self._path}: line 1 was changed: longer than any that was written")
                file.seek(0)
                content, head = file.read(), self._read_head()
        except FileNotFoundError:
            if not head_path(self._path).exists():
                raise ConfigurationError(
                    f"{self._path}: there is no audit log here; name SITE.toml, or a copy of audit.jsonl. A site has "
                    "none before `heliograph site register`"
                ) from None
            raise AuditTampered(
                f"{self._path} is missing, {head_path(self._path).name} is not: it was removed"
            ) from None
        except OSError as error:
            raise ConfigurationError(f"{self._path}: {error.strerror}; name SITE.toml or audit.jsonl") from None
        if head is None:
            if needs_head:
                raise AuditTampered(f"{head_path(self._path)} is missing: lines may have been cut off the log's end")
            if not content:
                raise ConfigurationError(f"{self._path}: is empty, and a log has at least one line; name another copy")
            entries = self._entries(content)
            return Audited(entries, entries[-1].digest() if entries else _START, end_checked=False)
        extra = content[head.size :]
        entries = self._entries(content if self._is_next(extra, head) else content[: head.size])
        self._check_end(entries, head, content)
        return Audited(entries, entries[-1].digest() if entries else _START, end_checked=True)

    # What a crash may leave: a head that announces a line, and of the line nothing, a part, or all.
    def _mend(self, file: BinaryIO) -> _Head:
        content, head = file.read(), self._read_head()
        if head is None:
            if content:
                raise AuditTampered(
                    f"{head_path(self._path)} is missing, its log is not: nothing more is recorded here"
                )
            return _Head(0, 0, _START)
        extra = content[head.size :]
        if self._is_next(extra, head):
            entries = self._entries(content)
            return _Head(len(entries), len(content), entries[-1].digest())
        self._check_end(self._entries(content[: head.size]), head, content)
        file.truncate(head.size)
        return head

    def _check_end(self, entries: tuple[AuditEntry, ...], head: _Head, content: bytes) -> None:
        last = entries[-1].digest() if entries else _START
        whole = self._is_next(content[head.size :], head)
        if len(content) < head.size or (not whole and (len(entries), last) != (head.count, head.head)):
            raise AuditTampered(
                f"{self._path}: {len(entries)} lines end with {last[:16]}, but {head.count} ending with "
                f"{head.head[:16]} were written: lines were cut off the end"
            )
        extra = content[head.size :]
        if extra and not whole and not head.next:
            raise AuditTampered(f"{self._path}: line {head.count + 1} was not written by this site")

    def _is_next(self, extra: bytes, head: _Head) -> bool:
        return bool(head.next) and extra.endswith(b',"digest":"' + head.next.encode() + b'"}\n')

    def _entries(self, content: bytes) -> tuple[AuditEntry, ...]:
        entries: list[AuditEntry] = []
        previous = _START
        for number, line in enumerate(content.splitlines(keepends=True), start=1):
            entry = _parse(line)
            if entry is None:
                raise AuditTampered(f"{self._path}: line {number} was changed")
            if entry.sequence != number or entry.previous != previous:
                raise AuditTampered(
                    f"{self._path}: line {number} does not follow the line before it: lines were removed or moved"
                )
            entries.append(entry)
            previous = entry.digest()
        return tuple(entries)

    def _read_head(self) -> _Head | None:
        path = head_path(self._path)
        try:
            return msgspec.json.decode(path.read_bytes(), type=_Head)
        except FileNotFoundError:
            return None
        except (OSError, msgspec.MsgspecError, ValueError) as error:
            raise AuditTampered(f"{path}: {error}") from None

    def _write_head(self, head: _Head) -> None:
        replace_file(head_path(self._path), msgspec.json.encode(head) + b"\n")

    @contextmanager
    def _locked(self) -> Iterator[BinaryIO]:
        try:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise StoreUnavailable(f"{self._path}: {error.strerror}; nothing was done") from None
        with os.fdopen(descriptor, "r+b") as file:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            try:
                sync_directory(self._path.parent)
            except OSError as error:
                raise StoreUnavailable(f"{self._path}: {error.strerror}; nothing was done") from None
            yield file


def _parse(line: bytes) -> AuditEntry | None:
    """Return the entry of a line, if the line is exactly what was written for it."""
    try:
        fields = msgspec.json.decode(line)
        fields.pop("digest")
        entry = msgspec.convert(fields, AuditEntry)
    except (msgspec.MsgspecError, ValueError, KeyError, AttributeError, RecursionError):
        return None
    return entry if entry.line() == line else None
