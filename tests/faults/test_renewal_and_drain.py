"""Operating a site's process: certificates renewed under way, and an end that loses no answer."""

import asyncio
import base64
import contextlib
import json
import os
import signal
import sqlite3
import ssl

import pytest
from cryptography import x509
from fault_rehearsal import new_block, small_blocks, until

from heliograph.http.tls import client_tls
from heliograph.site.config import read_site
from heliograph.vault.certificates import SiteCa

DRAIN_S = 10.0  # docs/how-to/operate.md

pytestmark = pytest.mark.slow  # real processes


class Consumer:
    """One kept-alive connection to a key manager, as plain as possible."""

    def __init__(self, reader, writer, peer):
        self.reader, self.writer, self.peer = reader, writer, peer

    @classmethod
    async def dial(cls, rehearsal):
        config = read_site(rehearsal.sites["site_a"])
        kme, place = config.file.kme, config.directory / "pki"
        tls = client_tls(place / "sae.pem", place / "sae.key", place / "ca.pem", kme.id)
        host, _, port = kme.listen.rpartition(":")
        return cls(*await asyncio.open_connection(host, int(port), ssl=tls), "sae-b")

    @property
    def serial(self):
        found = self.writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        return x509.load_der_x509_certificate(found).serial_number

    async def ask(self, method):
        self.writer.write(f"GET /api/v1/keys/{self.peer}/{method} HTTP/1.1\r\nHost: kme\r\n\r\n".encode())
        head = await self.reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        return int(head.split()[1]), json.loads(await self.reader.readexactly(length))

    def close(self):
        self.writer.transport.abort()


async def said(rehearsal, text):
    async def there():
        return text in (rehearsal.directory / "site_a.log").read_text()

    await until(there, 10)


def hang_up(rehearsal):
    os.kill(rehearsal.processes["site_a"].pid, signal.SIGHUP)


async def renew(rehearsal):
    pki = rehearsal.sites["site_a"].parent / "pki"
    config = read_site(rehearsal.sites["site_a"])
    await rehearsal.start("fibre")
    await rehearsal.start("site_a")
    old = await Consumer.dial(rehearsal)
    assert (await old.ask("status"))[0] == 200

    fresh = SiteCa.load(pki).issue_kme("kme-a", ["127.0.0.1"])
    (pki / "kme.pem").write_bytes(fresh.certificate)
    (pki / "kme.key").write_bytes(fresh.key)
    hang_up(rehearsal)
    await said(rehearsal, "renewed: pki/kme.pem, pki/kme.key")
    new = await Consumer.dial(rehearsal)
    serial = x509.load_pem_x509_certificate(fresh.certificate).serial_number
    assert new.serial == serial != old.serial
    assert (await new.ask("status"))[0] == 200
    assert (await old.ask("status"))[0] == 200, "an established connection goes on"

    # A key that is not the certificate's; a file that is none; a SITE.toml that cannot be read.
    sound = rehearsal.sites["site_a"].read_text()
    other = SiteCa.load(pki).issue_kme("kme-a", ["127.0.0.1"])
    for path, content, reason in (
        (pki / "kme.key", other.key.decode(), "does not belong to"),
        (pki / "kme.pem", "no certificate", "holds no PEM certificate"),
        (config.toml, sound + "\nnonsense", "not valid TOML"),
    ):
        before = path.read_text()
        path.write_text(content)
        hang_up(rehearsal)
        await said(rehearsal, reason)
        path.write_text(before)
        again = await Consumer.dial(rehearsal)
        assert again.serial == serial, "the old certificate stays in force"
        assert (await again.ask("status"))[0] == 200
        again.close()
    lines = [line for line in (rehearsal.directory / "site_a.log").read_text().splitlines() if "was reloaded" in line]
    assert len(lines) == 3
    assert all("the running configuration stays in force: " in line for line in lines)
    old.close()
    new.close()


def played(scene):
    rehearsal = small_blocks()

    async def main():
        try:
            await scene(rehearsal)
        finally:
            await rehearsal.stop_all()

    try:
        asyncio.run(main())
    finally:
        rehearsal.remove()


def test_certificates_are_renewed_without_a_restart_and_bad_ones_leave_the_old_in_force():
    played(renew)


