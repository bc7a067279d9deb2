"""The demo's report: a document with fixed fields, the same on one screen for a newcomer, and what must be true."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from heliograph.authentication.pads import PAD_SET_BITS
from heliograph.postprocessing.secrecy.theorems import theorem_named
from heliograph.status import SiteStatus
from heliograph.types import BlockParameters

if TYPE_CHECKING:
    from heliograph.lab.demo import DemoOptions, _Outcome

__all__ = ["build_report", "failures", "render"]

_BEGUN: Final = {
    "psk": "one slot of a pre-shared key book",
    "pki": "certificates",
    "openpgp": "OpenPGP keys that introducers certified",
    "psk+pki": "a pre-shared key book and certificates together",
    "psk+openpgp": "a pre-shared key book and OpenPGP keys together",
}
_CIPHERS = {"aes-256-gcm": "AES-256-GCM", "tls-psk": "TLS 1.3 (ChaCha20-Poly1305)"}
_DECOYS: Final = {1: "one decoy", 2: "two decoys"}


def _authentication(site: SiteStatus, steady: BlockParameters) -> dict[str, Any]:
    link = site.link
    share = link.bits_spent / link.secret_key_bits if link.secret_key_bits else None
    return {
        "bootstrap": link.bootstrap,
        "algorithms": list(link.algorithms),
        "mac": link.mac,
        "assurance": link.assurance,
        "chain": link.chain,
        "bits_spent": link.bits_spent,
        "bits_refilled": link.bits_refilled,
        "pool_bits": link.pool_bits,
        "share_of_key": share,
        # What a block spends on its own tags, against the key it makes, once blocks have their full size.
        "share_of_steady_block": PAD_SET_BITS / steady.secret_key_length,
    }


def build_report(
    *,
    options: DemoOptions,
    blocks: BlockParameters,
    steady: BlockParameters,
    outcome: _Outcome,
    sites: tuple[SiteStatus, SiteStatus],
    payload: bytes,
    cleartext: int,
    recorded: int,
    pids: Mapping[str, int],
    total_s: float,
) -> dict[str, Any]:
    """Return the document; every figure in it was measured in this run.

    ``blocks``: the registered parameters of the first blocks, ``steady``: of all later ones.
    """
    a, b = sites
    link = a.link
    agents: list[dict[str, Any]] = [site.agent or {} for site in sites]
    answers = sorted(outcome.answers)
    link_s = link.pulses / link.clock_hz
    theorem = theorem_named(blocks.theorem)
    decoys = "1 decoy" if theorem.decoys == 1 else f"{theorem.decoys} decoys"
    return {
        "link": {
            "protocol": f"decoy-state BB84, {decoys}, biased bases, simulated light",
            "distance_km": options.distance_km,
            "blocks": link.blocks,
            "blocks_discarded": link.blocks_discarded,
            "qber_z": link.qber_z,
            "qber_x": link.qber_x,
            "sifted_bits": link.sifted_bits,
            "disclosed_bits": link.disclosed_bits,
            "double_clicks": link.double_clicks,
            "secret_key_bits": link.secret_key_bits,
            "secret_key_rate_bps": link.secret_key_bits / link_s if link_s else 0.0,
            "secret_key_rate_wall_bps": link.secret_key_bits / outcome.wall_s if outcome.wall_s else 0.0,
            "eps_total": link.eps_total,
            "policy": "fixed",
            "theorem": theorem.name,
            "two_way_rule": "pattern_public",
            "randomness": a.randomness,
            "assumptions": [
                "intensities, their probabilities and phase randomisation as configured",
                "basis-independent detection efficiency",
                "the operating system's random generator",
                *theorem.remarks,
            ],
        },
        "authentication": {**_authentication(a, steady), "peer": _authentication(b, steady)},
        "kme": {
            "keys_delivered": a.kme.delivered_to_masters + b.kme.delivered_to_masters,
            "keys_delivered_to_slaves": a.kme.delivered_to_slaves + b.kme.delivered_to_slaves,
            "kek": a.kek,
        },
        "traffic": {
            "encryptor": f"built-in, {_CIPHERS[options.cipher]}",
            "payload_bytes": len(payload),
            "passes": outcome.passes,
            "sha256_sent": hashlib.sha256(payload).hexdigest(),
            "sha256_received": answers[0] if len(answers) == 1 else ",".join(answers),
            "rekeys": min(int(agent.get("rekeys", 0)) for agent in agents),
            "refused_records": sum(int(agent.get("refused_records", 0)) for agent in agents),
            "seconds": outcome.traffic_s,
            "recorded_bytes": recorded,
            "cleartext_bytes_seen": cleartext,
        },
        "timing": {
            "first_key_s": outcome.first_key_s,
            "first_encrypted_byte_s": outcome.first_encrypted_byte_s,
            "total_s": total_s,
        },
        "processes": dict(pids),
    }


def failures(report: Mapping[str, Any]) -> list[str]:
    """Return what the demo promises and this run did not show, one line each; empty if all is true."""
    link, traffic = report["link"], report["traffic"]
    checks = {
        "no block made a secret key": link["blocks"] > 0 and link["secret_key_bits"] > 0,
        "the payload did not arrive as it was sent": traffic["sha256_sent"] == traffic["sha256_received"],
        "payload bytes were seen in clear between the sites": traffic["cleartext_bytes_seen"] == 0,
        "the recorder between the sites saw less than the payload": traffic["recorded_bytes"]
        > traffic["payload_bytes"],
        "the tunnel's keys did not come from the key managers": report["kme"]["keys_delivered"] > 0,
        "the tunnel was not rekeyed while traffic flowed": traffic["rekeys"] > 0 or traffic["seconds"] < 1,
    }
    return [text for text, holds in checks.items() if not holds]


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.2f} %"


def render(report: Mapping[str, Any]) -> str:
    """Return the report as one screen of plain text."""
    link, auth, traffic, timing = (report[name] for name in ("link", "authentication", "traffic", "timing"))
    theorem = theorem_named(link["theorem"])
    same = traffic["sha256_sent"] == traffic["sha256_received"]
    rate = traffic["payload_bytes"] * traffic["passes"] / traffic["seconds"] / 1e6 if traffic["seconds"] else 0.0
    refilled = auth["bits_refilled"] / link["secret_key_bits"] if link["secret_key_bits"] else None
    cipher = traffic["encryptor"].removeprefix("built-in, ")
    share, qber_z, qber_x = _percent(refilled), _percent(link["qber_z"]), _percent(link["qber_x"])
    sifted, key_rate = link["sifted_bits"], link["secret_key_rate_bps"] / 1e3
    delivered, first_byte = report["kme"]["keys_delivered"], timing["first_encrypted_byte_s"]
    lines = [
        "",
        f"LIGHT     {link['distance_km']:g} km of simulated fibre; decoy-state BB84 with {_DECOYS[theorem.decoys]}",
        f"          {link['blocks']} blocks accepted, {link['blocks_discarded']} discarded; {sifted:,} sifted bits",
        f"          error rate {qber_z} in the key basis, {qber_x} in the test basis",
        f"KEY       {link['secret_key_bits']:,} secret bits, the same on both sites; {key_rate:,.0f} kb/s of link time",
        f"          fixed length, {theorem.title}; total failure probability {link['eps_total']:.1e}",
        f"          randomness: {link['randomness']}",
        f"TRUST     begun by {_BEGUN[auth['bootstrap']]}, over with the first block",
        f"          since then {auth['mac']}: {auth['assurance']}",
        f"          {auth['bits_spent']:,} key bits spent on tags, {auth['bits_refilled']:,} refilled from the new key",
        f"          ({share} of it; blocks of full size spend {_percent(auth['share_of_steady_block'])})",
        f"SUPPLY    {delivered} keys fetched from the key managers (ETSI GS QKD 014, mutual TLS)",
        f"TRAFFIC   {traffic['payload_bytes']:,} bytes x {traffic['passes']} through {cipher} at {rate:,.0f} MB/s,",
        f"          {traffic['rekeys']} rekeys on the way",
        f"          SHA-256 at host A  {traffic['sha256_sent']}",
        f"          SHA-256 at host B  {traffic['sha256_received']}  {'the same' if same else 'NOT THE SAME'}",
        f"          {traffic['recorded_bytes']:,} bytes recorded between the sites, of which",
        f"          {traffic['cleartext_bytes_seen']} are payload in clear",
        f"TIME      first key after {timing['first_key_s']:.1f} s, first encrypted byte after {first_byte:.1f} s,",
        f"          all in {timing['total_s']:.1f} s",
        "",
        f"Proven under assumptions: the key's secrecy, by the theorem above. Computational: {cipher} under that key,",
        "and the operating system's randomness. Simulated: the light. No hardware side channel was tested.",
    ]
    return "\n".join(lines)
