"""``heliograph sae`` as a person runs it, against a real key manager."""

import asyncio
import json
import os
import shutil
import stat
import sys
import tempfile
from pathlib import Path

import pytest

from heliograph.errors import KeySupplyError
from heliograph.http.callers import UserCallers
from heliograph.http.server import KmeServer
from heliograph.kme.boundary import Boundary
from heliograph.kme.supply import Limits, SaePair, Supply
from heliograph.sae import AsyncSae, Sae
from heliograph.storage.group_commit import run_group
from heliograph.testing.clock import ManualClock

PROGRAM = (sys.executable, "-m", "heliograph.cli.main", "sae")


async def run(*words):
    process = await asyncio.create_subprocess_exec(
        *PROGRAM, *map(str, words), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, err = await process.communicate()
    return process.returncode, out, err.decode()


def options(files, port):
    return ("--url", f"https://127.0.0.1:{port}", "--cert", files[0], "--key", files[1], "--ca", files[2])


def test_a_consumer_fetches_keys_and_they_are_only_where_it_asked(site):
    mine, theirs = site.add_owned(3), site.add_held(2)
    files = site.sae_files("sae-a")
    fresh, named = site.directory / "fresh", site.directory / "named"

    async def act(kme):
        where = options(files, kme.port)
        return await asyncio.gather(
            run("status", "sae-b", *where, "--kme", "kme-a", "--json"),
            run("get", "sae-b", *where, "--number", 2, "--out", fresh, "--json"),
            run("get-with-ids", "sae-b", theirs[1].key_id, theirs[0].key_id, *where, "--stdout", "--format", "raw"),
        ), await run("get", "sae-b", *where, "--out", named, "--format", "raw")

    (status, got, raw), last = site.run(act)
    assert status[0] == 0, status
    assert json.loads(status[1])["caller_sae"] == "sae-a"
    assert got[0] == 0, got
    assert [entry["key_ID"] for entry in json.loads(fresh.read_text())["keys"]] == [r.key_id for r in mine[:2]]
    assert [entry["key_ID"] for entry in json.loads(got[1])["keys"]] == [r.key_id for r in mine[:2]]
    assert stat.S_IMODE(fresh.stat().st_mode) == 0o600
    assert raw[:2] == (0, theirs[1].material + theirs[0].material)
    assert named.read_bytes() == mine[2].material
    assert last[1].decode().split() == [mine[2].key_id]
    for _, out, err in (status, got, last):
        for row in mine:
            assert row.material not in out
            assert row.material.hex() not in out.decode() + err


def test_no_key_is_fetched_that_would_have_no_place(site):
    site.add_owned(1)
    files = site.sae_files("sae-a")
    taken = site.directory / "taken"
    taken.write_text("mine")

    async def act(kme):
        where = options(files, kme.port)
        return await asyncio.gather(
            run("get", "sae-b", *where),
            run("get", "sae-b", *where, "--out", taken, "--stdout"),
            run("get", "sae-b", *where, "--stdout", "--json"),
            run("get", "sae-b", *where, "--out", taken, "--json"),
            run("get", "sae-b", "--stdout"),
        )

    *usage, refused, nowhere = site.run(act)
    assert [code for code, _, _ in usage] == [2, 2, 2]
    assert refused[0] == 1
    assert "File exists; name a new file" in refused[2]
    assert json.loads(refused[1])["error"]["code"] == "ConfigurationError"
    assert nowhere[0] == 2
    assert taken.read_text() == "mine"
    assert site.keys.stored_key_count("sae-a", "sae-b") == 1


def test_a_refusal_is_one_line_and_leaves_no_file(site):
    files, out = site.sae_files("sae-a"), site.directory / "none"
    code, said, err = site.run(lambda kme: run("get", "sae-b", *options(files, kme.port), "--out", out))
    assert (code, said) == (1, b"")
    assert err.count("\n") == 1
    assert err.startswith("heliograph: the KME has no key now: insufficient keys")
    assert not out.exists()


def test_plain_calls_need_no_event_loop(site):
    rows, held = site.add_owned(2), site.add_held(1)
    certificate, key, ca = site.sae_files("sae-a")

    def consume(port):
        url = f"https://127.0.0.1:{port}"
        with Sae.over_tls(url, "sae-b", certificate=certificate, key=key, ca=ca, kme="kme-a") as sae:
            assert sae.sae_id == "sae-a"
            assert sae.status().stored_key_count == 2
            keys = [*sae.get(), *sae.get(1), *sae.get_with_ids([held[0].key_id])]
            with pytest.raises(KeySupplyError):
                sae.get()
        return [(k.key_id, k.material) for k in keys]

    keys = site.run(lambda kme: asyncio.to_thread(consume, kme.port))
    assert keys == [(row.key_id, row.material) for row in (*rows, *held)]


def test_a_consumer_on_the_same_host_needs_no_certificate_and_many_at_once_get_different_keys(site):
    rows = site.add_owned(40)
    place = Path(tempfile.mkdtemp(prefix="hgs"))  # short, for a Unix socket
    place.chmod(0o755)
    path = place / "kme.sock"

    async def main():
        supply = Supply(site.keys, "kme-a", [SaePair("sae-a", "sae-b", "kme-b")], Limits(), ManualClock(200.0))
        server = KmeServer(supply, UserCallers({os.getuid(): "sae-a"}, Boundary(users={"me": "sae-a"})))
        sizes = []

        def group(calls):
            sizes.append(len(calls))
            return run_group(site.database, calls)

        server.commit_together(group)
        await server.start_unix(path)
        try:
            said = await run("get", "sae-b", "--socket", path, "--stdout", "--format", "raw")
            wrong = await run("status", "sae-b", "--socket", path, "--kme", "kme-a")
            async with AsyncSae.over_socket(path, "sae-b") as sae:
                assert (await sae.status()).caller_sae == "sae-a"
                got = await asyncio.gather(*(sae.get() for _ in range(39)))
                with pytest.raises(KeySupplyError, match="no key now"):
                    await sae.get()
        finally:
            await server.close()
        return said, wrong, got, sizes

    try:
        said, wrong, got, sizes = asyncio.run(main())
    finally:
        shutil.rmtree(place)
    assert said == (0, rows[0].material, "")
    assert wrong[0] == 2
    assert sorted(key.key_id for (key,) in got) == sorted(row.key_id for row in rows[1:])
    assert {key.material for (key,) in got} == {row.material for row in rows[1:]}
    assert max(sizes) > 1, "they went to the store together"
