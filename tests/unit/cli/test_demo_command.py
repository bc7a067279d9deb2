"""The demo's contract: fields, types, exit codes, and one line for whatever cannot be done."""

import hashlib
import json
import os
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from heliograph.cli.main import app

NUMBER = (int, float)
FIELDS = {
    "link": {
        "protocol": str, "distance_km": NUMBER, "blocks": int, "qber_z": float, "qber_x": float, "sifted_bits": int,
        "secret_key_bits": int, "secret_key_rate_bps": NUMBER, "eps_total": float, "policy": str, "theorem": str,
        "randomness": str, "blocks_discarded": int, "secret_key_rate_wall_bps": NUMBER, "assumptions": list,
    },
    "authentication": {"bootstrap": str, "bits_spent": int, "bits_refilled": int, "pool_bits": int, "peer": dict},
    "kme": {"keys_delivered": int},
    "traffic": {
        "encryptor": str, "payload_bytes": int, "sha256_sent": str, "sha256_received": str, "rekeys": int,
        "cleartext_bytes_seen": int,
    },
    "timing": {"first_key_s": NUMBER, "first_encrypted_byte_s": NUMBER, "total_s": NUMBER},
    "processes": {"site_a": int, "site_b": int, "fibre": int},
}  # fmt: skip


def run(*arguments):
    return CliRunner().invoke(app, ["demo", *map(str, arguments)])


@pytest.mark.slow
def test_the_report_names_the_cipher_that_carried_the_payload():
    """A demo over TLS said that its payload had crossed under AES-256-GCM."""
    program = [sys.executable, "-m", "heliograph.cli.main", "demo", "--tunnel", "tls-psk", "--seed", "4", "--json"]
    done = subprocess.run(program, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    traffic = json.loads(done.stdout)["traffic"]
    assert traffic["encryptor"] == "built-in, TLS 1.3 (ChaCha20-Poly1305)"
    assert traffic["cleartext_bytes_seen"] == 0


@pytest.mark.slow
def test_the_report_has_the_promised_fields_and_the_payload_arrives(tmp_path):
    payload = tmp_path / "letter.bin"
    payload.write_bytes(os.urandom(3_000_001))
    program = [sys.executable, "-m", "heliograph.cli.main", "demo", str(payload), "--seed", "4", "--json"]
    done = subprocess.run(program, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    report = json.loads(done.stdout)
    for section, fields in FIELDS.items():
        for name, kind in fields.items():
            value = report[section][name]
            assert isinstance(value, kind), (section, name, value)
            assert not isinstance(value, bool)
    digest = hashlib.sha256(payload.read_bytes()).hexdigest()
    assert report["traffic"]["sha256_sent"] == report["traffic"]["sha256_received"] == digest
    assert report["traffic"]["payload_bytes"] == 3_000_001
    assert report["traffic"]["cleartext_bytes_seen"] == 0
    assert report["link"]["policy"] == "fixed"
    assert "1 decoy," in report["link"]["protocol"]
    assert report["link"]["theorem"] == "wiesemann2024"
    assert report["link"]["randomness"] == "computational"
    assert report["authentication"]["bootstrap"] == "psk"
    assert len({*report["processes"].values(), os.getpid()}) == 4
    assert 0 < report["timing"]["first_key_s"] <= report["timing"]["first_encrypted_byte_s"]
    assert report["timing"]["first_encrypted_byte_s"] < report["timing"]["total_s"]


@pytest.mark.slow
def test_a_file_of_one_byte_crosses_and_is_rekeyed_on_the_way(tmp_path):
    payload = tmp_path / "letter.bin"
    payload.write_bytes(b"x")
    program = [sys.executable, "-m", "heliograph.cli.main", "demo", str(payload), "--seed", "4", "--json"]
    done = subprocess.run(program, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    traffic = json.loads(done.stdout)["traffic"]
    assert traffic["sha256_sent"] == traffic["sha256_received"] == hashlib.sha256(b"x").hexdigest()
    assert traffic["rekeys"] > 0


@pytest.mark.slow
def test_two_decoys_carry_a_payload_and_the_report_names_their_theorem(tmp_path):
    payload = tmp_path / "letter.bin"
    payload.write_bytes(os.urandom(1_000_001))
    program = [sys.executable, "-m", "heliograph.cli.main", "demo", str(payload), "--seed", "4"]
    kept = tmp_path / "kept"
    arguments = ["--decoys", "2", "--json", "--keep", str(kept)]
    done = subprocess.run([*program, *arguments], capture_output=True, text=True, timeout=180, check=False)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert "2 decoys," in report["link"]["protocol"]
    assert report["link"]["theorem"] == "lim2014-serfling"
    assert any("ADR 0019" in line for line in report["link"]["assumptions"])
    assert report["link"]["blocks"] > 0
    assert report["traffic"]["sha256_sent"] == report["traffic"]["sha256_received"]
    links = [(kept / where / "link.json").read_bytes() for where in ("a", "b")]
    assert links[0] == links[1]
    for parameters in json.loads(links[0])["parameters"]:
        assert len(parameters["light"]["intensities"]) == 3
        assert parameters["theorem"] == "lim2014-serfling"


@pytest.fixture
def files(tmp_path):
    (tmp_path / "empty").touch()
    (tmp_path / "taken").mkdir()
    (tmp_path / "payload").write_bytes(b"payload")
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["{}/absent"], "No such file"),
        (["{}/taken"], "Is a directory"),
        (["{}/empty"], "empty"),
        (["--seconds", "-1"], "--seconds"),
        (["--seconds", "0"], "--seconds"),
        (["--seconds", "nan"], "--seconds"),
        (["--distance-km", "-1"], "--distance-km"),
        (["--distance-km", "nan"], "--distance-km"),
        (["--distance-km", "400"], "no key"),
        (["--decoys", "3"], "--decoys"),
        (["--decoys", "0"], "--decoys"),
        (["--keep", "{}/taken"], "--keep"),
        (["--keep", "{}/payload/below"], "--keep"),
        (["--seed", "-5"], "seed"),
    ],
)
@pytest.mark.parametrize("as_json", [False, True])
def test_what_cannot_be_done_is_refused_in_one_line(files, arguments, says, as_json):
    given = [word.format(files) for word in arguments]
    done = run(*given, *(["--json"] if as_json else []))
    assert done.exit_code == 1, done.output
    lines = [line for line in done.stderr.splitlines() if line]
    assert len(lines) == 1, lines
    assert lines[0].startswith("heliograph: ")
    assert says in lines[0]
    if as_json:
        error = json.loads(done.stdout)["error"]
        assert error["code"] == "ConfigurationError"
        assert error["message"] == lines[0].removeprefix("heliograph: ")
    else:
        assert done.stdout == ""


@pytest.mark.parametrize("arguments", [["--bootstrap", "magic"], ["--seconds", "soon"], ["a", "b"], ["--no-such"]])
def test_wrong_usage_is_exit_2(arguments):
    assert run(*arguments).exit_code == 2
