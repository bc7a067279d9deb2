"""The clock of the machine is set while a tunnel runs: ages are measured by a clock that nobody can set."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow  # compiles, and runs in real time

# Stands before the C library: what the wall clock says is shifted by the number in a file; no other clock is touched.
_SHIFT = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>

static long shift(void) {
    long by = 0;
    FILE *f = fopen(getenv("CLOCK_SHIFT"), "r");
    if (f) { if (fscanf(f, "%ld", &by) != 1) by = 0; fclose(f); }
    return by;
}
int clock_gettime(clockid_t which, struct timespec *t) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
    int r = real(which, t);
    if (which == CLOCK_REALTIME) t->tv_sec += shift();
    return r;
}
int gettimeofday(struct timeval *t, void *z) {
    struct timespec now;
    int r = clock_gettime(CLOCK_REALTIME, &now);
    t->tv_sec = now.tv_sec; t->tv_usec = now.tv_nsec / 1000; (void)z;
    return r;
}
time_t time(time_t *t) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (t) *t = now.tv_sec;
    return now.tv_sec;
}
"""

_RUN = """
import asyncio, os, sys, time
sys.path.insert(0, sys.argv[1])
from tunnel_pair import Sites, until
from heliograph.site.clocks import MonotonicClock

def set_clock(by):
    before = time.time()
    with open(os.environ["CLOCK_SHIFT"], "w") as f:
        f.write(str(by))
    return time.time() - before

async def scenario():
    async with Sites(clock=MonotonicClock(), rekey_seconds=0.5, max_key_age_s=10.0, **settings) as pair:
        await pair.settled()
        reader, writer = await pair.dial()
        for by in (86400 * 365, -86400 * 365, 30, 0):
            moved = set_clock(by)
            rekeys = pair.a.status().rekeys
            writer.write(b"ten bytes.")
            await until(lambda: pair.a.status().rekeys >= rekeys + 2)
            assert pair.a.status().mode == pair.b.status().mode == "encrypting"
            assert 0 <= pair.a.status().key_age_s < 10
            print(round(moved), flush=True)
        writer.write_eof()
        assert await reader.read(-1) == b"thank you"
        assert bytes(pair.host.received[0]) == b"ten bytes." * 4
        assert pair.a.status().refused_records == pair.b.status().cut_connections == 0
        writer.close()

settings = {} if sys.argv[2] == "aes-256-gcm" else {"cipher": sys.argv[2], "relay": None}
if sys.argv[2] == "tls-psk":
    from tunnel_pair import RawRelay
    settings["relay"] = RawRelay()
asyncio.run(scenario())
print("done")
"""


@pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is not installed: apt-get install -y gcc")
@pytest.mark.parametrize("cipher", ["aes-256-gcm", "tls-psk"])
def test_a_step_of_the_wall_clock_by_a_year_changes_nothing(cipher, tmp_path, pytestconfig):
    (tmp_path / "shift.c").write_text(_SHIFT)
    library = tmp_path / "shift.so"
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", library, tmp_path / "shift.c", "-ldl"], check=True)
    (tmp_path / "shift").write_text("0")
    done = subprocess.run(
        [sys.executable, "-c", _RUN, str(pytestconfig.rootpath / "tests/unit/agent"), cipher],
        env=os.environ | {"LD_PRELOAD": str(library), "CLOCK_SHIFT": str(tmp_path / "shift")},
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-1500:]
    moves = [int(line) for line in done.stdout.split()[:-1]]
    year = 86400 * 365
    # The steps were real: each is seen by whoever asks for the time of day.
    assert moves == pytest.approx([year, -2 * year, year + 30, -30], abs=5)
