"""Where the tests put their files, into memory where the machine has room for them there; their order; PostgreSQL.

A store syncs at each commit, and a suite commits many thousand times; a busy disk makes minutes of that. What a test
proves is the same: a process that is killed loses nothing that it wrote on either, and disks that fail are played by
``lab.disk_faults`` above the file system. Whoever sets TMPDIR decides; ``make soak`` runs on the disk.
"""

import os
import tempfile
from contextlib import suppress

import pytest

from heliograph.lab.postgres import LabPostgres, postgres_programs

ABSENT = "PostgreSQL is not installed (apt-get install postgresql-15)"
_MEMORY = "/dev/shm"
_ROOM_BYTES = 4 << 30  # four workers hold some 100 MB; a container's default of 64 MB is no room


def _has_room(place):
    with suppress(OSError):
        found = os.statvfs(place)
        free = found.f_bavail * found.f_frsize
        # Some tests write a program and run it.
        return free >= _ROOM_BYTES and not found.f_flag & os.ST_NOEXEC and os.access(place, os.W_OK | os.X_OK)
    return False


if "TMPDIR" not in os.environ and _has_room(_MEMORY):
    os.environ["TMPDIR"] = _MEMORY  # the processes that tests start look there too
    tempfile.tempdir = None


def pytest_collection_modifyitems(items):
    """Put the files with slow tests first: a long one that a worker begins last is waited for by all."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(scope="session")
def shared_server():
    """Give one healthy server to all tests of this process: whoever breaks it takes ``server`` or ``new_server``."""
    if postgres_programs() is None:
        pytest.skip(ABSENT)
    server = LabPostgres()
    try:
        server.create()
        server.start()
        yield server
    finally:
        server.destroy()


@pytest.fixture
def postgres(shared_server):
    """Give the shared server with an empty schema."""
    with shared_server.session() as session:
        session.execute("DROP SCHEMA IF EXISTS heliograph CASCADE")
    return shared_server


@pytest.fixture
def new_server():
    """Give servers of a test's own, which it may break."""
    if postgres_programs() is None:
        pytest.skip(ABSENT)
    made = []

    def make(*, create=True):
        made.append(LabPostgres())
        if create:
            made[-1].create()
        return made[-1]

    yield make
    for server in made:
        server.destroy()


@pytest.fixture
def server(new_server):
    """Give one server of a test's own that runs."""
    server = new_server()
    server.start()
    return server
