"""``heliograph bench encryptors``: bulk TCP through each encryptor in turn, and what is lost while keys rotate."""

from __future__ import annotations

import os
import platform
import ssl
import statistics
import sys
from typing import Any, Final

from heliograph.errors import ConfigurationError
from heliograph.lab.bench_rows import row
from heliograph.lab.encryptors_side_by_side import (
    CARRIERS,
    Running,
    agents,
    open_all,
    packet_agents,
    programs,
    send,
    send_packets,
)
from heliograph.lab.network_path import NetworkPath, why_no_namespaces

__all__ = ["run"]

_LOST_MAX: Final = 1e-5  # of the bytes sent while keys rotate; the aim
_FOREVER: Final = 3600.0
_ANY_SIZE: Final = 1 << 50
_REKEY_SECONDS: Final = 1.0
_ROTATION: Final[dict[str, Any]] = {
    "rekey_seconds": _REKEY_SECONDS,
    "max_key_age_s": 30.0,
    "overlap_seconds": 10.0,
    "rekey_bytes": 1 << 38,
}
_PACKETS_PER_S: Final = 2000.0  # below what any of these machines drops for other reasons
_PACKETS: Final = "built-in, packets"
_REFERENCE: Final = "built-in, aes-256-gcm"
_OTHERS: Final = ("wireguard-go", "stunnel")


def run(*, mebibytes: int = 256, rounds: int = 3, loss_seconds: float = 8.0) -> dict[str, Any]:
    """Return the stage's document. All carriers stand at once; each round measures one after the other."""
    why = why_no_namespaces()
    with NetworkPath(namespaces=why is None) as path:
        present = [each for each in CARRIERS if each.missing(path) is None]
        missing = [f"{each.name}: {each.missing(path)}" for each in CARRIERS if each.missing(path) is not None]
        (sink_port,) = path.ports(1)
        host = "0.0.0.0" if path.spaces else path.inner  # noqa: S104  - all of a namespace of our own
        with programs(path, (1, [sys.executable, "-m", "heliograph.lab.bulk", "sink", host, str(sink_port)])) as sink:
            assert sink[0].stdout is not None
            sink[0].stdout.readline()
            found: dict[str, list[tuple[dict[str, Any], float]]] = {each.name: [] for each in present}
            with open_all(path, sink_port, present) as running:
                for _ in range(rounds):
                    for each in present:
                        size = int(min(each.mebibytes or mebibytes, mebibytes) * (1 << 20))
                        found[each.name].append(_measure(path, running[each.name], size))
            losses = [_lost(path, sink_port, cipher, loss_seconds) for cipher in ("aes-256-gcm", "tls-psk")]
        if _PACKETS in found:
            losses.append(_lost_packets(path, loss_seconds))
    results = [_row(name, runs) for name, runs in found.items()]
    mbps = {each["name"]: each["mbps"] for each in results}
    others = {name: mbps[name] for name in _OTHERS if name in mbps}
    failures = [f"{each['name']}: {each['lost_share']:.3g} lost" for each in losses if each["lost_share"] >= _LOST_MAX]
    failures += [f"{each['name']}: keys did not rotate" for each in losses if each["rekeys"] < 1]
    failures += [f"{each['name']}: {each['lost_bytes']} bytes lost" for each in results if each["lost_bytes"]]
    return {
        "stage": "encryptors",
        "path": path.name if why is None else f"{path.name} ({why})",
        "mbps": {name: round(value, 1) for name, value in mbps.items()},
        "ratio_to_each": {name: round(mbps[_REFERENCE] / value, 2) for name, value in others.items()},
        "ratio_to_slower": round(mbps[_REFERENCE] / min(others.values()), 2) if others else None,
        "lost_share": max(each["lost_share"] for each in losses),
        "not_measured": [{"name": each} for each in missing],
        "rounds": rounds,
        "profile": {
            "machine": platform.machine(),
            "cpus": os.cpu_count(),
            "python": platform.python_version(),
            "openssl": ssl.OPENSSL_VERSION,
            "processes": "source, sink and both ends of each encryptor share the machine",
        },
        "results": results,
        "while_keys_rotate": losses,
        "failures": failures,
    }


def _measure(path: NetworkPath, at: Running, size: int) -> tuple[dict[str, Any], float]:
    before = at.cpu_seconds()
    sent = send(path, at, size, _FOREVER)
    return sent, at.cpu_seconds() - before


def _row(name: str, runs: list[tuple[dict[str, Any], float]]) -> dict[str, Any]:
    """Return the row of a carrier: the median round."""
    seconds = statistics.median(sent["seconds"] for sent, _ in runs)
    size = runs[0][0]["sent"]
    cpu = statistics.median(cpu for _, cpu in runs)
    lost = sum(sent["sent"] - sent["received"] for sent, _ in runs)
    each = [round(8 * sent["received"] / sent["seconds"] / 1e6, 1) for sent, _ in runs]
    per_gbit = cpu / (8 * size / 1e9) if cpu else None
    return row(name, 8 * size, seconds, lost_bytes=lost, cpu_s_per_gbit=per_gbit, each_mbps=" ".join(map(str, each)))


def _lost(path: NetworkPath, sink_port: int, cipher: str, seconds: float) -> dict[str, Any]:
    """Send without a pause while the agents rotate their key each second; count what arrived."""
    with agents(path, sink_port, cipher=cipher, **_ROTATION) as at:
        before = at.status(0)["rekeys"]
        try:
            sent = send(path, at, _ANY_SIZE, seconds)
        except ConfigurationError as why:
            return {"name": f"built-in, {cipher}", "lost_share": 1.0, "rekeys": 0, "error": str(why)}
        after = at.status(0)
    lost = sent["sent"] - sent["received"]
    return {
        "name": f"built-in, {cipher}",
        "rekeys": after["rekeys"] - before,
        "sent_bytes": sent["sent"],
        "lost_bytes": lost,
        "lost_share": lost / sent["sent"],
        "refused_records": after["refused_records"],
        "cut_connections": after["cut_connections"],
        "mbps": 8 * sent["received"] / sent["seconds"] / 1e6,
    }


def _lost_packets(path: NetworkPath, seconds: float) -> dict[str, Any]:
    """Send packets at an even rate while the agents rotate; count what arrived."""
    port, unused = path.ports(2)
    words = [sys.executable, "-m", "heliograph.lab.bulk", "packet-sink", "0.0.0.0", str(port)]  # noqa: S104  - our own namespace
    with programs(path, (1, words)) as sink, packet_agents(path, unused, **_ROTATION) as at:
        assert sink[0].stdout is not None
        sink[0].stdout.readline()
        before = at.status(0)["rekeys"]
        sent = send_packets(path, at, port, int(seconds * _PACKETS_PER_S), _PACKETS_PER_S)
        after = at.status(0)
    lost = sent["sent"] - sent["received"]
    return {
        "name": _PACKETS,
        "rekeys": after["rekeys"] - before,
        "sent_packets": sent["sent"],
        "lost_packets": lost,
        "lost_share": lost / sent["sent"],
        "refused_records": after["refused_records"],
        "dropped_packets": after["turned_away"],
    }
