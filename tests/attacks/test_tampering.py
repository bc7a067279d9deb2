"""Whatever is done to the frames of a block: no key that differs, no key on one side only (theory.md 3, row 17)."""

from __future__ import annotations

import random

import pytest
from tampering import KINDS, assert_no_harm, attack, message_name, record

# After the decision is stored, nothing that happens to the frames loses the key: what was not heard is repeated.
LAST_WORDS = {"Decision", "Acknowledgement", "Settlement"}
# The same frame twice, or an old one once more: the second is refused, and the block goes on.
REFUSED_WITHOUT_LOSS = {"duplicate", "replay"}
SEEDS_PER_KIND = 8


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    return record(tmp_path_factory.mktemp("recording"))


def run(tmp_path, recording, kind, seed, *, prefilter):
    dice = random.Random(f"{kind} {seed}")
    name = dice.choice(sorted({message_name(f) for _, f in recording.first}))
    index = dice.choice([i for i, (_, f) in enumerate(recording.first) if message_name(f) == name])
    pair, changed = attack(tmp_path / f"{seed}", recording, kind, index, seed, prefilter=prefilter)
    finished = (pair.tx.finished(), pair.rx.finished())
    both = assert_no_harm(pair)
    where = f"{kind} of {name}, seed {seed}"
    if changed and name not in LAST_WORDS and kind not in REFUSED_WITHOUT_LOSS:
        assert not both, where
        assert finished == ([], []), where
    return name, both


@pytest.mark.parametrize("prefilter", [True, False], ids=["with pre-filter", "without pre-filter"])
@pytest.mark.parametrize("kind", KINDS)
def test_tampering_never_yields_a_key_that_differs(tmp_path, recording, kind, prefilter):
    outcomes = [run(tmp_path, recording, kind, seed, prefilter=prefilter) for seed in range(SEEDS_PER_KIND)]
    # The attacks hit early and late frames alike.
    assert len({name for name, _ in outcomes}) > 4


@pytest.mark.soak
@pytest.mark.parametrize("prefilter", [True, False], ids=["with pre-filter", "without pre-filter"])
@pytest.mark.parametrize("kind", KINDS)
def test_tampering_never_yields_a_key_that_differs_long(tmp_path, recording, kind, prefilter):
    for seed in range(1000, 1400):
        run(tmp_path, recording, kind, seed, prefilter=prefilter)


@pytest.mark.parametrize("prefilter", [True, False], ids=["with pre-filter", "without pre-filter"])
@pytest.mark.parametrize("kind", ["flip", "drop", "truncate", "reflect", "other session"])
def test_every_kind_of_frame_may_be_hit(tmp_path, recording, kind, prefilter):
    first = {message_name(frame): index for index, (_, frame) in reversed(list(enumerate(recording.first)))}
    assert len(first) == 15
    for name, index in first.items():
        pair, changed = attack(tmp_path / name, recording, kind, index, index, prefilter=prefilter)
        both = assert_no_harm(pair)
        assert both == (name in LAST_WORDS or not changed), name
