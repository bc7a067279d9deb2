"""The site file's entries for the delivery protocols beside ETSI GS QKD 014; each is optional and shut by default.

[skip]
listen = "192.0.2.2:8444"
local_system_id = "key-provider-a"
remote_systems = { "key-provider-b" = ["sae-b"] }   # names may be globs
psk_listen = "192.0.2.2:8445"                       # for encryptors that have a preshared key in place of a certificate
psk = { "router-a" = { sae = "sae-a", file = "skip/router-a.psk" } }
tls12 = true                                        # TLS 1.2 too; a preshared key for it has tls12 = true as well

[etsi020]
listen = "192.0.2.2:8446"
url = "https://192.0.2.2:8446"                      # where the other key managers of this protected site find this one
groups = [{ master = "sae-a", slaves = ["sae-a2", "sae-x", "sae-y"], stock = 8 }]
peers = [
  { kme = "kme-x", url = "https://192.0.2.3:8446", pairs = [{ local = "sae-a", foreign = "sae-x" }] },
  { kme = "kme-y", url = "https://192.0.2.4:8446", saes = ["sae-y"] },   # SAEs behind it without a pair of their own
]
"""

from __future__ import annotations

import re

import msgspec

from heliograph.authentication.mac import PAD_BYTES
from heliograph.errors import ConfigurationError
from heliograph.kme.etsi020_records import ETSI_PEN, is_sae_id
from heliograph.kme.foreign_groups import ForeignGroup, ForeignGroups
from heliograph.kme.interworking import InterworkingPeer
from heliograph.kme.skip import SkipSystems
from heliograph.kme.stream_records import StreamPolicy
from heliograph.protocol.registration import check_key_sizes

__all__ = ["Etsi004Entry", "Etsi020Entry", "SkipEntry"]

_PSK_IDENTITY = re.compile(r"[!-~]{1,128}")  # our choice; RFC 4279 5.3 asks for 128 bytes at least


