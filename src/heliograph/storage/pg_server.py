"""A connection to the PostgreSQL server that keeps keys for delivery: durable commits or none, closed when in doubt.

The server is asked what it promises before it is believed: with fsync, full_page_writes or synchronous_commit off a
key that was delivered could be there again after a power cut. With a standby named, a commit counts once the standby
has it too (security.md 4; ADR 0047).
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from heliograph.errors import ConfigurationError, HeliographError, LocalProtocolError, StoreUnavailable

if TYPE_CHECKING:
    import psycopg

__all__ = ["SETTINGS", "PgServer", "ServerEntry", "refuse_settings"]

# Our choices. A statement that takes longer is given up: the caller is told to come back.
_CONNECT_S = 5
_STATEMENT_MS, _LOCK_MS, _IDLE_MS = 10_000, 2_000, 60_000
COMMIT_S = 10.0
# Our choices, as for the peer (transport.tcp): a server that vanished without a word is noticed after about 20 s. The
# system would wait for minutes with a statement under way, and for hours for its answer. Nothing to a Unix socket.
_WATCH = {"keepalives_idle": 5, "keepalives_interval": 5, "keepalives_count": 3, "tcp_user_timeout": 20_000}
VERSION_MIN = 150_000

# What a session looks at before it trusts a commit; one expression, so that a delivery can ask in passing.
SETTINGS = (
    "current_setting('fsync') || '/' || current_setting('full_page_writes') || '/' || "
    "current_setting('synchronous_commit') || '/' || current_setting('synchronous_standby_names')"
)


@dataclass(frozen=True, slots=True)
class ServerEntry:
    """Where the server is. ``conninfo``: libpq's words, without a password; ``standby``: whose copy a commit awaits."""

    conninfo: str
    standby: str | None = None

    def check(self) -> None:
        """Raise ConfigurationError for words that libpq does not know, a password, or a network without proof."""
        words = self.words()
        if "password" in words:
            raise ConfigurationError(
                "[delivery] server: a password stands in it; use a client certificate, peer authentication or passfile="
            )
        if "service" in words or not ("host" in words or "hostaddr" in words):
            # Else an environment variable or another file would say where the server is.
            raise ConfigurationError(
                "[delivery] server: write host= (a socket's directory, or a name), and no service="
            )
        hosts = [*str(words.get("host", "")).split(","), *str(words.get("hostaddr", "")).split(",")]
        away = [host for host in hosts if host and not host.startswith(("/", "@")) and host not in _LOOPBACK]
        if away and words.get("sslmode") != "verify-full":
            raise ConfigurationError(
                f"[delivery] server: {away[0]} is on a network; add sslmode=verify-full and sslrootcert="
            )

    def watched(self) -> str:
        """Return libpq's words with what notices a silent server, as far as they do not say it themselves."""
        own = self.words()
        added = {name: value for name, value in _WATCH.items() if name not in own}
        return str(_driver().conninfo.make_conninfo(self.conninfo, **added))

    def words(self) -> Mapping[str, Any]:
        """Return the words by name. Raises ConfigurationError."""
        pg = _driver()
        try:
            return dict(pg.conninfo.conninfo_to_dict(self.conninfo))
        except pg.ProgrammingError as error:
            raise ConfigurationError(f"[delivery] server: {str(error).strip()}") from None


_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
# PostgreSQL 15, 20.6.2: [FIRST | ANY] n (names), or names, which means FIRST 1.
_STANDBYS = re.compile(
    r"\s*(?:(?:(?:FIRST|ANY)\s+)?(?P<number>\d+)\s*\((?P<several>[^()]*)\)|(?P<plain>[^()]*))\s*", re.IGNORECASE
)


def refuse_settings(found: str, standby: str | None) -> str:
    """Return why commits under ``found`` (of ``SETTINGS``) cannot be relied on; empty if they can."""
    fsync, pages, commit, standbys = found.split("/", 3)
    for name, value in (("fsync", fsync), ("full_page_writes", pages)):
        if value != "on":
            return (
                f"the server says {name} = {value}: a delivered key could be there again after a power cut; set it on"
            )
    if commit not in {"on", "remote_apply"}:
        return f"the server says synchronous_commit = {commit}: a commit would not wait for the disk; set it on"
    if standby is not None and not _awaited(standbys, standby):
        return (
            f"synchronous_standby_names = {standbys!r} does not make every commit wait for the standby {standby!r}: a "
            "fail-over could bring delivered keys back; name it alone or with a number as large as the list, or take "
            "[delivery] standby out"
        )
    return ""


def _awaited(standbys: str, name: str) -> bool:
    """Tell whether every commit waits for ``name``: for one of several it need not, when that one is away or slower."""
    match = _STANDBYS.fullmatch(standbys)
    if match is None:
        return False
    names = [one.strip().strip('"').lower() for one in (match["several"] or match["plain"]).split(",")]
    return int(match["number"] or 1) == len(names) and name.lower() in names


