"""FIBRE.toml and the exit codes of the fibre process."""

from __future__ import annotations

import socket
import subprocess
import sys

import pytest

from heliograph.errors import ConfigurationError
from heliograph.sim.config import read_config
from heliograph.sim.detectors import LIM_2014, dead_slots
from heliograph.sim.eve import InterceptResend

HEAD = 'transmitter = "unix:/tmp/hg-tx"\nreceiver = "tcp:127.0.0.1:7101"\n'
FIBRE = "[fibre]\ndistance_km = 25\n"


def written(folder, text):
    path = folder / "fibre.toml"
    path.write_text(text)
    return path


def run(*arguments):
    done = subprocess.run(
        [sys.executable, "-m", "heliograph.sim", *map(str, arguments)],
        capture_output=True,
        check=False,
        text=True,
        timeout=30,
    )
    return done.returncode, done.stdout, done.stderr


def test_a_short_file_means_the_defaults(tmp_path):
    config = read_config(written(tmp_path, HEAD + FIBRE))
    assert str(config.transmitter) == "unix:/tmp/hg-tx"
    assert str(config.receiver) == "tcp:127.0.0.1:7101"
    assert config.channel.detectors == LIM_2014
    assert config.channel.eta == pytest.approx(0.1 * 10**-0.5)
    assert config.attack is None
    assert not config.realtime
    assert config.lab_seed != read_config(written(tmp_path, HEAD + FIBRE)).lab_seed


def test_every_entry_is_used(tmp_path):
    text = (
        HEAD
        + "seed = 5\nrealtime = true\n[fibre]\ndistance_km = 10\nattenuation_db_per_km = 0.3\nreceiver_loss_db = 1\n"
        + "misalignment = 0.01\n[detectors]\ndead_time_s = 0\n[eve]\nattack = 'intercept-resend'\nfraction = 0.1\n"
        + "z_probability = 1\n"
    )
    config = read_config(written(tmp_path, text))
    assert (config.lab_seed, config.realtime) == (5, True)
    assert config.channel.fibre.transmittance == pytest.approx(10**-0.4)
    assert config.channel.detectors.dead_time_s == 0
    assert config.channel.detectors.efficiency == LIM_2014.efficiency
    assert config.attack == InterceptResend(0.1, 1.0)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("", "transmitter"),
        (HEAD, "fibre"),
        (HEAD + "[fibre]\n", "distance_km"),
        (HEAD + "[fibre]\ndistance_km = 'far'\n", "distance_km"),
        (HEAD + "[fibre]\ndistance_km = -1\n", "distance_km"),
        (HEAD + FIBRE + "lenght = 1\n", "lenght"),
        (HEAD + FIBRE + "[detectors]\nefficiency = 2\n", "efficiency"),
        (HEAD + FIBRE + "[detectors]\ndarkness = 2\n", "darkness"),
        (HEAD + FIBRE + "[eve]\nattack = 'blinding'\nfraction = 1\n", "blinding"),
        (HEAD + FIBRE + "[eve]\nattack = 'intercept-resend'\nfraction = 2\n", "fraction"),
        (HEAD + "seed = -1\n" + FIBRE, "seed"),
        (HEAD + "sead = 1\n" + FIBRE, "sead"),
        (HEAD + "= 1\n" + FIBRE, "line 3"),
        (HEAD.replace("unix:/tmp/hg-tx", "/tmp/hg-tx") + FIBRE, "transmitter"),
        (HEAD.replace("unix:/tmp/hg-tx", "tcp:127.0.0.1:7101") + FIBRE, "two addresses"),
    ],
)
def test_a_wrong_entry_is_named(tmp_path, text, named):
    with pytest.raises(ConfigurationError, match=r"fibre\.toml") as refusal:
        read_config(written(tmp_path, text))
    assert named in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_a_bad_configuration_is_one_line_and_exit_1(tmp_path):
    for path in (tmp_path / "missing.toml", written(tmp_path, HEAD + "[fibre]\ndistance_km = -1\n")):
        code, out, err = run(path)
        assert (code, out, err.count("\n")) == (1, "", 1)
        assert str(path) in err


def test_an_address_in_use_is_one_line_and_exit_1(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        head = f'transmitter = "unix:{tmp_path}/tx"\nreceiver = "tcp:127.0.0.1:{port}"\n'
        code, out, err = run(written(tmp_path, head + FIBRE))
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert str(port) in err
    assert not (tmp_path / "tx").exists()


def test_wrong_usage_is_exit_2():
    assert run()[0] == 2
    assert run("a.toml", "b.toml")[0] == 2


def test_the_dead_time_is_rounded_up_to_slots():
    assert dead_slots(1e-6, 1e9) == 1000
    assert dead_slots(1.0001e-6, 1e9) == 1001
    assert dead_slots(0.0, 1e9) == 0
    assert dead_slots(2e-7, 5e6) == 1
