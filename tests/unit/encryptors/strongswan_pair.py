"""Two gateways in network namespaces, a real charon in each, hosts behind, a wire that is recorded and can be cut."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Self

import pytest
from agent_pair import ECHO, AgentPair

from heliograph.agent.agent import Agent
from heliograph.agent.config import AgentConfig
from heliograph.agent.identity import PeerIdentity
from heliograph.lab.charons import CHARON, GatewayAuthority, charon_socket, start_charon, why_no_charon
from heliograph.lab.network_path import why_no_namespaces
from heliograph.vault.randomness import SystemRandomness

# Asks until it is answered or gives up; every question carries the marker that must never be seen on the wire.
_ASK = """
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind((sys.argv[1], 0))
s.settimeout(0.2)
for number in range(int(sys.argv[3])):
    try:
        s.sendto(sys.argv[4].encode() + b" %d" % number, (sys.argv[2], 7007))
        s.recvfrom(2048)
        print("answered")
        break
    except OSError:
        pass
else:
    print("silence")
"""
# Sends a steady stream and counts what comes back, until its input ends.
_STREAM = """
import json, select, socket, sys, time
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind((sys.argv[1], 0))
s.setblocking(False)
sent = back = refused = 0
print("streaming", flush=True)
begin = time.monotonic()
last = None
while True:
    wait = max(0.0, begin + (sent + refused) / 200 - time.monotonic())
    ready = select.select([s, sys.stdin], [], [], wait)[0]
    if s in ready:
        try:
            s.recv(2048)
            back += 1
        except OSError:
            pass
    if sys.stdin in ready and last is None:
        last = time.monotonic() + 0.5
    if last is not None:
        if time.monotonic() > last:
            break
        continue
    if time.monotonic() >= begin + (sent + refused) / 200:
        try:
            s.sendto(sys.argv[3].encode() + b" %d" % sent, (sys.argv[2], 7007))
            sent += 1
        except OSError:
            refused += 1
print(json.dumps({"sent": sent, "back": back, "refused": refused}))
"""
_LAST = """
import socket, sys
socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(sys.argv[1].encode(), ("192.0.2.2", 9))
"""
# Everything that the outer interface sends or receives, as it is.
_CAPTURE = """
import select, socket, sys
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 24)
s.bind((sys.argv[1], 0))
print("recording", flush=True)
with open(sys.argv[2], "wb") as file:
    ending = False
    while True:
        ready = select.select([s, sys.stdin], [], [], 0.2 if ending else None)[0]
        if s in ready:
            data = s.recv(65536)
            file.write(len(data).to_bytes(4, "big") + data)
        elif ending:
            break
        ending = ending or sys.stdin in ready
