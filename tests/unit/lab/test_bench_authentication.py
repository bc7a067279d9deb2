"""The authentication benchmark: its fields, and that each of its findings can come out the other way."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from heliograph.authentication.methods.registry import DEFAULT_METHOD, TAG_METHODS
from heliograph.cli.bench import _render
from heliograph.cli.main import app
from heliograph.errors import AuthenticationFailed
from heliograph.lab.bench_authentication import run
from heliograph.lab.benchmarks import STAGES
from heliograph.lab.forgeries import _changes, try_method, try_pad_store
from heliograph.lab.weak_tags import WEAK_BITS, WeakTagTrial, weak_tag_trials

ROOT = Path(__file__).parents[3]
QUICK = {"forgeries": 4000, "pad_store_blocks": 0, "weak_pairs": 2**11}
FIELDS = {"stage", "results", "forgeries_tried", "forgeries_accepted", "weak_tag_fits", "share_of_key"}
ROW = {"name", "n_bits", "qber", "efficiency", "mbps", "seconds", "threads"}


@pytest.fixture(scope="module")
def report():
    return run(**QUICK)


def check_document(document, tried):
    assert set(document) >= FIELDS
    assert document["stage"] == "authentication"
    assert document["forgeries_tried"] >= tried
    assert document["forgeries_accepted"] == document["honest_refused"] == 0
    assert document["honest_tried"] > 0
    assert document["weak_tag_fits"] is True
    assert document["failures"] == []
    assert 0 < document["share_of_key"] < 0.01
    assert [line["name"] for line in document["results"]] == list(TAG_METHODS)
    for line in document["results"]:
        assert set(line) >= ROW
        assert line["mbps"] == pytest.approx(line["n_bits"] / line["seconds"] / 1e6)
        assert line["us_small"] > 0
        assert (line["log2_forgery_bound"] == -87) == (line["assurance"] == "information-theoretic")
    json.dumps(document)


def test_the_document_has_its_fields_and_none_of_its_forgeries_passes(report):
    check_document(report, QUICK["forgeries"])


def test_the_share_is_that_of_a_planned_block(report):
    share = report["share"]
    assert share["planned_sifted_bits"] == 1_000_000
    assert report["share_of_key"] == share["pad_set_bits"] / share["secret_key_bits"] == 1792 / share["secret_key_bits"]


def test_people_can_read_it_too(report):
    text = _render(report)
    assert "forgeries_accepted: 0" in text
    assert "name hmac-sha-384" in text
    assert "weak_tag_fits: yes" in text


# What must come out the other way.
class AcceptsAnyTagOfItsLength:
    """A check that forgot to compare."""

    name, key_bytes, tag_bytes, assurance = "wegman-carter-poly1305", 32, 16, "information-theoretic"
    tag = staticmethod(DEFAULT_METHOD.tag)
    forgery_bound = staticmethod(DEFAULT_METHOD.forgery_bound)

    def check(self, key, covered, tag):  # noqa: ARG002  - that is what is wrong with it
        if len(tag) != 16:
            raise AuthenticationFailed("the length is wrong")


class IgnoresTheEnd(AcceptsAnyTagOfItsLength):
    """A check over all but the last byte of a message."""

    def tag(self, key, covered):
        return DEFAULT_METHOD.tag(key, (b"".join(covered)[:-1],))

    def check(self, key, covered, tag):
        DEFAULT_METHOD.check(key, (b"".join(covered)[:-1],), tag)


class RefusesAll(AcceptsAnyTagOfItsLength):
    """Nothing is ever forged here, and nothing works."""

    def check(self, key, covered, tag):  # noqa: ARG002  - the same
        raise AuthenticationFailed("no")


@pytest.mark.parametrize("method", [AcceptsAnyTagOfItsLength(), IgnoresTheEnd()], ids=lambda m: type(m).__name__)
def test_a_check_that_accepts_forgeries_is_found(method):
    document = run(**QUICK, methods={method.name: method})
    assert document["forgeries_accepted"] > 0
    assert any("forgeries were accepted" in line for line in document["failures"])


def test_a_check_that_refuses_everything_is_found():
    document = run(**QUICK, methods={RefusesAll.name: RefusesAll()})
    assert document["forgeries_accepted"] == 0
    assert any("true tags were refused" in line for line in document["failures"])


@pytest.mark.parametrize(
    "accepts",
    [
        lambda real, offered: (real ^ offered) & ~1 == 0,  # one bit less than it says
        lambda real, offered: (real == offered) | (offered == 0),  # zero opens everything
        lambda real, offered: real + 1 == offered + 2,  # the true tag is not accepted, another one is
        lambda real, offered: np.zeros(np.broadcast(real, offered).shape, bool),
    ],
    ids=["a bit ignored", "zero accepted", "another tag", "none accepted"],
)
def test_a_planted_weakness_does_not_fit(accepts):
    assert not all(trial.fits for trial in weak_tag_trials(2**11, 1, accepts))


def test_a_planted_weakness_is_a_failure_of_the_stage():
    document = run(**QUICK, weak_accepts=lambda real, offered: (real ^ offered) & ~1 == 0)
    assert document["weak_tag_fits"] is False
    assert any("weakened tags" in line for line in document["failures"])


def test_both_forgers_meet_tags_of_every_length():
    trials = weak_tag_trials(2**12, seed=7)
    assert [(t.bits, t.forger.split()[0]) for t in trials] == [
        (bits, forger) for bits in WEAK_BITS for forger in ("guesses", "substitutes")
    ]
    assert all(t.fits for t in trials)
    assert [math.log2(t.expected_rate) for t in trials] == [-8, -2, -12, -6, -16, -10]


def test_four_sigma_is_where_it_stops():
    assert WeakTagTrial("f", 8, 10_000, 2500 + 173, 0.25).fits
    assert not WeakTagTrial("f", 8, 10_000, 2500 + 174, 0.25).fits
    assert not WeakTagTrial("f", 8, 10_000, 2500 - 174, 0.25).fits


def test_no_forgery_is_the_true_message_with_the_true_tag():
    dice = np.random.default_rng(3)
    message, tag = dice.bytes(40), dice.bytes(16)
    tried = list(islice(_changes(dice, message, tag, dice.bytes(16)), 5000))
    assert (message, tag) not in tried
    assert {len(t) for _, t in tried} > {16}
    assert len({m for m, _ in tried}) > 1000


def test_what_cannot_be_cut_in_equal_parts_is_tried_all_the_same():
    assert try_method(DEFAULT_METHOD, 300, 1).tried == 300


@pytest.mark.slow
@pytest.mark.parametrize("method", TAG_METHODS.values(), ids=lambda m: m.name)
def test_a_real_store_of_pads_lets_no_forgery_through(method):
    count = try_pad_store(method, 1, 5)
    assert (count.tried, count.accepted) == (7 * 1024 + 1, 0)
    assert (count.honest_tried, count.honest_refused) == (6, 0)


@pytest.mark.slow
def test_a_store_behind_a_check_that_forgot_to_compare_is_found():
    assert try_pad_store(AcceptsAnyTagOfItsLength(), 1, 5).accepted > 0


# The command.
def test_without_a_stage_the_stages_are_named():
    done = CliRunner().invoke(app, ["bench"])
    assert (done.exit_code, done.stdout.split()) == (0, list(STAGES))
    done = CliRunner().invoke(app, ["bench", "--json"])
    assert json.loads(done.stdout) == {"stages": list(STAGES)}


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_an_unknown_stage_is_one_line_that_names_the_others(options):
    done = CliRunner().invoke(app, ["bench", "teleportation", *options])
    assert done.exit_code == 2
    (line,) = done.stderr.splitlines()
    assert "'teleportation'" in line
    assert "authentication" in line
    assert (json.loads(done.stdout)["error"]["code"] == "UnknownStage") if options else done.stdout == ""


@pytest.mark.soak
def test_the_pages_command_measures_a_million_forgeries():
    page = (ROOT / "docs/how-to/bench.md").read_text()
    (command,) = [line for line in page.splitlines() if line.startswith("heliograph bench authentication")]
    done = subprocess.run(
        [sys.executable, "-m", "heliograph.cli.main", *command.split()[1:]],
        capture_output=True, text=True, check=False, timeout=600, env=os.environ,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    document = json.loads(done.stdout)
    check_document(document, 1_000_000)
    for field in FIELDS - {"stage"}:
        assert f"`{field}`" in page
