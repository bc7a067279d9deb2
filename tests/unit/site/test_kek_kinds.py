"""``site init --kek``: what protects the key-encryption key, told in SITE.toml and asked for once."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from heliograph.errors import ConfigurationError, SiteSealed
from heliograph.site.config import read_site
from heliograph.site.kek import open_kek, open_kek_unasked, open_kek_with
from heliograph.site.seal_entry import SealEntry

SOFTHSM = ("/usr/lib/softhsm/libsofthsm2.so", "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so")
PASSPHRASE = "correct horse battery"


def init(directory, *words, secret):
    """Run the command with the secret at descriptor 9 and no terminal."""
    command = [
        sys.executable,
        "-m",
        "heliograph.cli.main",
        "site",
        "init",
        str(directory),
        "--name",
        "a",
        "--peer",
        "b",
    ]
    shell = ["sh", "-c", 'exec "$@" 9<&0 </dev/null', "sh", *command, "--role", "transmitter", *words]
    return subprocess.run(
        shell, input=secret, capture_output=True, text=True, start_new_session=True, check=False, timeout=60
    )


def test_a_site_under_a_passphrase_opens_with_it_alone(tmp_path):
    done = init(tmp_path / "a", "--kek", "passphrase", "--secret", "fd:9", secret="too short\n")
    assert done.returncode == 1
    assert "at least 12 characters" in done.stderr
    done = init(tmp_path / "a", "--kek", "passphrase", "--secret", "fd:9", secret=PASSPHRASE + "\n")
    assert (done.returncode, done.stderr) == (0, "")
    toml = tmp_path / "a" / "SITE.toml"
    toml.write_text(toml.read_text().replace('"fd:9"', '"fd:98"'))
    config = read_site(toml)
    assert config.file.seal == SealEntry("passphrase", "fd:98")
    assert open_kek_with(config, PASSPHRASE.encode()).kind == "passphrase"
    assert open_kek_unasked(config) is None
    for path in (tmp_path / "a").rglob("*"):
        assert path.is_dir() or PASSPHRASE.encode() not in path.read_bytes()


def test_a_site_under_a_token_opens_with_its_pin(tmp_path, monkeypatch):
    module = next((path for path in SOFTHSM if Path(path).is_file()), None)
    if module is None:
        pytest.skip("SoftHSM is not installed: apt-get install -y softhsm2")
    pytest.importorskip("pkcs11", reason="python-pkcs11 is not installed: pip install 'heliograph[hsm]'")
    (tmp_path / "tokens").mkdir()
    (tmp_path / "hsm.conf").write_text(f"directories.tokendir = {tmp_path / 'tokens'}\n")
    monkeypatch.setenv("SOFTHSM2_CONF", str(tmp_path / "hsm.conf"))
    slot = ["softhsm2-util", "--init-token", "--free", "--label", "site a", "--so-pin", "990011", "--pin", "740612"]
    subprocess.run(slot, check=True, capture_output=True)
    words = ("--kek", "pkcs11", "--secret", "fd:9", "--pkcs11-module", module, "--pkcs11-token", "site a")
    done = init(tmp_path / "a", *words, secret="111111\n")
    assert done.returncode == 1
    assert "wrong PIN" in done.stderr
    assert list((tmp_path / "a").iterdir()) == []  # the place is as before: correct the PIN and go on
    done = init(tmp_path / "a", *words, secret="740612\n")
    assert (done.returncode, done.stderr) == (0, "")
    config = read_site(tmp_path / "a" / "SITE.toml")
    reader, writer = os.pipe()
    os.write(writer, b"740612\n")
    os.close(writer)
    toml = config.toml
    toml.write_text(toml.read_text().replace('"fd:9"', f'"fd:{reader}"'))
    assert open_kek(read_site(toml)).kind == "pkcs11"
    # Erased without the PIN: the files go, and the operator is told that the token's key is still there.
    (tmp_path / "a" / "store").mkdir(mode=0o700)
    erasing = ["store", "erase", str(toml), "--approver", "Ann", "--yes"]
    done = subprocess.run(
        [sys.executable, "-m", "heliograph.cli.main", *erasing],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        start_new_session=True,
        check=False,
    )
    assert done.returncode == 1
    assert "stays in the token" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "a" / "kek").exists()


@pytest.mark.parametrize(
    ("entry", "why"),
    [
        (SealEntry("pkcs11", token="a"), "module"),
        (SealEntry("pkcs11", module="m.so"), "token"),
        (SealEntry("passphrase", module="m.so"), "not allowed"),
        (SealEntry("passphrase", secret="env:PASS"), "terminal, fd:N or credential:/PATH"),
    ],
)
def test_entries_that_do_not_belong_together_are_refused(entry, why):
    with pytest.raises(ConfigurationError, match=why):
        entry.check()


def test_without_a_terminal_nobody_is_asked(tmp_path):
    done = init(tmp_path / "a", "--kek", "passphrase", secret="")
    assert done.returncode == 1
    assert "there is no terminal" in done.stderr
    assert SiteSealed.__mro__[1] is ConfigurationError  # every command's refusal
