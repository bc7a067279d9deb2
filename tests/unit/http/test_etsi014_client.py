import asyncio
import base64
import json
import os
import ssl

import pytest

from heliograph.errors import ConfigurationError, InsufficientKeys, KeyNotFound, KeySupplyError, NotPermitted
from heliograph.http.client import Etsi014Client
from heliograph.http.tls import client_tls, server_tls

KEY_ID = "3f2504e0-4f89-41d3-9a0c-0305e82c3301"
UNKNOWN = "00000000-0000-4000-8000-000000000000"


def with_client(site, act, sae="sae-a", peer="sae-b", **tls):
    context = site.sae_tls(sae, **tls)

    async def main(kme):
        async with Etsi014Client(f"https://127.0.0.1:{kme.port}/", context, sae, peer) as client:
            return await act(client)

    return site.run(main)


def test_master_and_slave_fetch_their_keys(site):
    mine, theirs = site.add_owned(3), site.add_held(1)

    async def act(client):
        status = await client.status()
        keys = [await client.get_key(), *await client.get_keys(2)]
        return status, keys, await client.get_key_with_id(theirs[0].key_id)

    status, keys, key = with_client(site, act)
    assert (status.source_kme, status.target_kme, status.stored_key_count) == ("kme-a", "kme-b", 3)
    assert [(k.key_id, k.material) for k in keys] == [(row.key_id, row.material) for row in mine]
    assert (key.key_id, key.material) == (theirs[0].key_id, theirs[0].material)
    assert theirs[0].material.hex() not in repr(key)
    assert repr(theirs[0].material) not in repr(key)


def test_each_refusal_of_the_kme_has_its_own_error(site):
    (strange,) = site.add_held(1, slave="sae-2")

    async def act(client):
        with pytest.raises(InsufficientKeys, match="insufficient keys: 1 asked for, 0 stored"):
            await client.get_key()
        with pytest.raises(KeyNotFound, match="not found on KME"):
            await client.get_key_with_id(UNKNOWN)
        with pytest.raises(NotPermitted, match="Unauthorized"):
            await client.get_key_with_id(strange.key_id)
        with pytest.raises(KeySupplyError, match="number exceeds max_key_per_request = 128"):
            await client.get_keys(129)
        site.owner_reachable = False
        with pytest.raises(KeySupplyError, match="503: a key_ID is not known here"):
            await client.get_key_with_id(UNKNOWN)

    with_client(site, act)


def test_an_unregistered_sae_is_told_so(site):
    async def act(client):
        with pytest.raises(NotPermitted):
            await client.get_key()

    with_client(site, act, sae="sae-stranger")


def test_a_client_that_believes_to_be_another_sae_is_told_so(site):
    context = site.sae_tls("sae-2")

    async def main(kme):
        async with Etsi014Client(f"https://127.0.0.1:{kme.port}", context, "sae-a", "sae-b") as client:
            with pytest.raises(KeySupplyError, match="takes this client for SAE 'sae-2', not 'sae-a'"):
                await client.status()

    site.run(main)


def test_the_key_manager_must_be_the_one_that_was_named(site):
    site.add_owned(1)

    async def act(client):
        with pytest.raises(
            KeySupplyError, match="refused: the certificate is of KME kme-a, not of kme-z; dial"
        ) as refusal:
            await client.get_key()
        assert "\n" not in str(refusal.value)

    with_client(site, act, kme_id="kme-z")
    assert site.keys.stored_key_count("sae-a", "sae-b") == 1


