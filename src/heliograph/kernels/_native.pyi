from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from heliograph.kernels.shuffle import Shuffle

class Plan:
    def __init__(
        self,
        length: int,
        first: int,
        second: bytes,
        third: int,
        shuffles: Sequence[Shuffle],
        keys: NDArray[np.uint64],
        window: int,
        few: int,
        at_once: int,
        portable: bool = False,
    ) -> None: ...

class Block:
    def __init__(self, bits: bytes, length: int, plan: Plan, last: Plan, corrects: bool) -> None: ...
    @property
    def count(self) -> int: ...
    def parities(self) -> bytes: ...
    def learn(self, parities: bytes) -> int: ...
    def bits(self) -> bytes: ...
    def pattern(self) -> bytes: ...

def sift(
    own_bases: NDArray[np.uint8],
    own_bits: NDArray[np.uint8],
    peer_bases: NDArray[np.uint8],
    kinds: NDArray[np.uint8],
    peer: bytes,
    peer_bits: int,
    portable: bool = False,
) -> tuple[int, bytes, bytes, int, bytes, tuple[int, int, int, int], tuple[int, int, int, int]]: ...
def product_level() -> int: ...
def product_memory(key_bits: int, out_bits: int) -> int: ...
def multiply_shift(key: bytes, key_bits: int, seed: bytes, out_bits: int, level: int = 2) -> bytes | None: ...
def aes_level() -> int: ...
def expand(
    seed: bytes, slots: NDArray[np.int64], z: int, thresholds: NDArray[np.uint64] | None, level: int = 2
) -> tuple[bytes, bytes, bytes]: ...
def clicks(
    light: bytes,
    bases: bytes,
    dice: bytes,
    slots: tuple[int, int, int],
    reals: tuple[float, float, float, float],
    z: tuple[int, int],
    thresholds: NDArray[np.uint64],
    patterns: NDArray[np.int64],
    eve: NDArray[np.int64],
    eve_marks: NDArray[np.uint8],
    inverse: NDArray[np.float64],
    logarithm: NDArray[np.float64],
    room: int,
    level: int = 2,
) -> tuple[bytes, bytes]: ...
