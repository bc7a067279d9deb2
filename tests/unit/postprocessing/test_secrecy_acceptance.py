"""The fixed policy: one preset length, earned by the whole acceptance set, refused outside it."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heliograph.errors import BlockDiscarded, ConfigurationError, QBERTooHigh, ReconciliationFailed
from heliograph.postprocessing.secrecy.acceptance import (
    VERIFICATION_BITS,
    accept,
    check_parameters,
    precheck,
    preset_length,
)
from heliograph.postprocessing.secrecy.link import fibre_link
from heliograph.postprocessing.secrecy.planning import expected_counts, plan_block
from heliograph.postprocessing.secrecy.wiesemann2024 import secret_key_length
from heliograph.types import IntensityCounts

PLAN = plan_block("demo", fibre_link(25), 100_000)
KEY, TEST = expected_counts(fibre_link(25), PLAN.light)
CHARGED = PLAN.acceptance.disclosed_bits_max * 3 // 4


def scaled(counts, detections=1.0, errors=1.0):
    n = tuple(round(x * detections) for x in counts.detections)
    c = tuple(min(a, round(x * detections * errors)) for a, x in zip(n, counts.errors, strict=True))
    return IntensityCounts(n, c)


def test_the_expected_block_is_accepted_and_its_length_is_never_above_what_its_own_terms_earn():
    precheck(PLAN, KEY.detections, TEST)
    terms = accept(PLAN, KEY, TEST, CHARGED, asymmetric=False)
    own = secret_key_length(
        terms.s1_lower, terms.phase_error_upper, CHARGED + VERIFICATION_BITS, PLAN.eps_sec, PLAN.eps_cor
    )
    assert PLAN.secret_key_length <= own


@settings(max_examples=300, deadline=None)
@given(
    n=st.floats(0.9, 1.05), m=st.floats(0.9, 1.1), e=st.floats(0, 1.5), f=st.floats(0, 1.5), share=st.floats(0, 1.1),
)  # fmt: skip
def test_whatever_is_accepted_has_earned_the_preset_length(n, m, e, f, share):
    key, test = scaled(KEY, n, e), scaled(TEST, m, f)
    charged = int(share * PLAN.acceptance.disclosed_bits_max)
    try:
        terms = accept(PLAN, key, test, charged, asymmetric=False)
    except BlockDiscarded:
        return
    own = secret_key_length(
        terms.s1_lower, terms.phase_error_upper, charged + VERIFICATION_BITS, PLAN.eps_sec, PLAN.eps_cor
    )
    assert PLAN.secret_key_length <= own
    precheck(PLAN, key.detections, test)  # the early test never refuses what the final one takes


def test_the_preset_length_is_the_floor_of_the_formula_at_the_corner_with_verification_charged():
    a = PLAN.acceptance
    corner = secret_key_length(
        a.single_photons_lower_min, a.phase_error_upper_max, a.disclosed_bits_max + 128, 1e-15, 1e-15
    )
    assert PLAN.secret_key_length == preset_length(a, 1e-15, 1e-15)
    assert 0 <= corner - PLAN.secret_key_length < 1


def test_one_parity_above_the_cap_discards_the_block():
    cap = PLAN.acceptance.disclosed_bits_max
    accept(PLAN, KEY, TEST, cap, asymmetric=False)
    with pytest.raises(ReconciliationFailed, match=f"{cap + 1} bits, the cap is {cap}"):
        accept(PLAN, KEY, TEST, cap + 1, asymmetric=False)


def test_an_asymmetric_block_is_discarded():
    with pytest.raises(BlockDiscarded, match="4 sigma") as caught:
        accept(PLAN, KEY, TEST, CHARGED, asymmetric=True)
    assert type(caught.value) is BlockDiscarded


def test_a_block_with_more_bits_than_the_cap_is_discarded_early_and_late():
    bright = scaled(KEY, 1.2)
    with pytest.raises(BlockDiscarded, match="sifted bits, the cap is"):
        precheck(PLAN, bright.detections, TEST)
    with pytest.raises(BlockDiscarded, match="sifted bits, the cap is"):
        accept(PLAN, bright, TEST, CHARGED, asymmetric=False)


def test_too_few_single_photons_discard_the_block_early_and_late():
    dim = scaled(KEY, 0.8)
    with pytest.raises(BlockDiscarded, match="single photons") as early:
        precheck(PLAN, dim.detections, TEST)
    with pytest.raises(BlockDiscarded, match="single photons") as late:
        accept(PLAN, dim, TEST, CHARGED, asymmetric=False)
    assert type(early.value) is type(late.value) is BlockDiscarded


def test_key_basis_errors_lower_the_single_photons_and_discard_the_block():
    noisy = scaled(KEY, 1.0, 9.0)
    precheck(PLAN, noisy.detections, TEST)  # they are not known before reconciliation
    with pytest.raises(BlockDiscarded, match=f"qber_z {noisy.error_rate:.2%}"):
        accept(PLAN, noisy, TEST, CHARGED, asymmetric=False)


@pytest.mark.parametrize("errors", [2.0, 10.0])
def test_test_basis_errors_discard_the_block_and_the_reason_names_the_rates(errors):
    noisy = scaled(TEST, 1.0, errors)
    with pytest.raises(QBERTooHigh, match="qber_x"):
        precheck(PLAN, KEY.detections, noisy)
    with pytest.raises(QBERTooHigh, match=f"qber_z {KEY.error_rate:.2%}, qber_x {noisy.error_rate:.2%}"):
        accept(PLAN, KEY, noisy, CHARGED, asymmetric=False)


def test_intercept_resend_of_every_pulse_is_an_error_rate_too_high():
    key = IntensityCounts(KEY.detections, tuple(n // 4 for n in KEY.detections))
    test = IntensityCounts(TEST.detections, tuple(n // 4 for n in TEST.detections))
    with pytest.raises(QBERTooHigh):
        accept(PLAN, key, test, CHARGED, asymmetric=False)


def test_a_cut_fibre_is_not_blamed_on_errors():
    none = IntensityCounts((0, 0), (0, 0))
    with pytest.raises(BlockDiscarded, match="single photons") as caught:
        accept(PLAN, none, none, 0, asymmetric=False)
    assert type(caught.value) is BlockDiscarded


def test_a_refusal_holds_just_outside_each_threshold():
    terms = accept(PLAN, KEY, TEST, CHARGED, asymmetric=False)
    a = PLAN.acceptance
    at = replace(
        a, single_photons_lower_min=terms.s1_lower, phase_error_upper_max=terms.phase_error_upper,
        sifted_bits_max=sum(KEY.detections), disclosed_bits_max=CHARGED,
    )  # fmt: skip
    accept(replace(PLAN, acceptance=at), KEY, TEST, CHARGED, asymmetric=False)
    for outside in (
        replace(at, single_photons_lower_min=terms.s1_lower * (1 + 1e-12)),
        replace(at, phase_error_upper_max=terms.phase_error_upper * (1 - 1e-12)),
        replace(at, sifted_bits_max=sum(KEY.detections) - 1),
        replace(at, disclosed_bits_max=CHARGED - 1),
        replace(at, single_photons_lower_min=float("nan")),
        replace(at, phase_error_upper_max=float("nan")),
    ):
        with pytest.raises(BlockDiscarded):
            accept(replace(PLAN, acceptance=outside), KEY, TEST, CHARGED, asymmetric=False)


def test_parameters_as_planned_pass():
    check_parameters(PLAN)
    check_parameters(replace(PLAN, secret_key_length=1))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda p: replace(p, secret_key_length=p.secret_key_length + 1), "earns"),
        (lambda p: replace(p, secret_key_length=0), "earns"),
        (lambda p: replace(p, secret_key_length=-5), "earns"),
        (lambda p: replace(p, eps_sec=1e-14), "eps_sec"),
        (lambda p: replace(p, eps_cor=1e-14), "eps_cor"),
        (lambda p: replace(p, eps_sec=0.0), "eps_sec"),
        (lambda p: replace(p, eps_cor=float("nan")), "eps_cor"),
        (lambda p: replace(p, acceptance=replace(p.acceptance, phase_error_upper_max=0.5)), "phase_error_upper_max"),
        (lambda p: replace(p, acceptance=replace(p.acceptance, phase_error_upper_max=float("nan"))), "phase_error"),
        (lambda p: replace(p, acceptance=replace(p.acceptance, single_photons_lower_min=float("inf"))), "single"),
        (lambda p: replace(p, acceptance=replace(p.acceptance, single_photons_lower_min=1e9)), "single"),
        (lambda p: replace(p, acceptance=replace(p.acceptance, disclosed_bits_max=-1)), "disclosed_bits_max"),
        (lambda p: replace(p, acceptance=replace(p.acceptance, disclosed_bits_max=10**6)), "earns"),
        (lambda p: replace(p, light=replace(p.light, intensities=(0.4, 0.0))), "intensities"),
    ],
)
def test_parameters_that_promise_more_than_is_proved_are_refused(change, reason):
    with pytest.raises(ConfigurationError, match=reason):
        check_parameters(change(PLAN))


def test_a_site_may_tolerate_a_larger_epsilon_only_by_its_own_registration():
    looser = plan_block("loose", fibre_link(25), 100_000, eps_sec=1e-10, eps_cor=1e-10)
    with pytest.raises(ConfigurationError, match="eps_sec"):
        check_parameters(looser)
    check_parameters(looser, eps_sec_max=1e-10, eps_cor_max=1e-10)
