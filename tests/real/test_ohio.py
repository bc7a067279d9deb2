"""The recorded three-state decoy runs: every reading of a row, a column and a number is checked against the numbers.

The recordings are no part of the repository: without $HELIOGRAPH_DATA or ../shared/data the tests on them skip. The
others use a made-up file with known counts.
"""

import importlib.util
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.io import loadmat, savemat

ROOT = Path(__file__).parents[2]
DATA = Path(os.environ.get("HELIOGRAPH_DATA", ROOT / "../shared/data")) / "ohio"
TOOL = ROOT / "tools/ohio_counts.py"
FILES = sorted(DATA.glob("*.mat"))
WITH_TOTAL = ["CarRun1Apr2_70Mph", "CarRun1and2Apr2_70Mph", "TableTopRun3", "TableTopSmall"]

recorded = pytest.mark.skipif(not FILES, reason=f"the recorded decoy-state counts are not in {DATA}")


def load_tool():
    spec = importlib.util.spec_from_file_location("ohio_counts", TOOL)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


ohio = load_tool()


def named(name):
    return DATA / f"ohioDataVarsObs{name}.mat"


def test_the_recordings_are_looked_for_where_the_readme_of_the_data_says():
    assert Path(ohio.DEFAULT).resolve() == DATA.resolve()


@recorded
@pytest.mark.parametrize("name", WITH_TOTAL)
def test_the_rows_are_whole_counts_that_add_up_to_the_files_own_total(name):
    rows, total = ohio.read_rows(named(name))
    assert len(rows) == 11
    assert total == int(loadmat(named(name))["totalSignals"].item())
    assert sum(row.pulses for row in rows) == total