async def reload_under_load(rehearsal):
    """Reload under a link that makes keys, an encryptor that carries a stream, and consumers: none notices."""
    await rehearsal.start_all()
    toml = rehearsal.sites["site_a"]
    await new_block(rehearsal)

    async def encrypting():
        found = await rehearsal.status("site_a")
        return found.agent["mode"] == "encrypting" and found.kme.deliverable_keys > 20

    await until(encrypting)
    echo = await asyncio.start_server(_echo, "127.0.0.1", rehearsal.ports.host_b)
    reader, writer = await asyncio.open_connection("127.0.0.1", rehearsal.ports.inner)
    consumer = await Consumer.dial(rehearsal)
    before = await rehearsal.status("site_a")
    sound = toml.read_text()
    for turn in range(3):
        text = sound.replace('"rekey_seconds" = 5.0', f'"rekey_seconds" = {2.5 + turn}')
        assert text != sound
        toml.write_text(text.replace("[kme]\n", f"[kme]\nrequests_per_s = {1000.0 + turn}\n"))
        writer.write(b"before " * 1000)
        hang_up(rehearsal)
        writer.write(b"after " * 1000)

        async def reloaded(turn=turn):
            return (await rehearsal.status("site_a")).configuration.reloads == turn + 1

        await until(reloaded)
        assert await reader.readexactly(13_000) == b"before " * 1000 + b"after " * 1000
        assert (await consumer.ask("enc_keys"))[0] == 200
    # A policy that nobody approved does not come in by a reload, nor what the sites agreed on.
    toml.write_text(sound.replace('"rekey_seconds" = 5.0', '"rekey_seconds" = 5.0, cipher = "chacha20-poly1305"'))
    hang_up(rehearsal)
    await said(rehearsal, "[agent tunnel] cipher: changed by a restart only")
    after = await rehearsal.status("site_a")
    assert after.configuration.last.startswith("nothing was reloaded, the running configuration stays in force: ")
    assert (after.configuration.reloads, after.configuration.refused) == (3, 1)
    assert (after.process_id, after.link.epoch, after.agent["cipher"]) == (
        before.process_id,
        before.link.epoch,
        before.agent["cipher"],
    )
    # The link's connection is the one it was, and goes on making keys; the tunnel rotates by the new interval.
    log = (rehearsal.directory / "site_a.log").read_text()
    assert log.count("link running") <= 2  # the bootstrap, and the connection after it
    await new_block(rehearsal)
    writer.close()
    consumer.close()
    echo.close()
    assert "Traceback" not in log


async def _echo(reader, writer):
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(65_536):
            writer.write(data)
    writer.close()


def test_link_tunnel_and_requests_go_on_through_reloads():
    played(reload_under_load)


async def consume(consumer, received):
    with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError, ssl.SSLError):
        while True:
            status, answer = await consumer.ask("enc_keys")
            if status == 200:
                received.extend((key["key_ID"], base64.b64decode(key["key"])) for key in answer["keys"])


async def drain(rehearsal):
    # Without the built-in encryptor: every key that leaves is then one of ours.
    for toml in rehearsal.sites.values():
        text = toml.read_text()
        toml.write_text(text[: text.index("[agent]")])
    await rehearsal.start_all()

    async def stocked():
        return (await rehearsal.status("site_a")).kme.deliverable_keys > 50

    await until(stocked)
    idle, half = await Consumer.dial(rehearsal), await Consumer.dial(rehearsal)
    half.writer.write(b"POST /api/v1/keys/sae-b/enc_keys HTTP/1.1\r\nHost: kme\r\nContent-Length: 9\r\n\r\n{")
    received = []
    busy = [asyncio.create_task(consume(await Consumer.dial(rehearsal), received)) for _ in range(8)]

    async def under_way():
        return len(received) > 20

    await until(under_way)
    process, loop = rehearsal.processes.pop("site_a"), asyncio.get_running_loop()
    began = loop.time()
    os.kill(process.pid, signal.SIGTERM)
    assert await process.wait() == 0
    assert loop.time() - began < DRAIN_S
    await asyncio.gather(*busy)
    for consumer in (idle, half):
        consumer.close()
    with pytest.raises(OSError, match="Connect call failed"):
        await Consumer.dial(rehearsal)
    config = read_site(rehearsal.sites["site_a"])
    with sqlite3.connect(f"file:{config.path(config.file.store)}?mode=ro", uri=True) as store:
        left = {k for (k,) in store.execute("SELECT key_id FROM key_tombstones WHERE owner_here AND fate='delivered'")}
    store.close()
    assert len(received) == len({key_id for key_id, _ in received}) == len({key for _, key in received})
    assert left == {key_id for key_id, _ in received}, "a key left the store and its answer did not arrive"
    assert "Traceback" not in (rehearsal.directory / "site_a.log").read_text()
    # The other site saw the link end, and takes it up again with the next start.
    await rehearsal.start("site_a")
    await new_block(rehearsal)


def test_sigterm_answers_what_runs_takes_nothing_new_and_ends_with_0():
    played(drain)
