"""The Unix socket: the system says who asks; the API is the one of the LAN."""

import asyncio
import json
import os
import shutil
import socket
import tempfile
from pathlib import Path

import pytest

from heliograph.errors import ConfigurationError, KeyNotFound, KeySupplyError, NotPermitted
from heliograph.http.callers import CertificateCallers, UserCallers
from heliograph.http.client import Etsi014Client
from heliograph.http.server import KmeServer
from heliograph.http.tls import server_tls
from heliograph.kme.boundary import Boundary, read_network
from heliograph.kme.supply import Limits, SaePair, Supply
from heliograph.testing.clock import ManualClock

PAIRS = [SaePair("sae-a", "sae-b", "kme-b"), SaePair("sae-2", "sae-b", "kme-b")]
ME = os.getuid()
NOBODY = 65534
ASK = b"GET /api/v1/keys/sae-b/enc_keys HTTP/1.1\r\nHost: kme\r\nConnection: close\r\n\r\n"


class OtherUser:
    """A child process that becomes ``uid`` and asks once when it is told to."""

    def __init__(self, uid, path):
        there, self.here = socket.socketpair()
        self.pid = os.fork()
        if not self.pid:
            self.here.close()
            try:
                there.recv(1)
                os.setuid(uid)
                with socket.socket(socket.AF_UNIX) as kme:
                    kme.connect(str(path))
                    kme.sendall(ASK)
                    there.sendall(kme.makefile("rb").read())
            finally:
                os._exit(0)
        there.close()

    def ask(self):
        self.here.sendall(b"1")
        answer = self.here.makefile("rb").read().decode()
        self.here.close()
        os.waitpid(self.pid, 0)
        return answer


