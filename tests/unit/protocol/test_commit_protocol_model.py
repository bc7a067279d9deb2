"""The commit protocol, every interleaving: never a key on one side only, and no doubt that cannot end."""

from __future__ import annotations

import pytest
from commit_model import CommitModel

CASES = {
    "one block, no crash": {"crashes": 0},
    "one block, each site crashes once": {"crashes": 1},
    "one block, each site crashes three times": {"crashes": 3},
    "two blocks, no crash": {"blocks": 2, "crashes": 0},
    "two blocks, each site crashes once, no forgeries": {"blocks": 2, "crashes": 1, "forgeries": False},
}
# How far each search must get at least: a model that finds nothing to do proves nothing.
STATES_MIN = dict(zip(CASES, (60, 400, 2500, 2500, 10_000), strict=True))
LONG = {
    "one block, each site crashes five times": {"crashes": 5},
    "two blocks, each site crashes once": {"blocks": 2, "crashes": 1},
    "two blocks, each site crashes twice, no forgeries": {"blocks": 2, "crashes": 2, "forgeries": False},
}


def check(case, capsys=None):
    found = CommitModel(**case).search()
    if capsys is not None:
        with capsys.disabled():
            print(f"\n  commit model {case}: {found.states} states, {found.transitions} transitions")  # noqa: T201
    assert found.violations == []
    return found


@pytest.mark.parametrize("name", CASES)
def test_the_commit_protocol_keeps_its_promises(name, capsys):
    assert check(CASES[name], capsys).states >= STATES_MIN[name]


@pytest.mark.slow
@pytest.mark.parametrize("name", LONG)
def test_the_commit_protocol_keeps_its_promises_long(name, capsys):
    assert check(LONG[name], capsys).states > 5000


def test_the_model_reaches_every_end():
    """Both commit, both abort, one side lost the block early: the search is not blind to any of them."""
    model = CommitModel(crashes=1)
    model.search()
    ends = {(site.is_transmitter, site.store(1).stage, site.store(1).fate) for site in model._sites}
    assert {
        (True, "ended", "commit"),
        (True, "ended", "abort"),
        (True, "decided", "commit"),
        (True, "", None),
        (False, "ended", "commit"),
        (False, "ended", "abort"),
        (False, "obeyed", "commit"),
        (False, "local", None),
        (False, "", None),
    } <= ends
