"""The page on networks, run as it is written."""

import json
import re
import shutil
from contextlib import ExitStack

import pytest
from markdown_pages import ROOT, blocks
from test_walkthroughs import _running, _shell

from heliograph.lab.ports import free_ports

pytestmark = pytest.mark.slow  # real processes
PORTS = ("7001", "7002", "7101", "7102", "7103", "8441", "8442", "8443", "8444", "8451", "8452", "8453")


def page(ports=None):
    """Return the page's blocks by marker, its example ports replaced by free ones of this machine."""

    def here(text):
        return text if ports is None else re.sub(rf"\b({'|'.join(PORTS)})\b", lambda match: ports[match[0]], text)

    return {b.marker: here(b.text) for b in blocks(ROOT / "docs/how-to/network.md") if b.marker}


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed: apt-get install -y curl")
def test_a_relayed_key_is_fetched_as_the_page_says(tmp_path):
    told = page()
    with _running(told["background"].strip(), tmp_path, "stderr", "the network stays up"):
        status = _shell(told["walkthrough"], tmp_path)
        fetched = _shell(told["fetch"], tmp_path)
    assert status.returncode == fetched.returncode == 0, status.stderr + fetched.stderr
    assert "each bit cost 1.62 bits of node-a - node-r" in status.stdout
    assert status.stdout.splitlines()[-1] == "node-a - node-r - node-c"
    same, *container = fetched.stdout.strip().splitlines()
    assert same == "the same key at both ends", fetched.stdout  # keys of a rehearsal, or the refusal
    document = json.loads("".join(container))
    assert document["key_container_extension"] == {"heliograph_path": ["node-a", "node-r", "node-c"]}
    (key,) = document["keys"]
    assert key["key_extension"]["heliograph_assurance"] == "vendor's claim"
    assert key["key_extension"]["heliograph_protocol"] == "relay"
    assert not list(tmp_path.glob("*.json"))


@pytest.mark.soak
def test_shares_over_three_relays_as_the_page_says(tmp_path):
    done = _shell(page()["shares"], tmp_path)
    assert done.returncode == 0, done.stderr
    assert "2 of 3 paths give a key; combined with ml-kem-768" in done.stdout
    assert "at both ends: the same" in done.stdout


@pytest.mark.soak
def test_a_network_is_set_up_as_the_page_says(tmp_path):
    """The sites of the links are not registered and started here; that is the page on two sites."""
    told = page(dict(zip(PORTS, map(str, free_ports(len(PORTS))), strict=True)))
    for command in [*told["sites"].splitlines(), *told["nodes"].splitlines(), told["peer key"]]:
        done = _shell(command, tmp_path)
        assert done.returncode == 0, done.stderr
    done = _shell(told["configure"], tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "node-a - node-r - node-c"
    with ExitStack() as stack:
        for marker in ("node a", "node r", "node c"):
            stack.enter_context(_running(told[marker].strip(), tmp_path, "stdout", "ready"))
        done = _shell(told["status"], tmp_path)
    assert done.returncode == 0, done.stderr
    assert "its key manager does not answer" in done.stdout
    assert json.loads(done.stdout.splitlines()[-1])["node"] == "node-r"
