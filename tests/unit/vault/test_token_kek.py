"""A key-encryption key in a PKCS#11 token: the file alone opens nothing, nor does the token with another PIN."""

from pathlib import Path

import pytest
from softhsm import LABEL, PIN, soft_token

from heliograph.errors import ConfigurationError
from heliograph.vault.randomness import SystemRandomness
from heliograph.vault.tokenkek import Token, TokenKek


@pytest.fixture
def token(tmp_path, monkeypatch):
    return Token(soft_token(tmp_path, monkeypatch), LABEL)


def test_the_token_opens_what_was_sealed_and_keeps_its_own_key(token, tmp_path):
    import pkcs11  # noqa: PLC0415

    path = tmp_path / "kek"
    sealed = TokenKek.create(path, token, PIN.encode(), SystemRandomness()).seal(b"secret", b"context")
    again = TokenKek(path, token, PIN.encode(), SystemRandomness())
    assert again.unseal(sealed, b"context") == b"secret"
    assert again.kind == "pkcs11"
    assert path.stat().st_mode & 0o777 == 0o600
    with pkcs11.lib(str(token.module)).get_token(token_label=LABEL).open(user_pin=PIN) as session:
        (key,) = session.get_objects()
        assert key[pkcs11.Attribute.EXTRACTABLE] is False
        assert key[pkcs11.Attribute.NEVER_EXTRACTABLE] is True
        with pytest.raises(pkcs11.AttributeSensitive):
            key[pkcs11.Attribute.VALUE]


def test_a_wrong_pin_token_library_or_file_is_one_line(token, tmp_path):
    path = tmp_path / "kek"
    TokenKek.create(path, token, PIN.encode(), SystemRandomness())
    other = tmp_path / "other"
    other.write_bytes(path.read_bytes().replace(b'"sealed":"', b'"sealed":"00'))
    other.chmod(0o600)
    for where, what, pin, why in (
        (path, token, b"000000", "wrong PIN"),
        (path, Token(token.module, "no such"), PIN.encode(), "no token of that label"),
        (path, Token(Path("/absent.so"), LABEL), PIN.encode(), "no such library"),
        (path, Token(Path(__file__), LABEL), PIN.encode(), "invalid ELF header"),
        (path, token, b"\xff", "UTF-8"),
        (other, token, PIN.encode(), "does not open"),
    ):
        with pytest.raises(ConfigurationError, match=why) as refusal:
            TokenKek(where, what, pin, SystemRandomness())
        assert "\n" not in str(refusal.value)


def test_a_destroyed_wrapping_key_opens_no_copy_of_the_file(token, tmp_path):
    path = tmp_path / "kek"
    TokenKek.create(path, token, PIN.encode(), SystemRandomness())
    TokenKek.destroy(path, token, PIN.encode())
    with pytest.raises(ConfigurationError, match="does not hold this site's wrapping key"):
        TokenKek(path, token, PIN.encode(), SystemRandomness())
