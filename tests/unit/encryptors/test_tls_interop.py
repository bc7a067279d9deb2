"""Our TLS under a preshared key with the programs that people have: openssl s_client, s_server, and stunnel."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import subprocess

import pytest

from heliograph.consumer.keys import Cipher, Role, derive
from heliograph.encryptors.generation import GenerationLimits
from heliograph.encryptors.psk_generation import PskGeneration
from heliograph.encryptors.tls_stream import accept_tls, open_tls
from heliograph.errors import HeliographError, RemoteProtocolError
from heliograph.lab.ports import free_ports
from heliograph.types import DeliveredKey

needs_openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="apt-get install -y openssl")
needs_stunnel = pytest.mark.skipif(
    shutil.which("stunnel4") is None, reason="stunnel4 is not installed: apt-get install -y stunnel4"
)
SUITE = "TLS_CHACHA20_POLY1305_SHA256"
KEYS = derive(DeliveredKey("3f2b8c1e-6c1f-4f6e-9d3a-0a1b2c3d4e5f", bytes(range(32))), Cipher.TLS_PSK)


class Key:
    """One generation and the identities that a server has taken."""

    def __init__(self) -> None:
        self.generation = PskGeneration(KEYS, Role.INITIATOR, GenerationLimits(), 0.0)
        self.identity = self.generation.offer()
        self.psk = self.generation.psk(Role.INITIATOR, self.identity)
        self.left = {self.identity: self.psk}


@contextlib.asynccontextmanager
async def our_server(key: Key):
    """Echo in capitals; yields (port, exceptions of refused handshakes). Each preshared key is good once."""
    refused: list[Exception] = []
    tasks = set()

    async def serve(reader, writer):
        try:
            stream = await accept_tls(reader, writer, key.left.get)
            key.left.pop(stream.identity)
            stream.send((await stream.read_exactly(5)).upper())
            await stream.close()
        except HeliographError as why:
            refused.append(why)
            writer.close()

    def accept(reader, writer):
        tasks.add(asyncio.create_task(serve(reader, writer)))

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1], refused
    finally:
        server.close()
        await asyncio.gather(*tasks)


@contextlib.asynccontextmanager
async def program(*words: str, given: bytes = b""):
    process = await asyncio.create_subprocess_exec(
        *words,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    process.stdin.write(given)
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        process.stdin.close()
        await process.stdout.read()
        await process.wait()


async def line_with(process, word: bytes) -> bytes:
    async with asyncio.timeout(20):
        while line := await process.stdout.readline():
            if word in line:
                return line
    pytest.fail(f"the program ended and never said {word!r}")


async def ask(port: int, key: Key) -> tuple[bytes, str]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        stream = await open_tls(reader, writer, key.identity, key.psk)
        stream.send(b"hello\n")
        answer = await stream.read_exactly(6)
        await stream.close()
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
    return answer, stream.group


async def heard(*words: str) -> bytes:
    async with program(*words, given=b"hello\n") as client, asyncio.timeout(20):
        return (await client.communicate())[0]


@needs_openssl
def test_openssl_s_client_speaks_under_our_key_once_and_resumes_nothing(tmp_path):
    async def scenario():
        key, ticket = Key(), tmp_path / "ticket.pem"
        async with our_server(key) as (port, refused):
            words = ["openssl", "s_client", "-tls1_3", "-ciphersuites", SUITE, "-connect", f"127.0.0.1:{port}"]
            under_key = [*words, "-psk_identity", key.identity.decode(), "-psk", key.psk.hex()]
            assert b"HELLO" in await heard(*under_key, "-sess_out", str(ticket))
            assert refused == []
            assert b"HELLO" not in await heard(*under_key)
            assert len(refused) == 1
            assert ticket.exists()  # OpenSSL gives one out
            assert b"HELLO" not in await heard(*words, "-sess_in", str(ticket))
            assert len(refused) == 2

    asyncio.run(scenario())


@needs_openssl
def test_openssl_s_server_answers_us_under_the_key():
    async def scenario():
        key = Key()
        words = ["openssl", "s_server", "-accept", "127.0.0.1:0", "-psk_identity", key.identity.decode(), "-nocert"]
        async with program(*words, "-psk", key.psk.hex(), "-tls1_3", "-ciphersuites", SUITE, "-rev") as server:
            port = int((await line_with(server, b"ACCEPT")).rpartition(b":")[2])
            answer, _ = await ask(port, key)
            assert answer == b"olleh\n"

    asyncio.run(scenario())


@needs_openssl
def test_a_server_with_a_certificate_in_place_of_the_key_is_refused(tmp_path):
    subprocess.run(
        f"openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=b "
        f"-keyout {tmp_path}/key.pem -out {tmp_path}/cert.pem".split(),
        check=True,
        capture_output=True,
    )

    async def scenario():
        words = ["openssl", "s_server", "-accept", "127.0.0.1:0", "-cert", str(tmp_path / "cert.pem")]
        async with program(*words, "-key", str(tmp_path / "key.pem"), "-tls1_3", "-rev") as server:
            port = int((await line_with(server, b"ACCEPT")).rpartition(b":")[2])
            with pytest.raises(RemoteProtocolError, match="handshake failed"):
                await ask(port, Key())

    asyncio.run(scenario())


def stunnel_conf(directory, key: Key, *, client: bool, accept: int, connect: int):
    (directory / "secrets").write_text(f"{key.identity.decode()}:{key.psk.hex()}\n")
    (directory / "secrets").chmod(0o600)
    lines = [
        "foreground = yes",
        "pid =",
        "[qkd]",
        f"client = {'yes' if client else 'no'}",
        f"accept = 127.0.0.1:{accept}",
        f"connect = 127.0.0.1:{connect}",
        "ciphers = PSK",
        f"ciphersuites = {SUITE}",
        "sslVersionMin = TLSv1.3",
        f"PSKsecrets = {directory / 'secrets'}",
        "sessionResume = no",
        "options = NO_TICKET",
    ]
    if client:
        lines.append(f"PSKidentity = {key.identity.decode()}")
    path = directory / "stunnel.conf"
    path.write_text("\n".join(lines) + "\n")
    return str(path)


@needs_stunnel
def test_stunnel_connects_to_us_under_the_key(tmp_path):
    async def scenario():
        key = Key()
        (inner,) = free_ports(1)
        async with our_server(key) as (port, refused):
            configuration = stunnel_conf(tmp_path, key, client=True, accept=inner, connect=port)
            async with program("stunnel4", configuration) as stunnel:
                await line_with(stunnel, b"Configuration successful")
                reader, writer = await asyncio.open_connection("127.0.0.1", inner)
                writer.write(b"hello")
                async with asyncio.timeout(20):
                    assert await reader.readexactly(5) == b"HELLO"
                writer.close()
            assert refused == []

    asyncio.run(scenario())


@needs_stunnel
def test_we_connect_to_stunnel_under_the_key(tmp_path):
    async def scenario():
        async def echo(reader, writer):
            writer.write((await reader.readexactly(6)).upper())
            await reader.read()
            writer.close()

        key = Key()
        (outer,) = free_ports(1)
        host = await asyncio.start_server(echo, "127.0.0.1", 0)
        target = host.sockets[0].getsockname()[1]
        async with program(
            "stunnel4", stunnel_conf(tmp_path, key, client=False, accept=outer, connect=target)
        ) as stunnel:
            await line_with(stunnel, b"Configuration successful")
            assert (await ask(outer, key))[0] == b"HELLO\n"
        host.close()

    asyncio.run(scenario())


def test_two_of_ours_agree_on_the_post_quantum_group():
    async def scenario():
        key = Key()
        async with our_server(key) as (port, _):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            stream = await open_tls(reader, writer, key.identity, key.psk)
            stream.send(b"hello")
            assert await stream.read_exactly(5) == b"HELLO"
            assert stream.group == "X25519MLKEM768"
            await stream.close()

    asyncio.run(scenario())