class PgServer:
    """One session at a time, opened anew after it broke. ``greet`` runs in each new one, before anything else.

    Calls from several threads take turns. Every method raises StoreUnavailable when the server refuses.
    """

    def __init__(
        self,
        entry: ServerEntry,
        greet: Callable[[psycopg.Cursor[Any]], None] | None = None,
        commit_s: float = COMMIT_S,
    ) -> None:
        """Connect nowhere yet. ``commit_s``: how long a commit may wait for a standby. Raises ConfigurationError."""
        self._commit_s = commit_s
        self._entry = entry
        self._pg = _driver()
        self._greet = greet
        self._turn = threading.RLock()
        self._connection: psycopg.Connection[Any] | None = None
        self._deferred: list[Callable[[], None]] | None = None
        self._in_savepoint = False
        self._parts = False  # whether this group has a savepoint already
        self._warned = ""  # what the server said during a commit: then it may not be where it has to be
        self._closed = False

    @property
    def standby(self) -> str | None:
        """The standby whose copy every commit awaits."""
        return self._entry.standby

    @contextmanager
    def transaction(self) -> Iterator[psycopg.Cursor[Any]]:
        """Everything done with the cursor is durable when the block ends, or undone if it raises.

        In a ``group`` it is durable when the group ends. Raises StoreUnavailable; if the connection broke during the
        commit, what was done may stand, and nothing of it may be used.
        """
        with self._turn, self._translated():
            if self._deferred is not None and not self._in_savepoint:
                with self._savepoint() as cursor:
                    yield cursor
                return
            connection = self._begun("a transaction is open already; pass its cursor on")
            with connection.cursor() as cursor:
                try:
                    yield cursor
                    self._commit(cursor)
                except BaseException:
                    self._roll_back(connection)
                    raise

    @contextmanager
    def group(self) -> Iterator[None]:
        """Make the transactions of this block durable together: each stays all or none, with one commit for all.

        Nothing that they return may leave before the block has ended.
        """
        with self._turn, self._translated():
            if self._deferred is not None:
                raise LocalProtocolError("a group is open already")
            connection = self._begun("a transaction is open already")
            self._deferred, self._parts = [], False
            try:
                with connection.cursor() as cursor:
                    yield
                    self._commit(cursor)
                deferred = self._deferred
            except BaseException:
                self._roll_back(connection)
                raise
            finally:
                self._deferred = None
        for call in reversed(deferred):  # of several marks for the anchor the latest is the only one written
            call()

    @contextmanager
    def reading(self) -> Iterator[psycopg.Cursor[Any]]:
        """Yield a cursor for SELECT."""
        with self._turn, self._translated(), self._open().cursor() as cursor:
            yield cursor

    def when_durable(self, call: Callable[[], None]) -> None:
        """Run ``call`` now; inside a ``group``, once it is committed."""
        with self._turn:
            if self._deferred is not None:
                self._deferred.append(call)
                return
        call()

    def close(self) -> None:
        """End the session for good."""
        with self._turn:
            self._closed = True
            self._drop()

    # -- the session ---------------------------------------------------------------------------------------------

    def _begun(self, wrong: str) -> psycopg.Connection[Any]:
        """Begin a transaction; in a new session if the old one has ended since it was last used."""
        for again in (True, False):
            connection = self._open()
            if self._in_transaction(connection):
                raise LocalProtocolError(wrong)
            try:
                connection.execute("BEGIN")
                break
            except self._pg.OperationalError:
                if not connection.closed or not again:
                    raise
        return connection

    def _open(self) -> psycopg.Connection[Any]:
        if self._connection is not None and not self._connection.closed:
            if self._warned and not self._in_transaction(self._connection):
                self._prove(self._connection)
            return self._connection
        self._drop()
        if self._closed:
            raise StoreUnavailable("the delivery server's session is closed")
        if self._deferred is not None:
            raise StoreUnavailable("the delivery server's session ended; try again")
        connection: psycopg.Connection[Any] = self._pg.connect(
            self._entry.watched(), autocommit=True, connect_timeout=_CONNECT_S, application_name="heliograph"
        )
        try:
            connection.add_notice_handler(self._heard)
            with connection.cursor() as cursor:
                self._examine(cursor)
                for name, value in (
                    ("synchronous_commit", "on"),  # with a standby named: on its disk too
                    ("statement_timeout", _STATEMENT_MS),
                    ("lock_timeout", _LOCK_MS),
                    ("idle_in_transaction_session_timeout", _IDLE_MS),
                    ("search_path", "heliograph"),
                ):
                    cursor.execute("SELECT set_config(%s, %s, false)", (name, str(value)))
                if self._greet is not None:
                    self._greet(cursor)
        except BaseException:
            connection.close()
            raise
        self._warned = ""
        self._connection = connection
        return connection

    def _examine(self, cursor: psycopg.Cursor[Any]) -> None:
        """Raise unless this is a server whose commits can be relied on."""
        found = cursor.execute(
            f"SELECT {SETTINGS}, pg_is_in_recovery(), current_setting('server_version_num')::int"
        ).fetchone()
        assert found is not None
        settings, in_recovery, version = found
        if version < VERSION_MIN:
            raise ConfigurationError("the delivery server is older than PostgreSQL 15; use a newer one")
        if in_recovery:
            raise StoreUnavailable("the delivery server is a standby; it takes no delivery before it is promoted")
        if reason := refuse_settings(settings, self._entry.standby):
            raise StoreUnavailable(f"delivery server: {reason}")

    def _prove(self, connection: psycopg.Connection[Any]) -> None:
        """After a commit that the standby did not have in time: show with a commit of no key that the next one is."""
        self._warned = ""
        with connection.cursor() as cursor:
            cursor.execute("BEGIN")
            cursor.execute("SELECT pg_logical_emit_message(true, 'heliograph', '')")
            self._commit(cursor)

    def _commit(self, cursor: psycopg.Cursor[Any]) -> None:
        self._warned = ""
        # No timeout of the server's bounds the wait for a standby: another thread ends it.
        watch = threading.Timer(self._commit_s, cursor.connection.cancel_safe, kwargs={"timeout": _CONNECT_S})
        watch.daemon = True
        watch.start()
        try:
            cursor.execute("COMMIT")
        finally:
            watch.cancel()
        # A wait for the standby that was cut short ends as a success with a warning: committed here and nowhere else.
        if self._warned:
            raise StoreUnavailable(f"delivery server: {self._warned}; nothing is handed out")
        # A transaction that had failed is rolled back by COMMIT without an error.
        if cursor.statusmessage != "COMMIT":
            raise StoreUnavailable("the delivery server rolled the transaction back; try again")

    @contextmanager
    def _savepoint(self) -> Iterator[psycopg.Cursor[Any]]:
        connection = self._connection
        if connection is None or connection.closed or not self._in_transaction(connection):
            raise StoreUnavailable("the delivery server: a group of transactions was rolled back; try again")
        self._in_savepoint = True
        try:
            with connection.cursor() as cursor:
                # The one before stays until here: a round trip less for each request. The last goes with the commit.
                cursor.execute("RELEASE part; SAVEPOINT part" if self._parts else "SAVEPOINT part")
                self._parts = True
                try:
                    yield cursor
                except BaseException:
                    with suppress(self._pg.Error):  # a broken session has undone everything
                        cursor.execute("ROLLBACK TO part")
                    raise
        finally:
            self._in_savepoint = False

    def _heard(self, notice: psycopg.errors.Diagnostic) -> None:
        if notice.severity_nonlocalized == "WARNING":
            self._warned = notice.message_primary or "a warning without words"

    def _in_transaction(self, connection: psycopg.Connection[Any]) -> bool:
        return bool(connection.info.transaction_status != self._pg.pq.TransactionStatus.IDLE)

    def _roll_back(self, connection: psycopg.Connection[Any]) -> None:
        """Undo; a session that cannot is given up, and the server undoes it."""
        if connection.closed:
            self._drop()
            return
        if self._in_transaction(connection):
            try:
                connection.execute("ROLLBACK")
            except self._pg.Error:
                self._drop()

    def _drop(self) -> None:
        if self._connection is not None:
            with suppress(self._pg.Error):
                self._connection.close()
        self._connection = None

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except HeliographError:
            raise
        except self._pg.Error as error:
            if self._connection is not None and self._connection.closed:
                self._drop()
            raise StoreUnavailable(f"delivery server: {_one_line(error)}; {_remedy(error)}") from None


