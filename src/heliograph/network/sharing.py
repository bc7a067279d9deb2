"""Secrets in shares: any ``threshold`` of ``total`` give the secret, fewer say nothing about it, whatever is computed.

Two schemes, both information-theoretic (Shamir 1979):

    threshold = total    share 1 .. n-1 uniform, share n = secret xor all others
    threshold < total    byte by byte over GF(2^8), modulo x^8 + x^4 + x^3 + x + 1: the share for x = 1 .. n is
                         secret + c_1 x + ... + c_(k-1) x^(k-1), with uniform c
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Final

from heliograph.errors import ConfigurationError, LocalProtocolError, RemoteProtocolError

__all__ = ["SHARES_MAX", "check_scheme", "fits", "join", "split", "xor"]

SHARES_MAX: Final = 8  # our choice: node-disjoint paths; the field has room for 255
_MODULUS: Final = 0x11B


def check_scheme(threshold: int, total: int) -> None:
    """Return if ``threshold`` of ``total`` can be shared. Raises ConfigurationError."""
    if not 1 <= threshold <= total <= SHARES_MAX:
        raise ConfigurationError(
            f"threshold = {threshold} of shares = {total}: write 1 <= threshold <= shares <= {SHARES_MAX}"
        )
    if threshold == 1 < total:
        raise ConfigurationError(
            f"threshold = 1 of shares = {total}: each path alone would know the key; write threshold = 2 or more"
        )


def split(secret: bytes, threshold: int, total: int, draw: Callable[[int], bytes]) -> tuple[bytes, ...]:
    """Return ``total`` shares, each as long as the secret. ``draw``: fresh uniform bytes.

    Raises ConfigurationError, LocalProtocolError for a source that gives too few bytes.
    """
    check_scheme(threshold, total)
    masks = [_drawn(draw, len(secret)) for _ in range(threshold - 1)]
    if threshold == total:
        last = secret
        for mask in masks:
            last = xor(last, mask)
        return (*masks, last)
    return tuple(_evaluated(secret, masks, x) for x in range(1, total + 1))


def join(shares: Mapping[int, bytes], threshold: int, total: int) -> bytes:
    """Return the secret. ``shares``: by number from 1 on; of more than needed the first ones count.

    Raises RemoteProtocolError for too few shares, for numbers that do not exist, and for unequal lengths.
    """
    numbers = sorted(shares)[:threshold]
    if len(numbers) < threshold or not all(1 <= x <= total for x in numbers):
        raise RemoteProtocolError(f"{len(shares)} shares where {threshold} of {total} are needed")
    if len({len(shares[x]) for x in numbers}) != 1:
        raise RemoteProtocolError("shares of different lengths")
    if threshold == total:
        secret = bytes(len(shares[numbers[0]]))
        for x in numbers:
            secret = xor(secret, shares[x])
        return secret
    return _interpolated({x: shares[x] for x in numbers}, 0)


def fits(shares: Mapping[int, bytes], number: int, share: bytes, total: int) -> bool:
    """Tell whether ``share`` is the one that as many genuine ``shares`` as the threshold leave for ``number``.

    Where all shares are needed, every other one fits.
    """
    return number in shares or len(shares) == total or _interpolated(shares, number) == share


def xor(one: bytes, other: bytes) -> bytes:
    """Return the exclusive or of two byte strings of one length. Raises LocalProtocolError."""
    if len(one) != len(other):
        raise LocalProtocolError("exclusive or of byte strings of different lengths")
    return (int.from_bytes(one, "big") ^ int.from_bytes(other, "big")).to_bytes(len(one), "big")


def _drawn(draw: Callable[[int], bytes], size: int) -> bytes:
    drawn = draw(size)
    if len(drawn) != size:
        raise LocalProtocolError("the random source gave too few bytes")
    return drawn


def _evaluated(secret: bytes, coefficients: list[bytes], x: int) -> bytes:
    value, power = secret, 1
    for coefficient in coefficients:
        power = _times(power, x)
        value = xor(value, coefficient.translate(_multiples(power)))
    return value


def _interpolated(shares: Mapping[int, bytes], at: int) -> bytes:
    """Return Lagrange's polynomial at a point; in this field subtraction is exclusive or."""
    value = bytes(len(next(iter(shares.values()))))
    for x, share in shares.items():
        weight = 1
        for other in shares:
            if other != x:
                weight = _times(weight, _times(other ^ at, _inverse(other ^ x)))
        value = xor(value, share.translate(_multiples(weight)))
    return value


@lru_cache(maxsize=256)
def _multiples(factor: int) -> bytes:
    # The factor is public, a share's number or a weight made of such; the secret is only looked up by bytes.translate.
    return bytes(_times(factor, value) for value in range(256))


def _times(one: int, other: int) -> int:
    product = 0
    while other:
        if other & 1:
            product ^= one
        one <<= 1
        if one & 0x100:
            one ^= _MODULUS
        other >>= 1
    return product


def _inverse(value: int) -> int:
    result = 1
    for _ in range(254):  # value^254, since value^255 = 1
        result = _times(result, value)
    return result
