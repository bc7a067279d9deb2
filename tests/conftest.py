"""PostgreSQL servers for every test that needs one; where it is not installed, those tests are skipped."""

import pytest

from heliograph.lab.postgres import LabPostgres, postgres_programs

ABSENT = "PostgreSQL is not installed (apt-get install postgresql-15)"


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
