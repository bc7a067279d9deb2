"""Slow, obvious definitions that the fast code is held against. None of it shares code with the product."""

from __future__ import annotations

from fractions import Fraction


def as_integer(bits):
    return int("".join(map(str, bits)) or "0", 2)


def as_bits(value, length):
    return [value >> (length - 1 - i) & 1 for i in range(length)]


def modified_multiply_shift(key, a, b, m):
    """Privacy amplification as security.md 5 defines it, on lists of bits."""
    n = len(key)
    al = n - 1
    x1, x2 = as_integer(key[:m]), as_integer(key[m:])
    return as_bits((x1 + (((a * x2 + b) % 2**al) >> (al - m))) % 2**m, m)


def worst_collision(outputs):
    """Greatest collision probability over all pairs of keys; outputs[seed][key]."""
    keys = range(len(outputs[0]))
    pairs = [(x, y) for x in keys for y in keys if x < y]
    return max(Fraction(sum(row[x] == row[y] for row in outputs), len(outputs)) for x, y in pairs)


def poly1305(key, message):
    """RFC 8439 2.5, with Python's integers."""
    r = int.from_bytes(key[:16], "little") & 0x0FFFFFFC0FFFFFFC0FFFFFFC0FFFFFFF
    s = int.from_bytes(key[16:], "little")
    accumulator = 0
    for at in range(0, len(message), 16):
        accumulator = (accumulator + int.from_bytes(message[at : at + 16] + b"\1", "little")) * r % (2**130 - 5)
    return ((accumulator + s) % 2**128).to_bytes(16, "little")


def sift(own_bases, own_bits, peer_bases, intensities, peer_test_bits, kinds):
    """Sifting, slot by slot: (key bits, their intensities, detections, errors)."""
    key, key_intensities = [], []
    detections, errors = [0] * kinds, [0] * kinds
    peer = iter(peer_test_bits)
    for mine, bit, theirs, k in zip(own_bases, own_bits, peer_bases, intensities, strict=True):
        if mine == theirs == 0:
            key.append(bit)
            key_intensities.append(k)
        if mine == theirs == 1:
            detections[k] += 1
            errors[k] += bit != next(peer)
    return key, key_intensities, tuple(detections), tuple(errors)


def rank(rows):
    """Rank over GF(2) of rows given as integers."""
    pivots = {}
    for row in rows:
        rest = row
        while rest:
            top = rest.bit_length()
            if top not in pivots:
                pivots[top] = rest
                break
            rest ^= pivots[top]
    return len(pivots)
