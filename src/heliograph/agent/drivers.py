"""Which encryptor of others an agent drives, if any."""

from __future__ import annotations

from collections.abc import Callable

from heliograph.agent.config import AgentConfig
from heliograph.consumer.encryptor import Encryptor
from heliograph.encryptors.strongswan import StrongSwan
from heliograph.encryptors.wireguard import WireGuard
from heliograph.ports import Clock
from heliograph.vault.randomness import SystemRandomness

__all__ = ["open_driver"]


def open_driver(
    config: AgentConfig,
    clock: Clock,
    *,
    on_nearly_used: Callable[[bytes], None],
    on_drained: Callable[[bytes], None],
    on_in_place: Callable[[bytes], None],
    on_not_taken: Callable[[bytes], None],
) -> Encryptor | None:
    """Return the configured driver; None for a built-in encryptor. Raises ConfigurationError."""
    if config.wireguard is not None:
        return WireGuard(
            config.role,
            config.wireguard,
            config.rotation.max_key_age_s,
            clock,
            SystemRandomness(),
            on_nearly_used=on_nearly_used,
            on_drained=on_drained,
            on_in_place=on_in_place,
            on_not_taken=on_not_taken,
        )
    if config.strongswan is not None:
        return StrongSwan(
            config.role,
            config.strongswan,
            config.rotation.max_key_age_s,
            config.generation.rekey_bytes,
            clock,
            on_nearly_used=on_nearly_used,
            on_drained=on_drained,
            on_in_place=on_in_place,
            on_not_taken=on_not_taken,
        )
    return None
