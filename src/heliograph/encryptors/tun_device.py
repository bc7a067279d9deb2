"""A TUN interface of Linux that an operator has made: packets of the inner network are read and written as bytes."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import socket
import struct
from dataclasses import dataclass
from typing import Final

from heliograph.encryptors.records import HEADER_BYTES, TAG_BYTES
from heliograph.errors import ConfigurationError

__all__ = ["OVERHEAD_BYTES", "TunConfig", "TunDevice"]

# From linux/if_tun.h and linux/sockios.h.
_TUNSETIFF: Final = 0x400454CA
_TUNGETIFF: Final = 0x800454D2
_SIOCGIFMTU: Final = 0x8921
_IFF_TUN: Final = 0x0001
_IFF_NO_PI: Final = 0x1000
_REQUEST: Final = struct.Struct("16sH22x")
_MTU: Final = struct.Struct("16si20x")
_DEVICE: Final = "/dev/net/tun"
# What a packet grows by: IPv6 header, UDP header, ours, the tag. With IPv4 outside it is 20 less.
OVERHEAD_BYTES: Final = 40 + 8 + HEADER_BYTES + TAG_BYTES
_MTU_MIN: Final = 1280  # RFC 8200 5


@dataclass(frozen=True, slots=True)
class TunConfig:
    """The interface, and the longest packet that the way between the sites carries. Raises ConfigurationError."""

    interface: str
    path_mtu: int = 1500

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,14}", self.interface):
            raise ConfigurationError(f"tun: interface = {self.interface!r} is not the name of an interface")
        if not _MTU_MIN + OVERHEAD_BYTES <= self.path_mtu <= 9216:
            raise ConfigurationError(f"tun: path_mtu = {self.path_mtu}: from {_MTU_MIN + OVERHEAD_BYTES} to 9216")


class TunDevice:
    """The open device. Whoever holds it is the interface's other end; while nobody does, the kernel drops packets."""

    def __init__(self, config: TunConfig) -> None:
        """Attach. Raises ConfigurationError naming what an operator has to do."""
        name = self._name = config.interface
        try:
            socket.if_nametoindex(name)
        except OSError:
            # Attaching would make it, and it would vanish with us, with its routes: packets would go another way.
            raise ConfigurationError(f"tun: there is no interface {name}: ip tuntap add dev {name} mode tun") from None
        # Room for no more than can be on its way: a buffer of the longest packet there is costs more than the sealing.
        self._most = config.path_mtu
        try:
            self.fd = os.open(_DEVICE, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as why:
            raise ConfigurationError(
                f"tun: {_DEVICE}: {why.strerror}: load the module tun, or grant the device"
            ) from why
        try:
            fcntl.ioctl(self.fd, _TUNSETIFF, _REQUEST.pack(name.encode(), _IFF_TUN | _IFF_NO_PI))
            self._check_mtu(name, config.path_mtu - OVERHEAD_BYTES)
        except OSError as why:
            self.close()
            busy = "another program holds it" if why.errno == errno.EBUSY else "make it mode tun, owned by this user"
            raise ConfigurationError(f"tun: interface {name}: {why.strerror}: {busy}") from why
        except ConfigurationError:
            self.close()
            raise

    @staticmethod
    def _check_mtu(name: str, most: int) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
            answer = fcntl.ioctl(asked, _SIOCGIFMTU, _MTU.pack(name.encode(), 0))
        mtu: int = _MTU.unpack(answer)[1]
        if mtu > most:
            raise ConfigurationError(
                f"tun: interface {name} has MTU {mtu}; a packet grows by {OVERHEAD_BYTES} bytes on its way, so: "
                f"ip link set {name} mtu {most}"
            )

    def read(self) -> bytes | None:
        """Return a packet that the inner network sends, None if there is none now. Raises OSError."""
        try:
            return os.read(self.fd, self._most)
        except BlockingIOError:
            return None

    def write(self, packet: bytes) -> bool:
        """Give a packet to the inner network; return whether it was taken."""
        try:
            os.write(self.fd, packet)
        except OSError:
            return False  # the interface is down, its queue is full, or this is no packet
        return True

    def attached(self) -> bool:
        """Whether this is still the other end of the interface: it may have been deleted, and made again, by others."""
        try:
            told = fcntl.ioctl(self.fd, _TUNGETIFF, _REQUEST.pack(b"", 0))
        except OSError:
            return False  # EBADFD: no interface is behind the device any more
        name: bytes = _REQUEST.unpack(told)[0]
        return name.rstrip(b"\0") == self._name.encode()

    def close(self) -> None:
        """Detach."""
        os.close(self.fd)
