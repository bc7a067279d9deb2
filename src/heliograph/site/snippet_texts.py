"""Configuration for encryptors of others, in their own words. Pure text, without key material.

Each begins with the document that its words come from, and says whether anybody ran it. ``<words in angle brackets>``
are what this site cannot know.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from heliograph.encryptors.strongswan_config import StrongSwanConfig
from heliograph.encryptors.wireguard import WireGuardConfig
from heliograph.errors import ConfigurationError

__all__ = ["TEXTS", "SnippetFacts"]

_UNTRIED: Final = "Not tried on the device."
_FILL_IN: Final = "Words in <angle brackets> are yours to fill in."


@dataclass(frozen=True, slots=True)
class SnippetFacts:
    """What a snippet says about a site, each text checked before. ``skip``: host and port of its door, if open.

    ``psk_identity``: the name of the SAE's preshared key there; ``psk_tls12``: it is for TLS 1.2.
    """

    site: str
    sae: str
    peer_sae: str
    kme_id: str
    kme_host: str
    kme_port: int
    skip: tuple[str, int] | None = None
    psk_identity: str | None = None
    psk_tls12: bool = False
    wireguard: WireGuardConfig | None = None
    strongswan: StrongSwanConfig | None = None


def _text(mark: str, header: list[str], lines: list[str]) -> str:
    return "\n".join([*(f"{mark} {line}" for line in header), *lines]) + "\n"


def _authority(facts: SnippetFacts) -> str:
    host = f"[{facts.kme_host}]" if ":" in facts.kme_host else facts.kme_host
    return f"{host}:{facts.kme_port}"


def _strongswan(facts: SnippetFacts) -> str:
    config = facts.strongswan
    if config is None:
        raise ConfigurationError("SITE.toml has no strongswan table in [agent] tunnel: docs/how-to/strongswan.md")
    lines = [
        "connections {",
        f"  {config.name} {{",
        "    version = 2",
        f"    local_addrs = {config.local}",
        f"    remote_addrs = {config.remote}",
        f"    proposals = {config.proposal}",
        f"    encap = {'yes' if config.udp_encapsulation else 'no'}",
        "    mobike = no",
        "    unique = no",
        "    keyingtries = 1",
        "    dpd_delay = 10s",
        "    rekey_time = 0",
        "    reauth_time = 0",
        "    ppk_required = yes",
        "    local {",
        "      auth = pubkey",
        f"      certs = {config.certificate}",
        f"      id = {config.local_id}",
        "    }",
        "    remote {",
        "      auth = pubkey",
        f"      id = {config.remote_id}",
        "    }",
        "    children {",
        "      net {",
        f"        local_ts = {', '.join(config.local_networks)}",
        f"        remote_ts = {', '.join(config.remote_networks)}",
        f"        esp_proposals = {config.esp_proposal}",
        "        rekey_time = 0",
        "        start_action = none",
        "        close_action = none",
        "        dpd_action = clear",
        "      }",
        "    }",
        "  }",
        "}",
    ]
    header = [
        "strongSwan, swanctl.conf: https://docs.strongswan.org/docs/latest/swanctl/swanctlConf.html",
        "Read by swanctl 5.9.8 in this software's tests. The agent loads this by itself, with ppk_id and an end for",
        "each key, and refuses to run beside it: the file is for reading, or for a gateway driven by hand. Without a",
        "key nothing comes up.",
    ]
    return _text("#", header, lines)


def _wireguard(facts: SnippetFacts) -> str:
    config = facts.wireguard
    if config is None:
        raise ConfigurationError("SITE.toml has no wireguard table in [agent] tunnel: docs/how-to/wireguard.md")
    lines = [
        "[Interface]",
        "Address = <INNER-ADDRESS/LENGTH>",
        "ListenPort = 51820",
        "PostUp = wg set %i private-key <FILE-OF-THE-PRIVATE-KEY>",
        *(f"PostUp = ip route add {network} dev %i" for network in config.allowed_ips),
    ]
    header = [
        f"WireGuard, /etc/wireguard/{config.interface}.conf: https://man7.org/linux/man-pages/man8/wg-quick.8.html",
        f"Read by wg-quick strip in this software's tests. {_FILL_IN}",
        "There is no [Peer]: the agent adds the peer, its networks and its preshared key, and takes them away.",
    ]
    return _text("#", header, lines)


def _fortigate(facts: SnippetFacts) -> str:
    lines = [
        "config user peer",
        '    edit "heliograph-kme"',
        '        set ca "<CA-CERTIFICATE-OF-THE-KEY-MANAGER>"',
        "    next",
        "end",
        "config vpn qkd",
        '    edit "heliograph"',
        f'        set server "{facts.kme_host}"',
        f"        set port {facts.kme_port}",
        f'        set id "{facts.sae}"',
        '        set peer "heliograph-kme"',
        '        set certificate "<CERTIFICATE-OF-THIS-SAE>"',
        f'        set comment "peer SAE {facts.peer_sae}"',
        "    next",
        "end",
        "config vpn ipsec phase1-interface",
        '    edit "<TUNNEL>"',
        "        set ike-version 2",
        "        set qkd require",
        '        set qkd-profile "heliograph"',
        "    next",
        "end",
    ]
    header = [
        "FortiGate, FortiOS 7.4.2 and later, IPsec key retrieval with a QKD system using the ETSI standardized API:",
        "https://docs.fortinet.com/document/fortigate/7.6.6/administration-guide/775314",
        f"{_UNTRIED} {_FILL_IN} Import CA and certificate first.",
        "qkd require, not allow: with allow it goes on without a key of the link.",
    ]
    return _text("#", header, lines)


def _mikrotik(facts: SnippetFacts) -> str:
    lines = [
        "/certificate/import file-name=<CA.pem>",
        "/certificate/import file-name=<SAE.pem>",
        "/certificate/import file-name=<SAE.key>",
        (
            f'/ip/ipsec/key/qkd/set address="{_authority(facts)}" kme-id="{facts.kme_id}" '
            f'peer-sae-id="{facts.peer_sae}" certificate=<NAME-OF-THE-SAE> key-size=32 cache-size=1'
        ),
        "/ip/ipsec/profile/add name=heliograph ppk=qkd",
        "/ip/ipsec/proposal/add name=heliograph auth-algorithms=sha256 enc-algorithms=aes-256-gcm pfs-group=modp2048",
        "/ip/ipsec/peer/add name=heliograph address=<PEER> exchange-mode=ike2 profile=heliograph",
        "/ip/ipsec/policy/add peer=heliograph proposal=heliograph tunnel=yes src-address=<HERE> dst-address=<THERE>",
    ]
    header = [
        "MikroTik RouterOS 7, QKD Integration in RouterOS IPsec (PPK):",
        "https://help.mikrotik.com/docs/spaces/ROS/pages/341770268/QKD",
        f"{_UNTRIED} {_FILL_IN} The manual counts key-size in bytes, the console's help in bits: ask for",
        "256 bits. With ppk=qkd RouterOS uses RFC 9867; the other gateway must, too.",
    ]
    return _text("#", header, lines)


def _juniper(facts: SnippetFacts) -> str:
    profile = "set security key-manager profiles heliograph quantum-key-manager"
    lines = [
        f"{profile} url https://{_authority(facts)}",
        f"{profile} local-sae-id {facts.sae}",
        f"{profile} local-certificate-id <CERTIFICATE-OF-THIS-SAE>",
        f"{profile} trusted-cas <CA-PROFILE>",
        "set security ike gateway <GATEWAY> version v2-only",
        "set security ike gateway <GATEWAY> ppk-profile heliograph",
    ]
    header = [
        "Juniper Junos, Quantum Safe IPsec VPN:",
        (
            "https://www.juniper.net/documentation/us/en/software/junos/vpn-ipsec/topics/topic-map/"
            "quantum-safe-ipsec-vpn.html"
        ),
        f"{_UNTRIED} {_FILL_IN} The words after quantum-key-manager could not be read",
        "in the document: compare them with what the command line offers after a question mark.",
    ]
    return _text("#", header, lines)


def _cisco_skip(facts: SnippetFacts) -> str:
    if facts.skip is None:
        raise ConfigurationError("SITE.toml has no [skip]: docs/how-to/skip-and-streams.md")
    host, port = facts.skip
    version = "1.2" if facts.psk_tls12 else "1.3"
    family = "ipv6" if ":" in host else "ipv4" if host.replace(".", "").isdecimal() else "fqdn"
    lines = [
        "crypto skip-client HELIOGRAPH",
        f" server {family} {host} port {port}",
        f" psk id {facts.psk_identity or '<PSK-IDENTITY>'} key hex <PSK>",
        "crypto ikev2 keyring HELIOGRAPH",
        " peer <PEER>",
        "  address <ADDRESS-OF-THE-PEER> <MASK>",
        "  ppk dynamic HELIOGRAPH required",
    ]
    header = [
        "Cisco IOS XE 17.11.1a and later, Configuring Quantum-Safe Encryption Using Postquantum Preshared Keys:",
        (
            "https://www.cisco.com/c/en/us/td/docs/routers/ios/config/17-x/sec-vpn/b-security-vpn/"
            "m-sec-cfg-quantum-encryption-ppk.html"
        ),
        f"{_UNTRIED} {_FILL_IN}",
        *(
            [
                "This SAE's SKIP door takes certificates, and the document's client a pre-shared key: give it one in",
                "[skip] psk of SITE.toml (docs/how-to/skip-and-streams.md).",
            ]
            if facts.psk_identity is None
            else [
                f"<PSK> is what the file of that key holds. It opens the door in TLS {version}",
                "only (docs/how-to/skip-and-streams.md says how to change that).",
            ]
        ),
    ]
    return _text("!", header, lines)


TEXTS: Final[Mapping[str, Callable[[SnippetFacts], str]]] = {
    "strongswan": _strongswan,
    "wireguard": _wireguard,
    "fortigate": _fortigate,
    "mikrotik": _mikrotik,
    "juniper": _juniper,
    "cisco-skip": _cisco_skip,
}
