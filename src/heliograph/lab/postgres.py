"""PostgreSQL servers of one's own for rehearsals: on a Unix socket, in a directory that goes, never as root."""

from __future__ import annotations

import asyncio
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from heliograph.errors import ConfigurationError

__all__ = ["LabPostgres", "postgres_programs", "running_postgres"]

_PLACES = ("/usr/lib/postgresql/15/bin", "/usr/lib/postgresql/16/bin", "/usr/lib/postgresql/17/bin")
_USER = "heliograph"
_START_S = 60
_MOMENT_S = 0.05


def postgres_programs() -> Path | None:
    """Return the directory of the server's programs, None where PostgreSQL is not installed."""
    for place in _PLACES:
        if (Path(place) / "initdb").exists() and (Path(place) / "pg_ctl").exists():
            return Path(place)
    found = shutil.which("initdb")
    return Path(found).resolve().parent if found else None


def _owner() -> str | None:
    """Return whom the server runs as: PostgreSQL refuses root."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        with suppress(KeyError):
            return pwd.getpwnam(name).pw_name
    raise ConfigurationError(
        "PostgreSQL does not run as root, and there is no user postgres or nobody: run this as another user, or add "
        "one (adduser --system postgres)"
    )


def _room(user: str | None) -> Path:
    """Return where directories are made. Raises ConfigurationError if the server's user cannot come there."""
    place = Path(tempfile.gettempdir())
    closed = [each for each in (place, *place.parents) if user is not None and not each.stat().st_mode & 0o001]
    if closed:
        raise ConfigurationError(
            f"PostgreSQL runs as {user}, who cannot enter {closed[0]}: set TMPDIR to a directory that everybody may "
            "enter, such as /tmp"
        )
    return place


