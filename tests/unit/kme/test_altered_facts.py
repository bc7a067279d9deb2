"""What a store's altered text says of a key: the key is delivered, and what is not known of it is left out."""

import pytest

from heliograph.errors import KeySupplyError
from heliograph.kme.key_facts import KeyFacts, Wishes
from heliograph.types import StoredKey

SOUND = '{"eps_sec": 1e-10, "eps_cor": 1e-15, "key": {"detections": [4], "errors": [1]}, "assurance": "computational"}'


def stored(metadata):
    return StoredKey("00000000-0000-4000-8000-000000000000", "sae-a", "sae-b", bytes(32), 100.0, metadata, (1, 2))


def facts(metadata):
    told, keys = KeyFacts(160.0, lambda _: ("kme-a", "kme-b")), [stored(metadata)]
    return told.of(keys[0]), told.container(keys)


@pytest.mark.parametrize(
    ("metadata", "known"),
    [
        (SOUND, {"heliograph_epsilon", "heliograph_qber"}),
        (SOUND[:-1], set()),
        ("[]", set()),
        ("\ufffd", set()),
        (SOUND.replace("eps_cor", "eps_coz"), set()),
        (SOUND.replace("[4]", "'4'").replace("'", '"'), set()),
        (SOUND.replace('"key": {', '"extensions": 7, "kez": {'), set()),
    ],
)
def test_a_key_that_has_left_is_answered_whatever_its_text_says(metadata, known):
    of_key, of_all = facts(metadata)
    assert of_key["heliograph_age_s"] == 60.0
    assert {"heliograph_epsilon", "heliograph_qber"} & of_key.keys() == known
    assert of_all == {"heliograph_path": ["kme-a", "kme-b"]}


def test_a_key_of_which_nothing_is_known_has_no_assurance():
    Wishes(assurance="computational").check([stored(SOUND)])
    with pytest.raises(KeySupplyError, match="are not computational"):
        Wishes(assurance="computational").check([stored(SOUND[:-1])])
