"""Where to listen and where to connect: a host and a TCP port."""

from __future__ import annotations

import ipaddress
from typing import NamedTuple

from heliograph.errors import ConfigurationError

__all__ = ["Address"]


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
        if not colon or not host or not (port.isascii() and port.isdigit()) or int(port) > 65535:
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
