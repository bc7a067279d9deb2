"""A stolen disk does not open without the passphrase, and the file's costs cannot be lowered."""

import json
import os

import pytest

from heliograph.errors import ConfigurationError
from heliograph.vault.passphrasekek import Argon2Cost, PassphraseKek
from heliograph.vault.randomness import SystemRandomness

CHEAP = Argon2Cost(64 * 1024, 3, 1)  # the floor: a test has no day
PASSPHRASE = "correct h\u00f6rse battery".encode()


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("kek") / "kek"
    PassphraseKek.create(path, PASSPHRASE, SystemRandomness(), CHEAP)
    return path


def test_the_passphrase_opens_what_was_sealed_and_another_does_not(path):
    sealed = PassphraseKek(path, PASSPHRASE, SystemRandomness()).seal(b"secret", b"context")
    again = PassphraseKek(path, PASSPHRASE, SystemRandomness())
    assert again.unseal(sealed, b"context") == b"secret"
    assert again.kind == "passphrase"
    with pytest.raises(ConfigurationError, match="wrong passphrase") as refusal:
        PassphraseKek(path, b"another passphrase", SystemRandomness())
    assert "\n" not in str(refusal.value)


def test_the_same_words_typed_in_another_unicode_form_open_it(path):
    decomposed = "correct ho\u0308rse battery".encode()
    assert decomposed != PASSPHRASE
    PassphraseKek(path, decomposed, SystemRandomness())


@pytest.mark.parametrize("field", ["salt", "nonce", "sealed", "iterations", "lanes", "memory_kib"])
def test_an_altered_file_does_not_open(path, tmp_path, field):
    document = json.loads(path.read_bytes())
    value = document[field]
    document[field] = value + 8 if isinstance(value, int) else ("1" if value[0] == "0" else "0") + value[1:]
    other = tmp_path / "kek"
    other.write_text(json.dumps(document))
    other.chmod(0o600)
    with pytest.raises(ConfigurationError, match="wrong passphrase, or the file was altered"):
        PassphraseKek(other, PASSPHRASE, SystemRandomness())


@pytest.mark.parametrize(
    "change",
    [{"memory_kib": 1024}, {"iterations": 1}, {"memory_kib": 1 << 40}, {"salt": "00"}, {"more": 1}, {"sealed": "x"}],
    ids=str,
)
def test_costs_below_the_floor_and_damaged_files_are_refused_before_any_work(path, tmp_path, change):
    other = tmp_path / "kek"
    other.write_text(json.dumps(json.loads(path.read_bytes()) | change))
    other.chmod(0o600)
    with pytest.raises(ConfigurationError, match="damaged"):
        PassphraseKek(other, PASSPHRASE, SystemRandomness())


def test_a_short_passphrase_weak_costs_and_bytes_that_are_no_text_make_no_key(tmp_path):
    path = tmp_path / "kek"
    for passphrase, cost, why in (
        (b"too short", CHEAP, "at least 12"),
        (PASSPHRASE, Argon2Cost(1024, 1, 1), "at least"),
        (b"\xff" * 20, CHEAP, "UTF-8"),
    ):
        with pytest.raises(ConfigurationError, match=why):
            PassphraseKek.create(path, passphrase, SystemRandomness(), cost)
        assert not path.exists()


def test_a_plain_key_file_is_no_wrapped_one(tmp_path):
    path = tmp_path / "kek"
    path.write_bytes(os.urandom(32))
    path.chmod(0o600)
    with pytest.raises(ConfigurationError, match="holds no key of"):
        PassphraseKek(path, PASSPHRASE, SystemRandomness())