def _one_line(error: psycopg.Error) -> str:
    """Return the server's own words without its CONTEXT and DETAIL, which could quote a row."""
    text = error.diag.message_primary or str(error).strip() or type(error).__name__
    return text.splitlines()[0]


# PostgreSQL 15, appendix A: a code, or the class that its first two characters name.
_REMEDIES = {
    "53100": "free space on the server's disk",
    "53200": "give the server's machine more memory",
    "53300": "raise max_connections, or end other sessions",
    "57P": "it is ending or starting; it is asked again by itself",
    "58": "look into the server's log and at its disk",
    "XX": "look into the server's log and at its disk",
    "28": "check the role and pg_hba.conf",
    "42501": "the role has to own the database",
}


def _remedy(error: psycopg.Error) -> str:
    """Return what to do about it; a broken session has no code."""
    code = error.sqlstate
    if code is None:
        return "it is asked again by itself; look whether the server runs"
    return next((text for begin, text in _REMEDIES.items() if code.startswith(begin)), "try again")


def _driver() -> Any:  # noqa: ANN401  - the module itself: an extra, absent in most sites
    try:
        import psycopg  # noqa: PLC0415  - an extra: only a site with a delivery server needs it
    except ImportError:
        raise ConfigurationError("a delivery server needs psycopg: run  pip install 'heliograph[postgres]'") from None
    return psycopg