class _SkipPsk(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    sae: str
    file: str
    tls12: bool = False  # for TLS 1.2 and no other; else for TLS 1.3 and no other


class SkipEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """SKIP for encryptors of this site; certificates are those of ``[kme]``, ``psk``: TLS identity to key file."""

    local_system_id: str
    remote_systems: dict[str, list[str]]
    listen: str | None = None
    psk_listen: str | None = None
    psk: dict[str, _SkipPsk] = {}
    tls12: bool = False

    def check(self) -> None:
        """Raise ConfigurationError for what could not be served."""
        self.systems()
        if self.listen is None and self.psk_listen is None:
            raise ConfigurationError("[skip] opens no door: give listen, psk_listen or both")
        if (self.psk_listen is None) != (not self.psk):
            raise ConfigurationError("[skip] psk_listen and psk go together: give both or neither")
        for identity in self.psk:
            if not _PSK_IDENTITY.fullmatch(identity):
                raise ConfigurationError(f"[skip] psk identity {identity!r}: 1 to 128 printable ASCII characters")
        if len({key.sae for key in self.psk.values()}) != len(self.psk):
            raise ConfigurationError("[skip] psk: an SAE comes twice; each has one preshared key")
        if not self.tls12 and any(key.tls12 for key in self.psk.values()):
            raise ConfigurationError("[skip] psk: a key has tls12 = true and [skip] has not; give both or neither")

    def systems(self) -> SkipSystems:
        """Return the declared systems. Raises ConfigurationError."""
        return SkipSystems(self.local_system_id, {name: tuple(saes) for name, saes in self.remote_systems.items()})


class Etsi004Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Key streams for applications of this site; certificates are those of ``[kme]``."""

    listen: str
    promised_bps: int
    peer_listen: str
    peer_dial: str
    applications: dict[str, str] = {}
    ttl_s_max: int = 86_400

    def check(self, key_size_bits: int) -> None:
        """Raise ConfigurationError for what cannot be promised, or keys that are too short for messages.

        ``key_size_bits``: the shortest that a pair of the link gives to whoever names none.
        """
        self.policy()
        if key_size_bits < 8 * PAD_BYTES:
            raise ConfigurationError(
                f"[etsi004]: the keys of each pair of the link, of its first size, need at least {8 * PAD_BYTES} bits"
            )

    def policy(self) -> StreamPolicy:
        """Return what is promised. Raises ConfigurationError."""
        return StreamPolicy(self.promised_bps, ttl_s_max=self.ttl_s_max)


class _ForeignPair(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    local: str
    foreign: str
    stock: int = 16
    key_size_bits: int | None = None  # the link's, if left out; both key managers need the same one


class _Etsi020Peer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    kme: str
    url: str
    pairs: list[_ForeignPair] = []
    saes: list[str] = []


class _ForeignGroup(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    master: str
    slaves: list[str]
    stock: int = 0
    key_size_bits: int | None = None


class Etsi020Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Interworking with other key managers of this site. The certificate needs both usages: serverAuth, clientAuth."""

    listen: str
    url: str
    peers: list[_Etsi020Peer]
    certificate: str | None = None
    key: str | None = None
    ca: str | None = None
    synchronous: bool = False
    groups: list[_ForeignGroup] = []
    extension_pen: int | None = None

    def foreign_groups(self) -> tuple[ForeignGroup, ...]:
        """Return the declared groups. Raises ConfigurationError for SAEs and groups that contradict each other."""
        behind: dict[str, str] = {}
        for peer in self.peers:
            for sae in {*peer.saes, *(pair.foreign for pair in peer.pairs)}:
                if behind.setdefault(sae, peer.kme) != peer.kme:
                    raise ConfigurationError(
                        f"[etsi020] SAE {sae!r} is behind {behind[sae]} and behind {peer.kme}; keep one"
                    )
        local = {pair.local for peer in self.peers for pair in peer.pairs}
        if both := local & behind.keys():
            raise ConfigurationError(f"[etsi020] SAE {min(both)!r} is here and behind {behind[min(both)]}; keep one")
        groups = []
        for entry in self.groups:
            where = {sae: behind[sae] for sae in (entry.master, *entry.slaves) if sae in behind}
            if entry.key_size_bits is not None:
                check_key_sizes("[etsi020] groups: key_size_bits", (entry.key_size_bits,))
            groups.append(ForeignGroup(entry.master, tuple(entry.slaves), where, entry.stock, entry.key_size_bits))
        ForeignGroups(groups)
        return tuple(groups)

    @property
    def local_saes(self) -> set[str]:
        """The SAEs of this key manager."""
        pairs = {pair.local for peer in self.peers for pair in peer.pairs}
        return pairs | {sae for group in self.foreign_groups() for sae in group.here}

    def said(self, kme_id: str) -> dict[str, object] | None:
        """Return the extensions that go with each key drawn here; names need a number of the operator's (PEN)."""
        if self.extension_pen is None:
            return None
        prefix = f"E{self.extension_pen}_heliograph_"
        return {f"{prefix}protocol": "etsi020", f"{prefix}path": [kme_id]}

    def declared(self, own: str) -> list[InterworkingPeer]:
        """Return the declared peers of the key manager ``own``. Raises ConfigurationError."""
        InterworkingPeer("this", self.url)
        if (self.certificate is None) != (self.key is None):
            raise ConfigurationError("[etsi020] certificate and key go together: give both or neither")
        peers = [InterworkingPeer(peer.kme, peer.url) for peer in self.peers]
        if not peers or len({peer.kme_id for peer in peers}) != len(peers) or len({p.url for p in peers}) != len(peers):
            raise ConfigurationError("[etsi020] peers: at least one, each KME and each url once")
        if own in {peer.kme_id for peer in peers}:
            raise ConfigurationError(f"[etsi020] peers: kme = {own!r} is this key manager; name the others only")
        if self.extension_pen is not None and not (0 < self.extension_pen < 10**10 and self.extension_pen != ETSI_PEN):
            raise ConfigurationError(
                f"[etsi020] extension_pen = {self.extension_pen}: your organisation's IANA Private Enterprise Number, "
                f"not ETSI's {ETSI_PEN}, which is reserved"
            )
        for group in self.foreign_groups():
            for sae in (group.master, *group.slaves):
                if not is_sae_id(sae):
                    raise ConfigurationError(f"[etsi020] groups: SAE {sae!r}: 1 to 64 characters of a URI (RFC 3986)")
            if not 0 <= group.stock <= 4096:
                raise ConfigurationError(f"[etsi020] groups: stock = {group.stock}: between 0 and 4096 keys")
        for peer in self.peers:
            for pair in peer.pairs:
                if not (is_sae_id(pair.local) and is_sae_id(pair.foreign)):
                    raise ConfigurationError(
                        f"[etsi020] SAE {pair.local!r} with {pair.foreign!r}: an ID has 1 to 64 characters there, "
                        "of those that a URI may have (RFC 3986)"
                    )
                if not 0 <= pair.stock <= 4096:
                    raise ConfigurationError(f"[etsi020] stock = {pair.stock}: between 0 and 4096 keys")
                if pair.key_size_bits is not None:
                    check_key_sizes("[etsi020] key_size_bits", (pair.key_size_bits,))
        return peers
