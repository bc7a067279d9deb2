"""The finite-key length of single-photon BB84 and BBM92, after Tomamichel et al.

M. Tomamichel, C. C. W. Lim, N. Gisin, R. Renner, "Tight finite-key analysis for quantum cryptography", Nature
Communications 3, 634 (2012); theory.md 1.7. Not a theorem about weak laser pulses.

    l = n (q - h(Q + mu)) - lambda - log2(2 / (eps_sec^2 eps_cor)),  mu = sqrt( (n+k)/(n k) (k+1)/k ln(4/eps_sec) )

n key bits of one basis, k test bits of the other with error rate Q; q = 1, ideal preparation in two mutually unbiased
bases. Tomamichel and Leverrier (Quantum 1, 14, 2017) give the same length, and one bit more, for eps_pe = eps_pa =
eps_sec/2: eps_pe = 2 exp(-n k^2 nu^2 / ((n+k)(k+1))) makes their nu this mu.
A theorem about a fixed length: Q is the tolerated error rate, set before the run.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from heliograph.postprocessing.secrecy.concentration import serfling
from heliograph.postprocessing.secrecy.entropy import binary_entropy

__all__ = ["Terms", "bounds", "secret_key_length"]


@dataclass(frozen=True, slots=True)
class Terms:
    """What the bound says, named as for the decoy theorems: each detection counts as a single photon.

    ``v1_upper``: errors among the ``s1_test_lower`` test bits; ``gamma``: the paper's mu; ``phase_error_upper``: at
    most 1/2.
    """

    s0_lower: float
    s1_lower: float
    s1_test_lower: float
    v1_upper: float
    gamma: float
    phase_error_upper: float


def bounds(key_bits: int, test_bits: int, qber: float, eps_sec: float) -> Terms:
    """Bound the phase error rate of ``key_bits`` by the error rate ``qber`` of ``test_bits``.

    Without key bits or test bits nothing is known: 1/2. Raises ValueError for a negative number, a rate outside [0, 1],
    ``eps_sec`` outside (0, 1).
    """
    if key_bits < 0 or test_bits < 0:
        raise ValueError(f"{key_bits} key bits and {test_bits} test bits cannot be")
    if not 0 <= qber <= 1:
        raise ValueError(f"qber = {qber}: must lie in [0, 1]")
    if not 0 < eps_sec < 1:
        raise ValueError(f"eps_sec = {eps_sec}: must lie strictly between 0 and 1")
    n, k = float(key_bits), float(test_bits)
    if n == 0 or k == 0:
        return Terms(0.0, n, k, qber * k, gamma=0.5, phase_error_upper=0.5)
    mu = serfling(n, k, math.log(4) - math.log(eps_sec))
    return Terms(0.0, n, k, qber * k, mu, min(0.5, qber + mu))


def secret_key_length(terms: Terms, disclosed_bits: int, eps_sec: float, eps_cor: float) -> float:
    """Return the length before floor and clamp, in bits: the formula above, q = 1."""
    fixed = 1 - 2 * math.log2(eps_sec) - math.log2(eps_cor)
    return terms.s1_lower * (1 - binary_entropy(terms.phase_error_upper)) - disclosed_bits - fixed
