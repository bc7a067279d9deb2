"""What a disk may hold after the power went: synced bytes for certain, of the others any part."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from heliograph.lab.disk_faults import Call

__all__ = ["Disk"]

_SECTOR = 512


@dataclass
class _File:
    durable: bytearray
    pending: list[tuple[int, bytes | None]] = field(default_factory=list)  # (offset, bytes), or (size, None): truncate


def _apply(content: bytearray, offset: int, data: bytes | None) -> None:
    if data is None:
        del content[offset:]
        content.extend(bytes(offset - len(content)))
        return
    content.extend(bytes(max(0, offset - len(content))))
    content[offset : offset + len(data)] = data


class Disk:
    """The files below a directory, as the calls of a trace change them.

    The model: a sync of a file makes its bytes durable, a sync of a directory the names in it. Before that each write
    may be on the disk, or not, or in some of its sectors only, in any combination; of the changes of names a first
    part is there, since file systems log those in order.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._durable: dict[str, _File] = {}
        for path in root.rglob("*"):
            if path.is_file() and not path.name.endswith(("-shm", ".lock")):
                self._durable[str(path)] = _File(bytearray(path.read_bytes()))
        self._live = dict(self._durable)
        self._names: list[tuple[str, str, _File | None]] = []  # (directory, name, file or None if it went)

    def apply(self, call: Call) -> None:
        """Take one call."""
        if call.kind == "s":
            self._sync(call.path)
        elif call.kind == "w":
            self._live[call.path].pending.append((call.offset, call.data))
        elif call.kind == "t":
            self._live[call.path].pending.append((call.offset, None))
        elif call.kind == "o":
            if call.path not in self._live:
                self._name(call.path, _File(bytearray()))
            if call.offset:
                self._live[call.path].pending.append((0, None))
        elif call.kind == "u":
            self._name(call.path, None)
        elif call.kind == "r":
            moved = self._live[call.path]
            # One step of the file system: both names change together.
            self._live.pop(call.path)
            self._live[call.data.decode()] = moved
            self._names.append((str(Path(call.path).parent), f"{call.path}\0{call.data.decode()}", moved))

    def _name(self, path: str, file: _File | None) -> None:
        self._names.append((str(Path(path).parent), path, file))
        if file is None:
            self._live.pop(path, None)
        else:
            self._live[path] = file

    def _sync(self, path: str) -> None:
        if path in self._live:
            file = self._live[path]
            for offset, data in file.pending:
                _apply(file.durable, offset, data)
            file.pending.clear()
            return
        for change in [c for c in self._names if c[0] == path]:
            _rename(self._durable, change)
            self._names.remove(change)

    def image(self, to: Path, chance: Random) -> None:
        """Write one possible disk below ``to``, with the same names as below the root."""
        names = dict(self._durable)
        for change in self._names[: chance.randint(0, len(self._names))]:
            _rename(names, change)
        kept = chance.choice((0.0, 0.5, 0.9, 1.0))
        for name, file in names.items():
            content = bytearray(file.durable)
            for offset, data in file.pending:
                if data is not None and len(data) > _SECTOR and chance.random() < 0.2:
                    for start in range(0, len(data), _SECTOR):
                        if chance.random() < kept:
                            _apply(content, offset + start, data[start : start + _SECTOR])
                elif chance.random() < kept:
                    _apply(content, offset, data)
            target = to / Path(name).relative_to(self._root)
            target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            target.touch(0o600)
            target.write_bytes(content)


def _rename(names: dict[str, _File], change: tuple[str, str, _File | None]) -> None:
    _, name, file = change
    before, _, after = name.partition("\0")
    if after or file is None:
        names.pop(before, None)
    if file is not None:
        names[after or before] = file
