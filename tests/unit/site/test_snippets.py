"""A snippet says what SITE.toml says, in the device's words; no key is in it, and no value is more than a word."""

from __future__ import annotations

import base64
import json
import re

import pytest
from site_on_disk import SiteOnDisk, make_site
from typer.testing import CliRunner

from heliograph.cli.main import app
from heliograph.site.snippet_texts import TEXTS

PEER = base64.b64encode(bytes(range(32))).decode()
WIREGUARD = {"interface": "wg0", "peer": PEER, "allowed_ips": ["10.2.0.0/24"], "endpoint": "192.0.2.2:51820"}
STRONGSWAN = {
    "local": "192.0.2.1",
    "remote": "192.0.2.2",
    "local_id": "gw-a.example",
    "remote_id": "gw-b.example",
    "certificate": "/etc/swanctl/x509/gw-a.pem",
    "key": "/etc/swanctl/private/gw-a.pem",
    "ca": "/etc/swanctl/x509ca/ca.pem",
    "local_networks": ["10.1.0.0/24"],
    "remote_networks": ["10.2.0.0/24"],
}
# What each must say, beside where its words come from.
SAYS = {
    "fortigate": ['set id "sae-a"', "set qkd require", 'set server "kms.example"', "docs.fortinet.com"],
    "mikrotik": ['peer-sae-id="sae-b"', 'kme-id="kme-a"', 'address="kms.example:', "ppk=qkd", "help.mikrotik.com"],
    "juniper": ["local-sae-id sae-a", "url https://kms.example:", "ppk-profile", "juniper.net"],
    "cisco-skip": ["server fqdn kms.example port 8444", "ppk dynamic HELIOGRAPH required", "cisco.com"],
    "strongswan": ["ppk_required = yes", "remote_ts = 10.2.0.0/24", "id = gw-b.example", "docs.strongswan.org"],
    "wireguard": ["PostUp = ip route add 10.2.0.0/24 dev %i", "wg0", "man7.org"],
}


@pytest.fixture
def site(tmp_path):
    return SiteOnDisk(make_site(tmp_path / "a", light=tmp_path / "light"))


def with_table(site, name):
    document = site.document()
    document["agent"]["tunnel"] = {
        "role": "initiator",
        "control": "192.0.2.2:7002",
        name: {"wireguard": WIREGUARD, "strongswan": STRONGSWAN}[name],
    }
    site.write(document)


def ready(site, device):
    if device in ("wireguard", "strongswan"):
        with_table(site, device)
    if device == "cisco-skip":
        document = site.document()
        names = {"key-provider-b": ["sae-b"]}
        document["skip"] = {"listen": "0.0.0.0:8444", "local_system_id": "key-provider-a", "remote_systems": names}
        site.write(document)


def ask(site, device, *more):
    return CliRunner().invoke(app, ["site", "snippet", str(site.toml), "--for", device, *more])


@pytest.mark.parametrize("device", TEXTS)
def test_a_snippet_has_the_sites_values_its_source_and_no_key(site, device):
    ready(site, device)
    done = ask(site, device, "--address", "kms.example")
    assert done.exit_code == 0, done.output
    assert [words for words in SAYS[device] if words not in done.output] == []
    tried = "software's tests" in done.output
    assert tried or "Not tried on the device." in done.output
    assert tried is (device in ("strongswan", "wireguard"))
    assert not re.search(r"[0-9a-fA-F]{32}", done.output)
    secrets = [path.read_bytes() for path in site.directory.rglob("*") if path.suffix == ".key" or path.name == "kek"]
    assert secrets
    for secret in secrets:
        middle = secret[len(secret) // 2 :][:12]
        assert len(middle) == 12
        assert middle not in done.output.encode()
    as_json = ask(site, device, "--address", "kms.example", "--json")
    assert json.loads(as_json.output) == {"for": device, "text": done.output}


@pytest.mark.parametrize("tls12", [False, True])
def test_a_snippet_for_skip_says_in_which_version_of_tls_the_sites_key_opens_the_door(site, tls12):
    site.set(agent=None)
    document = site.document()
    document["skip"] = {
        "psk_listen": "192.0.2.7:8446",
        "local_system_id": "key-provider-a",
        "remote_systems": {"key-provider-b": ["sae-b"]},
        "psk": {"router-a": {"sae": "sae-a", "file": "router-a.psk", "tls12": tls12}},
        "tls12": tls12,
    }
    site.write(document)
    done = ask(site, "cisco-skip", "--sae", "sae-a", "--peer-sae", "sae-b")
    assert done.exit_code == 0, done.output
    assert "psk id router-a key hex <PSK>" in done.output
    assert f"opens the door in TLS {'1.2' if tls12 else '1.3'}" in done.output


def test_an_address_that_no_device_can_reach_stays_blank(site):
    assert "<ADDRESS-OF-THE-KEY-MANAGER>" in ask(site, "fortigate").output
    site.set(kme__listen="192.0.2.7:8443")
    assert 'set server "192.0.2.7"' in ask(site, "fortigate").output
    site.set(kme__listen="[2001:db8::7]:8443")
    assert 'address="[2001:db8::7]:8443"' in ask(site, "mikrotik").output


@pytest.mark.parametrize(
    "text", ['kms"; execute reboot; "', "kms\nend", "kms example", "$(reboot)", "-x", "a" * 64, "kms]"], ids=repr
)
def test_a_value_that_a_device_could_read_as_more_than_a_word_is_refused(site, text):
    done = ask(site, "fortigate", "--address", text)
    assert done.exit_code == 1
    assert "cannot be written into a device's configuration" in done.output
    assert len(done.output.strip().splitlines()) == 1
    site.set(kme__id=text)
    assert ask(site, "mikrotik", "--address", "kms.example").exit_code == 1


@pytest.mark.parametrize(
    ("device", "more", "named"),
    [
        ("toaster", (), "fortigate"),
        ("strongswan", (), "strongswan table"),
        ("wireguard", (), "wireguard table"),
        ("cisco-skip", (), "[skip]"),
        ("fortigate", ("--sae", "sae-x"), "sae-a with sae-b"),
    ],
    ids=str,
)
def test_what_the_site_cannot_say_is_refused_in_one_line(site, device, more, named):
    done = ask(site, device, *more)
    assert done.exit_code == 1
    assert named in done.output
    assert len(done.output.strip().splitlines()) == 1


def test_a_pair_other_than_the_agents_is_named(site):
    site.set(agent=None)
    done = ask(site, "fortigate", "--sae", "sae-a")
    assert done.exit_code == 0, done.output
    assert 'set comment "peer SAE sae-b"' in done.output
