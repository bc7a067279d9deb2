"""Two network namespaces with a real WireGuard interface each, and a pair of agents that drive them."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Self

import pytest
from agent_pair import ECHO

_ASK = """
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.settimeout(0.3)
answered = 0
for number in range(int(sys.argv[2])):
    try:
        s.sendto(b"are you there %d" % number, (sys.argv[1], 7007))
        s.recvfrom(2048)
        answered += 1
        break
    except OSError:
        pass
print(answered)
"""


def require_wireguard() -> None:
    """Skip, by name, where a real WireGuard cannot run."""
    missing = [name for name in ("wg", "wireguard-go", "ip") if shutil.which(name) is None]
    if missing:
        pytest.skip(f"{', '.join(missing)} missing: apt-get install -y wireguard-tools wireguard-go iproute2")
    if os.geteuid() != 0:
        pytest.skip("network namespaces need root")
    if not Path("/dev/net/tun").exists():
        pytest.skip("/dev/net/tun is missing: wireguard-go needs it")
    if subprocess.run(["ip", "netns", "add", f"hg{os.getpid()}"], capture_output=True, check=False).returncode:
        pytest.skip("this kernel or container allows no network namespaces")
    run("ip", "netns", "del", f"hg{os.getpid()}")


def run(*words: str, given: str = "") -> str:
    return subprocess.run(words, input=given, capture_output=True, text=True, check=True).stdout.strip()


class Gateways:
    """Namespaces a and b, a wire between, wireguard-go in each: 10.77.0.1 and 10.77.0.2."""

    def __init__(self) -> None:
        tag = f"{os.getpid()}"
        self.spaces = [f"hg{tag}a", f"hg{tag}b"]
        self.interfaces = [f"hgw{tag}a", f"hgw{tag}b"]
        self.programs: list[subprocess.Popen[str] | None] = [None, None]
        self.echo: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        veth = [f"{name}v" for name in self.spaces]
        for space in self.spaces:
            run("ip", "netns", "add", space)
        run(
            "ip",
            "link",
            "add",
            veth[0],
            "netns",
            self.spaces[0],
            "type",
            "veth",
            "peer",
            veth[1],
            "netns",
            self.spaces[1],
        )
        self.private = [run("wg", "genkey") for _ in range(2)]
        self.public = [run("wg", "pubkey", given=key) for key in self.private]
        for side in (0, 1):
            self.inside(side, "ip", "addr", "add", f"192.0.2.{side + 1}/24", "dev", veth[side])
            self.inside(side, "ip", "link", "set", veth[side], "up")
            self.start(side)
        self.echo = subprocess.Popen(
            ["ip", "netns", "exec", self.spaces[1], sys.executable, "-c", ECHO, "0.0.0.0"],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.echo.stdout is not None
        assert self.echo.stdout.readline() == "ready\n"
        return self

    def inside(self, side: int, *words: str) -> str:
        return run("ip", "netns", "exec", self.spaces[side], *words)

    def start(self, side: int) -> None:
        """Create the interface, with its key and no peer."""
        name = self.interfaces[side]
        program = subprocess.Popen(
            ["ip", "netns", "exec", self.spaces[side], "wireguard-go", "-f", name],
            env=os.environ | {"WG_PROCESS_FOREGROUND": "1"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self.programs[side] = program
        until = time.monotonic() + 5
        while subprocess.run(["wg", "show", name], capture_output=True, check=False).returncode:
            assert time.monotonic() < until, "wireguard-go did not start"
        run("wg", "set", name, "listen-port", "51820", "private-key", "/dev/stdin", given=self.private[side])
        self.inside(side, "ip", "addr", "add", f"10.77.0.{side + 1}/24", "dev", name)
        self.inside(side, "ip", "link", "set", name, "up")

    def delete(self, side: int) -> None:
        """End the interface under its agent."""
        program = self.programs[side]
        assert program is not None
        program.send_signal(signal.SIGTERM)
        program.wait(5)
        self.programs[side] = None

    def table(self, side: int) -> dict[str, object]:
        """Return the agent's entry ``wireguard`` for one side."""
        entry: dict[str, object] = {
            "interface": self.interfaces[side],
            "peer": self.public[1 - side],
            "allowed_ips": ["10.77.0.0/24"],
            "keepalive": 1,
        }
        return entry | {"endpoint": f"192.0.2.{2 - side}:51820"}

    def preshared(self, side: int) -> str:
        return run("wg", "show", self.interfaces[side], "preshared-keys").split()[1]

    def passes(self, tries: int = 6) -> bool:
        """Whether a packet gets from a to b and back through the tunnel."""
        return self.inside(0, sys.executable, "-c", _ASK, "10.77.0.2", str(tries)) == "1"

    def __exit__(self, *_: object) -> None:
        for program in (*self.programs, self.echo):
            if program is not None:
                program.kill()
                program.wait(5)
                if program.stdout is not None:
                    program.stdout.close()
        for space in self.spaces:
            with contextlib.suppress(subprocess.CalledProcessError):
                run("ip", "netns", "del", space)
