"""The commonest mistakes with TLS and SAEs, each against a real server: one line names the cause and what to do."""

import asyncio
import logging
import os
import ssl
from datetime import UTC, datetime, timedelta

import pytest
from cryptography.hazmat.primitives import serialization

from heliograph.errors import ConfigurationError, HeliographError, InsufficientKeys, KeyNotFound, NotPermitted
from heliograph.http import tls
from heliograph.http.client import Etsi014Client
from heliograph.http.tls import client_tls
from heliograph.sae import AsyncSae
from heliograph.vault.certificates import SiteCa

UNKNOWN = "00000000-0000-4000-8000-000000000000"
NOW = datetime.now(UTC)
PAST, FUTURE = NOW - timedelta(days=9), NOW + timedelta(days=9)


def refused(site, files, *, peer="sae-b", host="127.0.0.1", ask=lambda sae: sae.get(), port=None):
    """Ask with these files, as any consumer does, and return the error; the client's own checks come first."""

    async def act(kme):
        url = f"https://{host}:{port or kme.port}"
        async with AsyncSae.over_tls(url, peer, certificate=files[0], key=files[1], ca=files[2]) as sae:
            await ask(sae)

    with pytest.raises(HeliographError) as error:
        site.run(act)
    assert "\n" not in str(error.value)
    return error.value


def refused_by_kme(site, files, version=None):
    """Ask without the client's own checks: what the KME does not accept, it says."""
    context = client_tls(*files) if len(files) == 3 else ssl.create_default_context(cafile=files[0])
    if version:
        context.maximum_version = version

    async def act(kme):
        async with Etsi014Client(f"https://127.0.0.1:{kme.port}", context, None, "sae-b") as client:
            await client.get_key()

    with pytest.raises(HeliographError) as error:
        site.run(act)
    assert "\n" not in str(error.value)
    return str(error.value)


def in_directory(site, identity, name):
    place = site.directory / name
    place.mkdir()
    return identity.write(place, name)


@pytest.fixture
def sae(site):
    return site.sae_files("sae-a")


def test_server_certificate_of_an_unknown_ca(site, sae):
    other = in_directory(site, SiteCa.create("elsewhere").issue_sae("sae-a"), "elsewhere")
    assert "certificate is refused: it is not of the CA that was given; give the ca.pem" in str(
        refused(site, (*sae[:2], other[2]))
    )


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_server_certificate_for_another_host(site, sae, host):
    site.kme_files = site.ca.issue_kme("kme-a", ["kme.example"]).write(site.directory, "kme2")
    error = str(refused(site, sae, host=host))
    assert f"certificate is not valid for '{host}'; dial a name that it has" in error


def test_server_certificate_expired(site, sae):
    site.kme_files = site.ca.issue_kme("kme-a", ["127.0.0.1"], 1, PAST).write(site.directory, "kme2")
    assert "it has expired, says this machine's clock (20" in str(refused(site, sae))


def test_server_certificate_not_yet_valid(site, sae):
    site.kme_files = site.ca.issue_kme("kme-a", ["127.0.0.1"], 1, FUTURE).write(site.directory, "kme2")
    assert "it is not valid yet, says this machine's clock (20" in str(refused(site, sae))


def test_server_certificate_with_the_wrong_extended_key_usage(site, sae):
    site.kme_files = site.sae_files("sae-2")
    assert "it is not for a server (extended key usage serverAuth)" in str(refused(site, sae))


def test_client_certificate_not_given(site, sae):
    error = refused(site, (None, None, sae[2]))
    assert isinstance(error, ConfigurationError)
    assert "a client certificate is missing: give the SAE's certificate and key" in str(error)


VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]


@pytest.mark.parametrize("version", VERSIONS)
def test_client_certificate_not_shown(site, sae, version, caplog):
    with caplog.at_level(logging.WARNING):
        assert "no client certificate; give the SAE's certificate and key" in refused_by_kme(site, sae[2:], version)


@pytest.mark.parametrize("version", VERSIONS)
def test_client_certificate_of_another_ca(site, sae, version):
    other = in_directory(site, SiteCa.create("elsewhere").issue_sae("sae-a"), "elsewhere")
    assert "does not accept this client's certificate, which is not of its CA" in refused_by_kme(
        site, (*other[:2], sae[2]), version
    )


def test_client_certificate_expired(site):
    old = site.ca.issue_sae("sae-a", 1, PAST).write(site.directory, "old")
    error = refused(site, old)
    assert isinstance(error, ConfigurationError)
    assert f"{old[0]}: the client certificate has expired on 20" in str(error)
    assert "have it renewed" in str(error)
    assert "says that this client's certificate has expired" in refused_by_kme(site, old)


def test_client_certificate_for_a_server(site):
    error = refused(site, site.kme_files)
    assert isinstance(error, ConfigurationError)
    assert "is not for a client (extended key usage clientAuth)" in str(error)
    assert "not for a client (extended key usage clientAuth)" in refused_by_kme(site, site.kme_files)


def test_key_of_another_certificate(site, sae):
    assert "does not belong to" in str(refused(site, (sae[0], site.kme_files[1], sae[2])))


