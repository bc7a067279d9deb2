"""One-way codes: three decoders that decide bit for bit alike, and tables that lead no kernel out of its memory."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from heliograph.kernels import native
from heliograph.kernels.ldpc import CHANNEL, decode, syndromes
from heliograph.kernels.ldpc_codes import MOTHERS, build

needs_compiled = pytest.mark.skipif(native.compiled is None, reason="this installation has no compiled kernels")


def errors(code, rate, frames=2, seed=1):
    rng = np.random.default_rng(seed)
    return np.packbits(rng.random(frames * code.frame_bits) < rate).tobytes()


@needs_compiled
@pytest.mark.parametrize("rate", [0.01, 0.03, 0.3])  # the last one never decodes: what is left must be alike too
@pytest.mark.parametrize("extended", [False, True])
def test_avx2_portable_c_and_numpy_decide_alike(rate, extended):
    code = build(6, 64, 200, extended=extended)
    odd = syndromes(code, errors(code, rate))
    found = decode(code, odd, 2, 8, kernel="numpy")
    assert (
        code.native.decode(odd, CHANNEL, 2, 8, portable=False)
        == found
        == code.native.decode(odd, CHANNEL, 2, 8, portable=True)
    )


@needs_compiled
@pytest.mark.parametrize(("mother", "z"), [(0, 64), (5, 128), (10, 256)])
def test_syndromes_are_alike_and_linear(mother, z):
    code = build(mother, z, MOTHERS[mother].columns // 2, extended=True)
    one, two = errors(code, 0.5, seed=1), errors(code, 0.5, seed=2)
    first = MOTHERS[mother].rows
    for at in (0, first):
        a, b = syndromes(code, one, first=at), syndromes(code, two, first=at)
        assert a == syndromes(code, one, first=at, kernel="numpy")
        both = bytes(x ^ y for x, y in zip(one, two, strict=True))
        assert syndromes(code, both, first=at) == bytes(x ^ y for x, y in zip(a, b, strict=True))


def test_a_decoded_frame_is_the_pattern_that_was_there():
    code = build(6, 256, 220, extended=False)
    pattern = errors(code, 0.012)
    found, took = decode(code, syndromes(code, pattern), 2, 60)
    assert all(took)
    assert found == pattern


@pytest.mark.parametrize("mother", range(2, len(MOTHERS)))  # the two with most columns have too few shifts
def test_no_two_columns_of_a_code_close_a_cycle_of_four(mother):
    z = 512
    seen = set()
    columns = {}
    for r, row in enumerate(build(mother, z, MOTHERS[mother].columns, extended=False).rows):
        for column, shift in row:
            columns.setdefault(column, []).append((r, shift))
    for placed in columns.values():
        for i, (r, s) in enumerate(placed):
            for q, t in placed[:i]:
                assert (q, r, (s - t) % z) not in seen
                seen.add((q, r, (s - t) % z))


def test_both_sides_build_the_same_codes_in_every_release():
    """Changing a code is a change of the protocol: both sites must change together."""
    rows = [build(i, z, MOTHERS[i].columns, extended=True).rows for i in range(len(MOTHERS)) for z in (64, 512)]
    assert hashlib.sha256(repr(rows).encode()).hexdigest()[:16] == "dc4e67d9c325dc7f"


@needs_compiled
@pytest.mark.parametrize(
    ("z", "width", "starts", "columns", "shifts"),
    [
        (60, 4, [0, 2], [0, 1], [0, 0]),
        (64, 4, [0, 2], [0, 4], [0, 0]),
        (64, 4, [0, 2], [0, 1], [0, 64]),
        (64, 4, [0, 2], [1, 1], [0, 0]),
        (64, 4, [0, 3], [0, 1], [0, 0]),
        (64, 4, [0, 1, 2], [0, 1], [0, 0]),
    ],
)
def test_tables_out_of_place_are_refused(z, width, starts, columns, shifts):
    arrays = (np.array(one, dtype=np.uint32) for one in (starts, columns, shifts))
    with pytest.raises(ValueError, match=r"another|edge"):
        native.compiled.Ldpc(z, width, *arrays)


@pytest.mark.parametrize("kernel", [None, "numpy"])
def test_bits_of_another_length_are_refused(kernel):
    code = build(6, 64, 200, extended=False)
    for call in (lambda d: syndromes(code, d, kernel=kernel), lambda d: decode(code, d, 2, 1, kernel=kernel)):
        for wrong in (b"", bytes(7)):
            with pytest.raises(ValueError, match="another length"):
                call(wrong)
