"""Sizes over real doors: what is registered is served, what is not is refused by name, and nothing is taken for it."""

import asyncio
import base64
import os
import uuid

import pytest
from typer.testing import CliRunner

from heliograph.cli.main import app
from heliograph.errors import KeySupplyError
from heliograph.http.client import Etsi014Client
from heliograph.http.skip_server import SkipServer
from heliograph.http.tls import skip_server_tls
from heliograph.kme.key_sizes import KeySizes
from heliograph.kme.skip import SkipSystems
from heliograph.kme.supply import Limits, SaePair, Supply
from heliograph.storage.keys import NewKey
from heliograph.testing.clock import ManualClock
from heliograph.vault.randomness import SystemRandomness

SIZES = KeySizes(256, {("sae-a", "sae-b"): (256, 128, 264, 512)})
ENC, DEC = "/api/v1/keys/sae-b/enc_keys", "/api/v1/keys/sae-b/dec_keys"


def stock(site, number=2, *, here=True):
    master, slave = ("sae-a", "sae-b") if here else ("sae-b", "sae-a")
    return site.add(
        [
            NewKey(str(uuid.uuid4()), master, slave, here, os.urandom(bits // 8), 100.0)
            for bits in (256, 128, 264, 512)
            for _ in range(number)
        ]
    )


def counts(site):
    return [site.keys.stored_key_count("sae-a", "sae-b", bits // 8) for bits in (128, 256, 264, 512)]


def bits_of(answer):
    return [8 * len(base64.b64decode(entry["key"])) for entry in answer["keys"]]


def test_size_chooses_the_pool_by_get_and_by_post_and_no_size_is_the_first(site, wire):
    stock(site)
    requests = [
        ("GET", f"{ENC}?size=128", None, 128),
        ("POST", ENC, b'{"size": 264}', 264),
        ("POST", ENC, b'{"number": 1, "size": 512}', 512),
        ("GET", ENC, None, 256),
        ("POST", ENC, b"{}", 256),
    ]

    async def act(server):
        tls = site.sae_tls("sae-a")
        for verb, path, body, bits in requests:
            status, _, answer = await wire.ask(server.port, tls, verb, path, body)
            assert (status, bits_of(answer)) == (200, [bits])

    site.run(act, sizes=SIZES)
    assert counts(site) == [1, 0, 1, 1]


@pytest.mark.parametrize("size", [64, 192, 520, 1024, 4096, 2**24])
def test_a_size_that_is_not_registered_is_400_names_those_that_are_and_takes_nothing(site, wire, size):
    stock(site)

    async def act(server):
        tls = site.sae_tls("sae-a")
        answers = [await wire.ask(server.port, tls, "GET", f"{ENC}?size={size}")]
        answers.append(await wire.ask(server.port, tls, "POST", ENC, b'{"size": %d}' % size))
        return answers

    for status, _, answer in site.run(act, sizes=SIZES):
        assert status == 400
        assert answer["message"] == "size is not supported; keys of 128, 256, 264 and 512 bits are"
    assert counts(site) == [2] * 4


def test_an_empty_pool_is_503_while_the_others_are_full(site, wire):
    stock(site, 1)

    async def act(server):
        tls = site.sae_tls("sae-a")
        await wire.ask(server.port, tls, "GET", f"{ENC}?size=512")
        return await wire.ask(server.port, tls, "GET", f"{ENC}?size=512")

    status, headers, _ = site.run(act, sizes=SIZES)
    assert (status, headers["retry-after"]) == (503, "1")
    assert counts(site) == [1, 1, 1, 0]


def test_status_tells_the_pairs_sizes_and_what_is_there_of_each(site, wire):
    stock(site, 3)

    async def act(server):
        tls = site.sae_tls("sae-a")
        document = (await wire.ask(server.port, tls, "GET", "/api/v1/keys/sae-b/status"))[2]
        other = (await wire.ask(server.port, tls, "GET", "/api/v1/keys/sae%2Fwith%20slash/status"))[2]
        async with Etsi014Client(f"https://127.0.0.1:{server.port}", tls, "sae-a", "sae-b", size_bits=None) as client:
            return document, other, await client.status()

    document, other, status = site.run(act, sizes=SIZES, limits=Limits(reserve=2))
    assert [document[name] for name in ("key_size", "min_key_size", "max_key_size")] == [256, 128, 512]
    assert document["stored_key_count"] == 1  # the reserve stays, of the first size alone
    stored = {"256": 1, "128": 3, "264": 3, "512": 3}
    assert document["status_extension"] == {"heliograph_stored_by_size": stored}
    assert status.stored_by_size == {int(size): number for size, number in stored.items()}
    assert "status_extension" not in other
    assert other["min_key_size"] == other["max_key_size"] == 256


def test_a_slave_takes_keys_of_any_size_by_name_unless_it_expects_one(site):
    rows = stock(site, 1, here=False)

    async def act(server):
        url, tls = f"https://127.0.0.1:{server.port}", site.sae_tls("sae-a")
        async with Etsi014Client(url, tls, "sae-a", "sae-b", size_bits=None) as client:
            got = await client.get_keys_with_ids([row.key_id for row in rows[:3]])
        async with Etsi014Client(url, tls, "sae-a", "sae-b", size_bits=256) as strict:
            with pytest.raises(KeySupplyError, match="not 256 bits"):
                await strict.get_keys_with_ids([rows[3].key_id])
        return got

    assert [key.material for key in site.run(act, sizes=SIZES)] == [row.material for row in rows[:3]]


def test_skip_serves_the_pairs_sizes(site, wire):
    stock(site)
    systems = SkipSystems("provider-a", {"site-b": ("sae-b",)})

    async def main():
        pairs = [SaePair("sae-a", "sae-b", "kme-b")]
        supply = Supply(site.keys, "kme-a", pairs, Limits(), ManualClock(200.0), sizes=SIZES)
        server = SkipServer(supply, systems, SystemRandomness())
        await server.start("127.0.0.1", 0, skip_server_tls(*site.kme_files))
        tls = site.sae_tls("sae-a")
        try:
            wishes = ("", "&size=128", "&size=512", "&size=192")
            return [await wire.ask(server.port, tls, "GET", f"/key?remoteSystemID=site-b{wish}") for wish in wishes]
        finally:
            await server.close()

    *served, refused = asyncio.run(main())
    assert [4 * len(answer["key"]) for _, _, answer in served] == [256, 128, 512]
    assert refused[0] == 400
    assert "keys of 128, 256, 264 and 512 bits are" in refused[2]["message"]
    assert counts(site) == [1, 1, 2, 1]


def test_the_sae_command_shows_the_sizes_and_takes_the_one_that_is_named(site, tmp_path):
    stock(site)
    certificate, key, ca = site.sae_files("sae-a")

    async def act(server):
        way = ["--url", f"https://127.0.0.1:{server.port}", "--cert", certificate, "--key", key, "--ca", ca]
        way = [str(part) for part in way]
        out = str(tmp_path / "key")
        run = lambda *more: asyncio.to_thread(CliRunner().invoke, app, ["sae", *more, *way])  # noqa: E731
        shown = await run("status", "sae-b")
        got = await run("get", "sae-b", "--size", "264", "--format", "raw", "--out", out)
        refused = await run("get", "sae-b", "--size", "192", "--stdout")
        return shown, got, refused

    shown, got, refused = site.run(act, sizes=SIZES)
    assert "2 keys for sae-a with sae-b\n  of 256 bits" in shown.stdout
    assert "  2 of 128 bits: --size 128\n  2 of 264 bits: --size 264\n" in shown.stdout
    assert got.exit_code == 0, got.stderr
    assert (tmp_path / "key").stat().st_size == 33
    assert refused.exit_code != 0
    assert "keys of 128, 256, 264 and 512 bits are" in refused.stderr
