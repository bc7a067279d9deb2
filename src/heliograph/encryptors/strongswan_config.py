"""What a site says about its strongSwan: where charon listens, who the two gateways are, which networks they join."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import Final

from heliograph.encryptors.addresses import read_ip, read_network
from heliograph.errors import ConfigurationError

__all__ = ["StrongSwanConfig"]

_IDENTITY: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9.@_-]{0,127}")
_NAME: Final = re.compile(r"[a-z][a-z0-9-]{0,31}")
_PATH: Final = re.compile(r"/[A-Za-z0-9._+@/-]{1,255}")
_PROPOSAL: Final = re.compile(r"[a-z0-9_-]{1,128}")
# What is taken, by strongSwan's words; what is not here is broken, too short, or does not encrypt at all.
_AEAD: Final = frozenset({"aes128gcm16", "aes192gcm16", "aes256gcm16", "chacha20poly1305"})
_CIPHERS: Final = frozenset({"aes128", "aes192", "aes256"})
_INTEGRITY: Final = frozenset({"sha256", "sha384", "sha512"})
_PRF: Final = frozenset({"prfsha256", "prfsha384", "prfsha512"})
_CURVES: Final = frozenset({"x25519", "curve25519", "x448", "curve448", "ecp256", "ecp384", "ecp521"})
_FIELDS: Final = frozenset({"modp2048", "modp3072", "modp4096", "modp6144", "modp8192"})
_GROUPS: Final = _CURVES | _FIELDS | {"ke1_mlkem768", "ke1_mlkem1024"}
_NETWORKS_MAX: Final = 64


@dataclass(frozen=True, slots=True)
class StrongSwanConfig:
    """One tunnel of one charon. Raises ConfigurationError.

    ``local``, ``remote``: the gateways' outer IP addresses; ``local_id``, ``remote_id``: their names, as they stand in
    the certificates; ``certificate``, ``key``, ``ca``: absolute paths of PEM files; ``guard``: packets for
    ``remote_networks`` that no security association takes are refused by a routing rule, and never leave in clear.
    ``netns``: the network namespace in which charon runs, if it is not the agent's.
    ``ml_kem``: ML-KEM-768 beside the Diffie-Hellman group where charon has it, at the head of the proposals.
    """

    local: str
    remote: str
    local_id: str
    remote_id: str
    certificate: str
    key: str
    ca: str
    local_networks: tuple[str, ...]
    remote_networks: tuple[str, ...]
    socket: str = "/run/charon.vici"
    name: str = "heliograph"
    proposal: str = "aes256gcm16-prfsha384-x25519"
    esp_proposal: str = "aes256gcm16"
    ml_kem: bool = True
    udp_encapsulation: bool = False
    guard: bool = True
    netns: str | None = None

    def __post_init__(self) -> None:
        outer = [self._address(entry) for entry in ("local", "remote")]
        if outer[0].version != outer[1].version or outer[0] == outer[1]:
            raise ConfigurationError("strongswan: local and remote must be two IP addresses of one family")
        for entry in ("local_id", "remote_id"):
            if not _IDENTITY.fullmatch(getattr(self, entry)):
                raise ConfigurationError(
                    f"strongswan: {entry} = {getattr(self, entry)!r}: write the name in the certificate, such as "
                    "gw-a.example"
                )
        if self.local_id == self.remote_id:
            raise ConfigurationError(f"strongswan: both gateways are called {self.local_id!r}")
        for entry in ("certificate", "key", "ca", "socket"):
            path = getattr(self, entry)
            if not _PATH.fullmatch(path):
                raise ConfigurationError(
                    f"strongswan: {entry} = {path!r}: write an absolute path of letters, digits and ._+@/-"
                )
        if not _NAME.fullmatch(self.name):
            raise ConfigurationError(f"strongswan: name = {self.name!r}: lower-case letters, digits and -, at most 32")
        if self.netns is not None and not _IDENTITY.fullmatch(self.netns):
            raise ConfigurationError(f"strongswan: netns = {self.netns!r} is not the name of a network namespace")
        for entry in ("proposal", "esp_proposal"):
            words = getattr(self, entry)
            if not _PROPOSAL.fullmatch(words) or not _is_sound(words.split("-"), exchanges=entry == "proposal"):
                raise ConfigurationError(
                    f"strongswan: {entry} = {words!r}: one proposal in strongSwan's words, such as "
                    "aes256gcm16-prfsha384-x25519: a cipher that is sound, with its integrity, and for proposal a group"
                )
        self._check_networks(outer)

    def _address(self, entry: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
        try:
            return read_ip(getattr(self, entry))
        except ValueError as why:
            raise ConfigurationError(f"strongswan: {entry}: {why}") from None

    def _check_networks(self, outer: list[ipaddress.IPv4Address | ipaddress.IPv6Address]) -> None:
        for entry in ("local_networks", "remote_networks"):
            networks = getattr(self, entry)
            if not 1 <= len(networks) <= _NETWORKS_MAX:
                raise ConfigurationError(f"strongswan: {entry}: name 1 to {_NETWORKS_MAX} networks")
            for network in networks:
                try:
                    parsed = read_network(network)
                except ValueError as why:
                    raise ConfigurationError(f"strongswan: {entry}: {why}") from None
                if any(address in parsed for address in outer):
                    raise ConfigurationError(
                        f"strongswan: {entry}: {network} contains a gateway's own outer address: the tunnel would have "
                        "to go through itself"
                    )


def _is_sound(words: list[str], *, exchanges: bool) -> bool:
    """Tell whether a proposal has one cipher, authenticates what it encrypts, and, for IKE, exchanges a secret."""
    aead, ciphers, integrity = (len([w for w in words if w in known]) for known in (_AEAD, _CIPHERS, _INTEGRITY))
    groups = [w for w in words if w in _GROUPS and not w.startswith("ke1_")]
    if set(words) - _AEAD - _CIPHERS - _INTEGRITY - _PRF - _GROUPS or aead + ciphers != 1 or len(groups) > 1:
        return False
    if integrity != ciphers:  # a cipher that is not an AEAD needs exactly one, an AEAD none
        return False
    return not exchanges or len(groups) == 1
