"""Real OpenPGP keys, made by GnuPG once for each module of tests."""

import shutil

import pytest

from heliograph.testing.openpgp_web import OpenPgpWeb


@pytest.fixture(scope="module")
def web():
    if shutil.which("gpg") is None:
        pytest.skip("gpg is not installed: apt-get install -y gnupg")
    pytest.importorskip("pysequoia", reason="pysequoia is not installed: pip install 'heliograph[pgp]'")
    with OpenPgpWeb() as web:
        yield web
