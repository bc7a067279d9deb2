"""A secret file that cannot be written whole is not written at all."""

import resource
import signal

import pytest

from heliograph.errors import ConfigurationError
from heliograph.vault.owned_file import create_file, read_exactly


@pytest.fixture
def no_room():
    """No byte can be written to any file by this process, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8, hard))
    try:
        yield lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)


def test_a_disk_that_fills_up_leaves_no_half_of_a_secret_and_the_next_try_works(tmp_path, no_room):
    path = tmp_path / "kek"
    with pytest.raises(ConfigurationError, match="File too large; nothing was left there"):
        create_file(path, bytes(range(32)), "key-encryption key")
    assert list(tmp_path.iterdir()) == []
    no_room()
    create_file(path, bytes(range(32)), "key-encryption key")
    assert read_exactly(path, 32, "key-encryption key") == bytes(range(32))
