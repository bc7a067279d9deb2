"""The program ``wg``: one peer of one interface. A call blocks, five seconds at most, and runs off the event loop."""

from __future__ import annotations

import base64
import subprocess
from collections.abc import Sequence
from typing import Final

from heliograph.errors import EncryptorUnavailable

__all__ = ["Wg"]

_COMMAND_SECONDS: Final = 5.0


class Wg:
    """Each method raises EncryptorUnavailable with a line for an operator."""

    def __init__(self, interface: str, peer: str) -> None:
        self._interface: Final = interface
        self._peer: Final = peer

    def set_peer(self, preshared: bytes, again: tuple[Sequence[str], int, str | None] | None) -> None:
        """Set the preshared key. ``again``: remove the peer and add it with allowed IPs, keepalive and endpoint."""
        words = ["set", self._interface]
        if again is not None:
            words += ["peer", self._peer, "remove"]
        words += ["peer", self._peer, "preshared-key", "/dev/stdin"]
        if again is not None:
            allowed_ips, keepalive, endpoint = again
            words += ["persistent-keepalive", str(keepalive), "allowed-ips", ",".join(allowed_ips)]
            if endpoint is not None:
                words += ["endpoint", endpoint]
        self._run(words, base64.b64encode(preshared) + b"\n")

    def latest_handshake(self) -> int:
        """Return when the last handshake was, in whole seconds; 0 if there was none."""
        return self._numbers("latest-handshakes", 1)[0]

    def transfer(self) -> tuple[int, int]:
        """Return the bytes received and sent."""
        received, sent = self._numbers("transfer", 2)
        return received, sent

    def _numbers(self, what: str, count: int) -> list[int]:
        words = self._peer_line(what).split()[1:]
        if len(words) != count or not all(word.isdecimal() for word in words):
            raise EncryptorUnavailable(f"wireguard {self._interface}: wg show said what it should not about {what}")
        return [int(word) for word in words]

    def _peer_line(self, what: str) -> str:
        for line in self._run(["show", self._interface, what], b"").decode(errors="replace").splitlines():
            if line.startswith(self._peer):
                return line
        raise EncryptorUnavailable(
            f"wireguard {self._interface}: the peer {self._peer} is not there: somebody removed it"
        )

    def _run(self, words: list[str], given: bytes) -> bytes:
        try:
            done = subprocess.run(  # noqa: S603  - fixed program, checked words, the secret on standard input
                ["wg", *words],  # noqa: S607  - where the operating system has it
                input=given,
                capture_output=True,
                timeout=_COMMAND_SECONDS,
                check=False,
            )
        except FileNotFoundError:
            raise EncryptorUnavailable("the program wg is missing: apt-get install -y wireguard-tools") from None
        except (OSError, subprocess.TimeoutExpired) as why:
            raise EncryptorUnavailable(f"the program wg did not run: {why}") from None
        if done.returncode:
            said = " ".join(done.stderr.decode(errors="replace").split())[:200]
            raise EncryptorUnavailable(
                f"wireguard {self._interface}: the interface cannot be used ({said}): nothing passes; "
                "create it again, or give the agent CAP_NET_ADMIN"
            )
        return done.stdout
