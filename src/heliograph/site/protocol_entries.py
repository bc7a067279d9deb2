"""The site file's entries for the delivery protocols beside ETSI GS QKD 014; each is optional and shut by default.

[skip]
listen = "192.0.2.2:8444"
local_system_id = "key-provider-a"
remote_systems = { "key-provider-b" = ["sae-b"] }   # names may be globs
"""

from __future__ import annotations

import msgspec

from heliograph.errors import ConfigurationError
from heliograph.kme.interworking import InterworkingPeer
from heliograph.kme.skip import SkipSystems

__all__ = ["Etsi020Entry", "SkipEntry"]


class SkipEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """SKIP for encryptors of this site; certificates are those of ``[kme]``."""

    listen: str
    local_system_id: str
    remote_systems: dict[str, list[str]]

    def systems(self) -> SkipSystems:
        """Return the declared systems. Raises ConfigurationError."""
        return SkipSystems(self.local_system_id, {name: tuple(saes) for name, saes in self.remote_systems.items()})


class _ForeignPair(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    local: str
    foreign: str
    stock: int = 16


class _Etsi020Peer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    kme: str
    url: str
    pairs: list[_ForeignPair]


class Etsi020Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Interworking with other key managers of this protected site."""

    listen: str
    url: str
    certificate: str
    key: str
    ca: str
    peers: list[_Etsi020Peer]
    synchronous: bool = False

    def declared(self) -> list[InterworkingPeer]:
        """Return the declared peers. Raises ConfigurationError."""
        InterworkingPeer("this", self.url)
        peers = [InterworkingPeer(peer.kme, peer.url) for peer in self.peers]
        if not peers or len({peer.kme_id for peer in peers}) != len(peers) or len({p.url for p in peers}) != len(peers):
            raise ConfigurationError("[etsi020] peers: at least one, each KME and each url once")
        for peer in self.peers:
            for pair in peer.pairs:
                if not 0 <= pair.stock <= 4096:
                    raise ConfigurationError(f"[etsi020] stock = {pair.stock}: between 0 and 4096 keys")
        return peers
