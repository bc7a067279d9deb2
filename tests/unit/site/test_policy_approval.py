"""A key policy other than the last approved one does not start; whoever approves it stands in the audit log."""

from __future__ import annotations

import json

import pytest
from site_on_disk import make_site
from typer.testing import CliRunner

from heliograph.cli.main import app
from heliograph.errors import ConfigurationError
from heliograph.site.config import read_site
from heliograph.site.policy import check_policy, read_identity


@pytest.fixture
def toml(tmp_path):
    make_site(tmp_path / "a", light=tmp_path / "light")
    return tmp_path / "a" / "SITE.toml"


def _ask_for(toml, policy):
    text = toml.read_text()
    line = next(line for line in text.splitlines() if line.startswith("tunnel = "))
    toml.write_text(text.replace(line, line[:-1].rstrip() + f', policy = "{policy}", peer_key = "peer.key" }}'))


def test_qkd_only_needs_no_approval(toml):
    check_policy(read_site(toml))
    assert read_identity(read_site(toml)) is None


@pytest.mark.parametrize("policy", ["qkd-preferred", "pqc-only", "hybrid-required"])
def test_another_policy_starts_only_when_someone_answers_for_it(toml, policy):
    plain = toml.read_text()
    _ask_for(toml, policy)
    with pytest.raises(ConfigurationError, match="heliograph site policy"):
        check_policy(read_site(toml))
    done = CliRunner().invoke(app, ["site", "policy", str(toml), "--approver", "Ann", "--json"])
    assert done.exit_code == 0
    assert json.loads(done.stdout)["policy"].startswith(policy)
    check_policy(read_site(toml))
    log = (toml.parent / "audit.jsonl").read_text()
    assert '"approver":"Ann"' in log.splitlines()[-1]
    assert policy in log.splitlines()[-1]
    # Back to the default is a change too.
    toml.write_text(plain)
    with pytest.raises(ConfigurationError, match=policy):
        check_policy(read_site(toml))


def test_an_exchange_less_is_another_policy(toml):
    _ask_for(toml, "hybrid-required")
    CliRunner().invoke(app, ["site", "policy", str(toml), "--approver", "Ann"])
    text = toml.read_text()
    toml.write_text(text.replace('peer_key = "peer.key"', 'peer_key = "peer.key", exchanges = ["ml-kem-768"]'))
    with pytest.raises(ConfigurationError, match="x25519"):
        check_policy(read_site(toml))


def test_the_peer_key_is_made_once_and_read_only_when_private(toml):
    _ask_for(toml, "pqc-only")
    key = toml.parent / "peer.key"
    with pytest.raises(ConfigurationError, match="peer_key"):
        read_identity(read_site(toml))
    made = CliRunner().invoke(app, ["agent", "key", str(key)])
    assert made.exit_code == 0
    assert (len(key.read_bytes()), key.stat().st_mode & 0o777) == (32, 0o600)
    again = CliRunner().invoke(app, ["agent", "key", str(key)])
    assert again.exit_code == 1
    identity = read_identity(read_site(toml))
    assert (identity.own, identity.peer, identity.secret) == ("sae-a", "sae-b", key.read_bytes())
    assert key.read_bytes().hex() not in repr(identity)
    key.chmod(0o644)
    with pytest.raises(ConfigurationError, match="others can read"):
        read_identity(read_site(toml))
