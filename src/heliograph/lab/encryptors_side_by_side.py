"""The encryptors that ``heliograph bench encryptors`` compares, each started between the two ends of one path.

A carrier starts its programs, tells where site 0's host connects to reach the sink at site 1, and ends them all.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from heliograph.encryptors.tun_device import OVERHEAD_BYTES
from heliograph.errors import ConfigurationError
from heliograph.lab.network_path import NetworkPath, run

__all__ = [
    "CARRIERS",
    "Carrier",
    "Running",
    "agent_pair",
    "agents",
    "begin",
    "open_all",
    "packet_agents",
    "programs",
    "send",
    "send_packets",
]

_PATIENCE_SECONDS: Final = 30.0
_TICKS: Final = os.sysconf("SC_CLK_TCK")
# stunnel says on standard error that it is ready; wireguard-go says there that the kernel would do, which it may not.
_ERRORS: Final = {"stunnel4": subprocess.STDOUT, "wireguard-go": subprocess.DEVNULL}
_SUITE: Final = "TLS_CHACHA20_POLY1305_SHA256"


@dataclass(slots=True)
class Running:
    """Where to connect, the processes that do the work, and the agents among them."""

    host: str
    port: int
    processes: list[subprocess.Popen[str]] = field(default_factory=list)
    agents: list[subprocess.Popen[str]] = field(default_factory=list)

    def cpu_seconds(self) -> float:
        """Return processor time of all of them until now, of the programs and of the system for them."""
        total = 0
        for process in self.processes:
            fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
            total += int(fields[11]) + int(fields[12])
        return total / _TICKS

    def status(self, side: int) -> dict[str, Any]:
        """Return an agent's status. Raises ConfigurationError if it ended."""
        return _ask(self.agents[side])


def _ask(process: subprocess.Popen[str], line: str = "\n") -> dict[str, Any]:
    assert process.stdin is not None
    assert process.stdout is not None
    with contextlib.suppress(BrokenPipeError):
        process.stdin.write(line)
        process.stdin.flush()
    answer = process.stdout.readline()
    found: dict[str, Any] = json.loads(answer) if answer else {"error": "an agent ended without a word"}
    if "error" in found:
        raise ConfigurationError(found["error"])
    return found


@contextmanager
def programs(path: NetworkPath, *commands: tuple[int, list[str]]) -> Iterator[list[subprocess.Popen[str]]]:
    """Run commands at sites until the end of the block."""
    started: list[subprocess.Popen[str]] = []
    try:
        for side, words in commands:
            started.append(
                subprocess.Popen(  # noqa: S603  - our own words
                    path.words(side, *words),
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=_ERRORS.get(words[0]),
                    text=True,
                    start_new_session=True,  # Ctrl-C reaches the command only, which then ends this
                )
            )
        yield started
    finally:
        for process in started:
            process.kill()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    with contextlib.suppress(OSError):
                        pipe.close()
            process.wait()


def _wait(what: str, is_there: Callable[[], bool]) -> None:
    until = time.monotonic() + _PATIENCE_SECONDS
    while not is_there():
        if time.monotonic() > until:
            raise ConfigurationError(f"{what} did not start within {_PATIENCE_SECONDS:g} s")
        time.sleep(0.02)


def send(path: NetworkPath, at: Running, size: int, seconds: float) -> dict[str, Any]:
    """Send bulk TCP from a host at site 0; return what its source says. Raises ConfigurationError if it was cut."""
    return _source(path, "source", at.host, at.port, size, seconds)


def send_packets(path: NetworkPath, at: Running, port: int, packets: int, per_second: float) -> dict[str, Any]:
    """Send paced UDP packets from a host at site 0 to a packet sink. Raises ConfigurationError if nobody answers."""
    return _source(path, "packet-source", at.host, port, packets, per_second)


def _source(path: NetworkPath, kind: str, host: str, port: int, amount: int, limit: float) -> dict[str, Any]:
    words = [sys.executable, "-m", "heliograph.lab.bulk", kind, host, str(port), str(amount), str(limit)]
    found: dict[str, Any] = json.loads(path.inside(0, *words).splitlines()[-1])
    if "error" in found:
        raise ConfigurationError(f"a connection was cut: {found['error']}")
    return found


