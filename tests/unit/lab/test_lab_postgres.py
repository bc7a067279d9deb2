"""The PostgreSQL server of a rehearsal leaves nothing behind, however it is ended."""

import os
import signal
import time
from contextlib import suppress
from pathlib import Path


def test_a_server_whose_stop_is_interrupted_does_not_outlive_its_directory(server):
    number = int((server.data / "postmaster.pid").read_text().split()[0])
    # What a second Ctrl-C in the terminal does to pg_ctl while it waits: it ends, and the server goes on.
    programs = server.directory / "programs"  # where the server's user comes
    programs.mkdir(mode=0o755)
    (programs / "pg_ctl").write_text("#!/bin/sh\nexit 130\n")
    (programs / "pg_ctl").chmod(0o755)
    server._programs = programs
    os.kill(number, signal.SIGSTOP)  # else it would notice within a minute that its files are gone
    try:
        server.destroy()
        assert not server.directory.exists()
        until = time.monotonic() + 30
        while Path(f"/proc/{number}").exists():
            assert time.monotonic() < until, "the server is still there"
    finally:
        with suppress(ProcessLookupError):
            os.kill(number, signal.SIGKILL)
