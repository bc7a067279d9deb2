"""The boundary of the secure site: which consumer may fetch keys by which way, and by no other.

Four ways lead to the supply: a certificate over mutual TLS on the site's networks, a preshared key over TLS there, a
Unix user over a socket on the same host, and a call in the same process. A site that declares nothing has the first
one, for every registered SAE. A site that declares a boundary has what it lists: an SAE comes by one way only, so that
a certificate stolen from the LAN is worth nothing for a consumer that lives in the same unit.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from heliograph.errors import ConfigurationError, NotPermitted

__all__ = ["Boundary", "Network", "Way", "is_inside", "read_network"]

Network = IPv4Network | IPv6Network


class Way(Enum):
    """How a consumer reaches the supply."""

    CERTIFICATE = "certificate"
    USER = "user"
    IN_PROCESS = "in-process"
    PSK = "preshared key"


@dataclass(frozen=True, slots=True)
class Boundary:
    """A declared boundary; the default declares nothing.

    ``certificates``: SAE IDs that come with a certificate, None for every one that has no other way;
    ``networks``: where they come from, empty for anywhere; ``users``: Unix user to SAE ID; ``in_process``: SAE IDs
    of this process; ``psk``: SAE IDs with a preshared key. Raises ConfigurationError for an SAE with two ways.
    """

    certificates: frozenset[str] | None = None
    networks: tuple[Network, ...] = ()
    users: Mapping[str, str] = field(default_factory=dict)
    in_process: frozenset[str] = frozenset()
    psk: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        listed = [*(self.certificates or ()), *set(self.users.values()), *self.in_process, *self.psk]
        twice = {sae for sae in listed if listed.count(sae) > 1}
        if twice:
            raise ConfigurationError(
                f"boundary: SAE {min(twice)!r} has two ways to its keys; list it under one of certificates, users, "
                "in_process and [skip] psk"
            )

    def check(self, sae: str, way: Way) -> None:
        """Return if ``sae`` may come by ``way``. Raises NotPermitted."""
        if way is not self._way(sae):
            raise NotPermitted(f"the site's boundary does not admit this SAE by {way.value}")

    def check_known(self, saes: Collection[str]) -> None:
        """Raise ConfigurationError for a listed SAE that is not one of this site's ``saes``."""
        for sae in sorted({*(self.certificates or ()), *self.users.values(), *self.in_process, *self.psk}):
            if sae not in saes:
                raise ConfigurationError(
                    f"boundary: SAE {sae!r} is in no pair of this site's links; correct or remove it"
                )

    def _way(self, sae: str) -> Way | None:
        if sae in self.in_process:
            return Way.IN_PROCESS
        if sae in self.users.values():
            return Way.USER
        if sae in self.psk:
            return Way.PSK
        return Way.CERTIFICATE if self.certificates is None or sae in self.certificates else None


def read_network(text: str) -> Network:
    """Read "192.0.2.0/24" or "2001:db8::/64". Raises ConfigurationError."""
    try:
        return ip_network(text)
    except ValueError as error:
        raise ConfigurationError(f"boundary: network {text!r}: {error}; write it as 192.0.2.0/24") from None


def is_inside(address: str, networks: Iterable[Network]) -> bool:
    """Tell whether an address, as a socket names it, is in one of the networks."""
    try:
        found = ip_address(address.partition("%")[0])
    except ValueError:
        return False
    mapped = found.ipv4_mapped if isinstance(found, IPv6Address) else None
    return any((mapped or found) in network for network in networks)
