"""Sealed, a site answers 503 and makes no key; unsealed it goes on; erased, nothing opens what it left."""

import asyncio
import json
import os
import subprocess
import sys

import pytest
from fault_rehearsal import new_block, small_blocks, until

from heliograph.errors import KeySupplyError, TransportClosed
from heliograph.http.client import Etsi014Client
from heliograph.http.tls import client_tls
from heliograph.vault.passphrasekek import Argon2Cost, PassphraseKek

pytestmark = pytest.mark.slow

PASSPHRASE = b"correct horse battery"


class Replaying:
    """Draws the key of a plain file again, so that a site made under it can be put under a passphrase."""

    kind = "computational"

    def __init__(self, key):
        self.key = key

    def draw(self, size):
        return self.key if size == len(self.key) else os.urandom(size)


def protect(site):
    kek = site.parent / "kek"
    key = kek.read_bytes()
    kek.unlink()
    PassphraseKek.create(kek, PASSPHRASE, Replaying(key), Argon2Cost(64 * 1024, 3, 1))
    site.write_text(site.read_text() + '\n[seal]\nkind = "passphrase"\nsecret = "fd:9"\n')
    return key


def command(site, *words, secret=None):
    """Run a command with the passphrase at descriptor 9, without a terminal."""
    run = [sys.executable, "-m", "heliograph.cli.main", *words, str(site)]
    shell = ["sh", "-c", 'exec "$@" 9<&0 </dev/null' if secret else 'exec "$@" </dev/null', "sh", *run]
    done = subprocess.run(
        shell, input=secret or b"", capture_output=True, start_new_session=True, check=False, timeout=60
    )
    return done.returncode, done.stdout.decode(), done.stderr.decode()


def saes(rehearsal):
    clients = {}
    for name, peer in (("a", "b"), ("b", "a")):
        pki = rehearsal.directory / name / "pki"
        tls = client_tls(pki / "sae.pem", pki / "sae.key", pki / "ca.pem", f"kme-{name}")
        port = getattr(rehearsal.ports, f"kme_{name}")
        clients[name] = Etsi014Client(f"https://127.0.0.1:{port}", tls, f"sae-{name}", f"sae-{peer}")
    return clients


async def line_of(process):
    async with asyncio.timeout(30):
        return json.loads(await process.stdout.readline())


async def no_status(rehearsal):
    with pytest.raises(TransportClosed, match="sealed"):
        await rehearsal.status("site_a")
    return True


def refused(answer, words):
    code, _, error = answer
    assert code == 1
    assert words in error
    assert len(error.splitlines()) == 1
    return True


async def scene(rehearsal, clients):
    site = rehearsal.sites["site_a"]
    await rehearsal.start("fibre")
    await asyncio.gather(rehearsal.start("site_b"), rehearsal.start("site_a"))
    running = rehearsal.processes["site_a"]
    # (1) Started without a passphrase: sealed. No key, no link; the store is not even made.
    assert await no_status(rehearsal)
    with pytest.raises(KeySupplyError, match="Error on server side"):
        await clients["a"].get_key()
    assert not (site.parent / "store" / "site.db").exists()
    assert (await rehearsal.status("site_b")).link.blocks == 0
    # (2) A wrong passphrase, and none: refused in one line, still sealed.
    order = lambda *words, **more: asyncio.to_thread(command, site, *words, **more)  # noqa: E731
    assert refused(await order("site", "unseal", secret=b"not the passphrase"), "wrong passphrase")
    assert refused(await order("site", "unseal"), "no terminal")
    assert refused(await order("site", "seal"), "cannot seal now")
    assert await no_status(rehearsal)
    # (3) The right one: the link makes key, and it is delivered on both sides.
    assert await order("site", "unseal", secret=PASSPHRASE) == (0, "site-a: unsealed.\n", "")
    assert await line_of(running) == {"ready": True}
    await new_block(rehearsal)
    assert (await rehearsal.status("site_a")).kek == "passphrase"

    async def one_key():
        key = await clients["a"].get_key()
        assert (await clients["b"].get_key_with_id(key.key_id)) == key
        return True

    await until(one_key)
    # (4) Sealed again, in the same process: 503, no status, no link.
    number = running.pid
    told = "site-a: sealing; done when `heliograph site status` says that it is sealed.\n"
    assert await order("site", "seal") == (0, told, "")
    assert await line_of(running) == {"ready": True, "sealed": True}
    assert await no_status(rehearsal)
    with pytest.raises(KeySupplyError, match="Error on server side"):
        await clients["a"].get_key()
    assert running.pid == number
    assert running.returncode is None
    # (5) And open again: what was stored is still there.
    assert (await order("site", "unseal", secret=PASSPHRASE))[0] == 0
    assert await line_of(running) == {"ready": True}
    await until(one_key)


def test_a_sealed_site_answers_503_and_makes_no_key_until_it_is_unsealed():
    async def stage():
        rehearsal = small_blocks()
        key = protect(rehearsal.sites["site_a"])
        clients = saes(rehearsal)
        try:
            await scene(rehearsal, clients)
            await rehearsal.stop("site_a")
            seen = b"".join(path.read_bytes() for path in rehearsal.directory.rglob("*") if path.is_file())
            assert PASSPHRASE not in seen
            assert key not in seen
            assert key.hex().encode() not in seen
            log = (rehearsal.directory / "site_a.log").read_text()
            assert "Traceback" not in log
            assert "internal error" not in log
        finally:
            await asyncio.gather(*(client.close() for client in clients.values()))
            await rehearsal.stop_all()
            rehearsal.remove()

    asyncio.run(stage())
