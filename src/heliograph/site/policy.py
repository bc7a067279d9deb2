"""Which key policy the built-in encryptor may run: the one that a named person approved last.

SITE.toml asks, the audit log allows. Without an approval only ``qkd-only`` runs. So whoever can write SITE.toml, such
as a configuration tool, cannot take QKD out of the key unseen: the site does not start until someone answers for it.
"""

from __future__ import annotations

from heliograph.agent.config import AgentConfig
from heliograph.agent.identity import PeerIdentity
from heliograph.errors import ConfigurationError
from heliograph.establishment.messages import PEER_KEY_BYTES
from heliograph.establishment.policy import Policy
from heliograph.site.audit import AuditLog
from heliograph.site.config import SiteConfig
from heliograph.vault.owned_file import read_exactly
from heliograph.vault.randomness import SystemRandomness

__all__ = ["approve_policy", "check_policy", "described_policy", "read_identity"]

_EVENT = "encryptor policy"


def described_policy(config: SiteConfig) -> str:
    """Return the configured policy with all that weakens or strengthens it. Raises ConfigurationError."""
    if config.file.agent is None:
        raise ConfigurationError(f"{config.toml}: there is no [agent], so no policy to approve")
    agent = AgentConfig.from_mapping(config.file.agent.tunnel)
    return " ".join([agent.requirement.policy, *agent.requirement.exchanges, agent.combiner, agent.rotation.cipher])


def approve_policy(config: SiteConfig, approver: str) -> str:
    """Record that ``approver`` answers for the policy in SITE.toml; return it. Raises ConfigurationError."""
    described = described_policy(config)
    AuditLog(config.audit).append(_EVENT, approver, {"policy": described})
    return described


def check_policy(config: SiteConfig) -> None:
    """Return if the configured policy is the approved one. Raises ConfigurationError, AuditTampered."""
    if config.file.agent is None:
        return
    wanted, approved = described_policy(config), None
    for entry in AuditLog(config.audit).verify(needs_head=True).entries:
        if entry.event == _EVENT:
            approved = str(entry.details.get("policy"))
    if wanted != approved and not (approved is None and wanted.split()[0] == Policy.QKD_ONLY):
        raise ConfigurationError(
            f"{config.toml}: [agent] asks for the key policy {wanted!r}, approved is {approved or Policy.QKD_ONLY!r}: "
            f"run heliograph site policy {config.toml} --approver NAME, or change it back"
        )


def read_identity(config: SiteConfig) -> PeerIdentity | None:
    """Return what the agent proves itself with to the peer's, if its policy needs it. Raises ConfigurationError."""
    agent = config.file.agent
    named = None if agent is None else AgentConfig.from_mapping(agent.tunnel).peer_key
    if agent is None or named is None:
        return None
    secret = read_exactly(config.path(named), PEER_KEY_BYTES, "[agent] tunnel: peer_key")
    return PeerIdentity(agent.sae, agent.peer_sae, secret, SystemRandomness())