@contextmanager
def agents(path: NetworkPath, sink_port: int, *, stock: int = 1 << 20, **settings: Any) -> Iterator[Running]:  # noqa: ANN401
    """Two agents with a forward between them. ``settings``: entries of both tables."""
    outer, inner = path.ports(2)
    across = f"{path.outer[1]}:{outer}"
    tables = (
        {"outer_connect": across, "forwards": {"bulk": f"{path.inner}:{inner}"}},
        {"outer_listen": across, "targets": {"bulk": f"{path.inner}:{sink_port}"}},
    )
    with agent_pair(path, tables, stock=stock, **settings) as started:
        yield Running(path.inner, inner, list(started), list(started))


@contextmanager
def packet_agents(path: NetworkPath, sink_port: int, *, stock: int = 1 << 20, **settings: Any) -> Iterator[Running]:  # noqa: ANN401
    """Two agents with a TUN interface each, which stand at 10.98.0.1 and 10.98.0.2."""
    outer = path.ports(2)
    ends = [f"{path.outer[side]}:{outer[side]}" for side in (0, 1)]
    name = "hgtun0"
    for side in (0, 1):
        path.inside(side, "ip", "tuntap", "add", "dev", name, "mode", "tun")
        path.inside(side, "ip", "addr", "add", f"10.98.0.{side + 1}/24", "dev", name)
        path.inside(side, "ip", "link", "set", name, "mtu", str(1500 - OVERHEAD_BYTES), "up")
    tables = tuple(
        {"outer_listen": ends[side], "outer_connect": ends[1 - side], "tun": {"interface": name}} for side in (0, 1)
    )
    try:
        with agent_pair(path, tables, stock=stock, **settings) as started:
            yield Running("10.98.0.2", sink_port, list(started), list(started))
    finally:
        for side in (0, 1):
            path.inside(side, "ip", "link", "del", name)


@contextmanager
def agent_pair(
    path: NetworkPath,
    tables: tuple[Mapping[str, object], ...],
    *,
    stock: int = 1 << 20,
    seeds: tuple[str, str] | None = None,
    ready: bool = True,
    keep: dict[int, Mapping[str, object]] | None = None,
    **settings: object,
) -> Iterator[list[subprocess.Popen[str]]]:
    """Start an initiator at site 0 and a responder at site 1; ``ready``: wait until both encrypt.

    ``seeds``: of their keys, the same at both sites unless a test says otherwise; ``keep``: takes the orders, for a
    restart.
    """
    (control,) = path.ports(1)
    one = secrets.token_hex(32)
    words = [sys.executable, "-m", "heliograph.lab.encryptor_side"]
    with programs(path, (0, words), (1, words)) as started:
        for side in (1, 0):
            role = "responder" if side else "initiator"
            table = {"role": role, "control": f"{path.outer[1]}:{control}", **tables[side], **settings}
            order = {"agent": table, "seed": (seeds or (one, one))[side], "stock": stock}
            if keep is not None:
                keep[side] = order
            begin(started[side], order)
        if ready:
            _wait("a pair of agents", lambda: all(_ask(each)["mode"] == "encrypting" for each in started))
        yield started


def begin(process: subprocess.Popen[str], order: Mapping[str, object]) -> None:
    """Give an agent's process its order; return when it listens. Raises ConfigurationError with its refusal."""
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError):
        process.stdin.write(json.dumps(order) + "\n")
        process.stdin.flush()
    _ask(process)


@contextmanager
def _plain(path: NetworkPath, sink_port: int) -> Iterator[Running]:
    yield Running(path.outer[1], sink_port)


@contextmanager
def _stunnel(path: NetworkPath, sink_port: int) -> Iterator[Running]:
    outer, inner = path.ports(2)
    key = f"key:{secrets.token_hex(32)}\n"
    with tempfile.TemporaryDirectory(prefix="heliograph-bench-") as place:
        commands = []
        for side in (1, 0):
            (secret := Path(place) / f"secrets{side}").touch(mode=0o600)
            secret.write_text(key)
            ports = (f"{path.outer[1]}:{outer}", f"127.0.0.1:{sink_port}")
            if side == 0:
                ports = (f"127.0.0.1:{inner}", ports[0])
            lines = [
                "foreground = yes",
                "pid =",
                "[bulk]",
                f"client = {'no' if side else 'yes'}",
                f"accept = {ports[0]}",
                f"connect = {ports[1]}",
                "ciphers = PSK",
                f"ciphersuites = {_SUITE}",
                "sslVersionMin = TLSv1.3",
                f"PSKsecrets = {secret}",
                "sessionResume = no",
                "options = NO_TICKET",
                "debug = notice",
            ]
            if side == 0:
                lines.append("PSKidentity = key")
            configuration = Path(place) / f"stunnel{side}.conf"
            configuration.write_text("\n".join(lines) + "\n")
            commands.append((side, ["stunnel4", str(configuration)]))
        with programs(path, *commands) as started:
            for process in started:
                assert process.stdout is not None
                for line in process.stdout:
                    if "Configuration successful" in line:
                        break
                else:
                    raise ConfigurationError("stunnel4 did not take its configuration")
            yield Running(path.inner, inner, started)


