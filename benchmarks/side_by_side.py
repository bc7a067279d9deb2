"""Reconciliation and amplification beside the packages that the Python package index has, in one run.

Run as `python benchmarks/side_by_side.py`. The peers are installed into a private environment in a temporary directory,
never as dependencies, and run there, on the same input and under the same clock: processor time of one process. Prints
one line for each, and how many times faster this package is. Peers whose result is wrong are marked so.
"""

import json
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

import numpy as np

from heliograph.lab import bench_postprocessing as ours
from heliograph.postprocessing.reconciliation.codes import frames_for
from heliograph.postprocessing.reconciliation.mirror import FEW_ROUNDS

PEERS = ("cryptomite==0.3.0", "ldpc==2.4.1", "pyfftw==0.15.1", "qkdpy==0.8.0", "scipy>=1.16", "sequence==0.8.5")
ONE_WAY = (1_000_000, 0.02)  # bits of a block, error rate

# Runs in the private environment: it must not import heliograph.
PEER_PROGRAM = r"""
import json, sys, time
import numpy as np

def measure(name, bits, work, right):
    began = time.process_time()
    try:
        result = work()
        seconds = time.process_time() - began
        found = {"name": name, "n": bits, "mbps": bits / seconds / 1e6, "right": bool(right(result))}
    except Exception as why:
        found = {"name": name, "n": bits, "mbps": None, "right": False, "why": repr(why)[:200]}
    print(json.dumps(found), flush=True)

rng = np.random.default_rng(1)

def fft_toeplitz(n, name):
    from scipy.fft import next_fast_len
    if name == "pyFFTW":
        from pyfftw.interfaces.numpy_fft import irfft, rfft
    else:
        from scipy.fft import irfft, rfft
    key, seed, m = rng.integers(0, 2, n, dtype=np.uint8), rng.integers(0, 2, n + n // 2 - 1, dtype=np.uint8), n // 2
    size = next_fast_len(n + len(seed), real=True)
    work = lambda: np.rint(irfft(rfft(key, size) * rfft(seed, size), size)[n - 1 : n - 1 + m]).astype(np.int64) & 1
    row = lambda i: int((seed[i + n - 1 - np.arange(n)] & key).sum()) & 1
    measure(f"{name} FFT Toeplitz", n, work, lambda out: all(out[i] == row(i) for i in (0, m // 2, m - 1)))

def cryptomite_toeplitz(n):
    from cryptomite import Toeplitz
    key, seed = [bool(b) for b in rng.integers(0, 2, n)], [bool(b) for b in rng.integers(0, 2, n + n // 2 - 1)]
    measure("cryptomite Toeplitz", n, lambda: Toeplitz(n, n // 2).extract(key, seed), lambda out: len(out) == n // 2)

def qkdpy_toeplitz(n):
    from qkdpy.key_management.privacy_amplification import PrivacyAmplification
    key = rng.integers(0, 2, n).tolist()
    work = lambda: PrivacyAmplification.toeplitz_hashing(key, n // 2, 1)
    measure("qkdpy Toeplitz", n, work, lambda out: len(out) == n // 2)

def qkdpy_cascade(n, qber):
    from qkdpy.key_management.error_correction import ErrorCorrection
    alice = rng.integers(0, 2, n)
    bob = alice ^ (rng.random(n) < qber)
    work = lambda: ErrorCorrection.cascade(alice.tolist(), bob.tolist())
    measure(f"qkdpy cascade at {qber:.0%}, leak not counted", n, work, lambda out: list(out[0]) == list(out[1]))

def sequence_cascade(frames, qber):
    # Its Cascade alone, without its photons: the messages of the nodes go over its own simulated line.
    from sequence.components.optical_channel import ClassicalChannel
    from sequence.kernel.timeline import Timeline
    from sequence.qkd.BB84 import pair_bb84_protocols
    from sequence.qkd.cascade import pair_cascade_protocols
    from sequence.topology.node import QKDNode
    line = Timeline()
    nodes = [QKDNode(name, line, stack_size=2) for name in ("a", "b")]
    for here, there in (nodes, nodes[::-1]):
        ClassicalChannel(f"{here.name}-{there.name}", line, distance=1, delay=1).set_ends(here, there.name)
    stacks = [node.protocol_stack for node in nodes]
    pair_bb84_protocols(*(stack[0] for stack in stacks))
    alice, bob = (stack[1] for stack in stacks)
    pair_cascade_protocols(alice, bob)
    for one in (alice, bob):
        one.lower_protocols.clear()
    alice.keylen, alice.frame_num, alice.run_time = 256, 10**9, 10**18
    size = alice.frame_len
    noisy = rng.integers(0, 2, (frames + 1, size)), rng.random((frames + 1, size)) < qber
    keys = [[int("".join(map(str, row)), 2) for row in side] for side in (noisy[0], noisy[0] ^ noisy[1])]
    line.init()
    def reconcile(number):
        bob.pop(keys[1][number])
        alice.pop(keys[0][number])
        line.run()
    reconcile(0)  # it estimates the error rate from the first frame, which is lost
    work = lambda: [reconcile(number) for number in range(1, frames + 1)]
    name = f"SeQUeNCe cascade at {qber:.0%}, leak under-counted"
    measure(name, frames * size, work, lambda _: alice.bits[1:] == bob.bits[1:])

def ldpc_belief_propagation(qber):
    from ldpc import BpDecoder
    from scipy.sparse import coo_matrix
    given = np.load(sys.argv[1])
    rows, columns, shape = given["rows"], given["columns"], tuple(given["shape"].tolist())
    matrix = coo_matrix((np.ones(len(rows), dtype=np.uint8), (rows, columns)), shape=shape).tocsr()
    wrong = (rng.random(shape[1]) < qber).astype(np.uint8)
    syndrome = (matrix @ wrong % 2).astype(np.uint8)
    for method in ("minimum_sum", "product_sum"):
        decoder = BpDecoder(matrix, error_rate=qber, max_iter=60, bp_method=method, schedule="serial")
        work = lambda: decoder.decode(syndrome)
        name = f"ldpc {method} at {qber:.0%}, our code, one frame"
        measure(name, shape[1], work, lambda out: (np.asarray(out) == wrong).all())

ldpc_belief_propagation(0.02)
for name in ("scipy", "pyFFTW"):
    fft_toeplitz(1_000_000, name)
cryptomite_toeplitz(1_000_000)
qkdpy_toeplitz(2000)
for qber in (0.01, 0.03):
    qkdpy_cascade(65_536, qber)
    sequence_cascade(20, qber)
"""