class LabPostgres:
    """One server below ``directory``, which is short enough for a Unix socket. Trusts every user of the machine.

    Raises ConfigurationError if the programs are absent or refuse.
    """

    def __init__(self, directory: Path | None = None) -> None:
        programs = postgres_programs()
        if programs is None:
            raise ConfigurationError(
                "PostgreSQL is not installed: as root, apt-get install postgresql-15; without root, put the directory "
                "of its programs, initdb and pg_ctl among them, on PATH"
            )
        self._programs = programs
        self._user = _owner()
        self.directory = directory or Path(tempfile.mkdtemp(prefix="hgpg", dir=_room(self._user)))
        self.data = self.directory / "data"
        self._give(self.directory)

    def conninfo(self, *, user: str = _USER, database: str = "postgres", by: Path | None = None) -> str:
        """Return libpq's words for this server, or for what listens for it in the directory ``by``."""
        return f"host={by or self.directory} dbname={database} user={user}"

    def create(self, *more: str) -> None:
        """Make an empty cluster. ``more``: further words for initdb."""
        words = ("-A", "trust", "-U", _USER, "--no-sync", "-E", "UTF8", "--locale=C", *more)
        self._run("initdb", "-D", str(self.data), *words)
        self._append("listen_addresses = ''", f"unix_socket_directories = '{self.directory}'", "max_wal_senders = 4")

    def copy_to(self, other: LabPostgres) -> None:
        """Copy the stopped cluster's files: a backup, or a clone."""
        shutil.copytree(self.data, other.data)
        other.own()
        other._append(f"unix_socket_directories = '{other.directory}'")

    def base_backup(self, other: LabPostgres, standby: str | None = None) -> None:
        """Copy this running server to ``other``: a backup or a clone, or a standby of that name."""
        source = f"host={self.directory} user={_USER} application_name={standby or 'backup'}"
        more = [] if standby is None else ["-R"]
        self._run("pg_basebackup", "-d", source, "-D", str(other.data), "-X", "stream", "-c", "fast", *more)
        other._append(f"unix_socket_directories = '{other.directory}'")

    def set(self, *lines: str) -> None:
        """Write further lines of postgresql.conf; ``reload`` or a start reads them."""
        self._append(*lines)

    def start(self) -> None:
        """Start and wait until it accepts connections."""
        self._run("pg_ctl", "-D", str(self.data), "-l", str(self.directory / "log"), "-w", "-t", str(_START_S), "start")

    def stop(self, how: str = "fast") -> None:
        """Stop: "fast", or "immediate" for a crash. Does nothing if it does not run."""
        if (self.data / "postmaster.pid").exists():
            self._run("pg_ctl", "-D", str(self.data), "-w", "-m", how, "stop")

    def kill(self) -> None:
        """End the server's processes by kill -9, as a power cut would."""
        leader = int((self.data / "postmaster.pid").read_text().split()[0])
        own = [leader, *_children(leader)]
        for process in own:
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        (self.data / "postmaster.pid").unlink(missing_ok=True)

    def come_back(self, seconds: float = _START_S) -> None:
        """Wait until it accepts sessions, starting it if it is dead. Raises ConfigurationError."""
        began = time.monotonic()
        while True:
            try:
                self.session().close()
            except Exception as why:  # noqa: BLE001  - psycopg's errors, without the extra's import
                if time.monotonic() - began > seconds:
                    raise ConfigurationError(f"the server is not back after {seconds:.0f} s: {why}") from None
                with suppress(ConfigurationError):  # what is left of a killed one may not be gone yet
                    if not self._runs():
                        self.start()
                time.sleep(_MOMENT_S)
            else:
                return

    def _runs(self) -> bool:
        with suppress(OSError, ValueError, IndexError):
            return Path(f"/proc/{int((self.data / 'postmaster.pid').read_text().split()[0])}").exists()
        return False

    def reload(self) -> None:
        """Make the running server read its settings again."""
        self._run("pg_ctl", "-D", str(self.data), "reload")

    def promote(self) -> None:
        """Make a standby the primary."""
        self._run("pg_ctl", "-D", str(self.data), "-w", "promote")

    def session(self, database: str = "postgres") -> Any:  # noqa: ANN401  - psycopg is an extra
        """Return a session of the server's administrator."""
        import psycopg  # noqa: PLC0415  - an extra

        return psycopg.connect(self.conninfo(database=database), autocommit=True)

    def files(self, below: str = "") -> bytes:
        """Return the bytes of every file below a directory of the cluster."""
        return b"".join(path.read_bytes() for path in sorted((self.data / below).rglob("*")) if path.is_file())

    def own(self, place: Path | None = None) -> None:
        """Give a directory, the cluster's by default, and what is in it to the server's user."""
        place = place or self.data
        for path in (place, *place.rglob("*")):
            self._give(path)
        place.chmod(0o700)

    def destroy(self) -> None:
        """Stop it and remove everything."""
        try:
            self.stop("immediate")
        except ConfigurationError:  # a second Ctrl-C ends pg_ctl too, and the server would outlive its directory
            with suppress(OSError, ValueError, IndexError):  # it went meanwhile
                self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)

    def _append(self, *lines: str) -> None:
        with (self.data / "postgresql.conf").open("a") as file:
            file.write("".join(f"{line}\n" for line in lines))

    def _give(self, path: Path) -> None:
        if self._user is not None:
            shutil.chown(path, self._user, pwd.getpwnam(self._user).pw_gid)

    def _run(self, program: str, *arguments: str) -> None:
        words: Sequence[str] = [str(self._programs / program), *arguments]
        user: dict[str, Any] = {} if self._user is None else _as(self._user)
        done = subprocess.run(  # noqa: S603  - a program of the system, our own words
            words, check=False, cwd=self.directory, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, timeout=2 * _START_S, **user,
        )  # fmt: skip
        if done.returncode:
            text = done.stdout.decode(errors="replace").strip().splitlines()
            raise ConfigurationError(f"{program}: {text[-1] if text else done.returncode}")


@asynccontextmanager
async def running_postgres() -> AsyncIterator[LabPostgres]:
    """Give a server that runs; afterwards nothing of it is left. Raises ConfigurationError."""
    server = LabPostgres()
    try:
        await _to_its_end(server.create)
        await _to_its_end(server.start)
        yield server
    finally:
        await _to_its_end(server.destroy)


async def _to_its_end(call: Callable[[], None]) -> None:
    """Run a call in a thread; a cancelled one is waited for all the same: it would go on, and make files again."""
    work = asyncio.ensure_future(asyncio.to_thread(call))
    try:
        await asyncio.shield(work)
    except asyncio.CancelledError:
        await asyncio.gather(work, return_exceptions=True)
        raise


def _as(name: str) -> dict[str, Any]:
    entry = pwd.getpwnam(name)
    return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}


def _children(leader: int) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            if int(path.read_text().rpartition(")")[2].split()[1]) == leader:
                found.append(int(path.parent.name))
    return found
