"""SITE.toml names exactly the credentials that the registered bootstrap uses; init writes it so."""

import dataclasses
import json
import tomllib

import pytest
from site_on_disk import SiteOnDisk
from typer.testing import CliRunner

from heliograph.authentication.bootstrap import METHODS
from heliograph.authentication.registration import anchor_kinds
from heliograph.cli.main import app
from heliograph.errors import ConfigurationError
from heliograph.site.config import read_registration, read_site
from heliograph.site.setup import SiteSetup, set_up_site
from heliograph.testing.links import example_registration
from heliograph.vault.randomness import SystemRandomness

PAIR = {"certificate": "identity/x.pem", "key": "identity/x.key"}
ENTRIES = {"psk": ("book", "psk.book"), "pki": ("pki", PAIR), "openpgp": ("openpgp", PAIR)}


def make(directory, method):
    setup = SiteSetup("site-a", "transmitter", "kme-a", "kme-b", "127.0.0.1:8443", "sae-a", "simulated-transmitter",
                      {"address": "unix:/x"}, dial="127.0.0.1:7001")  # fmt: skip
    registration = dataclasses.replace(example_registration(), bootstrap=method)
    set_up_site(directory, setup, registration, SystemRandomness())
    return SiteOnDisk(directory)


@pytest.mark.parametrize("method", METHODS)
def test_what_is_set_up_names_what_the_bootstrap_needs_and_no_more(tmp_path, method):
    site = make(tmp_path / "site", method)
    config = read_site(site.toml)
    link = tomllib.loads(site.toml.read_text())["link"]
    assert {kind for kind, (entry, _) in ENTRIES.items() if entry in link} == set(anchor_kinds(method))
    assert config.registration.bootstrap == method
    assert config.peer == "site-b"
    assert (config.trust, config.audit) == (site.directory / "trust", site.directory / "audit.jsonl")
    assert (site.directory / "identity").exists() == (method != "psk")


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", ENTRIES)
def test_a_credential_too_few_or_too_many_is_refused(tmp_path, method, kind):
    site = make(tmp_path / "site", method)
    entry, value = ENTRIES[kind]
    needed = kind in anchor_kinds(method)
    site.set(**{f"link__{entry}": None if needed else value})
    says = "missing" if needed else "remove it"
    with pytest.raises(ConfigurationError, match=rf"SITE\.toml: \[link.*{says}") as caught:
        read_site(site.toml)
    assert repr(method) in str(caught.value)
    assert entry in str(caught.value)


@pytest.mark.parametrize(
    ("method", "entry", "value", "says"),
    [
        ("pki", "link__pki", {**PAIR, "keys": "x"}, "keys"),
        ("pki", "link__pki", {"certificate": "x"}, "key"),
        ("pki", "link__pki", {"certificate": "x", "key": "x"}, "different files"),
        ("pki", "link__pki", {**PAIR, "root": "kek"}, "different files"),
        ("openpgp", "link__openpgp", {**PAIR, "root": "x"}, "root"),
        ("openpgp", "link__openpgp", {**PAIR, "key": ""}, "name a file"),
        ("psk", "link__trust", "", "name a file"),
        ("psk", "link__trust", "kek", "different files"),
        ("psk", "link__trust", 7, "trust"),
        ("psk", "link__book", "audit.jsonl", "different files"),
    ],
)
def test_an_entry_that_cannot_be_right_is_refused(tmp_path, method, entry, value, says):
    site = make(tmp_path / "site", method)
    site.set(**{entry: value})
    with pytest.raises(ConfigurationError, match=says):
        read_site(site.toml)


@pytest.mark.parametrize(("entry", "value"), [("bootstrap", "tofu"), ("mac", "crc32"), ("bootstrap", None)])
def test_a_registration_with_an_unknown_method_is_refused(tmp_path, entry, value):
    site = make(tmp_path / "site", "psk")
    document = json.loads(site.registration.read_bytes())
    site.registration.write_text(json.dumps(document | {entry: value}))
    with pytest.raises(ConfigurationError, match=rf"link\.json: .*{entry}"):
        read_registration(site.registration)


@pytest.mark.parametrize("method", METHODS)
def test_both_sites_plan_one_record_with_each_bootstrap(tmp_path, method):
    ends = {"site-a": ("site-b", "transmitter"), "site-b": ("site-a", "receiver")}
    digests = set()
    for name, (peer, role) in ends.items():
        words = ["site", "init", str(tmp_path / name), "--name", name, "--peer", peer, "--role", role]
        done = CliRunner().invoke(app, [*words, "--bootstrap", method])
        assert done.exit_code == 0, done.output
        assert f"heliograph site register {tmp_path / name / 'SITE.toml'}" in done.stdout
        digests.add(read_site(tmp_path / name / "SITE.toml").registration.digest())
    assert len(digests) == 1


def test_a_bootstrap_that_does_not_exist_is_wrong_usage(tmp_path):
    words = ["site", "init", str(tmp_path / "s"), "--name", "a", "--peer", "b", "--role", "receiver"]
    assert CliRunner().invoke(app, [*words, "--bootstrap", "tofu"]).exit_code == 2
    assert not (tmp_path / "s").exists()