def save_code(path: Path) -> None:
    """Write the parity checks of the code this package uses for ``ONE_WAY``, as rows and columns of its ones."""
    code = frames_for(*ONE_WAY).code(0)
    ones = [(row, column, shift) for row, edges in enumerate(code.rows) for column, shift in edges]
    row, column, shift = (np.array(part)[:, None] for part in zip(*ones, strict=True))
    lane = np.arange(code.z)
    rows, columns = row * code.z + lane, column * code.z + (lane + shift) % code.z
    shape = (len(code.rows) * code.z, code.width * code.z)
    np.savez(path, rows=rows.ravel(), columns=columns.ravel(), shape=np.array(shape))


def peers() -> list[dict]:
    with tempfile.TemporaryDirectory() as directory:
        venv.create(directory, with_pip=True)
        python = Path(directory) / "bin" / "python"
        subprocess.run([python, "-m", "pip", "install", "--quiet", *PEERS], check=True)  # noqa: S603  - as pinned above
        code = Path(directory) / "code.npz"
        save_code(code)
        done = subprocess.run([python, "-c", PEER_PROGRAM, code], check=True, capture_output=True, text=True)  # noqa: S603  - ours
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def main() -> None:
    theirs = peers()
    hashed = {
        line["n_bits"]: line for line in ours.amplification((2000, 1_000_000))["results"] if "shift" in line["name"]
    }
    lines = []
    for line in theirs:
        if "ldpc" in line["name"]:
            failures: list[str] = []
            mine = ours._one_way(*ONE_WAY, failures)["mbps"]  # noqa: SLF001  - both ends; the peer only decodes
            assert not failures, failures
        elif "cascade" in line["name"]:
            qber = 0.03 if "3%" in line["name"] else 0.01
            alice, bob = ours._noisy(line["n"], qber)  # noqa: SLF001  - the benchmark's own input
            seconds = ours._cpu(lambda a=alice, b=bob, q=qber: ours._reconcile(a, b, q, FEW_ROUNDS))  # noqa: SLF001
            mine = line["n"] / seconds / 1e6
        else:
            mine = hashed[line["n"]]["mbps"]
        lines.append(line | {"ours_mbps": mine, "ratio": mine / line["mbps"] if line["mbps"] else None})
    if "--json" in sys.argv:
        print(json.dumps({"peers": lines}))
        return
    for line in lines:
        right = "" if line["right"] else f"   not right {line.get('why', '')}"
        speed, ratio = (f"{line[x]:12.5g}" if line[x] else f"{'-':>12s}" for x in ("mbps", "ratio"))
        print(
            f"{line['name']:45s} n {line['n']:9d} {speed} Mb/s   ours {line['ours_mbps']:8.1f}   ratio {ratio}{right}"
        )


if __name__ == "__main__":
    main()
