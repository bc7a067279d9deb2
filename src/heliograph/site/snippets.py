"""What SITE.toml says, for the configuration of an encryptor of others: words only, that no device reads as more."""

from __future__ import annotations

import ipaddress
import re
from typing import Final

from heliograph.agent.config import AgentConfig
from heliograph.errors import ConfigurationError
from heliograph.site.config import SiteConfig, parse_address
from heliograph.site.snippet_texts import TEXTS, SnippetFacts

__all__ = ["snippet"]

# No quote, space, backslash, bracket or line end: none of the dialects reads anything but a word in it.
_WORD: Final = re.compile(r"[A-Za-z0-9:][A-Za-z0-9._:@/-]{0,62}")
_KEY_MANAGER: Final = "<ADDRESS-OF-THE-KEY-MANAGER>"


def snippet(config: SiteConfig, device: str, sae: str | None, peer_sae: str | None, address: str | None) -> str:
    """Return the text for one kind of device. ``address``: where devices reach this site's key manager.

    Raises ConfigurationError for a device that is not known, a pair that is not this site's, or a value that a device
    could read as more than a word.
    """
    if device not in TEXTS:
        raise ConfigurationError(f"--for {device}: write one of {', '.join(TEXTS)}")
    own, other = _pair(config, sae, peer_sae)
    kme_host, kme_port = parse_address(config.file.kme.listen, "[kme] listen")
    host = _reachable(kme_host) if address is None else _word(address, "--address")
    skip = psk_identity = None
    if (entry := config.file.skip) is not None:
        psk_identity = next((name for name, key in entry.psk.items() if key.sae == own), None)
        door = entry.listen if psk_identity is None else entry.psk_listen
        if door is not None:
            skip_host, skip_port = parse_address(door, "[skip] listen")
            skip = (_reachable(skip_host) if address is None else host, skip_port)
    agent = None if config.file.agent is None else AgentConfig.from_mapping(config.file.agent.tunnel)
    facts = SnippetFacts(
        site=config.file.name,
        sae=_word(own, "sae"),
        peer_sae=_word(other, "peer_sae"),
        kme_id=_word(config.file.kme.id, "[kme] id"),
        kme_host=host,
        kme_port=kme_port,
        skip=skip,
        psk_identity=None if psk_identity is None else _word(psk_identity, "[skip] psk"),
        psk_tls12=psk_identity is not None and entry is not None and entry.psk[psk_identity].tls12,
        wireguard=None if agent is None else agent.wireguard,
        strongswan=None if agent is None else agent.strongswan,
    )
    return TEXTS[device](facts)


def _pair(config: SiteConfig, sae: str | None, peer_sae: str | None) -> tuple[str, str]:
    pairs = {(pair.local_sae, pair.remote_sae) for pair in config.supply().pairs}
    agent = config.file.agent
    if sae is None and peer_sae is None and agent is not None:
        return agent.sae, agent.peer_sae
    fitting = sorted((a, b) for a, b in pairs if sae in (None, a) and peer_sae in (None, b))
    if len(fitting) != 1:
        told = ", ".join(f"{a} with {b}" for a, b in sorted(pairs)) or "none"
        raise ConfigurationError(f"--sae, --peer-sae: name one of this site's pairs: {told}")
    return fitting[0]


def _reachable(host: str) -> str:
    """Return the host, or a blank where a device elsewhere could not reach it."""
    try:
        parsed = ipaddress.ip_address(host)
    except ValueError:
        return _word(host, "[kme] listen")
    return _KEY_MANAGER if parsed.is_unspecified or parsed.is_loopback else _word(host, "[kme] listen")


def _word(text: str, where: str) -> str:
    if not _WORD.fullmatch(text):
        raise ConfigurationError(
            f"{where} = {text!r} cannot be written into a device's configuration: letters, digits and ._:@/- only, "
            "at most 63"
        )
    return text
