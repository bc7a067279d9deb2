"""Lays out a site's directory: secrets with owner-only modes, a small site authority, SITE.toml."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from heliograph.authentication.bootstrap import has_signature
from heliograph.authentication.methods.registry import DEFAULT_METHOD
from heliograph.authentication.registration import anchor_kinds
from heliograph.errors import ConfigurationError
from heliograph.ports import RandomSource
from heliograph.postprocessing.amplification import DEFAULT_FAMILY, Family
from heliograph.postprocessing.secrecy.link import fibre_link
from heliograph.postprocessing.secrecy.planning import ONE_WAY_MARGIN, plan_block
from heliograph.protocol.registration import LinkRegistration, Reconciliation, SaePair, codes_of
from heliograph.site.kek import create_kek, seal_table
from heliograph.site.seal_entry import SealEntry
from heliograph.vault.certificates import SiteCa

__all__ = ["IDENTITIES", "SiteSetup", "plan_registration", "set_up_site", "toml_table"]

# Design, settled questions: small blocks first, so that a key is there within seconds, then larger ones.
OPENING_BITS, OPENING_BLOCKS, STEADY_BITS = 100_000, 3, 1_000_000
_CERTIFICATE_DAYS = 90.0
# Where the link's own credential has its place, by kind.
IDENTITIES: dict[str, dict[str, object]] = {
    "pki": {"certificate": "identity/link.pem", "key": "identity/link.key", "root": "identity/root.pem"},
    "openpgp": {"certificate": "identity/openpgp.asc", "key": "identity/openpgp.key"},
}


@dataclass(frozen=True, slots=True)
class SiteSetup:
    """What an operator decides about a site. Addresses are "host:port"; one of ``dial`` and ``listen`` is given."""

    name: str
    role: str
    kme_id: str
    peer_kme_id: str
    kme_listen: str
    sae: str
    module: str
    module_settings: Mapping[str, object]
    dial: str | None = None
    listen: str | None = None
    peer_sae: str | None = None
    tunnel: Mapping[str, object] = field(default_factory=dict)
    seal: SealEntry = field(default_factory=SealEntry)


def plan_registration(
    link: str,
    sites: tuple[str, str],
    saes: tuple[str, str],
    distance_km: float,
    *,
    decoys: int = 1,
    key_sizes: tuple[int, ...] = (256,),
    bootstrap: str = "psk",
    mac: str = DEFAULT_METHOD.name,
    amplification: Family = DEFAULT_FAMILY,
    reconciliation: Reconciliation = "cascade",
) -> LinkRegistration:
    """Plan a link's registration for a fibre of ``distance_km`` and the default detectors.

    Both sites plan the same record from the same numbers. ``sites``: transmitter, receiver; ``decoys``: 1 or 2, which
    also names the theorem; ``key_sizes``: bits of the keys, the
    usual size first; ``bootstrap``: what trust starts from;
    ``mac``: what authenticates later blocks; ``amplification``: the family of the hash; ``reconciliation``: how errors
    are found. Raises ConfigurationError if blocks of these sizes give no key at this distance.
    """
    model = fibre_link(distance_km)
    margin = ONE_WAY_MARGIN if reconciliation == "ldpc" else None
    opening = plan_block("opening", model, OPENING_BITS, decoys=decoys, margin=margin)
    steady = plan_block("steady", model, STEADY_BITS, decoys=decoys, margin=margin)
    own_sizes = key_sizes if len(key_sizes) > 1 else ()  # one size is the link's: nothing to say
    return LinkRegistration(
        link=link,
        transmitter_site=sites[0],
        receiver_site=sites[1],
        parameters=(opening, steady),
        opening="opening",
        opening_blocks=OPENING_BLOCKS,
        steady="steady",
        key_size_bits=key_sizes[0],
        transmitter_pairs=(SaePair(saes[0], saes[1], key_sizes=own_sizes),),
        receiver_pairs=(SaePair(saes[1], saes[0], key_sizes=own_sizes),),
        bootstrap=bootstrap,
        mac=mac,
        amplification=amplification,
        reconciliation=reconciliation,
        codes=codes_of(reconciliation),
    )


def _no_secret() -> bytes:
    raise ConfigurationError("a passphrase or a PIN is needed, and nobody was asked for it")


def set_up_site(
    directory: Path,
    setup: SiteSetup,
    registration: LinkRegistration,
    randomness: RandomSource,
    secret: Callable[[], bytes] = _no_secret,
) -> Path:
    """Write everything but what trust starts from, which a person brings. Returns the path of SITE.toml.

    The key book has its place at ``psk.book``, the link's own certificates and keys in ``identity``.
    ``secret`` is asked for the passphrase or PIN that is to protect the key-encryption key, if one is.

    Raises ConfigurationError if the directory holds a site already, or cannot be written.
    """
    target = directory / "SITE.toml"
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if target.exists():
            raise ConfigurationError(f"{target}: a site is set up here already; name another directory")
        if any(directory.iterdir()) or directory.stat().st_mode & 0o077:
            raise ConfigurationError(f"{directory}: not empty, or open to others; name a new directory")
        create_kek(directory / "kek", setup.seal, randomness, secret)  # first: a wrong PIN leaves the place empty
        (directory / "pki").mkdir(mode=0o700)
        if has_signature(registration.bootstrap):
            (directory / "identity").mkdir(mode=0o700)
        (directory / "link.json").write_bytes(msgspec.json.format(msgspec.json.encode(registration)) + b"\n")
    except OSError as error:
        raise ConfigurationError(f"{directory}: {error.strerror}; name a directory this user can write") from None
    authority = SiteCa.create(f"{setup.name} authority", days=_CERTIFICATE_DAYS)
    authority.write(directory / "pki")
    host = setup.kme_listen.rpartition(":")[0]
    kme = authority.issue_kme(setup.kme_id, [host], days=_CERTIFICATE_DAYS, interworking=True)
    kme.write(directory / "pki", "kme")
    authority.issue_sae(setup.sae, days=_CERTIFICATE_DAYS).write(directory / "pki", "sae")
    target.write_text(_site_toml(setup, anchor_kinds(registration.bootstrap)), encoding="utf-8")
    return target


def _value(value: object) -> str:
    """Write one value as TOML. JSON strings, numbers and booleans are TOML too; tables and lists are inline."""
    if isinstance(value, Mapping):
        inner = ", ".join(f"{json.dumps(str(k))} = {_value(v)}" for k, v in value.items())
        return f"{{ {inner} }}" if inner else "{}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(_value(item) for item in value)}]"
    return json.dumps(value, ensure_ascii=False)


def toml_table(entries: Mapping[str, object | None]) -> str:
    """Write a table's entries as TOML, without those that are None."""
    return "".join(f"{name} = {_value(value)}\n" for name, value in entries.items() if value is not None)


