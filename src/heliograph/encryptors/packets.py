"""The built-in encryptor for whole networks: packets of a TUN interface, one record in one UDP datagram each.

The records, keys and limits are those of the port forwarder; order is replaced by a window (``packet_generation``).
A packet is sealed and sent, or dropped: without a key, over a limit or an age, or if the socket takes none. There is no
way from the interface to the network but through a seal, and none back but through an authentic record.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import math
import socket
from collections.abc import Callable
from typing import Final

from heliograph.consumer.encryptor import EncryptorReport
from heliograph.consumer.keys import Role, TunnelKeys
from heliograph.encryptors.addresses import Address
from heliograph.encryptors.generation import GenerationLimits
from heliograph.encryptors.keyring import Ring
from heliograph.encryptors.packet_generation import PacketGeneration
from heliograph.encryptors.records import HEADER_BYTES, parse_header
from heliograph.encryptors.tun_device import TunConfig, TunDevice
from heliograph.errors import ConfigurationError, RemoteProtocolError
from heliograph.ports import Clock

__all__ = ["PacketEncryptor"]

# Our choice. Packets taken in one turn of the loop, so that the control channel gets its turn; how long datagrams of
# the old generation may be under way once both sides send under the new one; the kernel's buffer for what waits.
_TURN: Final = 64
_DRAIN_SECONDS: Final = 2.0
_BUFFER_BYTES: Final = 4 << 20


class PacketEncryptor:
    """``consumer.encryptor.Encryptor``. Callbacks: those of ``Forwarder``; ``listen``, ``peer``: UDP, outside."""

    def __init__(
        self,
        role: Role,
        config: TunConfig,
        listen: Address,
        peer: Address,
        limits: GenerationLimits,
        clock: Clock,
        *,
        on_nearly_used: Callable[[bytes], None],
        on_drained: Callable[[bytes], None],
    ) -> None:
        self.keyring: Final = Ring(PacketGeneration, role, limits, clock, on_nearly_used)
        self._config = config
        self._listen = listen
        self._peer = peer
        self._on_drained = on_drained
        self._draining: bytes | None = None
        self._drain_at = math.inf
        self._device: TunDevice | None = None
        self._socket: socket.socket | None = None
        self._refused = self._dropped = 0
        self._alarm: str | None = None

    async def start(self) -> None:
        """Attach to the interface and open the socket, with no key. Raises ConfigurationError."""
        self._device = TunDevice(self._config)
        try:
            self._socket = _open_socket(self._listen, self._peer)
        except ConfigurationError:
            await self.close()
            raise
        loop = asyncio.get_running_loop()
        loop.add_reader(self._device.fd, self._from_inside)
        loop.add_reader(self._socket, self._from_outside)

    async def close(self) -> None:
        """End, and forget every key; from then on the interface drops what it is given."""
        loop = asyncio.get_running_loop()
        if self._socket is not None:
            loop.remove_reader(self._socket)
            self._socket.close()
            self._socket = None
        if self._device is not None:
            loop.remove_reader(self._device.fd)
            self._device.close()
            self._device = None
        self.keyring.forget_all()

    # Packets.

    def _from_inside(self) -> None:
        device, outside = self._device, self._socket
        assert device is not None
        assert outside is not None
        now = self.keyring.now()
        for _ in range(_TURN):
            try:
                packet = device.read()
            except OSError as why:
                self._fail(why.strerror or type(why).__name__)
                return
            if packet is None:
                return
            generation = self.keyring.sending
            if generation is None or not generation.may_send(len(packet), now):
                self._dropped += 1  # fail closed
                continue
            try:
                outside.send(generation.seal_packet(packet, now))
            except OSError:
                self._dropped += 1  # its counter is burnt
            self.keyring.count()

    def _fail(self, why: str) -> None:
        """Let go of an interface that is gone: its routes are gone with it, so the alarm says what may happen."""
        self._alarm = (
            f"tun: interface {self._config.interface} is gone ({why}): nothing passes, and the inner network's packets "
            f"may take another way in clear; make it again, with address and routes: ip tuntap add dev "
            f"{self._config.interface} mode tun"
        )
        if self._device is not None:
            asyncio.get_running_loop().remove_reader(self._device.fd)
            self._device.close()
            self._device = None

    def _attach_again(self) -> None:
        """Take an interface that was made anew; its configuration is checked as at the start."""
        try:
            self._device = TunDevice(self._config)
        except ConfigurationError as why:
            self._alarm = f"{why}: nothing passes meanwhile, but perhaps another way, in clear"
            return
        self._alarm = None
        asyncio.get_running_loop().add_reader(self._device.fd, self._from_inside)

    def _from_outside(self) -> None:
        device, outside = self._device, self._socket
        assert outside is not None
        most = self._config.path_mtu  # a longer datagram is cut short, and no record then
        for _ in range(_TURN):
            try:
                datagram = outside.recv(most)
            except BlockingIOError:
                return
            except OSError:
                continue  # the answer of a peer whose port is shut
            try:
                packet = self._open(datagram)
            except RemoteProtocolError:
                self._refused += 1
                continue
            if device is None or not device.write(packet):
                self._dropped += 1
            self.keyring.count()

    def _open(self, datagram: bytes) -> bytes:
        if len(datagram) < HEADER_BYTES:
            raise RemoteProtocolError(f"a datagram of {len(datagram)} bytes is no record")
        header = parse_header(datagram[:HEADER_BYTES])
        if header.length != len(datagram) - HEADER_BYTES:
            raise RemoteProtocolError("a datagram is longer or shorter than its record")
        return self.keyring.receiving(header.key_id).open(header, datagram[HEADER_BYTES:], self.keyring.now())

    # What the rotation asks for.

    def install(self, keys: TunnelKeys, since: float) -> None:
        """Accept packets under these keys, fetched at ``since``."""
        self.keyring.install(keys, since)

    def activate(self, key_id: bytes) -> None:
        """Send under this generation from the next packet on."""
        self.keyring.activate(key_id)

    def drain(self, key_id: bytes) -> None:
        """Call ``on_drained`` when datagrams of this generation have had time to arrive."""
        self._draining, self._drain_at = key_id, self.keyring.now() + _DRAIN_SECONDS

    def retire(self, key_id: bytes) -> None:
        """Forget this generation."""
        self.keyring.retire(key_id)
        if self._draining == key_id:
            self._draining, self._drain_at = None, math.inf

    def seen(self, key_id: bytes) -> bool:
        """Whether this key was installed before; its nonces are used."""
        return self.keyring.seen(key_id)

    def holds(self, key_id: bytes) -> bool:
        """Every order is carried out at once."""
        return self.seen(key_id)

    def check(self) -> None:
        """Tell that the old generation is drained, when it is; attach to the interface, if it was made again."""
        if self._device is None and self._socket is not None:
            self._attach_again()
        elif self._device is not None and not self._device.attached():
            self._fail("it was deleted")
        if self._draining is not None and self.keyring.now() >= self._drain_at:
            key_id, self._draining, self._drain_at = self._draining, None, math.inf
            self._on_drained(key_id)

    def report(self) -> EncryptorReport:
        """Return a snapshot; ``turned_away`` counts packets that were dropped."""
        active, traffic = self.keyring.active, self.keyring.traffic
        return EncryptorReport(
            key_id=active.key_id if active else None,
            since=active.since if active else 0.0,
            sending=self.keyring.sending is not None and self._alarm is None,
            sent_records=traffic.sent_records,
            sent_bytes=traffic.sent_bytes,
            received_records=traffic.received_records,
            received_bytes=traffic.received_bytes,
            refused_records=self._refused,
            turned_away=self._dropped,
            alarm=self._alarm,
        )


def _open_socket(listen: Address, peer: Address) -> socket.socket:
    """Return a UDP socket that the kernel lets only the peer's address speak to. Raises ConfigurationError."""
    for address in (listen, peer):
        try:
            version = ipaddress.ip_address(address.host).version
        except ValueError:
            raise ConfigurationError(f"tun: {address.host!r} is a name; write its IP address") from None
    family = socket.AF_INET6 if version == 6 else socket.AF_INET
    opened = socket.socket(family, socket.SOCK_DGRAM)
    try:
        opened.settimeout(0)
        for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
            opened.setsockopt(socket.SOL_SOCKET, option, _BUFFER_BYTES)
        with contextlib.suppress(OSError):
            opened.setsockopt(socket.SOL_SOCKET, 33, _BUFFER_BYTES)  # SO_RCVBUFFORCE: for who may
        opened.bind(tuple(listen))
        opened.connect(tuple(peer))
    except OSError as why:
        opened.close()
        raise ConfigurationError(f"tun: UDP from {listen} to {peer}: {why.strerror or why}") from why
    return opened
