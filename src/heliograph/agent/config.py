"""An agent's configuration: parsed once, then a record that cannot be wrong."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Final, TypeVar

import msgspec

from heliograph.consumer.keys import KEY_BYTES, Cipher, Role
from heliograph.consumer.rotation import RotationLimits
from heliograph.encryptors.addresses import Address
from heliograph.encryptors.generation import GenerationLimits
from heliograph.encryptors.port_forwarder import Forward, ForwarderConfig
from heliograph.encryptors.records import MAX_PAYLOAD_BYTES
from heliograph.encryptors.strongswan_config import StrongSwanConfig
from heliograph.encryptors.tun_device import TunConfig
from heliograph.encryptors.wireguard import WireGuardConfig
from heliograph.errors import ConfigurationError
from heliograph.establishment.combiner import Combiner
from heliograph.establishment.policy import Policy, Requirement

__all__ = ["AgentConfig"]

_ROLES: Final = {"initiator": Role.INITIATOR, "responder": Role.RESPONDER}
_USUAL_EXCHANGES: Final = ("ml-kem-768", "x25519")  # our choice: the pair that TLS 1.3 uses most
_Chosen = TypeVar("_Chosen", Policy, Combiner, Cipher)
# Our choice. At least PAD_BYTES_MIN for each direction; the offer names every key in one message.
_PAD_KEYS_MIN: Final = 64
_PAD_KEYS_MAX: Final = 512
_WIREGUARD_REKEY_MIN: Final = 10.0
_STRONGSWAN_REKEY_MIN: Final = 2.0


class _Document(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The mapping as it is written: one entry for each key of AGENT.toml's ``[agent]`` table."""

    role: str
    control: str
    outer_listen: str | None = None
    outer_connect: str | None = None
    forwards: dict[str, str] = {}
    targets: dict[str, str] = {}
    inner_lan: bool = False
    rekey_seconds: float = 60.0
    rekey_bytes: int = 1 << 30
    max_key_age_s: float = 300.0
    overlap_seconds: float = 30.0
    policy: str = Policy.QKD_ONLY
    exchanges: tuple[str, ...] | None = None
    combiner: str | None = None
    peer_key: str | None = None
    cipher: str = Cipher.AES_256_GCM
    pad_keys: int = 128
    wireguard: WireGuardConfig | None = None
    strongswan: StrongSwanConfig | None = None
    tun: TunConfig | None = None


