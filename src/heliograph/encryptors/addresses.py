"""Where to listen and where to connect: a host and a TCP port."""

from __future__ import annotations

import ipaddress
import re
from typing import Final, NamedTuple

from heliograph.errors import ConfigurationError

__all__ = ["Address", "read_ip", "read_network"]

_SCOPED: Final = re.compile(r"[0-9A-Fa-f:.]+(%[A-Za-z0-9_.-]{1,15})?")


def read_ip(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """Return an IP address. Raises ValueError, also for a zone (RFC 4007) that is no plain word: it may go anywhere."""
    if not _SCOPED.fullmatch(text):
        raise ValueError(f"{text!r} does not appear to be an IPv4 or IPv6 address")
    return ipaddress.ip_address(text)


def read_network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    """Return a network. Raises ValueError, also for one with a zone."""
    if "%" in text:
        raise ValueError(f"{text!r}: a network has no zone")
    return ipaddress.ip_network(text)


class Address(NamedTuple):
    """An IP address or host name and a TCP port; port 0 lets the system choose when listening."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Address:
        """Read ``127.0.0.1:7000`` or ``[::1]:7000``. Raises ConfigurationError."""
        host, colon, port = text.rpartition(":")
        if host.startswith("[") and host.endswith("]"):
            host = host[1:-1]
        if not colon or not host or not re.fullmatch("[0-9]{1,5}", port) or int(port) > 65535:
            raise ConfigurationError(f"{text!r} is not an address: write host:port, such as 127.0.0.1:7000")
        return cls(host, int(port))

    @property
    def is_loopback(self) -> bool:
        """Whether nothing sent there leaves this machine."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"
