"""A pair of sifted keys that others recorded: an entanglement-based link of JKU Linz, 100,000 bits.

The recording has no licence and stays where it is: in ``../shared/data`` beside the project, or in the folder that
``HELIOGRAPH_DATA`` names. Without it these tests skip.
"""

import json
import os
from pathlib import Path

import pytest
from typer.testing import CliRunner

from heliograph.cli.main import app
from heliograph.lab.recordings import read_recording

ROOT = Path(__file__).parents[2]
FOLDER = Path(os.environ.get("HELIOGRAPH_DATA", ROOT.parent / "shared" / "data")) / "sifted"
ALICE, BOB = FOLDER / "a.txt", FOLDER / "b.txt"

pytestmark = pytest.mark.skipif(
    not (ALICE.is_file() and BOB.is_file()), reason=f"the recorded pair of JKU Linz is not in {FOLDER}"
)


def distil(*arguments):
    return CliRunner().invoke(app, ["distill", *map(str, (ALICE, BOB, *arguments)), "--json"])


def test_the_recorded_pair_gives_the_same_key_on_both_sides(tmp_path):
    out = tmp_path / "a", tmp_path / "b"
    done = distil("--out-alice", out[0], "--out-bob", out[1])
    assert done.exit_code == 0, done.stderr
    report = json.loads(done.stdout)
    assert (report["sifted_bits"], report["qber"]) == (100_000, 0.02589)
    # Counted over the two files: 886 errors in 48,595 zeros, 1703 in 51,405 ones.
    assert report["error_given_0"] == 886 / 48_595
    assert report["error_given_1"] == 1703 / 51_405
    assert report["bias"] == pytest.approx(0.51405 - 0.5)
    assert report["bias_bob"] == pytest.approx(0.50588 - 0.5)
    assert report["bias_deducted_bits"] == 3999
    assert report["phase_error_upper"] == pytest.approx(0.06597, abs=1e-5)
    assert 1.03 < report["efficiency"] < 1.10
    # It differs with what Cascade disclosed, which differs with its permutations.
    assert 22_000 < report["secret_key_bits"] < 25_000
    assert (report["claim"], report["two_way_rule"], report["keys_equal"]) == ("conditional", "both", True)
    assert read_recording(out[0]) == read_recording(out[1])


@pytest.mark.slow
def test_the_recorded_pair_is_too_biased_to_be_strict():
    done = distil("--strict")
    assert done.exit_code == 1
    assert "8.9 sigma" in done.stderr