def _site_toml(setup: SiteSetup, kinds: tuple[str, ...]) -> str:
    top = {
        "name": setup.name,
        "store": "store/site.db",
        "kek": "kek",
        "anchor": "anchor",
        "status": "status.sock",
    }
    link = {
        "registration": "link.json",
        "trust": "trust",
        "book": "psk.book" if "psk" in kinds else None,
        "role": setup.role,
        "dial": setup.dial,
        "listen": setup.listen,
    }
    kme = {
        "id": setup.kme_id,
        "peer_id": setup.peer_kme_id,
        "listen": setup.kme_listen,
        "certificate": "pki/kme.pem",
        "key": "pki/kme.key",
        "ca": "pki/ca.pem",
    }
    text = toml_table(top)
    text += "\n[link]\n" + toml_table(link)
    for kind in kinds:
        if kind in IDENTITIES:
            text += f"\n[link.{kind}]\n" + toml_table(IDENTITIES[kind])
    text += "\n[module]\n" + toml_table({"name": setup.module, "settings": setup.module_settings})
    text += "\n[kme]\n" + toml_table(kme)
    if section := seal_table(setup.seal):
        text += "\n[seal]\n" + toml_table(section)
    if setup.tunnel:
        agent = {
            "sae": setup.sae,
            "peer_sae": setup.peer_sae,
            "certificate": "pki/sae.pem",
            "key": "pki/sae.key",
            "tunnel": setup.tunnel,
        }
        text += "\n[agent]\n" + toml_table(agent)
    return text
