"""Keys leave a site by no other way than the declared one: what is fetched inside the unit is on no network at all."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("boundary_capture.py")


@pytest.fixture(scope="module")
def captured(tmp_path_factory):
    """Return what a recorder on every interface of a namespace of its own saw, way by way."""
    if shutil.which("unshare") is None:
        pytest.skip("unshare is not installed: apt-get install -y util-linux")
    command = ["unshare", "--net", *([] if os.getuid() == 0 else ["--map-root-user"])]
    if subprocess.run([*command, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this user may not make a network namespace (unshare --net is refused)")
    directory = tmp_path_factory.mktemp("capture")
    run = subprocess.run(
        [*command, sys.executable, str(SCRIPT), str(directory)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


def test_the_recorder_sees_the_lan_way_and_no_key_in_it(captured):
    """Without this the two below would prove nothing."""
    lan = captured["certificate"]
    assert lan["right"]
    assert lan["frames"] > 10
    assert lan["in_clear"] == 0
    assert len(lan["listeners"]) == 1
    assert "lo" in captured["interfaces"]


@pytest.mark.parametrize("way", ["user", "in-process"])
def test_a_co_located_consumer_puts_nothing_on_any_network_loopback_included(captured, way):
    assert captured[way] == {"keys": 5, "right": True, "frames": 0, "in_clear": 0, "listeners": []}
