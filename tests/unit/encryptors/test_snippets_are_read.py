"""The snippets for programs that are here are read by these programs, and mean what the agent loads."""

from __future__ import annotations

import base64
import shutil
import subprocess

import msgspec
import pytest
from strongswan_pair import Gateways, require_strongswan

from heliograph.consumer.keys import Role
from heliograph.encryptors.strongswan_config import StrongSwanConfig
from heliograph.encryptors.strongswan_work import CharonWork, Wish
from heliograph.encryptors.wireguard import WireGuardConfig
from heliograph.site.snippet_texts import TEXTS, SnippetFacts

FACTS = {"site": "a", "sae": "sae-a", "peer_sae": "sae-b", "kme_id": "kme-a", "kme_host": "192.0.2.7", "kme_port": 8443}
KEY_ID = "3f2b8c1e-6c1f-4f6e-9d3a-0a1b2c3d4e5f"


def test_swanctl_loads_the_snippet_and_charon_has_the_connection_that_the_agent_makes(tmp_path):
    require_strongswan()
    if shutil.which("swanctl") is None:
        pytest.skip("swanctl is missing: apt-get install -y strongswan-swanctl")
    with Gateways(tmp_path) as pair:
        config = msgspec.convert(pair.table(1), StrongSwanConfig)
        snippet = tmp_path / "swanctl.conf"
        snippet.write_text(TEXTS["strongswan"](SnippetFacts(**FACTS, strongswan=config)))
        words = ["swanctl", "--load-conns", "--file", str(snippet), "--uri", f"unix://{pair.socket_path(1)}"]
        done = subprocess.run(words, capture_output=True, text=True, timeout=20, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        by_hand = pair.connections(1)["heliograph"]
        snippet.write_text("")  # swanctl takes away what is not in the file: an agent refuses to run beside it
        subprocess.run(words, check=True, capture_output=True, timeout=20)
        work = CharonWork(Role.RESPONDER, config)
        work.begin()
        work.settle(Wish(KEY_ID, bytes(32), left_s=100, keep=frozenset([KEY_ID])))
        by_agent = pair.connections(1)["heliograph-in"]
        work.release()
        assert by_hand.pop("reauth_time") != by_agent.pop("reauth_time")  # the key's end, which only the agent knows
        assert by_hand == by_agent
        assert by_hand["children"]["net"]["remote-ts"] == [b"10.1.0.0/24"]


def test_wg_quick_reads_the_snippet(tmp_path):
    if shutil.which("wg-quick") is None:
        pytest.skip("wg-quick is missing: apt-get install -y wireguard-tools")
    peer = base64.b64encode(bytes(range(32))).decode()
    config = WireGuardConfig(interface="wg0", peer=peer, allowed_ips=("10.2.0.0/24",), endpoint="192.0.2.2:51820")
    file = tmp_path / "wg0.conf"
    file.write_text(TEXTS["wireguard"](SnippetFacts(**FACTS, wireguard=config)))
    file.chmod(0o600)
    done = subprocess.run(["wg-quick", "strip", str(file)], capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 0, done.stderr
    assert "ListenPort = 51820" in done.stdout
    assert "Peer" not in done.stdout.replace("[Peer]: the agent", "")
