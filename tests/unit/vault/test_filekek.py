import os

import pytest

from heliograph.errors import ConfigurationError, StoreUnavailable
from heliograph.vault.filekek import FileKek
from heliograph.vault.randomness import SystemRandomness


class StuckRandom:
    kind = "stuck"

    def draw(self, size):
        return b"\x55" * size


@pytest.fixture
def path(tmp_path):
    return tmp_path / "kek"


def test_a_secret_comes_back_in_its_context_only(path):
    kek = FileKek.create(path, SystemRandomness())
    sealed = kek.seal(b"secret of a segment", b"segment 1")
    assert FileKek(path, SystemRandomness()).unseal(sealed, b"segment 1") == b"secret of a segment"
    assert b"secret" not in sealed
    with pytest.raises(StoreUnavailable, match="not the key-encryption key"):
        kek.unseal(sealed, b"segment 2")


def test_no_flipped_bit_and_no_cut_goes_unnoticed(path):
    kek = FileKek.create(path, SystemRandomness())
    sealed = kek.seal(b"k" * 32, b"c")
    for place in range(len(sealed) * 8):
        altered = bytearray(sealed)
        altered[place // 8] ^= 1 << place % 8
        with pytest.raises(StoreUnavailable):
            kek.unseal(bytes(altered), b"c")
    for length in range(len(sealed)):
        with pytest.raises(StoreUnavailable):
            kek.unseal(sealed[:length], b"c")


def test_two_seals_differ_and_another_kek_opens_neither(path):
    kek = FileKek.create(path, SystemRandomness())
    other = FileKek.create(path.with_name("other"), SystemRandomness())
    first, second = kek.seal(b"x" * 32, b"c"), kek.seal(b"x" * 32, b"c")
    assert first != second
    with pytest.raises(StoreUnavailable):
        other.unseal(first, b"c")


def test_a_repeated_nonce_does_not_give_secrets_away(path):
    """A cloned machine may draw a nonce twice; the difference of two ciphertexts must not be that of the secrets."""
    kek = FileKek.create(path, StuckRandom())
    secrets = b"\x00" * 32, b"\xff" * 32
    first, second = (kek.seal(secret, b"c") for secret in secrets)
    assert first[:13] == second[:13]
    assert bytes(a ^ b for a, b in zip(first[13:45], second[13:45], strict=True)) != b"\xff" * 32


def test_the_key_file_is_for_its_owner_only_and_never_replaced(path):
    FileKek.create(path, SystemRandomness())
    content = path.read_bytes()
    assert path.stat().st_mode & 0o777 == 0o600
    assert len(content) == 32
    with pytest.raises(ConfigurationError, match="exists already"):
        FileKek.create(path, SystemRandomness())
    assert path.read_bytes() == content


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o622])
def test_a_key_file_that_others_reach_is_refused(path, mode):
    FileKek.create(path, SystemRandomness())
    path.chmod(mode)
    with pytest.raises(ConfigurationError, match=f"chmod 600 {path}"):
        FileKek(path, SystemRandomness())


@pytest.mark.parametrize("size", [0, 16, 31, 33, 64])
def test_a_key_file_of_another_size_is_refused(path, size):
    path.write_bytes(b"k" * size)
    path.chmod(0o600)
    with pytest.raises(ConfigurationError, match=f"holds {size} bytes, not 32"):
        FileKek(path, SystemRandomness())


def test_what_is_no_plain_file_is_refused_in_one_line(path):
    with pytest.raises(ConfigurationError, match="create it or correct the path"):
        FileKek(path, SystemRandomness())
    FileKek.create(path.with_name("real"), SystemRandomness())
    path.symlink_to(path.with_name("real"))
    with pytest.raises(ConfigurationError) as refusal:
        FileKek(path, SystemRandomness())
    assert "\n" not in str(refusal.value)
    os.mkfifo(path.with_name("pipe"))
    for other in (path.parent, path.with_name("pipe")):
        with pytest.raises(ConfigurationError, match="not a plain file"):
            FileKek(other, SystemRandomness())
    with pytest.raises(ConfigurationError):
        FileKek.create(path.parent / "no" / "where", SystemRandomness())
