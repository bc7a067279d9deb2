"""Who the two agents of a tunnel are to each other: names, and a secret that was carried out of band."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from heliograph.agent.config import AgentConfig
from heliograph.agent.established import EstablishedKeySource
from heliograph.agent.pads import PadKeys
from heliograph.agent.patience import PatientKeySource
from heliograph.consumer.keys import Cipher, Role
from heliograph.errors import ConfigurationError
from heliograph.establishment.exchange import Settings
from heliograph.establishment.messages import PEER_KEY_BYTES, PeerKeys, Tagged
from heliograph.establishment.policy import QKD, Policy
from heliograph.establishment.qkd import QkdEstablishment, QkdPad
from heliograph.ports import KeyEstablishment, KeySource, RandomSource
from heliograph.vault.exchanges import exchange_methods

__all__ = ["PeerIdentity", "open_establishment"]


@dataclass(frozen=True, slots=True)
class PeerIdentity:
    """``own``, ``peer``: SAE IDs; ``secret``: 32 bytes.

    Raises ConfigurationError.
    """

    own: str
    peer: str
    secret: bytes = field(repr=False)
    randomness: RandomSource

    def __post_init__(self) -> None:
        if len(self.secret) != PEER_KEY_BYTES:
            raise ConfigurationError(f"peer_key holds {len(self.secret)} bytes, not {PEER_KEY_BYTES}")
        if self.own == self.peer:
            raise ConfigurationError(f"both agents are called {self.own!r}: each site's SAE has its own ID")


def open_establishment(
    config: AgentConfig, source: KeySource, identity: PeerIdentity | None, send: Callable[[Tagged], None]
) -> EstablishedKeySource | None:
    """Return the key source of the configured policy; None for qkd-only, whose keys are the key manager's as they are.

    Raises ConfigurationError.
    """
    cipher = config.rotation.cipher
    if config.requirement.policy is Policy.QKD_ONLY and cipher is not Cipher.ONE_TIME_PAD:
        return None
    if identity is None:
        raise ConfigurationError(
            f'policy = "{config.requirement.policy}" needs peer_key: the agents must know each other'
        )
    own_first = config.role is Role.INITIATOR
    settings = Settings(
        initiator=identity.own if own_first else identity.peer,
        responder=identity.peer if own_first else identity.own,
        requirement=config.requirement,
        combiner=config.combiner,
        usage=cipher,
        keys=PeerKeys.derive(identity.secret),
    )
    methods: dict[str, KeyEstablishment] = exchange_methods(config.requirement.exchanges, identity.randomness)
    is_pad = cipher is Cipher.ONE_TIME_PAD
    # Half of what the peer waits for an answer: a policy that can do without QKD falls back before the peer gives up.
    patient = PatientKeySource(source, config.rotation.answer_seconds / 2)
    # All keys of a pad within what the peer waits, so that the side whose key manager is slow is the one to say so.
    many = PadKeys(source, 0.8 * config.rotation.answer_seconds)
    methods[QKD] = QkdPad(many, config.pad_keys) if is_pad else QkdEstablishment(patient)
    return EstablishedKeySource(settings, methods, identity.randomness, send, config.rotation.answer_seconds)
