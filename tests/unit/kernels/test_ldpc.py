"""One-way codes: three decoders that decide bit for bit alike, and tables that lead no kernel out of its memory."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heliograph.kernels import ldpc, native
from heliograph.kernels.ldpc import LARGEST, PHI, Code, decode, syndromes
from heliograph.kernels.ldpc_codes import SHARES, VERSION, build, rows_to_split
from heliograph.postprocessing.secrecy.entropy import binary_entropy

needs_compiled = pytest.mark.skipif(native.compiled is None, reason="this installation has no compiled kernels")


PATHS = (0, 1, 2)  # portable C, AVX2, AVX-512, as far as the processor has them


def errors(code, rate, frames=2, seed=1):
    rng = np.random.default_rng(seed)
    return np.packbits(rng.random(frames * code.frame_bits) < rate).tobytes()


def small(index, split=0):
    """Return a code of about 10 000 bits for the rates of ``SHARES[index]``."""
    shares = SHARES[index]
    width = 150
    rows = max(6, round(1.3 * width * binary_entropy(shares.ppm / 1e6)))
    return build(index, rows, width, 64, split=split)


@needs_compiled
@pytest.mark.parametrize("index", [0, 5, len(SHARES) - 1])
@pytest.mark.parametrize("split", [0, 3])
@pytest.mark.parametrize("share", [1.0, 1.4, 10.0])  # the last one never decodes: what is left must be alike too
def test_all_compiled_decoders_and_numpy_decide_alike(index, split, share):
    code = small(index, split)
    odd = syndromes(code, errors(code, min(share * SHARES[index].ppm / 1e6, 0.5)))
    found = decode(code, odd, 9, 25, kernel="numpy")
    for at_most in PATHS:
        assert code.native.decode(odd, 9, 25, at_most=at_most) == found


@needs_compiled
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_a_syndrome_of_anybody_is_decided_alike_by_all_kernels(data):
    """Whatever a peer sends: random, all ones, all zeros, one bit; whatever the channel; also very long rows."""
    z, width = data.draw(st.sampled_from([64, 128, 192])), data.draw(st.integers(20, 60))
    index, rows = data.draw(st.integers(0, len(SHARES) - 1)), data.draw(st.integers(6, width // 2))
    code = build(index, rows, width, z, split=data.draw(st.integers(0, rows)))
    size = len(code.rows) * z // 8
    odd = data.draw(st.one_of(st.binary(min_size=size, max_size=size), st.sampled_from([bytes(size), b"\xff" * size])))
    channel, iterations = data.draw(st.integers(1, 64)), data.draw(st.integers(1, 20))
    found = decode(code, odd, channel, iterations, kernel="numpy")
    for at_most in PATHS:
        assert code.native.decode(odd, channel, iterations, at_most=at_most) == found


@needs_compiled
@pytest.mark.parametrize("size", [1, 2, 300, 480])
def test_rows_whose_sums_overflow_are_decided_alike(size):
    rows = tuple(tuple((column, (7 * column + r) % 64) for column in range(size + 1)) for r in range(3))
    code = Code(64, size + 1, rows)
    rng = np.random.default_rng(size)
    for channel in (1, 3, 20, 31, 64):
        odd = rng.bytes(len(rows) * 64 // 8)
        found = decode(code, odd, channel, 6, kernel="numpy")
        for at_most in PATHS:
            assert code.native.decode(odd, channel, 6, at_most=at_most) == found


def test_the_table_of_phi_is_phi():
    """phi(x) = -ln tanh(x / 2) at each size, in units of half a bit; the kernel in C holds the same numbers."""
    for size in range(1, LARGEST + 1):
        assert PHI[size] == round(-4096 * math.log(math.tanh(size * math.log(2) / 4)))
    text = Path(ldpc.__file__).with_name("ldpc.c").read_text(encoding="utf-8")
    held = text[text.index("hg_ldpc_phi[HG_LDPC_LARGEST + 1] = {") :].split("{", 1)[1].split("}", 1)[0]
    assert tuple(map(int, held.split(","))) == PHI


@needs_compiled
@pytest.mark.parametrize(("index", "z"), [(0, 64), (5, 128), (len(SHARES) - 1, 256)])
def test_syndromes_are_alike_and_linear(index, z):
    code = build(index, 30, 100, z, split=5)
    one, two = errors(code, 0.5, seed=1), errors(code, 0.5, seed=2)
    for at in (0, 30):
        a, b = syndromes(code, one, first=at), syndromes(code, two, first=at)
        assert a == syndromes(code, one, first=at, kernel="numpy")
        both = bytes(x ^ y for x, y in zip(one, two, strict=True))
        assert syndromes(code, both, first=at) == bytes(x ^ y for x, y in zip(a, b, strict=True))


def test_both_halves_of_a_split_row_add_up_to_the_row():
    """So a half that is told tells the other half too, and each split row costs one parity more, not two."""
    rows, z = 20, 64
    whole, halves = (build(6, rows, 120, z, split=split) for split in (0, 7))
    bits = errors(whole, 0.5, frames=1)
    before, after = (
        np.frombuffer(syndromes(c, bits, kernel="numpy"), np.uint8).reshape(-1, z // 8) for c in (whole, halves)
    )
    split = rows_to_split(rows, 7)
    assert len(halves.rows) == rows + 7
    assert len(set(split)) == 7
    for told, row in enumerate(split):
        assert np.array_equal(before[row], after[row] ^ after[rows + told])
    kept = [row for row in range(rows) if row not in split]
    assert np.array_equal(before[kept], after[kept])


def test_a_decoded_frame_is_the_pattern_that_was_there():
    code = build(5, 30, 220, 256)
    pattern = errors(code, 0.012)
    found, took = decode(code, syndromes(code, pattern), 13, 60)
    assert all(took)
    assert found == pattern


@pytest.mark.parametrize("index", range(len(SHARES)))
def test_no_two_columns_of_a_long_code_close_a_cycle_of_four(index):
    z, seen, columns = 2048, set(), {}
    rows = max(8, round(300 * binary_entropy(SHARES[index].ppm / 1e6)))
    for r, row in enumerate(build(index, rows, 256, z).rows):
        for column, shift in row:
            columns.setdefault(column, []).append((r, shift))
    for placed in columns.values():
        for i, (r, s) in enumerate(placed):
            for q, t in placed[:i]:
                assert (q, r, (s - t) % z) not in seen
                seen.add((q, r, (s - t) % z))


def test_both_sides_build_the_same_codes_in_every_release():
    """Changing a code is a change of the protocol: count VERSION up, so that sites with other codes refuse to start."""
    rows = [build(i, r, 200, z, split=r // 4).rows for i in range(len(SHARES)) for r, z in ((20, 64), (60, 1024))]
    assert (VERSION, hashlib.sha256(repr(rows).encode()).hexdigest()[:16]) == (2, "37387edd14cde581")


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
    code = build(5, 20, 200, 64)
    for call in (lambda d: syndromes(code, d, kernel=kernel), lambda d: decode(code, d, 9, 1, kernel=kernel)):
        for wrong in (b"", bytes(7)):
            with pytest.raises(ValueError, match="another length"):
                call(wrong)