@recorded
@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem.removeprefix("ohioDataVarsObs"))
def test_counts_reproduce_every_recorded_frequency(path):
    content = loadmat(path)
    (table,) = [content[name] for name in content if name.startswith("ohioData")]
    rows, _ = ohio.read_rows(path)
    filled = [i for i in range(12) if table[i].any()]
    assert filled == [0, 1, *range(3, 12)], "general has no H"
    for index, row in zip(filled, rows, strict=True):
        np.testing.assert_allclose(np.array(row.patterns) / row.pulses, table[index], rtol=4e-16, atol=0)
        assert (row.intensity, row.state) == (ohio.INTENSITIES[index // 3], "RLH"[index % 3])


@recorded
@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem.removeprefix("ohioDataVarsObs"))
def test_a_state_fires_its_own_detector_and_the_other_basis_evenly(path):
    rows, total = ohio.read_rows(path)
    assert ohio.check(rows, total) == []
    alone = {x: {y for y in "VHLR" if y != x} for x in "VHLR"}
    for row in rows:
        if row.intensity == "decoy 2":
            continue
        seen = {x: row.count(clicked=x, silent="".join(alone[x])) for x in "VHLR"}
        own, opposite, others = {"R": ("R", "L", "VH"), "L": ("L", "R", "VH"), "H": ("H", "V", "LR")}[row.state]
        assert seen[own] > 10 * seen[opposite]
        assert 1 / 2.5 < seen[others[0]] / seen[others[1]] < 2.5


@recorded
@pytest.mark.parametrize("name", WITH_TOTAL)
def test_the_nine_intensities_belong_to_the_rows_in_their_order(name):
    """The gains' ratio follows the intensities' in the order read, and less well in every other order of the states."""
    rows, _ = ohio.read_rows(named(name))
    by_name = {(row.intensity, row.state): row for row in rows}

    def seen(state):
        dark = math.log1p(-by_name["decoy 2", state].gain)
        signal, weaker = (math.log1p(-by_name[i, state].gain) - dark for i in ("signal", "decoy 1"))
        return weaker / signal

    def told(state):
        return by_name["decoy 1", state].mean_photons / by_name["signal", state].mean_photons

    def distance(order):
        return sum(abs(math.log(seen(a) / told(b))) for a, b in zip("RLH", order, strict=True))

    others = [distance(order) for order in ("RHL", "LRH", "LHR", "HRL", "HLR")]
    assert distance("RLH") < min(others)
    assert distance("RLH") < 0.12


@recorded
@pytest.mark.parametrize("name", WITH_TOTAL)
def test_the_three_probabilities_are_the_shares_of_the_rows_after_general(name):
    rows, _ = ohio.read_rows(named(name))
    told = loadmat(named(name), squeeze_me=True)["decoyProbs"]
    pulses = [sum(r.pulses for r in rows if r.intensity == i) for i in ohio.INTENSITIES[1:]]
    sigma = 4 * math.sqrt(0.25 / sum(pulses))
    assert [n / sum(pulses) for n in pulses] == pytest.approx(list(told), abs=max(sigma, 1e-3))


@recorded
def test_the_gains_and_error_rates_of_the_table_top_run():
    """Counted here once more, straight from the columns: 1 is R, 2 is L, 4 is H, 8 is V."""
    table = loadmat(named("TableTopRun3"))["ohioData"]
    rates = {(r.intensity, r.state): r for r in map(ohio.rate, ohio.read_rows(named("TableTopRun3"))[0])}
    for row, state, right, wrong in ((3, "R", 1, 2), (4, "L", 2, 1), (5, "H", 4, 8)):
        f = table[row]
        share = (f[wrong] + f[right + wrong] / 2) / (f[right] + f[wrong] + f[right + wrong])
        assert rates["signal", state].error_rate == pytest.approx(share, rel=1e-9)
        assert rates["signal", state].gain == pytest.approx(1 - f[0], rel=1e-9)
    got = [round(rates["signal", s].error_rate, 4) for s in "RLH"]
    assert got == [0.0449, 0.0167, 0.0286]
    key = [rates["signal", s] for s in "RL"]
    pooled = sum(r.errors for r in key) / sum(r.matched for r in key)
    assert pooled == pytest.approx(0.0310, abs=5e-5)
    assert 0.4 < rates["decoy 2", "R"].error_rate < 0.65, "next to no light: errors are coin flips"


@recorded
def test_the_command_prints_every_recording_and_stops_before_a_key():
    done = subprocess.run(
        [sys.executable, TOOL, DATA, "--json"], capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    report = json.loads(done.stdout)
    assert len(report["recordings"]) == len(FILES) == 7
    assert all(len(r["rates"]) == 11 and r["against"] == [] for r in report["recordings"])
    assert report["claim"].startswith("no key length")
    assert "secret" not in done.stdout


def made_up(path, **change):
    rng = np.random.default_rng(3)
    table, pulses = np.zeros((12, 16)), []
    for row in range(12):
        if row == 2:
            continue
        own = {0: 1, 1: 2, 2: 4}[row % 3]
        weight = np.full(16, 1e-7)
        weight[[1, 2, 4, 8]] = 1e-4
        weight[own] = (0.02, 0.02, 0.004, 5e-5)[row // 3]
        weight[0] = 1 - weight[1:].sum()
        counts = rng.multinomial(10**7 + row, weight)
        pulses.append(int(counts.sum()))
        table[row] = counts / counts.sum()
    order = np.array([[int(f"{i:04b}") for i in range(16)]])
    content = {"ohioData": table, "ohioOrder": order, "totalSignals": sum(pulses), **change}
    savemat(path, {name: value for name, value in content.items() if value is not None})
    return table, pulses


def test_counts_come_back_exactly_from_frequencies(tmp_path):
    _, pulses = made_up(tmp_path / "made.mat")
    rows, total = ohio.read_rows(tmp_path / "made.mat")
    assert total == sum(pulses)
    assert [row.pulses for row in rows] == pulses
    assert ohio.check(rows, total) == []
    assert all(r.mean_photons is None for r in rows)


def test_a_reading_that_the_numbers_contradict_is_said(tmp_path):
    table, _ = made_up(tmp_path / "made.mat")
    made_up(tmp_path / "swapped.mat", ohioData=table[[1, 0, *range(2, 12)]])
    rows, total = ohio.read_rows(tmp_path / "swapped.mat")
    assert any("general R" in line for line in ohio.check(rows, total))
    made_up(tmp_path / "short.mat", totalSignals=10**9 + 7)
    assert any("the file says" in line for line in ohio.check(*ohio.read_rows(tmp_path / "short.mat")))
    means = [0.4, 0.4, 0.4, 0.02, 0.02, 0.02, 0.001, 0.001, 0.001]
    made_up(tmp_path / "means.mat", intensities=means)
    assert any("gains in the ratio" in line for line in ohio.check(*ohio.read_rows(tmp_path / "means.mat")))


@pytest.mark.parametrize("case", ["text", "other table", "other order", "no counts", "absent"])
def test_what_is_no_such_recording_is_refused_in_one_line(tmp_path, case):
    path = tmp_path / "made.mat"
    if case == "text":
        path.write_text("not MATLAB")
    elif case == "other table":
        made_up(path, ohioData=np.eye(3))
    elif case == "other order":
        made_up(path, ohioOrder=np.arange(16)[None, :])
    elif case == "no counts":
        made_up(path, ohioData=np.full((12, 16), math.pi / 1e5))
    done = subprocess.run([sys.executable, TOOL, path], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert "Traceback" not in done.stderr
