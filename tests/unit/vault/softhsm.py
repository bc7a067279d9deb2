"""A SoftHSM token of this test's own, or the reason why there is none."""

import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path

import pytest

MODULES = ("/usr/lib/softhsm/libsofthsm2.so", "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so")
PIN, LABEL = "740612", "heliograph test"


def soft_token(directory, monkeypatch):
    """Initialise a token below ``directory``. Returns the module's path."""
    module = next((path for path in MODULES if Path(path).is_file()), None)
    if module is None or shutil.which("softhsm2-util") is None:
        pytest.skip("SoftHSM is not installed: apt-get install -y softhsm2")
    if find_spec("pkcs11") is None:
        pytest.skip("python-pkcs11 is not installed: pip install 'heliograph[hsm]'")
    (directory / "tokens").mkdir()
    configuration = directory / "softhsm2.conf"
    configuration.write_text(f"directories.tokendir = {directory / 'tokens'}\nobjectstore.backend = file\n")
    monkeypatch.setenv("SOFTHSM2_CONF", str(configuration))
    command = ["softhsm2-util", "--init-token", "--free", "--label", LABEL, "--so-pin", "990011", "--pin", PIN]
    subprocess.run(command, check=True, capture_output=True)
    return Path(module)
