"""A PostgreSQL server on a small disk that is filled up until its next page, or the next file of its own log, fails."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from heliograph.errors import ConfigurationError
from heliograph.lab.postgres import LabPostgres
from heliograph.lab.tmpfs import SmallDisk

__all__ = ["FullServer", "ballast"]

_DATA_MIB, _WAL_MIB = 200, 32
_BALLAST: Final = 50_000
_SETTINGS: Final = (
    "shared_buffers = 8MB",
    "autovacuum = off",  # no page is used again
    "wal_recycle = off",
    "min_wal_size = 2MB",
    "max_wal_size = 4MB",
)
# A page takes a few rows only, so that each delivery soon needs another one.
_TABLES: Final = ("key_segments", "key_records", "key_tombstones", "key_shares", "segment_holders")


def ballast() -> str:
    """Return a block's metadata that nothing compresses, so that every hand-over needs new pages."""
    return f'{{"ballast": "{os.urandom(_BALLAST).hex()}"}}'


class FullServer:
    """``server``, which is not made yet, with its data, or with ``wal`` its own log, on a disk of its own.

    Raises ConfigurationError without root.
    """

    def __init__(self, server: LabPostgres, *, wal: bool) -> None:
        self._server = server
        self._wal = server.directory / "wal"
        self._is_wal = wal
        self._disk = SmallDisk(self._wal if wal else server.data, _WAL_MIB if wal else _DATA_MIB)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(ConfigurationError):
            self._server.stop("immediate")
        self._disk.remove()

    def start(self, *settings: str) -> None:
        """Make the cluster and start it."""
        for path in (self._wal, self._server.data):
            path.mkdir(exist_ok=True)
            self._server.own(path)
        self._server.create("--waldir", str(self._wal), "--wal-segsize", "1")
        self._server.set(*settings, *_SETTINGS)
        self._server.start()

    def leave_no_room(self, databases: Sequence[str]) -> None:
        """Let rows take more room than they need."""
        for database in databases:
            with self._server.session(database) as session:
                for table in _TABLES:
                    session.execute(f"ALTER TABLE heliograph.{table} SET (fillfactor = 10)")

    def fill(self, _: int = 0) -> None:
        """Fill the disk; of the log every file that is there already is used up too."""
        self._disk.fill()
        if not self._is_wal:
            return
        # The session that needs the next file ends the server, this one or a front end's.
        with suppress(Exception), self._server.session() as session:
            while True:
                session.execute("SELECT pg_logical_emit_message(true, 'heliograph', '')")
                (current,) = session.execute("SELECT pg_walfile_name(pg_current_wal_insert_lsn())").fetchone()
                if not self._beyond(current):
                    session.execute("SELECT pg_switch_wal()")
                    return
                session.execute("SELECT pg_switch_wal()")

    def free(self) -> None:
        """Give the room back."""
        self._disk.free()

    def _beyond(self, current: str) -> list[Path]:
        return [path for path in self._wal.iterdir() if len(path.name) == len(current) and path.name > current]
