"""Which secrets a tunnel's key must be made of. Both sites set it themselves; a peer's message never changes it.

    qkd-only         QKD alone                                            no key from the link: no traffic
    hybrid-required  QKD and every exchange                               one of them missing: no traffic
    qkd-preferred    every exchange, and QKD where both sites can get it  no key from the link: goes on and says so
    pqc-only         every exchange, no QKD                               an exchange missing: no traffic

The four names and their meaning are those of arnika, a peer that drives WireGuard.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from heliograph.errors import ConfigurationError, RemoteProtocolError

__all__ = ["EXCHANGES", "QKD", "Policy", "Requirement"]

QKD: Final = "qkd"
# What each rests on: ML-KEM on lattices, the others on discrete logarithms, which a quantum computer finds.
EXCHANGES: Final = ("ml-kem-768", "ml-kem-1024", "x25519", "p-256", "p-384")
_QUANTUM_SAFE: Final = frozenset({"ml-kem-768", "ml-kem-1024"})


class Policy(StrEnum):
    """What a generation's key is made of."""

    QKD_ONLY = "qkd-only"
    HYBRID_REQUIRED = "hybrid-required"
    QKD_PREFERRED = "qkd-preferred"
    PQC_ONLY = "pqc-only"

    @property
    def asks_qkd(self) -> bool:
        """Whether the key manager is asked at all."""
        return self is not Policy.PQC_ONLY

    @property
    def needs_qkd(self) -> bool:
        """Whether nothing is sent without a key of the link."""
        return self in (Policy.QKD_ONLY, Policy.HYBRID_REQUIRED)


@dataclass(frozen=True, slots=True)
class Requirement:
    """A policy with its exchanges, in the order of their secrets. Raises ConfigurationError if contradictory."""

    policy: Policy
    exchanges: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        unknown = [name for name in self.exchanges if name not in EXCHANGES]
        if unknown or len(set(self.exchanges)) != len(self.exchanges):
            raise ConfigurationError(
                f"exchanges = {list(self.exchanges)}: choose from {', '.join(EXCHANGES)}, each once"
            )
        if self.policy is Policy.QKD_ONLY:
            if self.exchanges:
                raise ConfigurationError('exchanges are given, but policy = "qkd-only" has none: remove them')
        elif not _QUANTUM_SAFE & set(self.exchanges):
            raise ConfigurationError(
                f'policy = "{self.policy}" needs ml-kem-768 or ml-kem-1024 among its exchanges: without it, traffic '
                "recorded today rests on discrete logarithms alone as soon as QKD is not in the key"
            )

    def check(self, components: Sequence[str]) -> None:
        """Return if a key may be made of exactly these. Raises RemoteProtocolError: nothing is left out silently."""
        used = tuple(components)
        if used == (QKD, *self.exchanges) and self.policy.asks_qkd:
            return
        if used == self.exchanges and not self.policy.needs_qkd:
            return
        raise RemoteProtocolError(
            f"a key of {', '.join(used) or 'nothing'} is offered, but this site's policy is {self.policy} with "
            f"{', '.join(self.exchanges) or 'no exchanges'}: set the same policy and exchanges on both sites"
        )
