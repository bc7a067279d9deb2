"""pki's contract: what each command writes and reports, and one line for whatever it cannot do."""

import json
from datetime import UTC, datetime

import pytest
from typer.testing import CliRunner

from heliograph.cli.main import app
from heliograph.errors import AnchorRefused
from heliograph.vault.x509_keys import X509Signer
from heliograph.vault.x509_trust import LINK_AUTHENTICATION, X509Trust, anchor_fingerprint


def run(*words):
    return CliRunner().invoke(app, ["pki", *map(str, words)])


def report(*words):
    done = run(*words, "--json")
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


@pytest.fixture
def ca(tmp_path):
    report("init", tmp_path / "ca", "--name", "rehearsal", "--algorithm", "ed25519")
    return tmp_path / "ca"


def test_the_commands_together_make_what_a_link_accepts_and_then_refuses(ca, tmp_path):
    made = report("issue", ca, "site b", "--out", tmp_path / "b", "--algorithm", "ml-dsa-65")
    listed = report("crl", ca)
    asked = report("ocsp", ca, made["chain"], "--out", tmp_path / "b.ocsp")
    credential = X509Signer(tmp_path / "b/link.pem", tmp_path / "b/link.key").credential
    trust = X509Trust(ca / "root.pem", "site b", ca / "crl.pem", tmp_path / "b.ocsp")
    now = datetime.now(UTC).timestamp()
    assert (listed["crl"], asked["ocsp"]) == (str(ca / "crl.pem"), str(tmp_path / "b.ocsp"))
    assert trust.accept(credential, now).algorithm == "ml-dsa-65"
    assert report("revoke", ca, made["chain"]) == {"revoked": made["serial"]}
    assert report("revoke", ca, made["serial"]) == {"revoked": made["serial"]}
    report("crl", ca, "--out", tmp_path / "fresh.pem", "--days", 1)
    with pytest.raises(AnchorRefused, match="was revoked"):
        X509Trust(ca / "root.pem", "site b", tmp_path / "fresh.pem").accept(credential, now)
    report("ocsp", ca, made["chain"], "--out", tmp_path / "b.ocsp")
    with pytest.raises(AnchorRefused, match="was revoked"):
        trust.accept(credential, now)


def test_show_says_what_a_person_compares(ca, tmp_path):
    made = report("issue", ca, "site b", "--out", tmp_path / "b")
    chain = report("show", made["chain"])
    assert chain["anchor_fingerprint"] is None
    leaf, intermediate = chain["certificates"]
    assert leaf["names"] == ["site:site%20b"]
    assert (leaf["algorithm"], leaf["serial"], leaf["is_ca"]) == ("ed25519", made["serial"], False)
    assert (leaf["key_usage"], leaf["extended_key_usage"]) == (
        ["digital_signature"],
        [LINK_AUTHENTICATION.dotted_string],
    )
    assert (intermediate["is_ca"], intermediate["path_length"]) == (True, 0)
    mark = anchor_fingerprint(ca / "root.pem")
    assert report("show", ca / "root.pem")["anchor_fingerprint"] == mark
    assert mark in run("show", ca / "root.pem").stdout
    text = run("show", made["chain"]).stdout
    for one in chain["certificates"]:
        for field in ("subject", "issuer", "serial", "sha256", "not_after"):
            assert one[field] in text
    assert "compare this fingerprint" not in text


def test_the_fingerprint_of_init_is_the_one_to_compare(tmp_path):
    said = run("init", tmp_path / "ca", "--name", "x", "--algorithm", "ecdsa-p384-sha384").stdout
    assert said.splitlines()[-1].strip() == anchor_fingerprint(tmp_path / "ca/root.pem")


def test_the_default_is_a_post_quantum_chain_of_three_levels(tmp_path):
    made = report("init", tmp_path / "ca", "--name", "x")
    assert made["algorithm"] == "ml-dsa-65"
    chain = report("issue", tmp_path / "ca", "b", "--out", tmp_path / "b")["chain"]
    assert [one["signature"] for one in report("show", chain)["certificates"]] == ["ML-DSA-65"] * 2


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["init", "ca", "--name", "again"], "never overwritten"),
        (["init", "new", "--name", "x", "--algorithm", "rsa-2048"], "'rsa-2048' is no algorithm here"),
        (["init", "new", "--name", "a\nb"], "use printable text"),
        (["issue", "absent", "b", "--out", "b"], r"root.pem: No such file"),
        (["issue", "ca", "b", "--out", "b", "--days", "5000"], "would outlive its CA"),
        (["issue", "ca", "b", "--out", "b", "--algorithm", "ed448"], "'ed448' is no algorithm here"),
        (["issue", "ca", "b", "--out", "ca/root.pem/b"], "name a directory this user can write"),
        (["revoke", "ca", "ffff"], "issued no such certificate"),
        (["revoke", "ca", "not-hex"], "no serial number in hexadecimal"),
        (["revoke", "ca", "ca/root.pem"], "issued no such certificate"),
        (["ocsp", "ca", "ca/root.pem", "--out", "x"], "issued no such certificate"),
        (["crl", "ca", "--out", "absent/crl.pem"], "name a directory this user can write"),
        (["show", "ca/root.key"], "holds no sound PEM certificates"),
        (["show", "absent"], "No such file"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_what_cannot_be_done_is_one_line_and_exit_1(ca, tmp_path, monkeypatch, words, says):
    assert ca.exists()
    monkeypatch.chdir(tmp_path)
    done = run(*words, "--json")
    assert done.exit_code == 1
    assert len(done.stderr.splitlines()) == 1
    error = json.loads(done.stdout)["error"]
    assert error["code"] == "ConfigurationError"
    assert says in error["message"]
    assert done.stderr == f"heliograph: {error['message']}\n"


@pytest.mark.parametrize(
    "words", [["init", "x"], ["issue", "ca", "b"], ["init", "x", "--name", "y", "--days", "0"], ["crl"]]
)
def test_wrong_usage_is_exit_2(words):
    assert run(*words).exit_code == 2


def test_no_private_key_is_ever_printed(ca, tmp_path):
    said = run("issue", ca, "b", "--out", tmp_path / "b").output
    said += run("show", tmp_path / "b/link.pem").output + run("crl", ca).output
    secret = (tmp_path / "b/link.key").read_text().splitlines()[1]
    assert secret not in said
    assert "PRIVATE" not in said
