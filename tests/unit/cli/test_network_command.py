"""``heliograph network``: a whole rehearsal with simulated light, and what it refuses in one line."""

import json

import pytest
from typer.testing import CliRunner

from heliograph.cli.main import app


def run(*words):
    done = CliRunner().invoke(app, ["network", *map(str, words)])
    return done.exit_code, done.stdout, done.stderr


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("demo", "--relays", 3, "--threshold", 1), "each path alone would know the key"),
        (("demo", "--relays", 0), "write 1 <= threshold"),
        (("demo", "--relays", 9), "write 1 <= threshold"),
        (("demo", "--keys", 0), "--keys 0"),
        (("demo", "--distance-km", -1), "--distance-km -1"),
        (("run", "nowhere/NODE.toml"), "network init"),
        (("status", "nowhere/NODE.toml"), "network init"),
        (("paths", "nowhere/NODE.toml", "node-c"), "network init"),
        (("init", "{d}/n", "--name", "a", "--edge", "a", "--listen", "127.0.0.1:1"), "such as node-a:node-r"),
        (("init", "{d}/n", "--name", "a", "--edge", "a:a", "--listen", "127.0.0.1:1"), "two different nodes"),
        (("init", "{d}/n", "--name", "a", "--edge", "a:b", "--listen", "127.0.0.1"), "host:port"),
    ],
    ids=lambda value: " ".join(map(str, value)) if isinstance(value, tuple) else None,
)
def test_what_cannot_be_is_refused_in_one_line(tmp_path, words, reason):
    code, out, error = run(*(str(word).format(d=tmp_path) for word in words))
    assert code == 1
    assert out == ""
    assert error.startswith("heliograph: ")
    assert reason in error
    assert error.count("\n") == 1


@pytest.mark.soak
def test_a_rehearsal_over_simulated_light_carries_keys_and_tells_their_cost():
    """Four sites, two fibres, three nodes: nine processes."""
    code, out, error = run("demo", "--json")
    assert code == 0, error
    report = json.loads(out)
    assert report["keys"] == {"fetched": 16, "same_at_both_ends": True}
    nodes = {node["node"]: node for node in report["nodes"]}
    assert {link["assurance"] for node in nodes.values() for link in node["links"]} == {"information-theoretic"}
    for name in ("node-a", "node-c"):
        (pair,) = nodes[name]["pairs"]
        # A transfer of 8 keys takes 13 of each link; one that failed, as while the links come up, takes some more.
        assert set(pair["cost_per_bit"]) == {"node-a - node-r", "node-c - node-r"}
        assert min(pair["cost_per_bit"].values()) >= 13 / 8
    assert nodes["node-r"]["carried"] >= 2
    assert nodes["node-r"]["suspected"] == {}
