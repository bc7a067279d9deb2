"""`heliograph audit verify`: a site's log and a copy of it, whole or not."""

import json
import shutil

import pytest
from registered_sites import refused, run, two_sites

from heliograph.site.config import read_site


@pytest.fixture
def config():
    with two_sites("psk") as directory:
        yield read_site(directory / "a" / "SITE.toml")


def test_a_whole_log_shows_who_did_what(config):
    done = run("audit", "verify", config.toml)
    assert done.exit_code == 0, done.output
    assert "registration, the rehearsal" in done.stdout
    assert "1 lines, whole and in order" in done.stdout
    document = json.loads(run("audit", "verify", config.toml, "--json").stdout)
    assert document["head"] in done.stdout
    assert document["head"].encode() in config.audit.read_bytes()
    assert (document["lines"], document["end_checked"]) == (1, True)


def test_a_copy_of_the_log_alone_is_checked_but_for_its_end(config, tmp_path):
    shutil.copy(config.audit, tmp_path / "copy.jsonl")
    done = run("audit", "verify", tmp_path / "copy.jsonl")
    assert done.exit_code == 0, done.output
    assert "end is unchecked" in done.stdout
    (tmp_path / "copy.jsonl").write_bytes(config.audit.read_bytes().replace(b"site-b", b"site-x"))
    refused(run("audit", "verify", tmp_path / "copy.jsonl"), "line 1 was changed")


def test_a_site_whose_second_file_is_gone_is_refused(config):
    config.audit.with_name("audit.jsonl.head").unlink()
    refused(run("audit", "verify", config.toml), "audit.jsonl.head", "missing")
    as_json = run("audit", "verify", config.toml, "--json")
    assert json.loads(as_json.stdout)["error"]["code"] == "AuditTampered"


@pytest.mark.parametrize("name", ["absent.jsonl", "absent.toml"])
def test_what_is_absent_is_named(tmp_path, name):
    refused(run("audit", "verify", tmp_path / name), name)
    assert run("audit", "verify").exit_code == 2


def test_a_site_without_an_act_has_no_log_yet(config):
    for path in (config.audit, config.audit.with_name("audit.jsonl.head")):
        path.unlink()
    refused(run("audit", "verify", config.toml), "no audit log")
    config.audit.with_name("audit.jsonl.head").write_text("{")
    refused(run("audit", "verify", config.toml), "audit.jsonl.head")