def test_a_key_manager_of_another_ca_is_refused(site, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    ca = site.ca.create("elsewhere")
    context = client_tls(*ca.issue_sae("sae-a").write(other, "sae"))

    async def main(kme):
        async with Etsi014Client(f"https://127.0.0.1:{kme.port}", context, "sae-a", "sae-b") as client:
            with pytest.raises(KeySupplyError, match="certificate is refused"):
                await client.get_key()

    site.run(main)


def test_a_certificate_for_another_host_is_refused(site):
    context = site.sae_tls("sae-a")
    site.kme_files = site.ca.issue_kme("kme-a", ["kme.example"]).write(site.directory, "other-host")

    async def main(kme):
        async with Etsi014Client(f"https://127.0.0.1:{kme.port}", context, "sae-a", "sae-b") as client:
            with pytest.raises(KeySupplyError, match="certificate is refused"):
                await client.get_key()

    site.run(main)


def test_no_key_manager_is_one_clear_line(site):
    context = site.sae_tls("sae-a")

    async def main(kme):
        port = kme.port
        await kme.close()
        async with Etsi014Client(f"https://127.0.0.1:{port}", context, "sae-a", "sae-b") as client:
            with pytest.raises(KeySupplyError, match=f"KME https://127.0.0.1:{port}: no answer") as refusal:
                await client.get_key()
        assert "\n" not in str(refusal.value)

    site.run(main)


@pytest.mark.parametrize("url", ["http://127.0.0.1:8443", "127.0.0.1:8443", "https://", "https://[", ""])
def test_only_https_is_dialled(site, url):
    with pytest.raises(ConfigurationError, match="must be https"):
        Etsi014Client(url, site.sae_tls("sae-a"), "sae-a", "sae-b")


def container(key_id=KEY_ID, key=None, **more):
    entry = {"key_ID": key_id, "key": base64.b64encode(b"k" * 32).decode() if key is None else key}
    return json.dumps({"keys": [entry], **more}).encode()


@pytest.mark.parametrize(
    ("status", "body", "reason"),
    [
        (200, b"", "cannot be read"),
        (200, b"<html>", "cannot be read"),
        (200, b"{}", "not the standard's Container"),
        (200, b'{"keys": [], "keys": []}', "a name comes twice"),
        (200, b'{"keys": []}', "0 keys where 1"),
        (200, b'{"keys": [{"key_ID": 5, "key": "S0VZ"}]}', "not the standard's Container"),
        (200, container("not-a-uuid"), "not a UUID"),
        (200, container(UNKNOWN), "another key_ID"),
        (200, container(key="AA=="), "not 256 bits"),
        (200, container(key="!" + base64.b64encode(b"k" * 32).decode()), "not 256 bits"),
        (200, container(key=base64.b64encode(b"k" * 32).decode()[:-2] + "t="), "not 256 bits"),
        (200, b" " * (4 * 1024 * 1024 + 1), "exceeds"),
        (301, b"", "answered 301: no reason given"),
        (400, b'{"message": "two\\nlines\\u001b[2J"}', "answered 400: two lines"),
        (500, b"Traceback", "answered 500: no reason given"),
        (503, b'{"message": "later"}', "answered 503: later"),
    ],
)
def test_an_answer_outside_the_standard_is_no_key(site, status, body, reason):
    tls = server_tls(*site.kme_files)
    context = site.sae_tls("sae-a")

    async def main():
        async def answer(reader, writer):
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
            await reader.readexactly(length)
            head = f"HTTP/1.1 {status} X\r\nLocation: /elsewhere\r\nContent-Length: {len(body)}\r\n\r\n"
            writer.write(head.encode() + body)
            writer.close()

        server = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=tls)
        port = server.sockets[0].getsockname()[1]
        async with Etsi014Client(f"https://127.0.0.1:{port}", context, "sae-a", "sae-b") as client:
            with pytest.raises(KeySupplyError, match=reason.replace("(", "\\(")) as refusal:
                await client.get_key_with_id(KEY_ID)
        server.close()
        await server.wait_closed()
        assert "\n" not in str(refusal.value)
        assert "\x1b" not in str(refusal.value)
        assert not isinstance(refusal.value, KeyNotFound | NotPermitted | InsufficientKeys)

    asyncio.run(main())


def write(path, content):
    path.write_bytes(content)
    path.chmod(0o600)
    return path


TLS_MISTAKES = {
    "missing certificate": (0, lambda path: path.with_name("nowhere.pem"), "nowhere.pem: No such file"),
    "directory": (0, lambda path: path.parent, "Is a directory"),
    "DER": (0, lambda path: write(path.with_name("der.pem"), os.urandom(300)), "der.pem: holds no PEM certificate"),
    "swapped": (1, lambda path: path.with_suffix(".pem"), "holds no PEM private key"),
    "key of another": (1, lambda path: path.with_name("kme.key"), "kme.key: does not belong to"),
    "readable key": (1, lambda path: (path.chmod(0o644), path)[1], "run chmod 600"),
    "encrypted key": (
        1,
        lambda path: write(
            path.with_name("enc.key"),
            b"-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n",
        ),
        "enc.key: cannot be used",
    ),
    "empty CA": (2, lambda path: write(path.with_name("empty.pem"), b""), "empty.pem: holds no PEM CA certificate"),
    "damaged CA": (
        2,
        lambda path: write(
            path.with_name("bad.pem"), b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
        ),
        "bad.pem: cannot be used as CA",
    ),
}


@pytest.mark.parametrize("mistake", TLS_MISTAKES)
@pytest.mark.parametrize("make", [server_tls, client_tls])
def test_each_tls_mistake_is_named_with_its_file(site, mistake, make):
    place, change, message = TLS_MISTAKES[mistake]
    files = list(site.sae_files("sae-a"))
    files[place] = change(files[place])
    with pytest.raises(ConfigurationError, match=message) as refusal:
        make(*files)
    assert "\n" not in str(refusal.value)


def test_the_contexts_ask_for_certificates_and_modern_tls(site):
    server, client = server_tls(*site.kme_files), site.sae_tls("sae-a")
    assert server.verify_mode == client.verify_mode == ssl.CERT_REQUIRED
    assert client.check_hostname
    assert min(server.minimum_version, client.minimum_version) >= ssl.TLSVersion.TLSv1_2
    assert server.num_tickets == 0
