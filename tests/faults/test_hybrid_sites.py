"""Two real sites under a hybrid policy: refused until approved, then every secret is in the encryptor's key."""

import asyncio
import shutil
import subprocess
import sys

import pytest

from heliograph.lab.rehearsal import Ports, Rehearsal
from heliograph.testing.links import example_registration

pytestmark = pytest.mark.slow  # real processes

PATIENCE_S = 60


def heliograph(*words):
    return subprocess.run(
        [sys.executable, "-m", "heliograph.cli.main", *map(str, words)], capture_output=True, text=True, check=False
    )


def test_two_sites_combine_the_links_keys_with_ml_kem_once_someone_answered_for_it(tmp_path):
    rehearsal = Rehearsal(tmp_path / "pair", Ports.free(), distance_km=5.0, registration=example_registration())
    rehearsal.prepare()
    a, b = rehearsal.sites["site_a"], rehearsal.sites["site_b"]
    assert heliograph("agent", "key", a.parent / "peer.key").returncode == 0
    shutil.copy(a.parent / "peer.key", b.parent / "peer.key")
    ports = rehearsal.ports
    for path in (a, b):
        text = path.read_text()
        line = next(line for line in text.splitlines() if line.startswith("tunnel = "))
        wanted = line.rstrip().removesuffix("}").rstrip() + ', policy = "hybrid-required", peer_key = "peer.key" }'
        text = text.replace(line, wanted)
        # Without the demo's recorders in between, the ports of the two ends are made one.
        for tap, real in (
            (ports.classical_tap, ports.classical),
            (ports.control_tap, ports.control),
            (ports.tunnel_tap, ports.tunnel),
        ):
            text = text.replace(f":{tap}", f":{real}") if path is a else text
        path.write_text(text)
    refused = heliograph("site", "run", a)
    assert refused.returncode == 1
    assert "heliograph site policy" in refused.stderr
    assert "Traceback" not in refused.stderr
    for path in (a, b):
        assert heliograph("site", "policy", path, "--approver", "Ann").returncode == 0

    async def act():
        try:
            await rehearsal.start_all()
            async with asyncio.timeout(PATIENCE_S):
                while True:
                    found = [await rehearsal.status(name) for name in ("site_a", "site_b")]
                    if all(status.agent["mode"] == "encrypting" for status in found):
                        break
                    await asyncio.sleep(0.1)
            shown = await asyncio.to_thread(heliograph, "site", "status", a)
            return found, shown.stdout
        finally:
            await rehearsal.stop_all()

    found, shown = asyncio.run(act())
    assert found[0].agent["key_id"] == found[1].agent["key_id"]
    assert [status.agent["components"] for status in found] == [["qkd", "ml-kem-768", "x25519"]] * 2
    assert found[0].kme.delivered_to_masters >= 1
    assert "encryptor: encrypting, key of qkd, ml-kem-768, x25519" in shown