@contextmanager
def _wireguard(path: NetworkPath, sink_port: int) -> Iterator[Running]:
    assert path.spaces is not None, "asked before"
    names = [f"hgw{os.getpid() % 100000}{end}" for end in "ab"]
    with programs(path, *((side, ["wireguard-go", "-f", names[side]]) for side in (0, 1))) as started:
        private = [run("wg", "genkey") for _ in names]
        public = [run("wg", "pubkey", given=key) for key in private]
        preshared = secrets.token_bytes(32)
        for side, name in enumerate(names):
            _wait("wireguard-go", lambda name=name: Path(f"/var/run/wireguard/{name}.sock").exists())  # type: ignore[misc]
            run("wg", "set", name, "listen-port", "51820", "private-key", "/dev/stdin", given=private[side])
            words = ["peer", public[1 - side], "allowed-ips", f"10.99.0.{2 - side}/32"]
            words += ["endpoint", f"{path.outer[1 - side]}:51820", "preshared-key", "/dev/stdin"]
            run("wg", "set", name, *words, given=base64.b64encode(preshared).decode())
            path.inside(side, "ip", "addr", "add", f"10.99.0.{side + 1}/24", "dev", name)
            path.inside(side, "ip", "link", "set", name, "up")
        yield Running("10.99.0.2", sink_port, started)


@dataclass(frozen=True, slots=True)
class Carrier:
    """One way to carry bulk TCP. ``needs``: programs; ``mebibytes``: a cap on what is sent through it."""

    name: str
    start: Callable[[NetworkPath, int], contextlib.AbstractContextManager[Running]]
    needs: tuple[str, ...] = ()
    namespaces: bool = False
    mebibytes: float | None = None
    ours: bool = False

    def missing(self, path: NetworkPath) -> str | None:
        """Return why it cannot be measured here, or None."""
        absent = [name for name in self.needs if shutil.which(name) is None]
        if absent:
            return f"{', '.join(absent)} not installed"
        if self.namespaces and path.spaces is None:
            return "needs root and network namespaces"
        return "/dev/net/tun is missing" if self.namespaces and not Path("/dev/net/tun").exists() else None


def _built_in(**settings: Any) -> Callable[[NetworkPath, int], contextlib.AbstractContextManager[Running]]:  # noqa: ANN401
    return lambda path, sink_port: agents(path, sink_port, rekey_bytes=1 << 38, **settings)


def _packets(path: NetworkPath, sink_port: int) -> contextlib.AbstractContextManager[Running]:
    return packet_agents(path, sink_port, rekey_bytes=1 << 38)


CARRIERS: Final = (
    Carrier("no encryption", _plain),
    Carrier("built-in, aes-256-gcm", _built_in(cipher="aes-256-gcm"), ours=True),
    Carrier("built-in, chacha20-poly1305", _built_in(cipher="chacha20-poly1305"), ours=True),
    Carrier(
        "built-in, one-time-pad",
        _built_in(cipher="one-time-pad", peer_key="given", pad_keys=512),
        mebibytes=0.0625,
        ours=True,
    ),
    Carrier("built-in, tls-psk", _built_in(cipher="tls-psk"), ours=True),
    Carrier("built-in, packets", _packets, namespaces=True, ours=True),
    Carrier("wireguard-go", _wireguard, ("wireguard-go", "wg"), namespaces=True),
    Carrier("stunnel", _stunnel, ("stunnel4",)),
)


@contextmanager
def open_all(path: NetworkPath, sink_port: int, carriers: list[Carrier]) -> Iterator[dict[str, Running]]:
    """Start every carrier, so that they can be measured in turn under the same conditions."""
    with ExitStack() as stack:
        yield {each.name: stack.enter_context(each.start(path, sink_port)) for each in carriers}
