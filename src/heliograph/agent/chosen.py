"""The encryptor that a configuration chooses."""

from __future__ import annotations

from collections.abc import Callable

from heliograph.agent.config import AgentConfig
from heliograph.consumer.encryptor import Encryptor
from heliograph.consumer.keys import Cipher
from heliograph.encryptors.forwarder import Forwarder
from heliograph.encryptors.packets import PacketEncryptor
from heliograph.encryptors.strongswan import StrongSwan
from heliograph.encryptors.tls_forwarder import TlsForwarder
from heliograph.encryptors.wireguard import WireGuard
from heliograph.ports import Clock
from heliograph.vault.randomness import SystemRandomness

__all__ = ["open_encryptor"]


def open_encryptor(
    config: AgentConfig,
    clock: Clock,
    *,
    on_nearly_used: Callable[[bytes], None],
    on_drained: Callable[[bytes], None],
    on_in_place: Callable[[bytes], None],
    on_not_taken: Callable[[bytes], None],
) -> Encryptor:
    """Return it, not started. Raises ConfigurationError.

    ``on_in_place`` and ``on_not_taken``: of an encryptor whose orders are carried out later, a driven one; the other
    callbacks: see ``encryptors.forwarder.Forwarder``.
    """
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
    if config.tun is not None:
        listen, peer = config.forwarder.outer_listen, config.forwarder.outer_connect
        assert listen is not None, "checked with the configuration"
        assert peer is not None, "the same"
        return PacketEncryptor(
            config.role,
            config.tun,
            listen,
            peer,
            config.generation,
            clock,
            on_nearly_used=on_nearly_used,
            on_drained=on_drained,
        )
    kind = TlsForwarder if config.rotation.cipher is Cipher.TLS_PSK else Forwarder
    return kind(
        config.role,
        config.forwarder,
        config.generation,
        clock,
        on_nearly_used=on_nearly_used,
        on_drained=on_drained,
    )
