"""The kinds of tunnel that two whole sites can be tried with, each laid out between the two ends of one path.

What an operator does before a site starts is done here: interfaces, addresses, certificates, the daemons that the
agents drive. The way round the tunnel is open on purpose, by a default route: a tunnel that leaks is seen to.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from heliograph.encryptors.tun_device import OVERHEAD_BYTES
from heliograph.errors import ConfigurationError
from heliograph.lab.charons import CHARON, GatewayAuthority, charon_socket, start_charon, why_no_charon
from heliograph.lab.network_path import NetworkPath, run, why_no_namespaces

__all__ = ["KINDS", "Ends", "Kind"]

_PATIENCE_SECONDS: Final = 10.0
Tables = tuple[Mapping[str, object], Mapping[str, object]]


_PACKAGES: Final = {"ip": "iproute2", "wg": "wireguard-tools", "wireguard-go": "wireguard-go"}


@dataclass(frozen=True, slots=True)
class Ends:
    """``tables``: what each site's table of the tunnel has besides its role.

    ``host``, ``port``: where a host at site 0 connects to reach the one at site 1; ``processes``: the daemons that the
    agents drive, by site.
    """

    tables: Tables
    host: str
    port: int
    processes: tuple[subprocess.Popen[str], ...] = ()


@dataclass(frozen=True, slots=True)
class Kind:
    """``limits``: of the rotation, as short as this kind allows; ``programs``: what it needs besides root."""

    name: str
    open: Callable[[NetworkPath, Path, int], contextlib.AbstractContextManager[Ends]]
    limits: Mapping[str, object] = field(default_factory=dict)
    programs: tuple[str, ...] = ()
    namespaces: bool = True

    def missing(self) -> str | None:
        """Return why this kind cannot be tried here, or None."""
        absent = [name for name in self.programs if shutil.which(name) is None]
        if absent:
            wanted = " ".join(sorted({_PACKAGES[name] for name in absent}))
            return f"{', '.join(absent)}: not in PATH: apt-get install -y {wanted}, or add the directory to PATH"
        if not self.namespaces:
            return None
        if self.name == "strongswan" and (why := why_no_charon()) is not None:
            return why
        if not Path("/dev/net/tun").exists():
            return "/dev/net/tun is missing: load the module tun, or grant the device"
        return why_no_namespaces()


def _way_round(path: NetworkPath) -> None:
    for side in (0, 1):
        path.inside(side, "ip", "route", "replace", "default", "via", path.outer[1 - side])


@contextlib.contextmanager
def _tls_psk(path: NetworkPath, _place: Path, sink_port: int) -> Iterator[Ends]:
    outer, inner = path.ports(2)
    across = f"{path.outer[1]}:{outer}"
    tables = (
        {"cipher": "tls-psk", "outer_connect": across, "forwards": {"host": f"{path.inner}:{inner}"}},
        {"cipher": "tls-psk", "outer_listen": across, "targets": {"host": f"{path.inner}:{sink_port}"}},
    )
    yield Ends(tables, path.inner, inner)


@contextlib.contextmanager
def _tun(path: NetworkPath, _place: Path, sink_port: int) -> Iterator[Ends]:
    outer = path.ports(2)
    ends = [f"{path.outer[side]}:{outer[side]}" for side in (0, 1)]
    for side in (0, 1):
        path.inside(side, "ip", "tuntap", "add", "dev", "hg0", "mode", "tun")
        path.inside(side, "ip", "addr", "add", f"10.98.0.{side + 1}/24", "dev", "hg0")
        path.inside(side, "ip", "link", "set", "hg0", "mtu", str(1500 - OVERHEAD_BYTES), "up")
    _way_round(path)
    tables = tuple(
        {"outer_listen": ends[side], "outer_connect": ends[1 - side], "tun": {"interface": "hg0"}} for side in (0, 1)
    )
    yield Ends((tables[0], tables[1]), "10.98.0.2", sink_port)


@contextlib.contextmanager
def _wireguard(path: NetworkPath, _place: Path, sink_port: int) -> Iterator[Ends]:
    names = [f"hgw{os.getpid() % 100000}{end}" for end in "ab"]
    private = [run("wg", "genkey") for _ in names]
    public = [run("wg", "pubkey", given=key) for key in private]
    with _ended() as processes:
        for side, name in enumerate(names):
            processes.append(_begin(path.words(side, "wireguard-go", "-f", name)))
            _until(lambda name=name: _wg_answers(name), "wireguard-go")  # type: ignore[misc]
            run("wg", "set", name, "listen-port", "51820", "private-key", "/dev/stdin", given=private[side])
            path.inside(side, "ip", "addr", "add", f"10.97.0.{side + 1}/24", "dev", name)
            path.inside(side, "ip", "link", "set", name, "up")
        _way_round(path)
        tables = tuple(
            {
                "wireguard": {
                    "interface": names[side],
                    "peer": public[1 - side],
                    "endpoint": f"{path.outer[1 - side]}:51820",
                    "allowed_ips": ["10.97.0.0/24"],
                    "keepalive": 1,
                }
            }
            for side in (0, 1)
        )
        yield Ends((tables[0], tables[1]), "10.97.0.2", sink_port, tuple(processes))


def _wg_answers(name: str) -> bool:
    """Tell whether an interface is there; the socket of one that was killed may be left, and answers nothing."""
    with contextlib.suppress(ConfigurationError):
        run("wg", "show", name)
        return True
    return False


@contextlib.contextmanager
def _strongswan(path: NetworkPath, place: Path, sink_port: int) -> Iterator[Ends]:
    authority = GatewayAuthority()
    names, tables = ("gw-a.example", "gw-b.example"), []
    with _ended() as processes:
        for side in (0, 1):
            home = place / f"charon-{side}"
            home.mkdir(mode=0o700)
            authority.issue(home, names[side])
            path.inside(side, "ip", "addr", "add", f"10.{side + 1}.0.1/32", "dev", "lo")
            processes.append(start_charon(path.words(side, CHARON), home))
            tables.append(
                {
                    "strongswan": {
                        "socket": charon_socket(home),
                        "local": path.outer[side],
                        "remote": path.outer[1 - side],
                        "local_id": names[side],
                        "remote_id": names[1 - side],
                        "certificate": str(home / "gateway.pem"),
                        "key": str(home / "gateway.key"),
                        "ca": str(home / "root.pem"),
                        "local_networks": [f"10.{side + 1}.0.0/24"],
                        "remote_networks": [f"10.{2 - side}.0.0/24"],
                        "udp_encapsulation": True,
                    }
                }
            )
        _way_round(path)
        yield Ends((tables[0], tables[1]), "10.2.0.1", sink_port, tuple(processes))


@contextlib.contextmanager
def _ended() -> Iterator[list[subprocess.Popen[str]]]:
    """Yield a list; end the processes in it."""
    processes: list[subprocess.Popen[str]] = []
    try:
        yield processes
    finally:
        for process in processes:
            process.kill()
            process.wait()


def _begin(words: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(  # noqa: S603  - our own words
        words,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,  # Ctrl-C reaches the command only, which then ends this
    )


def _until(is_there: Callable[[], bool], what: str) -> None:
    until = time.monotonic() + _PATIENCE_SECONDS
    while not is_there():
        if time.monotonic() > until:
            raise ConfigurationError(f"{what} did not start within {_PATIENCE_SECONDS:g} s")
        time.sleep(0.01)


_QUICK: Final = {"rekey_seconds": 2.0, "max_key_age_s": 12.0, "overlap_seconds": 3.0}
KINDS: Final = {
    each.name: each
    for each in (
        Kind("tls-psk", _tls_psk, _QUICK, namespaces=False),
        Kind("tun", _tun, _QUICK, ("ip",)),
        Kind("strongswan", _strongswan, _QUICK, ("ip",)),
        # WireGuard's handshakes are told apart by whole seconds, so no rotation comes sooner (ADR 0042).
        Kind(
            "wireguard",
            _wireguard,
            {"rekey_seconds": 10.0, "max_key_age_s": 30.0, "overlap_seconds": 5.0},
            ("wg", "wireguard-go", "ip"),
        ),
    )
}
