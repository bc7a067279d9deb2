"""What the compiled kernels give back to the allocator holds no secret bits: a look at each piece when it is freed."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from heliograph.kernels.native import compiled

SHIM = r"""
#define _GNU_SOURCE
#include <malloc.h>
#include <string.h>
extern void __libc_free(void *);
int watching;
unsigned long freed, found;
void free(void *at) {
    static char needle[24];
    memset(needle, 0xb7, sizeof needle);
    if (watching && at) {
        freed++;
        if (memmem(at, malloc_usable_size(at), needle, sizeof needle)) found++;
    }
    __libc_free(at);
}
"""

CHILD = r"""
import ctypes, os, sys
import numpy as np
from heliograph.kernels import sifting
from heliograph.kernels.cascade import make_block
from heliograph.kernels.ldpc_codes import build
from heliograph.kernels.native import compiled

sys.path.insert(0, sys.argv[1])
from test_cascade import plan

libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
counts = {name: ctypes.c_ulong.in_dll(libc, name) for name in ("freed", "found")}
watching = ctypes.c_int.in_dll(libc, "watching")
SECRET = b"\xb7" * 25_600
bits, seed = 8 * len(SECRET), os.urandom(2 * len(SECRET))
frame, whole = SECRET[: 64 * 256 // 8], plan(bits)
code = build(0, 16, 64, 256)
ones = np.unpackbits(np.frombuffer(SECRET, dtype=np.uint8))
zeros = np.zeros(bits, dtype=np.uint8)

def control():
    at = libc.malloc(100)
    ctypes.memmove(at, SECRET, 100)
    libc.free(ctypes.c_void_p(at))

def product():
    if compiled.product_level():
        return compiled.multiply_shift(SECRET, bits, seed, bits // 2)

def search():
    block = make_block(SECRET, bits, whole, whole, corrects=True)
    parities = bytearray(block.parities())
    parities[0] ^= 0x80
    block.learn(bytes(parities))  # opens passes, and so trees

def syndromes():
    return code.native.syndromes(frame)

def split():
    return sifting.split(zeros, ones, zeros, zeros, 1, None)

kept = []  # what a kernel returns is not freed while anybody looks

for work in (control, product, search, syndromes, split):
    for count in counts.values():
        count.value = 0
    watching.value = 1
    kept.append(work())
    watching.value = 0
    print(work.__name__, *(count.value for count in counts.values()))
"""


@pytest.fixture(scope="module")
def counted(tmp_path_factory):
    """Return, for each kernel, how many pieces it freed, and in how many the secret bits still stood."""
    compiler = shutil.which("cc")
    if compiled is None or compiler is None or not sys.platform.startswith("linux"):
        pytest.skip("needs the compiled kernels, a C compiler (cc) and glibc")
    directory = tmp_path_factory.mktemp("shim")
    (directory / "shim.c").write_text(SHIM)
    shim = directory / "shim.so"
    built = subprocess.run([compiler, "-O1", "-shared", "-fPIC", "-o", shim, directory / "shim.c"], check=False)
    if built.returncode:
        pytest.skip("the shim does not compile: a C library without __libc_free")
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(Path(__file__).parent)],
        env={**os.environ, "LD_PRELOAD": str(shim)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return {name: (int(freed), int(found)) for name, freed, found in map(str.split, done.stdout.splitlines())}


def test_the_look_finds_secret_bits_that_were_only_freed(counted):
    assert counted["control"][1] == 1


@pytest.mark.parametrize("kernel", ["product", "search", "syndromes", "split"])
def test_no_piece_that_a_kernel_frees_holds_secret_bits(counted, kernel):
    freed, found = counted[kernel]
    assert found == 0
    assert freed or kernel == "split" or (kernel == "product" and not compiled.product_level())
