"""The fixed policy: a length that is set before the first pulse, and the set of outcomes that earn it.

The theorem, whichever the block's parameters name, is about a protocol of fixed length (security.md 5): every block
either meets the acceptance set and gives exactly ``secret_key_length`` bits, or is discarded. Testing ``s1_lower``,
``phase_error_upper`` and the parities charged against thresholds is such a set: the first two are functions of the
announced counts alone, the third is a property of the announced transcript, and the thresholds are in both
registrations before any light is sent. The length formula rises with the first and falls with the other two, so inside
the set it is nowhere below its value at the corner, and that value is the preset length. Nothing is tuned to the block
that is being judged.
"""

from __future__ import annotations

import math
from typing import Final

from heliograph.errors import BlockDiscarded, ConfigurationError, QBERTooHigh, ReconciliationFailed
from heliograph.postprocessing.secrecy.theorems import Terms, Theorem, theorem_named
from heliograph.types import Acceptance, BlockParameters, IntensityCounts

__all__ = [
    "EPS_COR_MAX",
    "EPS_SEC_MAX",
    "VERIFICATION_BITS",
    "accept",
    "check_parameters",
    "precheck",
    "preset_length",
]

VERIFICATION_BITS: Final = 128  # the Poly1305 tag that verification sends in clear (security.md 5)
EPS_SEC_MAX: Final = 1e-15  # per block; our choice: at a block a second the ledger lasts for years (design, settled)
EPS_COR_MAX: Final = 1e-15


def preset_length(theorem: Theorem, acceptance: Acceptance, eps_sec: float, eps_cor: float) -> int:
    """Return floor of the theorem's length at the corner of the acceptance set, in bits; may be zero or negative.

    The cap on parities and the verification bits are both charged.
    """
    charged = acceptance.disclosed_bits_max + VERIFICATION_BITS
    corner = theorem.length(
        acceptance.single_photons_lower_min, acceptance.phase_error_upper_max, charged, eps_sec, eps_cor
    )
    return math.floor(corner)


def check_parameters(
    parameters: BlockParameters, *, eps_sec_max: float = EPS_SEC_MAX, eps_cor_max: float = EPS_COR_MAX
) -> None:
    """Raise ConfigurationError unless the preset length is positive and earned by the whole acceptance set.

    ``eps_sec_max``, ``eps_cor_max``: what this site's registration tolerates per block (security.md 7).
    """
    name, a = parameters.name, parameters.acceptance
    theorem = theorem_named(parameters.theorem)
    theorem.check_light(parameters.light)
    for field, eps, eps_max in (
        ("eps_sec", parameters.eps_sec, eps_sec_max),
        ("eps_cor", parameters.eps_cor, eps_cor_max),
    ):
        if not 0 < eps <= eps_max:
            raise ConfigurationError(f"{name}: {field} = {eps} must lie in (0, {eps_max}]")
    if not (math.isfinite(a.single_photons_lower_min) and 1 <= a.single_photons_lower_min <= a.sifted_bits_max):
        raise ConfigurationError(
            f"{name}: single_photons_lower_min = {a.single_photons_lower_min} must lie between 1 and "
            f"sifted_bits_max = {a.sifted_bits_max}"
        )
    if not 0 <= a.phase_error_upper_max < 0.5:
        raise ConfigurationError(f"{name}: phase_error_upper_max = {a.phase_error_upper_max} must lie in [0, 1/2)")
    if a.disclosed_bits_max < 0:
        raise ConfigurationError(f"{name}: disclosed_bits_max = {a.disclosed_bits_max} must not be negative")
    earned = preset_length(theorem, a, parameters.eps_sec, parameters.eps_cor)
    if not 0 < parameters.secret_key_length <= earned:
        raise ConfigurationError(
            f"{name}: secret_key_length = {parameters.secret_key_length}, but the acceptance set earns {earned} bits; "
            "plan the block again for this link"
        )


def precheck(parameters: BlockParameters, key_detections: tuple[int, ...], test: IntensityCounts) -> None:
    """Discard a hopeless block before reconciliation, on what is announced by then.

    The key basis' errors are not known yet and are taken as none, which can only flatter the block: whatever is refused
    here would be refused by ``accept``. Raises BlockDiscarded or QBERTooHigh.
    """
    key = IntensityCounts(key_detections, (0,) * len(key_detections))
    _check_size(parameters, key)
    terms = _terms(parameters, key, test)
    _check_single_photons(parameters, key, terms)
    _check_phase_error(parameters, terms, f"qber_x {test.error_rate:.2%}, qber_z not known yet")


def accept(
    parameters: BlockParameters,
    key: IntensityCounts,
    test: IntensityCounts,
    charged_parities: int,
    *,
    asymmetric: bool,
) -> Terms:
    """Return the block's terms if it lies in the acceptance set; it then earns ``parameters.secret_key_length`` bits.

    ``key`` holds the exact error counts after reconciliation; ``charged_parities`` are the bits charged by the two-way
    rule, verification excluded (its bits are in the preset length); ``asymmetric`` is the verdict of
    ``estimation.is_asymmetric``. Raises ReconciliationFailed, QBERTooHigh or BlockDiscarded.
    """
    cap = parameters.acceptance.disclosed_bits_max
    if charged_parities < 0:
        raise ValueError(f"charged_parities = {charged_parities}: must not be negative")
    if charged_parities > cap:
        raise ReconciliationFailed(
            f"reconciliation disclosed {charged_parities} bits, the cap is {cap}: qber_z {key.error_rate:.2%} "
            "is higher than this block was planned for"
        )
    if asymmetric:
        raise BlockDiscarded(
            "the bits are biased, or the errors given 0 and given 1 differ, beyond 4 sigma: "
            "check that both detectors are equally efficient"
        )
    _check_size(parameters, key)
    # Without errors the bound is at its best: too few even then is a matter of light, not of noise.
    silent = IntensityCounts(key.detections, (0,) * len(key.detections))
    _check_single_photons(parameters, key, _terms(parameters, silent, test))
    terms = _terms(parameters, key, test)
    _check_phase_error(parameters, terms, f"qber_z {key.error_rate:.2%}, qber_x {test.error_rate:.2%}")
    _check_single_photons(parameters, key, terms)
    return terms


def _terms(parameters: BlockParameters, key: IntensityCounts, test: IntensityCounts) -> Terms:
    return theorem_named(parameters.theorem).bounds(key, test, parameters.light, parameters.eps_sec)


def _check_size(parameters: BlockParameters, key: IntensityCounts) -> None:
    sifted, cap = sum(key.detections), parameters.acceptance.sifted_bits_max
    if sifted > cap:
        raise BlockDiscarded(f"{sifted} sifted bits, the cap is {cap}: plan the block again for a brighter link")


def _check_single_photons(parameters: BlockParameters, key: IntensityCounts, terms: Terms) -> None:
    least = parameters.acceptance.single_photons_lower_min
    if not terms.s1_lower >= least:
        raise BlockDiscarded(
            f"at least {terms.s1_lower:.0f} of {sum(key.detections)} detections are proved to be single photons, "
            f"{least:.0f} are needed (qber_z {key.error_rate:.2%}): more loss or other light than planned, or an attack"
        )


def _check_phase_error(parameters: BlockParameters, terms: Terms, observed: str) -> None:
    most = parameters.acceptance.phase_error_upper_max
    if not terms.phase_error_upper <= most:
        raise QBERTooHigh(
            f"phase error at most {terms.phase_error_upper:.2%}, {most:.2%} is allowed ({observed}): "
            "check alignment and noise, or suspect an eavesdropper"
        )
