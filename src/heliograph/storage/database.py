"""One SQLite file per site: everything that must survive a crash changes in one transaction or not at all."""

from __future__ import annotations

import fcntl
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol, TypeVar

from heliograph.errors import ConfigurationError, LocalProtocolError, StoreUnavailable
from heliograph.ports import Vault
from heliograph.storage.sqlite_reasons import explain

__all__ = ["SCHEMA_VERSION", "BatchOwner", "Database", "lock_store"]

SCHEMA_VERSION = 4  # an older one is brought up by storage/migrations.py
BUSY_TIMEOUT_MS = 5000
_WRITABLE = "let this user write there, or name another `store`"

# What an operator reads for SQLite's result codes, by prefix; the rest are named as SQLite names them.
_Batch = TypeVar("_Batch")


class BatchOwner(Protocol[_Batch]):
    """Whose changes are gathered in memory and written once before the commit."""

    def begin(self, cursor: sqlite3.Cursor) -> _Batch:
        """Return an empty batch. It reads through ``cursor`` and changes nothing there."""

    def finish(self, batch: _Batch, cursor: sqlite3.Cursor) -> Sequence[Callable[[], None]]:
        """Write the batch; return what is to run once it is durable, the first last."""


class Database:
    """A site's store, open in this process only.

    Write-ahead log with ``synchronous=FULL``: a transaction that returned is on the disk. ``secure_delete=ON``:
    deleted rows are overwritten in the file; copies in the log go with ``checkpoint()``. Secrets are never
    written as they are: the modules above seal them with ``vault`` first.

    ``path``: the file, created 0600 in a directory of mode 0700, or ":memory:" (nothing survives).
    ``schemas``: CREATE TABLE IF NOT EXISTS scripts of the records kept here, as for ``define``.
    Raises ConfigurationError for a path, a mode or a schema version that cannot be used, and StoreUnavailable for
    what SQLite refuses. Calls from several threads take turns.
    ``cache_mib``: pages kept in memory at most, where SQLite's own choice is too little: for millions of keys at once.
    """

    def __init__(
        self, path: str | Path, vault: Vault, schemas: Sequence[str] = (), *, cache_mib: int | None = None
    ) -> None:
        self._name = str(path)
        self._translated = _Translated(self._name)
        self._vault = vault
        self._turn = threading.RLock()
        self._lock_file: int | None = None
        self._connection: sqlite3.Connection | None = None
        self._deferred: list[Callable[[], None]] | None = None  # not None while a group is open
        self._in_savepoint = False
        self._batch_in_use = False  # its owner is changing it: nothing may write it now
        self._grouped: set[int] = set()  # threads whose group is open, or whose answers are not out yet
        self._log_due = True  # the log may hold what was erased: before a crash, too
        self._batch: tuple[BatchOwner[Any], Any, sqlite3.Cursor] | None = None  # of the open group
        in_memory = self._name == ":memory:"
        if not in_memory:
            self._lock_file = lock_store(Path(path))
        try:
            with self._translated:
                self._connection = sqlite3.connect(
                    self._name, timeout=BUSY_TIMEOUT_MS / 1000, isolation_level=None, check_same_thread=False
                )
                self._configure(self._connection, journal="memory" if in_memory else "wal")
                if cache_mib is not None:
                    self._connection.execute(f"PRAGMA cache_size={-1024 * cache_mib}")
            for script in schemas:
                self.define(script)
            self.settle()
        except BaseException:
            self.close()
            raise

    @property
    def vault(self) -> Vault:
        """What seals the secrets kept here."""
        return self._vault

    def _configure(self, connection: sqlite3.Connection, journal: str) -> None:
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if version > SCHEMA_VERSION:
            raise ConfigurationError(
                f"store {self._name}: written by a newer release (schema {version}, this one knows {SCHEMA_VERSION}); "
                "run that release or re-bootstrap with a new store"
            )
        if 0 < version < SCHEMA_VERSION:
            raise ConfigurationError(
                f"store {self._name}: written by an older release (schema {version}, this one has {SCHEMA_VERSION}); "
                "run `heliograph store migrate`"
            )
        mode = connection.execute("PRAGMA journal_mode=WAL").fetchone()[0]
        if mode != journal:
            raise ConfigurationError(
                f"store {self._name}: its file system has no shared memory for WAL; use a local disk"
            )
        for pragma in (
            "synchronous=FULL",  # fsync at each commit: burn before use (security.md 4, rule 3 of the design)
            "secure_delete=ON",
            "foreign_keys=ON",
            "temp_store=MEMORY",
            "trusted_schema=OFF",
            f"busy_timeout={BUSY_TIMEOUT_MS}",
            f"user_version={SCHEMA_VERSION}",
        ):
            connection.execute(f"PRAGMA {pragma}")

    def define(self, script: str) -> None:
        """Create the tables of one kind of record; ``script`` must be harmless when they exist already."""
        with self._turn, self._translated:
            connection = self._open()
            if connection.in_transaction:
                raise LocalProtocolError("tables are defined outside a transaction")
            try:
                connection.executescript(f"BEGIN IMMEDIATE;\n{script}\n;COMMIT;")
            except BaseException:
                self._roll_back(connection)
                raise

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Cursor]:
        """Everything done with the cursor is durable when the block ends, or undone if it raises.

        In a ``group`` it is durable when the group ends. Raises StoreUnavailable (nothing changed) or
        LocalProtocolError for a transaction inside another.
        """
        with self._turn, self._translated:
            connection = self._open()
            if self._deferred is not None and not self._in_savepoint:
                self._write_batch(connection)  # what comes now must see it, and a refusal of its own must not undo it
                self._check_group(connection)
                with self._savepoint(connection) as cursor:
                    yield cursor
                return
            if connection.in_transaction:
                raise LocalProtocolError("a transaction is open already; pass its cursor on")
            cursor = connection.cursor()
            try:
                cursor.execute("BEGIN IMMEDIATE")
                yield cursor
                cursor.execute("COMMIT")
            except BaseException:
                self._roll_back(connection)
                raise
            finally:
                cursor.close()

    @contextmanager
    def batch(self, owner: BatchOwner[_Batch]) -> Iterator[_Batch]:
        """Yield the batch of ``owner``, which is written when the block ends; in a ``group``, once for the whole group.

        If the block raises, the batch must be as it was before: the group goes on with it. Raises as ``transaction``.
        """
        with self._turn, self._translated:
            connection = self._open()
            if self._deferred is None or self._in_savepoint:
                with self.transaction() as cursor:
                    batch = owner.begin(cursor)
                    yield batch
                    afterwards = owner.finish(batch, cursor)
            else:
                self._check_group(connection)
                if self._batch is None or self._batch[0] is not owner:
                    self._write_batch(connection)
                    cursor = connection.cursor()
                    self._batch = owner, owner.begin(cursor), cursor
                if self._batch_in_use:
                    raise LocalProtocolError("a batch is open already; pass it on")
                self._batch_in_use = True
                try:
                    yield self._batch[1]
                finally:
                    self._batch_in_use = False
                afterwards = []
        for call in reversed(afterwards):
            call()

    def _write_batch(self, connection: sqlite3.Connection) -> None:
        if self._batch is None or self._deferred is None:  # there is no batch without a group
            return
        if self._batch_in_use:
            # Written now, it would be committed without what its owner changes after this.
            raise LocalProtocolError("a batch is open already; read and write through it")
        (owner, batch, cursor), self._batch = self._batch, None
        try:
            self._check_group(connection)
            self._deferred += owner.finish(batch, cursor)
        except BaseException:
            self._roll_back(connection)  # half a batch must not be committed: the whole group goes
            raise
        finally:
            cursor.close()

    def _check_group(self, connection: sqlite3.Connection) -> None:
        if not connection.in_transaction:
            raise StoreUnavailable(f"store {self._name}: a group of transactions was rolled back; try again")

    @contextmanager
    def _savepoint(self, connection: sqlite3.Connection) -> Iterator[sqlite3.Cursor]:
        cursor = connection.cursor()
        self._in_savepoint = True
        try:
            cursor.execute("SAVEPOINT part")
            yield cursor
            cursor.execute("RELEASE part")
        except BaseException:
            # If SQLite has rolled everything back by itself, ``group`` finds it out.
            if connection.in_transaction:
                try:
                    connection.execute("ROLLBACK TO part")
                    connection.execute("RELEASE part")
                except sqlite3.Error:
                    self._roll_back(connection)  # half a part must not be committed: the whole group goes
            raise
        finally:
            self._in_savepoint = False
            cursor.close()

    @contextmanager
    def group(self) -> Iterator[None]:
        """Make the transactions of this block durable together: each stays all or none, with one sync for all.

        Nothing that they return may leave before the block has ended. Raises StoreUnavailable: then all are undone, or
        what ``when_durable`` was given failed, and nothing may leave either.
        """
        with self._turn, self._translated:
            connection = self._open()
            if connection.in_transaction or self._deferred is not None:
                raise LocalProtocolError("a transaction or a group is open already")
            self._deferred, thread = [], threading.get_ident()
            self._grouped.add(thread)
            try:
                connection.execute("BEGIN IMMEDIATE")
                yield
                self._write_batch(connection)
                connection.execute("COMMIT")  # refused if SQLite has rolled the group back by itself
                deferred = self._deferred
            except BaseException:
                self._roll_back(connection)
                self._grouped.discard(thread)
                raise
            finally:
                self._deferred = self._batch = None
        try:
            # The latest first: of several marks for the anchor it is the only one that has to be written.
            for call in reversed(deferred):
                call()
        finally:
            self._grouped.discard(thread)

    def when_durable(self, call: Callable[[], None]) -> None:
        """Run ``call`` now; inside a ``group``, once it is on the disk. For what must not precede the commit."""
        with self._turn:
            if self._deferred is not None:
                self._deferred.append(call)
                return
        call()

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Cursor]:
        """Yield a cursor for SELECT. Raises StoreUnavailable."""
        with self._turn, self._translated:
            connection = self._open()
            self._write_batch(connection)
            cursor = connection.cursor()
            try:
                yield cursor
            finally:
                cursor.close()

    def checkpoint(self) -> bool:
        """Move the write-ahead log into the file and empty it, so that erased bytes leave the log too.

        Returns False if a reader prevented it. Raises StoreUnavailable.
        """
        with self._turn, self._translated:
            busy, _, _ = self._open().execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            if not busy:
                self._log_due = False
            return not busy

    def checkpoint_due(self) -> None:
        """Note that the open transaction erases: whatever fails after it, the next ``settle`` empties the log."""
        self._log_due = True

    def checkpoint_soon(self) -> None:
        """Run ``checkpoint``; in a thread's ``group``, at the next ``settle``: no answer waits for it. Raises nothing.

        If it fails, what was committed stands, the checkpoint stays due, and the next one does the rest.
        """
        self._log_due = True
        if threading.get_ident() not in self._grouped:
            self.settle()

    @property
    def unsettled(self) -> bool:
        """Whether ``settle`` has something to do."""
        return self._log_due

    def settle(self) -> None:
        """Do what groups have left to be done once their answers are on their way. Raises nothing."""
        if self._log_due:
            with suppress(StoreUnavailable):
                self.checkpoint()

    def probe(self, size: int) -> None:
        """Write ``size`` bytes and erase them again. Raises StoreUnavailable if the disk does not take them."""
        with self.transaction() as cursor:
            cursor.execute("CREATE TABLE IF NOT EXISTS store_probe(filling BLOB NOT NULL)")
            cursor.execute("INSERT INTO store_probe VALUES (zeroblob(?))", (size,))
        with self.transaction() as cursor:
            cursor.execute("DELETE FROM store_probe")
        self.checkpoint()

    def close(self) -> None:
        """Close the file and let other processes open it. Does nothing the second time."""
        with self._turn:
            try:
                if self._connection is not None:
                    with suppress(sqlite3.Error):  # the log is replayed at the next opening
                        self._connection.close()
            finally:
                self._connection = None
                if self._lock_file is not None:
                    os.close(self._lock_file)
                    self._lock_file = None

    def _open(self) -> sqlite3.Connection:
        if self._connection is None:
            raise StoreUnavailable(f"store {self._name}: closed")
        return self._connection

    @staticmethod
    def _roll_back(connection: sqlite3.Connection) -> None:
        # After some errors SQLite has rolled back by itself. If ROLLBACK fails too, the transaction stays open and
        # every later one is refused: closed, not open.
        if connection.in_transaction:
            with suppress(sqlite3.Error):
                connection.execute("ROLLBACK")


class _Translated:
    """Makes what SQLite refuses a StoreUnavailable that an operator can read; one object, since each key enters it."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, sqlite3.Error):
            raise StoreUnavailable(f"store {self._name}: {explain(error)}") from error


def lock_store(path: Path) -> int:
    """Make the directory and the file with owner-only modes, and hold an advisory lock on a file beside it."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if path.parent.stat().st_mode & 0o077:
            raise ConfigurationError(f"store {path}: others can enter its directory; run chmod 700 {path.parent}")
        descriptor = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ConfigurationError(f"store {path}: {error.strerror}; {_WRITABLE}") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        readable_by_others = path.stat().st_mode & 0o077
    except OSError as error:
        os.close(descriptor)
        if isinstance(error, BlockingIOError):
            raise ConfigurationError(f"store {path}: another process has it open; stop that one first") from None
        raise ConfigurationError(f"store {path}: {error.strerror}; {_WRITABLE}") from error
    if readable_by_others:
        os.close(descriptor)
        raise ConfigurationError(f"store {path}: others can read it; run chmod 600 {path}")
    return descriptor
