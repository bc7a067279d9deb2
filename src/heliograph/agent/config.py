"""An agent's configuration: parsed once, then a record that cannot be wrong."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import msgspec

from heliograph.consumer.keys import Role
from heliograph.consumer.rotation import RotationLimits
from heliograph.encryptors.addresses import Address
from heliograph.encryptors.forwarder import Forward, ForwarderConfig
from heliograph.encryptors.generation import GenerationLimits
from heliograph.errors import ConfigurationError
from heliograph.establishment.combiner import Combiner
from heliograph.establishment.policy import Policy, Requirement

__all__ = ["AgentConfig"]

_ROLES: Final = {"initiator": Role.INITIATOR, "responder": Role.RESPONDER}
_USUAL_EXCHANGES: Final = ("ml-kem-768", "x25519")  # our choice: the pair that TLS 1.3 uses most
_Chosen = TypeVar("_Chosen", Policy, Combiner)


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
    tick_seconds: float = 0.2

    def __post_init__(self) -> None:
        if (self.requirement.policy is Policy.QKD_ONLY) is not (self.peer_key is None):
            raise ConfigurationError(
                f'policy = "{self.requirement.policy}" and peer_key: qkd-only has none, every other policy needs one '
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

    @classmethod
    def from_mapping(cls, document: Mapping[str, Any]) -> AgentConfig:
        """Read a parsed table. Raises ConfigurationError naming the entry.

        ``forwards`` maps a name to an inner address to listen on, ``targets`` a name to where it leads on this side.
        """
        try:
            entry = msgspec.convert(dict(document), _Document)
        except msgspec.ValidationError as why:
            raise ConfigurationError(f"agent configuration: {why}") from why
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
            ),
            generation=GenerationLimits(rekey_bytes=entry.rekey_bytes, max_key_age_s=entry.max_key_age_s),
            requirement=_requirement(entry),
            combiner=_choice(Combiner, entry.combiner or Combiner.HKDF_SHA_512, "combiner"),
            peer_key=entry.peer_key,
        )


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
