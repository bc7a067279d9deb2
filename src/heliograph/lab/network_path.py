"""A path between two sites on one machine: two network namespaces with a wire between, or loopback without root."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from typing import Final, Self

from heliograph.errors import ConfigurationError
from heliograph.lab.ports import free_ports

__all__ = ["NetworkPath", "why_no_namespaces"]

_INNER: Final = "127.0.0.1"
_PORTS: Final = 40


def why_no_namespaces() -> str | None:
    """Return why this process cannot make network namespaces, or None if it can."""
    if os.geteuid() != 0:
        return "network namespaces need root: run it as root"
    if shutil.which("ip") is None:
        return "the program ip is missing: apt-get install -y iproute2"
    probe = f"hgp{os.getpid()}"
    if subprocess.run(["ip", "netns", "add", probe], capture_output=True, check=False).returncode:  # noqa: S603, S607
        return "this kernel or container allows no network namespaces"
    run("ip", "netns", "del", probe)
    return None


def run(*words: str, given: str = "") -> str:
    """Run a program and return what it prints. Raises ConfigurationError with its own words."""
    done = subprocess.run(words, input=given, capture_output=True, text=True, check=False)  # noqa: S603  - our own words
    if done.returncode:
        raise ConfigurationError(f"{words[0]} {words[1] if len(words) > 1 else ''}: {done.stderr.strip()[:200]}")
    return done.stdout.strip()


class NetworkPath:
    """Sites 0 and 1. ``outer``: their addresses to each other; ``inner``: a site's address to itself."""

    inner: Final = _INNER

    def __init__(self, *, namespaces: bool) -> None:
        tag = f"hgp{os.getpid() % 100000}"
        self.spaces = (f"{tag}a", f"{tag}b") if namespaces else None
        self.outer = ("192.0.2.1", "192.0.2.2") if namespaces else (_INNER, _INNER)
        self._ports = iter(free_ports(_PORTS))
        self.name = "two network namespaces, veth, MTU 1500" if namespaces else "loopback"

    def __enter__(self) -> Self:
        if self.spaces is not None:
            try:
                self._make(self.spaces)
            except BaseException:
                self.__exit__()
                raise
        return self

    def _make(self, spaces: tuple[str, str]) -> None:
        for space in spaces:
            run("ip", "netns", "add", space)
        ends = [f"{space}v" for space in spaces]
        a, b = zip(ends, spaces, strict=True)
        run("ip", "link", "add", a[0], "netns", a[1], "type", "veth", "peer", b[0], "netns", b[1])
        for side in (0, 1):
            self.inside(side, "ip", "addr", "add", f"{self.outer[side]}/24", "dev", ends[side])
            self.inside(side, "ip", "link", "set", ends[side], "up")
            self.inside(side, "ip", "link", "set", "lo", "up")

    def ports(self, count: int) -> list[int]:
        """Return ports that were free at the start and that this path gave to nobody else."""
        return [next(self._ports) for _ in range(count)]

    def words(self, side: int, *words: str) -> list[str]:
        """Return a command as it is run at a site."""
        return list(words) if self.spaces is None else ["ip", "netns", "exec", self.spaces[side], *words]

    def inside(self, side: int, *words: str) -> str:
        """Run a command at a site and return what it prints. Raises ConfigurationError."""
        return run(*self.words(side, *words))

    def wire(self, side: int) -> str:
        """Return the name of a site's end of the wire."""
        assert self.spaces is not None, "loopback has no wire"
        return f"{self.spaces[side]}v"

    def cut(self, *, down: bool) -> None:
        """Take the wire down, or up again."""
        self.inside(0, "ip", "link", "set", self.wire(0), "down" if down else "up")

    def __exit__(self, *_: object) -> None:
        for space in self.spaces or ():
            with contextlib.suppress(ConfigurationError):
                run("ip", "netns", "del", space)