"""


def require_strongswan() -> None:
    """Skip, by name, where a real charon cannot run."""
    why = why_no_charon() or why_no_namespaces()
    if why is not None:
        pytest.skip(why)


def run(*words: str, given: str = "") -> str:
    return subprocess.run(words, input=given, capture_output=True, text=True, check=True).stdout.strip()


class Gateways:
    """Namespaces a and b with 10.1.0.1 and 10.2.0.1 behind 192.0.2.1 and 192.0.2.2; clear text could go across."""

    MARKER = "MARK-cleartext-of-the-inner-host"
    END = "MARK-end-of-the-recording"
    names = ("gw-a.example", "gw-b.example")
    certified = (("gw-a.example", "second.gw-a.example"), ("gw-b.example", "second.gw-b.example"))

    def __init__(self, place: Path) -> None:
        tag = f"{os.getpid()}"
        self.spaces = [f"hgs{tag}a", f"hgs{tag}b"]
        self.wires = [f"hgs{tag}av", f"hgs{tag}bv"]
        self.places = [place / "a", place / "b"]
        self.charons: list[subprocess.Popen[str] | None] = [None, None]
        self._helpers: list[subprocess.Popen[str]] = []
        self._recording = place / "wire"
        self._recorder: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        authority = GatewayAuthority()
        for space in self.spaces:
            run("ip", "netns", "add", space)
        peer = ["peer", self.wires[1], "netns", self.spaces[1]]
        run("ip", "link", "add", self.wires[0], "netns", self.spaces[0], "type", "veth", *peer)
        for side in (0, 1):
            self.places[side].mkdir()
            authority.issue(self.places[side], *self.certified[side])
            self.inside(side, "ip", "link", "set", "lo", "up")
            self.inside(side, "ip", "addr", "add", f"10.{side + 1}.0.1/32", "dev", "lo")
            self.inside(side, "ip", "addr", "add", f"192.0.2.{side + 1}/24", "dev", self.wires[side])
            self.inside(side, "ip", "link", "set", self.wires[side], "up")
        for side in (0, 1):
            # The way round the tunnel that must never be taken: without it, nothing could leak and nothing is proved.
            self.inside(side, "ip", "route", "add", "default", "via", f"192.0.2.{2 - side}")
            self.start(side)
            self._helper(side, ECHO, f"10.{side + 1}.0.1")
        self._recorder = self._helper(0, _CAPTURE, self.wires[0], str(self._recording))
        return self

    def _helper(self, side: int, program: str, *words: str) -> subprocess.Popen[str]:
        helper = subprocess.Popen(
            ["ip", "netns", "exec", self.spaces[side], sys.executable, "-c", program, *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._helpers.append(helper)
        assert helper.stdout is not None
        assert helper.stdout.readline()
        return helper

    def inside(self, side: int, *words: str) -> str:
        return run("ip", "netns", "exec", self.spaces[side], *words)

    def socket_path(self, side: int) -> str:
        return charon_socket(self.places[side])

    def start(self, side: int) -> None:
        """Start charon, with no connection and no key, and wait until it listens."""
        words = ["ip", "netns", "exec", self.spaces[side], CHARON]
        self.charons[side] = start_charon(words, self.places[side])

    def kill(self, side: int) -> None:
        """End charon as kill -9 does."""
        charon = self.charons[side]
        assert charon is not None
        charon.send_signal(signal.SIGKILL)
        charon.wait(5)
        self.charons[side] = None

    def cut(self, *, whole: bool) -> None:
        """Cut the wire, or mend it."""
        self.inside(1, "ip", "link", "set", self.wires[1], "up" if whole else "down")
        if whole:
            self.inside(1, "ip", "route", "replace", "default", "via", "192.0.2.1")

    def table(self, side: int, **more: object) -> dict[str, object]:
        """Return the agent's entry ``strongswan`` for one side."""
        entry: dict[str, object] = {
            "socket": self.socket_path(side),
            "local": f"192.0.2.{side + 1}",
            "remote": f"192.0.2.{2 - side}",
            "local_id": self.names[side],
            "remote_id": self.names[1 - side],
            "certificate": str(self.places[side] / "gateway.pem"),
            "key": str(self.places[side] / "gateway.key"),
            "ca": str(self.places[side] / "root.pem"),
            "local_networks": [f"10.{side + 1}.0.0/24"],
            "remote_networks": [f"10.{2 - side}.0.0/24"],
            "udp_encapsulation": True,
            "netns": self.spaces[side],
        }
        return entry | more

    def second_network(self) -> list[dict[str, object]]:
        """Put another network behind each gateway; return what a tunnel between those two is told apart by."""
        for side in (0, 1):
            self.inside(side, "ip", "addr", "add", f"10.{side + 1}.1.1/32", "dev", "lo")
            self._helper(side, ECHO, f"10.{side + 1}.1.1")
        return [
            {
                "name": "second",
                "local_networks": [f"10.{side + 1}.1.0/24"],
                "remote_networks": [f"10.{2 - side}.1.0/24"],
            }
            for side in (0, 1)
        ]

    def passes(self, side: int = 0, tries: int = 10, network: int = 0) -> bool:
        """Whether a packet gets from the host behind this side to the other and back."""
        words = [f"10.{side + 1}.{network}.1", f"10.{2 - side}.{network}.1", str(tries), self.MARKER]
        return self.inside(side, sys.executable, "-c", _ASK, *words) == "answered"

    @contextlib.contextmanager
    def stream(self):
        """Run a stream of 200 packets a second across; the dictionary has its counts afterwards."""
        counts: dict[str, int] = {}
        helper = self._helper(0, _STREAM, "10.1.0.1", "10.2.0.1", self.MARKER)
        try:
            yield counts
        finally:
            out, _ = helper.communicate("", timeout=20)
            counts.update(json.loads(out))

    def recorded(self) -> bytes:
        """Stop recording and return every frame of the wire so far; the last one is a mark, so nothing was missed."""
        self.inside(0, sys.executable, "-c", _LAST, self.END)
        assert self._recorder is not None
        self._recorder.communicate("", timeout=20)
        return self._recording.read_bytes()

    def _ask(self, side: int, question):
        import vici  # noqa: PLC0415  - an extra: the tests that need it have looked

        with socket.socket(socket.AF_UNIX) as line:
            line.connect(self.socket_path(side))
            return question(vici.Session(line))

    def associations(self, side: int) -> list[dict[str, bytes]]:
        """Return what charon says about its associations."""
        return [sa for group in self._ask(side, lambda session: list(session.list_sas())) for sa in group.values()]

    def exchanges(self, side: int) -> list[str]:
        """Return the key exchanges that charon lists."""
        return list(self._ask(side, lambda session: session.get_algorithms()).get("ke", {}))

    def connections(self, side: int) -> dict:
        """Return the connections that charon has, by name."""
        return {
            name: conn
            for each in self._ask(side, lambda session: list(session.list_conns()))
            for name, conn in each.items()
        }

    def shared_keys(self, side: int) -> list[bytes]:
        """Return the names of the preshared keys that charon has."""
        return list(self._ask(side, lambda session: session.get_shared()).get("keys", []))

    def log(self, side: int) -> str:
        return (self.places[side] / "log").read_text()

    def __exit__(self, *_: object) -> None:
        for helper in (*self._helpers, *self.charons):
            if helper is not None:
                helper.kill()
                helper.wait(5)
                for stream in (helper.stdin, helper.stdout):
                    if stream is not None:
                        with contextlib.suppress(OSError):
                            stream.close()
        for space in self.spaces:
            with contextlib.suppress(subprocess.CalledProcessError):
                run("ip", "netns", "del", space)


