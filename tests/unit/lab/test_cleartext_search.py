"""The search for payload bytes between the sites: exact against a search by hand, and it finds a plain relay."""

import random

import pytest

from heliograph.lab.cleartext import WINDOW, PayloadIndex


def by_hand(payload, recorded, distinct=1):
    """Count the recorded bytes that some 16-byte window of the payload covers, in the plainest way."""
    windows = {payload[i : i + WINDOW] for i in range(len(payload) - WINDOW + 1)}
    covered = set()
    for at in range(len(recorded) - WINDOW + 1):
        window = recorded[at : at + WINDOW]
        if window in windows and len(set(window)) >= distinct:
            covered.update(range(at, at + WINDOW))
    return len(covered)


def count(tmp_path, payload, *recordings, distinct=1):
    files = []
    for number, recorded in enumerate(recordings):
        files.append(tmp_path / f"{number}.bin")
        files[-1].write_bytes(recorded)
    return PayloadIndex(payload, distinct).covered(files)


@pytest.mark.parametrize("seed", range(60))
def test_it_counts_what_a_search_by_hand_counts(tmp_path, seed):
    chance = random.Random(seed)
    letters = chance.choice([2, 3, 256])  # few letters: many windows occur more than once
    payload = bytes(chance.randrange(letters) for _ in range(chance.randrange(0, 400)))
    recorded = bytearray()
    for _ in range(chance.randrange(0, 12)):
        if chance.random() < 0.5 and payload:
            start = chance.randrange(len(payload))
            recorded += payload[start : start + chance.randrange(1, 60)]
        else:
            recorded += bytes(chance.randrange(letters) for _ in range(chance.randrange(0, 40)))
    for distinct in (1, 2):
        assert count(tmp_path, payload, bytes(recorded), distinct=distinct) == by_hand(
            payload, bytes(recorded), distinct
        )


@pytest.mark.parametrize("size", [0, 1, 15, 16, 17, 23, 24, 31, 32, 33])
@pytest.mark.parametrize("shift", range(9))
def test_one_window_is_found_at_any_alignment_and_length(tmp_path, size, shift):
    payload = random.Random(1).randbytes(64)
    recorded = bytes(shift) + payload[shift : shift + size] + bytes(3)
    assert count(tmp_path, payload, recorded) == (size if size >= WINDOW else 0) == by_hand(payload, recorded)


def test_a_plain_relay_is_caught_whole(tmp_path):
    payload = random.Random(2).randbytes(3_000_001)
    assert count(tmp_path, payload, payload[:1_234_567], payload[1_234_567:]) == len(payload)


def test_a_relay_in_small_framed_pieces_is_caught(tmp_path):
    payload = random.Random(3).randbytes(20_000)
    pieces = [payload[at : at + 100] for at in range(0, len(payload), 100)]
    recorded = b"".join(len(piece).to_bytes(4, "big") + piece for piece in pieces)
    assert count(tmp_path, payload, recorded) == by_hand(payload, recorded) >= len(payload)


def test_one_leaked_window_in_a_long_recording_is_seen(tmp_path):
    chance = random.Random(4)
    payload, recorded = chance.randbytes(1 << 20), bytearray(chance.randbytes((9 << 20) + 5))
    for at in (0, (4 << 20) - 7, (8 << 20) - 1, len(recorded) - WINDOW):  # also across the borders of its chunks
        spoilt = bytes(recorded[:at]) + payload[777 : 777 + WINDOW] + bytes(recorded[at + WINDOW :])
        assert count(tmp_path, payload, spoilt) == WINDOW


def test_ciphertext_is_not_mistaken_for_the_payload(tmp_path):
    chance = random.Random(5)
    assert count(tmp_path, chance.randbytes(1 << 20), chance.randbytes(4 << 20)) == 0


def test_runs_of_one_value_say_nothing_where_that_is_asked_for(tmp_path):
    payload = bytes(1000) + random.Random(6).randbytes(100)
    assert count(tmp_path, payload, bytes(500), distinct=2) == 0
    assert count(tmp_path, payload, bytes(500), distinct=1) == 500
    assert count(tmp_path, payload, payload[1000:], distinct=2) == 100


def test_nothing_recorded_is_nothing_seen(tmp_path):
    assert count(tmp_path, b"payload" * 10, b"", b"short") == 0
    assert count(tmp_path, b"short", b"short" * 100) == 0
