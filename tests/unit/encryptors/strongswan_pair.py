"""Two gateways in network namespaces, a real charon in each, hosts behind, a wire that is recorded and can be cut."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Self

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

CHARON = "/usr/sbin/charon-systemd"
_PLUGINS = (
    "random nonce aes sha1 sha2 hmac kdf pem pkcs1 pkcs8 x509 revocation constraints pubkey openssl gcm curve25519 gmp "
    "drbg kernel-libipsec kernel-netlink socket-default vici"
)
_CONFIGURATION = """
charon-systemd {{
  load_modular = no
  load = {plugins}
  plugins {{
    vici {{ socket = unix://{place}/charon.vici }}
    kernel-libipsec {{ allow_peer_ts = yes }}
  }}
  filelog {{ f {{ path = {place}/log
      default = 1
      ike = 2
      cfg = 1
      flush_line = yes }} }}
  journal {{ default = -1 }}
  install_routes = yes
  retransmit_timeout = 0.5
  retransmit_tries = 3
}}
"""
_ECHO = """
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind((sys.argv[1], 7007))
print("ready", flush=True)
while True:
    data, sender = s.recvfrom(2048)
    s.sendto(data, sender)
"""
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
    pytest.importorskip("vici", reason="the Python package vici is missing: pip install heliograph[strongswan]")
    if not Path(CHARON).exists():
        pytest.skip("charon-systemd is missing: apt-get install -y charon-systemd libcharon-extra-plugins "
                    "libstrongswan-standard-plugins libstrongswan-extra-plugins")  # fmt: skip
    if shutil.which("ip") is None:
        pytest.skip("ip is missing: apt-get install -y iproute2")
    if os.geteuid() != 0:
        pytest.skip("network namespaces need root")
    if not Path("/dev/net/tun").exists():
        pytest.skip("/dev/net/tun is missing: charon's kernel-libipsec needs it")
    if subprocess.run(["ip", "netns", "add", f"hgs{os.getpid()}"], capture_output=True, check=False).returncode:
        pytest.skip("this kernel or container allows no network namespaces")
    run("ip", "netns", "del", f"hgs{os.getpid()}")


def run(*words: str, given: str = "") -> str:
    return subprocess.run(words, input=given, capture_output=True, text=True, check=True).stdout.strip()


class Authority:
    """A certificate authority for two gateways."""

    def __init__(self) -> None:
        self._key = Ed25519PrivateKey.generate()
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "gateways")])
        self.root = self._sign(self._name, self._key, None)

    def _sign(self, name: x509.Name, key: Ed25519PrivateKey, dns: str | None) -> x509.Certificate:
        now = dt.datetime.now(dt.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(days=1))
            .not_valid_after(now + dt.timedelta(days=7))
            .add_extension(x509.BasicConstraints(ca=dns is None, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
        )
        if dns is not None:
            builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(dns)]), critical=False)
        return builder.sign(self._key, None)

    def issue(self, dns: str, place: Path) -> None:
        """Write gateway.pem, gateway.key and root.pem."""
        key = Ed25519PrivateKey.generate()
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, dns)])
        (place / "gateway.pem").write_bytes(self._sign(name, key, dns).public_bytes(Encoding.PEM))
        (place / "gateway.key").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        (place / "gateway.key").chmod(0o600)
        (place / "root.pem").write_bytes(self.root.public_bytes(Encoding.PEM))


class Gateways:
    """Namespaces a and b with 10.1.0.1 and 10.2.0.1 behind 192.0.2.1 and 192.0.2.2; clear text could go across."""

    MARKER = "MARK-cleartext-of-the-inner-host"
    END = "MARK-end-of-the-recording"
    names = ("gw-a.example", "gw-b.example")

    def __init__(self, place: Path) -> None:
        tag = f"{os.getpid() % 100000}"
        self.spaces = [f"hgs{tag}a", f"hgs{tag}b"]
        self.wires = [f"hgs{tag}av", f"hgs{tag}bv"]
        self.places = [place / "a", place / "b"]
        self.charons: list[subprocess.Popen[str] | None] = [None, None]
        self._helpers: list[subprocess.Popen[str]] = []
        self._recording = place / "wire"
        self._recorder: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        authority = Authority()
        for space in self.spaces:
            run("ip", "netns", "add", space)
        peer = ["peer", self.wires[1], "netns", self.spaces[1]]
        run("ip", "link", "add", self.wires[0], "netns", self.spaces[0], "type", "veth", *peer)
        for side in (0, 1):
            self.places[side].mkdir()
            authority.issue(self.names[side], self.places[side])
            self.inside(side, "ip", "link", "set", "lo", "up")
            self.inside(side, "ip", "addr", "add", f"10.{side + 1}.0.1/32", "dev", "lo")
            self.inside(side, "ip", "addr", "add", f"192.0.2.{side + 1}/24", "dev", self.wires[side])
            self.inside(side, "ip", "link", "set", self.wires[side], "up")
        for side in (0, 1):
            # The way round the tunnel that must never be taken: without it, nothing could leak and nothing is proved.
            self.inside(side, "ip", "route", "add", "default", "via", f"192.0.2.{2 - side}")
            self.start(side)
            self._helper(side, _ECHO, f"10.{side + 1}.0.1")
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
        return str(self.places[side] / "charon.vici")

    def start(self, side: int) -> None:
        """Start charon, with no connection and no key, and wait until it listens."""
        place = self.places[side]
        (place / "strongswan.conf").write_text(_CONFIGURATION.format(plugins=_PLUGINS, place=place))
        with contextlib.suppress(FileNotFoundError):
            (place / "charon.vici").unlink()
        with (place / "out").open("a") as out:
            charon = subprocess.Popen(
                ["ip", "netns", "exec", self.spaces[side], CHARON],
                env={**os.environ, "STRONGSWAN_CONF": str(place / "strongswan.conf")},
                stdout=out,
                stderr=out,
                text=True,
            )
        self.charons[side] = charon
        until = time.monotonic() + 10
        while True:
            with socket.socket(socket.AF_UNIX) as probe, contextlib.suppress(OSError):
                probe.connect(self.socket_path(side))
                return
            assert time.monotonic() < until, (place / "out").read_text()
            assert charon.poll() is None, (place / "out").read_text()

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

    def passes(self, side: int = 0, tries: int = 10) -> bool:
        """Whether a packet gets from the host behind this side to the other and back."""
        words = [f"10.{side + 1}.0.1", f"10.{2 - side}.0.1", str(tries), self.MARKER]
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