@dataclass(frozen=True, slots=True)
class AgentConfig:
    """Everything an agent needs besides its key source.

    ``control``: where the responder listens and the initiator connects, a TCP connection of its own that does not run
    inside the tunnel. ``peer_key``: the file with the secret that the two agents know each other by; every policy but
    qkd-only needs it. Raises ConfigurationError if the parts contradict each other.
    """

    role: Role
    control: Address
    forwarder: ForwarderConfig
    rotation: RotationLimits
    generation: GenerationLimits
    requirement: Requirement = Requirement(Policy.QKD_ONLY)  # noqa: RUF009  - frozen
    combiner: Combiner = Combiner.HKDF_SHA_512
    peer_key: str | None = None
    pad_keys: int = 128
    wireguard: WireGuardConfig | None = None
    strongswan: StrongSwanConfig | None = None
    tun: TunConfig | None = None
    tick_seconds: float = 0.2

    def __post_init__(self) -> None:
        if self.wireguard is not None:
            self._check_wireguard(self.wireguard)
        if self.strongswan is not None:
            self._check_strongswan()
        if self.tun is not None:
            self._check_tun()
        policy, is_pad = self.requirement.policy, self.rotation.cipher is Cipher.ONE_TIME_PAD
        if is_pad and policy is not Policy.QKD_ONLY:
            raise ConfigurationError(f'cipher = "one-time-pad" has policy qkd-only: {policy} would derive its pad')
        if not _PAD_KEYS_MIN <= self.pad_keys <= _PAD_KEYS_MAX:
            raise ConfigurationError(f"pad_keys = {self.pad_keys}: from {_PAD_KEYS_MIN} to {_PAD_KEYS_MAX}")
        if (policy is Policy.QKD_ONLY and not is_pad) is not (self.peer_key is None):
            raise ConfigurationError(
                f'policy = "{policy}" and peer_key: qkd-only has none, another policy or a one-time pad needs one '
                "(heliograph agent key FILE makes it; carry a copy to the other site)"
            )
        if self.generation.max_key_age_s != self.rotation.max_key_age_s:
            raise ConfigurationError("max_key_age_s differs between rotation and record layer: give it once")
        if self.rotation.rekey_seconds >= self.generation.send_age_s:
            raise ConfigurationError(
                f"rekey_seconds = {self.rotation.rekey_seconds} leaves no time before senders stop at "
                f"{self.generation.send_age_s:g} s (max_key_age_s less a margin): lower rekey_seconds"
            )
        if not self.tick_seconds > 0:
            raise ConfigurationError(f"tick_seconds = {self.tick_seconds}: must be positive")

    def _check_wireguard(self, wireguard: WireGuardConfig) -> None:
        if self.forwarder != ForwarderConfig():
            raise ConfigurationError("wireguard carries whole networks: remove forwards, targets and outer addresses")
        if self.role is Role.INITIATOR and wireguard.endpoint is None:
            raise ConfigurationError("wireguard: the initiator needs endpoint, the peer's host:port")
        if self.rotation.rekey_seconds < _WIREGUARD_REKEY_MIN:
            raise ConfigurationError(
                f"rekey_seconds = {self.rotation.rekey_seconds}: at least {_WIREGUARD_REKEY_MIN:g} with wireguard, "
                "whose handshakes are told apart by whole seconds"
            )

    def _check_strongswan(self) -> None:
        if self.wireguard is not None:
            raise ConfigurationError("wireguard and strongswan: a tunnel has one encryptor; remove one of the tables")
        if self.forwarder != ForwarderConfig():
            raise ConfigurationError("strongswan carries whole networks: remove forwards, targets and outer addresses")
        if self.rotation.rekey_seconds < _STRONGSWAN_REKEY_MIN:
            raise ConfigurationError(
                f"rekey_seconds = {self.rotation.rekey_seconds}: at least {_STRONGSWAN_REKEY_MIN:g} with strongswan, "
                "which authenticates a whole association for each key"
            )

    def _check_tun(self) -> None:
        forwarder = self.forwarder
        if forwarder.forwards or forwarder.targets or self.wireguard is not None or self.strongswan is not None:
            raise ConfigurationError("tun carries whole networks: remove forwards, targets, wireguard and strongswan")
        if forwarder.outer_listen is None or forwarder.outer_connect is None:
            raise ConfigurationError("tun needs outer_listen and outer_connect: this site's and the peer's UDP address")
        if self.rotation.cipher not in (Cipher.AES_256_GCM, Cipher.CHACHA20_POLY1305):
            raise ConfigurationError(f'tun: cipher = "{self.rotation.cipher}" is for ports, not for packets')

    @classmethod
    def from_mapping(cls, document: Mapping[str, Any]) -> AgentConfig:
        """Read a parsed table. Raises ConfigurationError naming the entry.

        ``forwards`` maps a name to an inner address to listen on, ``targets`` a name to where it leads on this side.
        """
        try:
            entry = msgspec.convert(dict(document), _Document)
        except msgspec.ValidationError as why:
            raise ConfigurationError(f"agent configuration: {why}") from why
        _refuse_unknown(document)
        cipher = _cipher(entry)
        if entry.role not in _ROLES:
            raise ConfigurationError(f"role = {entry.role!r}: write initiator or responder, the peer has the other one")
        return cls(
            role=_ROLES[entry.role],
            control=Address.parse(entry.control),
            forwarder=ForwarderConfig(
                outer_listen=_optional(entry.outer_listen),
                outer_connect=_optional(entry.outer_connect),
                forwards=tuple(Forward(Address.parse(listen), name) for name, listen in entry.forwards.items()),
                targets={name: Address.parse(target) for name, target in entry.targets.items()},
                inner_lan=entry.inner_lan,
            ),
            rotation=RotationLimits(
                rekey_seconds=entry.rekey_seconds,
                max_key_age_s=entry.max_key_age_s,
                overlap_seconds=entry.overlap_seconds,
                cipher=cipher,
            ),
            generation=GenerationLimits(
                rekey_bytes=entry.rekey_bytes,
                max_key_age_s=entry.max_key_age_s,
                chunk_bytes=_chunk_bytes(entry, cipher),
            ),
            requirement=_requirement(entry),
            combiner=_choice(Combiner, entry.combiner or Combiner.HKDF_SHA_512, "combiner"),
            peer_key=entry.peer_key,
            pad_keys=entry.pad_keys,
            wireguard=entry.wireguard,
            strongswan=entry.strongswan,
            tun=entry.tun,
        )


def _refuse_unknown(document: Mapping[str, Any]) -> None:
    """Refuse a misspelt entry in an encryptor's table: msgspec passes over what a dataclass does not have."""
    for table, kind in (("wireguard", WireGuardConfig), ("strongswan", StrongSwanConfig), ("tun", TunConfig)):
        known = {each.name for each in fields(kind)}
        for name in document.get(table) or {}:
            if name not in known:
                raise ConfigurationError(f"{table}: unknown entry {name!r}; correct or remove it")


def _cipher(entry: _Document) -> Cipher:
    cipher = _choice(Cipher, entry.cipher, "cipher")
    driven = {Cipher.WIREGUARD: entry.wireguard, Cipher.STRONGSWAN: entry.strongswan}
    named = [kind for kind, table in driven.items() if table is not None]
    if cipher in driven or (named and cipher is not Cipher.AES_256_GCM):
        raise ConfigurationError(
            f'cipher = "{cipher}": WireGuard and strongSwan have their own ciphers; give the table wireguard or '
            "strongswan alone"
        )
    return named[0] if named else cipher


def _chunk_bytes(entry: _Document, cipher: Cipher) -> int:
    if cipher is not Cipher.ONE_TIME_PAD:
        # Half a generation: data that does not fit any more then finds it nearly used, and another is on its way.
        return max(1, min(MAX_PAYLOAD_BYTES, entry.rekey_bytes // 2))
    # An eighth of a direction's pad of the shortest keys, so that a record always fits a fresh one.
    return max(1, min(MAX_PAYLOAD_BYTES - 24, (entry.pad_keys - 1) * KEY_BYTES // 2 // 8))


def _requirement(entry: _Document) -> Requirement:
    policy = _choice(Policy, entry.policy, "policy")
    usual = () if policy is Policy.QKD_ONLY else _USUAL_EXCHANGES
    return Requirement(policy, usual if entry.exchanges is None else entry.exchanges)


def _choice(kind: type[_Chosen], text: str, entry: str) -> _Chosen:
    try:
        return kind(text)
    except ValueError:
        raise ConfigurationError(f"{entry} = {text!r}: write one of {', '.join(kind)}") from None


def _optional(text: str | None) -> Address | None:
    return None if text is None else Address.parse(text)