@pytest.fixture
def place():
    """Make a directory that every user of this machine can enter, and only this one can write."""
    path = Path(tempfile.mkdtemp(prefix="heliograph-socket-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


def served_on(site, path, act, users=None, boundary=None):
    boundary = boundary or Boundary(users={"me": "sae-a"})
    users = {ME: "sae-a"} if users is None else users

    async def main():
        supply = Supply(site.keys, "kme-a", PAIRS, Limits(), ManualClock(200.0))
        server = KmeServer(supply, UserCallers(users, boundary))
        await server.start_unix(path)
        try:
            return await act()
        finally:
            await server.close()

    return asyncio.run(main())


def test_a_local_consumer_fetches_keys_as_master_and_as_slave(site, place):
    (mine,), (theirs,) = site.add_owned(1), site.add_held(1)

    async def act():
        client = Etsi014Client.over_socket(place / "kme.sock", "sae-a", "sae-b")
        try:
            first = await client.status(), await client.get_key(), await client.get_key_with_id(theirs.key_id)
            with pytest.raises(KeyNotFound):
                await client.get_key_with_id(theirs.key_id)
        finally:
            await client.close()
        return first

    status, key, named = served_on(site, place / "kme.sock", act)
    assert (status.caller_sae, status.stored_key_count) == ("sae-a", 1)
    assert (key.key_id, key.material) == (mine.key_id, mine.material)
    assert (named.key_id, named.material) == (theirs.key_id, theirs.material)


def test_a_user_who_is_no_consumer_gets_401_and_no_key(site, place):
    site.add_owned(1)

    async def act():
        client = Etsi014Client.over_socket(place / "kme.sock", "sae-a", "sae-b")
        try:
            with pytest.raises(NotPermitted, match="Unauthorized"):
                await client.get_key()
        finally:
            await client.close()

    served_on(site, place / "kme.sock", act, users={ME + 1: "sae-a"})
    assert site.keys.stored_key_count("sae-a", "sae-b") == 1


@pytest.mark.skipif(ME != 0, reason="needs root, to become another user")
def test_each_user_is_its_own_sae_whatever_the_request_says(site, place):
    site.add_owned(2)
    users = {ME: "sae-a", NOBODY: "sae-2"}
    boundary = Boundary(users={"me": "sae-a", "nobody": "sae-2"})

    path = place / "kme.sock"
    others = [OtherUser(uid, path) for uid in (NOBODY, NOBODY - 1, ME)]

    async def act():
        return [await asyncio.to_thread(other.ask) for other in others]

    nobody, stranger, root = served_on(site, path, act, users=users, boundary=boundary)
    # nobody is sae-2, whose pool is empty: the keys of sae-a stay where they are.
    assert nobody.startswith("HTTP/1.1 503")
    assert stranger.startswith("HTTP/1.1 401")
    assert root.startswith("HTTP/1.1 200")
    assert site.keys.stored_key_count("sae-a", "sae-b") == 1


def test_the_boundary_shuts_the_lan_for_a_consumer_of_this_host(site, wire):
    site.add_owned(1)
    tls = site.sae_tls("sae-a")
    boundary = Boundary(users={"me": "sae-a"})

    async def main():
        supply = Supply(site.keys, "kme-a", PAIRS, Limits(), ManualClock(200.0))
        server = KmeServer(supply, CertificateCallers(boundary))
        await server.start("127.0.0.1", 0, server_tls(*site.kme_files))
        try:
            return await wire.ask(server.port, tls, "GET", "/api/v1/keys/sae-b/enc_keys")
        finally:
            await server.close()

    status, _, answer = asyncio.run(main())
    assert status == 401
    assert answer["details"] == [{"reason": "the site's boundary does not admit this SAE by certificate"}]
    assert site.keys.stored_key_count("sae-a", "sae-b") == 1


@pytest.mark.parametrize(("network", "admitted"), [("127.0.0.0/8", True), ("192.0.2.0/24", False)])
def test_a_connection_from_outside_the_declared_networks_is_closed_unread(site, wire, network, admitted):
    site.add_owned(1)
    tls = site.sae_tls("sae-a")

    async def main():
        supply = Supply(site.keys, "kme-a", PAIRS, Limits(), ManualClock(200.0))
        server = KmeServer(supply, networks=(read_network(network),))
        await server.start("127.0.0.1", 0, server_tls(*site.kme_files))
        try:
            return (await wire.ask(server.port, tls, "GET", "/api/v1/keys/sae-b/enc_keys"))[0]
        except (asyncio.IncompleteReadError, ConnectionError):
            return None
        finally:
            await server.close()

    assert asyncio.run(main()) == (200 if admitted else None)
    assert site.keys.stored_key_count("sae-a", "sae-b") == (0 if admitted else 1)


def test_tcp_is_no_way_to_claim_a_user(site, wire):
    tls = site.sae_tls("sae-a")

    async def main():
        supply = Supply(site.keys, "kme-a", PAIRS, Limits(), ManualClock(200.0))
        server = KmeServer(supply, UserCallers({ME: "sae-a"}, Boundary(users={"me": "sae-a"})))
        await server.start("127.0.0.1", 0, server_tls(*site.kme_files))
        try:
            return await wire.ask(server.port, tls, "GET", "/api/v1/keys/sae-b/status")
        finally:
            await server.close()

    status, _, answer = asyncio.run(main())
    assert (status, answer["details"]) == (401, [{"reason": "the connection is not over a Unix socket"}])


def test_a_socket_where_others_could_put_theirs_is_refused_at_both_ends(site, place):
    place.chmod(0o777)
    with pytest.raises(ConfigurationError, match="others can write in"):
        served_on(site, place / "kme.sock", None)
    raw = socket.socket(socket.AF_UNIX)
    raw.bind(str(place / "false.sock"))

    async def ask():
        client = Etsi014Client.over_socket(place / "false.sock", "sae-a", "sae-b")
        try:
            with pytest.raises(KeySupplyError, match="others can write in"):
                await client.get_key()
        finally:
            await client.close()

    with raw:
        asyncio.run(ask())


def test_a_file_in_the_sockets_place_is_left_alone(site, place):
    (place / "kme.sock").write_text("not yours")
    with pytest.raises(ConfigurationError, match="a file that is no socket stands there"):
        served_on(site, place / "kme.sock", None)
    assert (place / "kme.sock").read_text() == "not yours"


def test_malformed_requests_on_the_socket_are_json_refusals(site, place):
    site.add_owned(1)

    async def act():
        answers = []
        for raw in (
            b"nonsense\r\n\r\n",
            b"POST /api/v1/keys/sae-b/enc_keys HTTP/1.1\r\nHost: k\r\nContent-Length: 1\r\n\r\n{",
        ):
            reader, writer = await asyncio.open_unix_connection(place / "kme.sock")
            writer.write(raw)
            head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
            length = int(head.split("content-length: ")[1].split()[0])
            answers.append((head.split()[1], json.loads(await reader.readexactly(length))["message"]))
            writer.close()
        return answers

    answers = served_on(site, place / "kme.sock", act)
    assert [status for status, _ in answers] == ["400", "400"]
    assert all(message.startswith("Bad request format") for _, message in answers)
    assert site.keys.stored_key_count("sae-a", "sae-b") == 1