def test_key_encrypted(site, sae):
    key = serialization.load_pem_private_key(sae[1].read_bytes(), None)
    for form in (serialization.PrivateFormat.PKCS8, serialization.PrivateFormat.TraditionalOpenSSL):
        locked = serialization.BestAvailableEncryption(b"secret")
        sae[1].write_bytes(key.private_bytes(serialization.Encoding.PEM, form, locked))
        assert "it is encrypted; decrypt it into a file of mode 0600 (openssl pkey" in str(refused(site, sae))


@pytest.mark.skipif(os.geteuid() == 0, reason="root can read every file")
def test_key_that_this_user_cannot_read(site, sae):
    sae[1].chmod(0)
    assert f"{sae[1]}: Permission denied" in str(refused(site, sae))


def test_key_that_others_can_read_and_key_that_is_not_there(site, sae):
    sae[1].chmod(0o640)
    assert f"run chmod 600 {sae[1]}" in str(refused(site, sae))
    sae[1].unlink()
    assert f"{sae[1]}: No such file" in str(refused(site, sae))


def test_tls_to_a_plain_port(site, sae):
    async def plain(_):
        async def answer(reader, writer):
            await reader.read(5)
            writer.write(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")
            writer.close()

        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        try:
            async with AsyncSae.over_tls(
                f"https://127.0.0.1:{port}", "sae-b", certificate=sae[0], key=sae[1], ca=sae[2]
            ) as consumer:
                await consumer.get()
        finally:
            server.close()

    with pytest.raises(HeliographError, match="it does not speak TLS; correct the port"):
        site.run(plain)


def test_plain_http_to_a_tls_port(site, sae, caplog):
    with pytest.raises(ConfigurationError, match=r"must be https://.*keys never cross a network without TLS"):
        AsyncSae.over_tls("http://127.0.0.1:1", "sae-b", certificate=sae[0], key=sae[1], ca=sae[2])

    async def speak(kme):
        reader, writer = await asyncio.open_connection("127.0.0.1", kme.port)
        writer.write(b"GET /api/v1/keys/sae-b/enc_keys HTTP/1.1\r\nHost: kme\r\n\r\n")
        await reader.read(100)
        writer.close()

    with caplog.at_level(logging.WARNING, "heliograph.kme"):
        site.run(speak)
    assert "TLS refused: the caller speaks plain HTTP; it has to dial https://" in caplog.text


def test_sae_that_is_not_registered(site):
    error = refused(site, site.sae_files("sae-stranger"))
    assert isinstance(error, NotPermitted)
    assert "refuses this SAE: Unauthorized; use the certificate" in str(error)


def test_slave_that_is_not_registered(site, sae):
    error = refused(site, sae, peer="sae-q")
    assert "answered 400: the SAE ID in the path is not registered to share keys with the calling SAE" in str(error)
    assert "correct what is asked for: its status shows what it serves" in str(error)


def test_key_id_that_is_not_known(site, sae):
    error = refused(site, sae, ask=lambda consumer: consumer.get_with_ids([UNKNOWN]))
    assert isinstance(error, KeyNotFound)
    assert "a key is delivered once, have the master fetch a fresh one" in str(error)


def test_no_key_left(site, sae):
    error = refused(site, sae)
    assert isinstance(error, InsufficientKeys)
    assert "1 asked for, 0 stored; try again later; the link has to make more first" in str(error)


def test_nobody_listens(site, sae):
    assert "nobody listens there; start the KME, or correct host and port" in str(refused(site, sae, port=1))


def test_a_name_that_does_not_resolve(site, sae):
    assert "the name does not resolve" in str(refused(site, sae, host="kme.invalid"))


def test_a_clock_that_is_wrong(site):
    ca = SiteCa.create("tomorrow", 30, FUTURE)
    files = in_directory(site, ca.issue_sae("sae-a", 3, FUTURE), "tomorrow")
    error = str(refused(site, files))
    assert error.startswith("this machine's clock says 20")
    assert error.endswith("correct the clock")


LOGGED = {
    "none": (None, "the caller showed no client certificate"),
    "other CA": (lambda _: SiteCa.create("elsewhere").issue_sae("sae-a"), "is not of this site's CA; issue it one"),
    "expired": (lambda site: site.ca.issue_sae("sae-a", 1, PAST), "certificate has expired, says this machine's clock"),
    "not yet": (lambda site: site.ca.issue_sae("sae-a", 1, FUTURE), "is not valid yet, says this machine's clock"),
    "purpose": (lambda site: site.ca.issue_kme("kme-a", ["127.0.0.1"]), "not for a client (extended key usage client"),
}


@pytest.mark.parametrize("mistake", LOGGED)
def test_the_key_manager_logs_why_it_refused_and_not_more_than_once_a_second(site, sae, mistake, caplog):
    make, text = LOGGED[mistake]
    tls._logged.clear()
    files = sae[2:] if make is None else (*in_directory(site, make(site), "theirs")[:2], sae[2])
    with caplog.at_level(logging.WARNING, "heliograph.kme"):
        refused_by_kme(site, files)
    lines = [record.getMessage() for record in caplog.records if "TLS refused" in record.getMessage()]
    assert len(lines) == 1  # aiohttp tried twice
    assert text in lines[0]
