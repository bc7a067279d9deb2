"""The built-in encryptor in the same unit as its site: keys by a call, and no key manager's port at all."""

import asyncio
import socket

import pytest

from heliograph.lab.rehearsal import Ports, Rehearsal
from heliograph.testing.links import example_registration

pytestmark = pytest.mark.slow  # real processes

PATIENCE_S = 60


def take_in(path):
    """Let the encryptor of a site fetch its keys in process, and nobody by any other way."""
    text = path.read_text()
    sae = text.partition("[agent]\nsae = ")[2].partition("\n")[0]
    head, agent = text.split("[agent]\n")
    kept = [line for line in agent.splitlines() if not line.startswith(("certificate", "key"))]
    path.write_text(head + "[agent]\n" + "\n".join(kept) + f"\n\n[boundary]\ncertificates = []\nin_process = [{sae}]\n")


def test_the_tunnel_runs_on_keys_that_never_crossed_a_socket(tmp_path):
    rehearsal = Rehearsal(tmp_path / "pair", Ports.free(), distance_km=5.0, registration=example_registration())

    async def act():
        rehearsal.prepare()
        for path in rehearsal.sites.values():
            take_in(path)
        # Without the demo's recorders in between, the ports of the two ends are made one.
        a = rehearsal.sites["site_a"]
        text = a.read_text()
        for tap, real in (
            (rehearsal.ports.classical_tap, rehearsal.ports.classical),
            (rehearsal.ports.control_tap, rehearsal.ports.control),
            (rehearsal.ports.tunnel_tap, rehearsal.ports.tunnel),
        ):
            text = text.replace(f":{tap}", f":{real}")
        a.write_text(text)
        try:
            await rehearsal.start_all()
            async with asyncio.timeout(PATIENCE_S):
                while True:
                    found = [await rehearsal.status(name) for name in ("site_a", "site_b")]
                    if all(status.agent["mode"] == "encrypting" for status in found):
                        break
                    await asyncio.sleep(0.1)
            for port in (rehearsal.ports.kme_a, rehearsal.ports.kme_b):
                with socket.socket() as probe:
                    assert probe.connect_ex(("127.0.0.1", port)) != 0
            return found
        finally:
            await rehearsal.stop_all()

    found = asyncio.run(act())
    assert found[0].agent["key_id"] == found[1].agent["key_id"]
    assert found[0].kme.delivered_to_masters >= 1
