"""NODE.toml: what contradicts itself is refused in one line that names the entry."""

import re

import pytest

from heliograph.errors import ConfigurationError
from heliograph.lab.network_layout import LinkAccess, NetworkPlan, lay_out
from heliograph.node.config import read_node
from heliograph.node.setup import NodeSetup, set_up_node
from heliograph.vault.randomness import SystemRandomness


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    """Return the NODE.toml of an end with two relays around it."""
    directory = tmp_path_factory.mktemp("net")
    plan = NetworkPlan.around(2, threshold=2, layer="ml-kem-768")
    access = {
        (one, other): LinkAccess("https://127.0.0.1:1", "kme", (directory, directory, directory), "computational")
        for edge in plan.edges
        for one, other in (edge, edge[::-1])
    }
    return lay_out(directory, plan, access)["node-a"].read_text()


def read(tmp_path, text):
    (tmp_path / "NODE.toml").write_text(text)
    return read_node(tmp_path / "NODE.toml")


def test_what_was_laid_out_is_read(tmp_path, text):
    config = read(tmp_path, text)
    (route,) = config.routes
    assert route.paths == (("node-a", "node-r1", "node-c"), ("node-a", "node-r2", "node-c"))
    assert (route.shares, route.threshold, route.layer, route.proved) == (2, 2, "ml-kem-768", True)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('"node-r1"], ["node-r1"', '"node-r1"], ["node-r9"', "edges and \\[\\[links\\]\\]|there are 1 paths"),
        ('peer = "node-r2"', 'peer = "node-r1"', "two links to one peer"),
        ('peer_sae = "node-r2"', 'peer_sae = "node-r1"', "a message would fit both"),
        ("threshold = 2", "threshold = 3", "threshold = 3 of shares = 2"),
        ("threshold = 2", "threshold = 1", "each path alone would know the key"),
        ("shares = 2\nthreshold = 2", "shares = 3\nthreshold = 2", "shares = 3, but there are 2 paths"),
        ('layer = "ml-kem-768"', 'layer = "rsa"', "layer = 'rsa'"),
        ('peer_key = "peer.key"\n', "", "layer needs peer_key"),
        ('node = "node-c"', 'node = "node-a"', "those of the other end"),
        ('node = "node-c"', 'node = "node-x"', "there are 0 paths"),
        ("stock = 8", "stock = 0", "stock = 0"),
        ("stock = 8", "stock = 8\nstok = 9", "stok"),
        ('assurance = "computational"', 'assurance = "military"', "assurance = 'military'"),
        ('url = "https://127.0.0.1:1"\n', "", "give one of url and socket"),
        ('url = "https://127.0.0.1:1"', 'url = "https://127.0.0.1:1"\nsocket = "s"', "give one of url and socket"),
        ("carries = []", 'carries = [["node-a", "node-c"]]', "none of them this one"),
        ("carries = []", 'carries = [["node-c"]]', "two end nodes"),
        ('anchor = "anchor"', 'anchor = "store/anchor"', "outside the store"),
        ('status = "status.sock"', 'status = "kek"', "different files"),
        ('listen = "127.0.0.1:', 'listen = "127.0.0.1:x', "host:port"),
        ('name = "node-a"', 'name = "node-z"', "edges and \\[\\[links\\]\\] do not say the same of node-z"),
        ("edges = [[", "edges = [[[", "TOML|Expected"),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) else None,
)
def test_what_contradicts_itself_is_refused_in_one_line(tmp_path, text, old, new, words):
    assert old in text
    with pytest.raises(ConfigurationError) as refusal:
        read(tmp_path, text.replace(old, new, 1))
    assert re.search(words, str(refusal.value)), refusal.value
    assert str(refusal.value).startswith(str(tmp_path))
    assert "\n" not in str(refusal.value)


def test_paths_of_the_operator_are_taken_and_checked(tmp_path, text):
    own = text + 'paths = [["node-a", "node-r2", "node-c"], ["node-a", "node-r1", "node-c"]]\n'
    assert read(tmp_path, own).routes[0].paths[0][1] == "node-r2"
    for wrong in (
        '[["node-a", "node-r1", "node-c"], ["node-a", "node-r1", "node-c"]]',
        '[["node-a", "node-c"], ["node-a", "node-r1", "node-c"]]',
        '[["node-r1", "node-c"], ["node-a", "node-r2", "node-c"]]',
    ):
        with pytest.raises(ConfigurationError, match="path"):
            read(tmp_path, text + f"paths = {wrong}\n")


def test_a_file_that_is_none_is_refused(tmp_path):
    with pytest.raises(ConfigurationError, match="network init"):
        read_node(tmp_path / "NODE.toml")
    (tmp_path / "NODE.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigurationError, match="not valid TOML"):
        read_node(tmp_path / "NODE.toml")


def test_a_nodes_directory_is_set_up_once_and_for_its_owner_alone(tmp_path):
    setup = NodeSetup("node-r", "127.0.0.1:7100", "127.0.0.1:8443", [("node-a", "node-r")], [("node-a", "node-c")])
    path = set_up_node(tmp_path / "r", setup, SystemRandomness())
    assert (tmp_path / "r").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "r" / "kek").stat().st_mode & 0o777 == 0o600
    before = path.read_bytes(), (tmp_path / "r" / "kek").read_bytes()
    with pytest.raises(ConfigurationError, match="not empty"):
        set_up_node(tmp_path / "r", setup, SystemRandomness())
    assert before == (path.read_bytes(), (tmp_path / "r" / "kek").read_bytes())
    # It has a neighbour in edges and no link to it yet: not to be run as it is.
    with pytest.raises(ConfigurationError, match="do not say the same of node-r and node-a"):
        read_node(path)