class Pair(AgentPair):
    """Two agents, each beside its charon; the agents talk over the loopback interface, the gateways over the wire."""

    def __init__(self, gateways: Gateways, tables=None, **more: object) -> None:
        super().__init__()
        self.gateways = gateways
        self.tables = tables or [gateways.table(side) for side in (0, 1)]
        self.more = more
        self.secret = secrets.token_bytes(32)

    def agent(self, side, role, control, source):
        entry = {"role": role, "control": control, "strongswan": self.tables[side]} | self.more
        identity = None
        if "policy" in self.more:
            entry["peer_key"] = "unused: the secret is given"
            names = ("sae-a", "sae-b") if side == 0 else ("sae-b", "sae-a")
            identity = PeerIdentity(*names, self.secret, SystemRandomness())
        return Agent(AgentConfig.from_mapping(entry), source, self.clock, identity)

    async def encrypting(self, mode: str = "encrypting") -> None:
        await self.until(
            lambda: (
                self.a.status().mode == self.b.status().mode == mode
                and self.a.status().key_id == self.b.status().key_id
                and self.a.status().alarm is self.b.status().alarm is None
            )
        )

    async def rotated(self) -> None:
        """Go on to the next key, wherever the pair is."""
        before = self.a.status().rekeys
        self.clock.ahead += 61
        await self.until(lambda: self.a.status().rekeys > before and self.b.status().rekeys > before)
        await self.encrypting()

    async def only(self, count: int) -> None:
        """Wait until ``count`` associations are left, each under a preshared key: old ones end after new ones stand."""
        found: list[list[bytes]] = []

        def alone() -> bool:
            found[:] = ([sa["ppk"] for sa in self.gateways.associations(side)] for side in (0, 1))
            return [len(one) for one in found] == [count, count]

        await self.until(alone)
        assert found == [[b"yes"] * count] * 2

    def kill(self) -> None:
        """Let both agents say nothing more to their charons, not even farewell."""
        for agent in (self.a, self.b):
            agent._encryptor._settler._closed = True
            agent._encryptor._work.release()  # as the end of a process does

    async def passes(self, **how: int) -> bool:
        return await asyncio.to_thread(self.gateways.passes, **how)
