"""The fixed policy: one preset length, earned by the whole acceptance set, refused outside it; for every theorem."""

import math
from dataclasses import dataclass, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heliograph.errors import BlockDiscarded, ConfigurationError, QBERTooHigh, ReconciliationFailed
from heliograph.postprocessing.secrecy import lim2014_serfling, wiesemann2024
from heliograph.postprocessing.secrecy.acceptance import (
    VERIFICATION_BITS,
    accept,
    check_parameters,
    precheck,
    preset_length,
)
from heliograph.postprocessing.secrecy.link import fibre_link
from heliograph.postprocessing.secrecy.planning import expected_counts, plan_block
from heliograph.postprocessing.secrecy.theorems import theorem_for, theorem_named
from heliograph.types import BlockParameters, IntensityCounts


@dataclass(frozen=True)
class Case:
    """A planned block, the counts an honest link gives, and how many parities it would disclose."""

    plan: BlockParameters
    key: IntensityCounts
    test: IntensityCounts

    @property
    def charged(self):
        return self.plan.acceptance.disclosed_bits_max * 3 // 4

    def length(self, s1, phase, disclosed):
        return theorem_named(self.plan.theorem).length(s1, phase, disclosed, self.plan.eps_sec, self.plan.eps_cor)


def planned(decoys):
    plan = plan_block("demo", fibre_link(25), 100_000, decoys=decoys)
    return Case(plan, *expected_counts(fibre_link(25), plan.light))


ONE_DECOY, TWO_DECOYS = planned(1), planned(2)
BOTH = pytest.mark.parametrize("case", [ONE_DECOY, TWO_DECOYS], ids=["one decoy", "two decoys"])
# One short of proof: a decoy without light, a signal below the sum of its decoys.
UNPROVABLE = {2: (0.4, 0.0), 3: (0.4, 0.3, 0.2)}


def scaled(counts, detections=1.0, errors=1.0):
    n = tuple(round(x * detections) for x in counts.detections)
    c = tuple(min(a, round(x * detections * errors)) for a, x in zip(n, counts.errors, strict=True))
    return IntensityCounts(n, c)


@BOTH
def test_the_expected_block_is_accepted_and_its_length_is_never_above_what_its_own_terms_earn(case):
    precheck(case.plan, case.key.detections, case.test)
    terms = accept(case.plan, case.key, case.test, case.charged, asymmetric=False)
    own = case.length(terms.s1_lower, terms.phase_error_upper, case.charged + VERIFICATION_BITS)
    assert case.plan.secret_key_length <= own


@BOTH
@settings(max_examples=300, deadline=None)
@given(
    n=st.floats(0.9, 1.05), m=st.floats(0.9, 1.1), e=st.floats(0, 1.5), f=st.floats(0, 1.5), share=st.floats(0, 1.1),
)  # fmt: skip
def test_whatever_is_accepted_has_earned_the_preset_length(case, n, m, e, f, share):
    key, test = scaled(case.key, n, e), scaled(case.test, m, f)
    charged = int(share * case.plan.acceptance.disclosed_bits_max)
    try:
        terms = accept(case.plan, key, test, charged, asymmetric=False)
    except BlockDiscarded:
        return
    own = case.length(terms.s1_lower, terms.phase_error_upper, charged + VERIFICATION_BITS)
    assert case.plan.secret_key_length <= own
    precheck(case.plan, key.detections, test)  # the early test never refuses what the final one takes


@BOTH
def test_the_preset_length_is_the_floor_of_the_formula_at_the_corner_with_verification_charged(case):
    a = case.plan.acceptance
    corner = case.length(a.single_photons_lower_min, a.phase_error_upper_max, a.disclosed_bits_max + 128)
    assert case.plan.secret_key_length == preset_length(theorem_named(case.plan.theorem), a, 1e-15, 1e-15)
    assert 0 <= corner - case.plan.secret_key_length < 1


@BOTH
def test_one_parity_above_the_cap_discards_the_block(case):
    cap = case.plan.acceptance.disclosed_bits_max
    accept(case.plan, case.key, case.test, cap, asymmetric=False)
    with pytest.raises(ReconciliationFailed, match=f"{cap + 1} bits, the cap is {cap}"):
        accept(case.plan, case.key, case.test, cap + 1, asymmetric=False)


@BOTH
def test_an_asymmetric_block_is_discarded(case):
    with pytest.raises(BlockDiscarded, match="4 sigma") as caught:
        accept(case.plan, case.key, case.test, case.charged, asymmetric=True)
    assert type(caught.value) is BlockDiscarded


@BOTH
def test_a_block_with_more_bits_than_the_cap_is_discarded_early_and_late(case):
    bright = scaled(case.key, 1.2)
    with pytest.raises(BlockDiscarded, match="sifted bits, the cap is"):
        precheck(case.plan, bright.detections, case.test)
    with pytest.raises(BlockDiscarded, match="sifted bits, the cap is"):
        accept(case.plan, bright, case.test, case.charged, asymmetric=False)


@BOTH
def test_too_few_single_photons_discard_the_block_early_and_late(case):
    dim = scaled(case.key, 0.8)
    with pytest.raises(BlockDiscarded, match="single photons") as early:
        precheck(case.plan, dim.detections, case.test)
    with pytest.raises(BlockDiscarded, match="single photons") as late:
        accept(case.plan, dim, case.test, case.charged, asymmetric=False)
    assert type(early.value) is type(late.value) is BlockDiscarded


def test_key_basis_errors_lower_the_single_photons_and_discard_the_block():
    case = ONE_DECOY
    noisy = scaled(case.key, 1.0, 9.0)
    precheck(case.plan, noisy.detections, case.test)  # they are not known before reconciliation
    with pytest.raises(BlockDiscarded, match=f"qber_z {noisy.error_rate:.2%}"):
        accept(case.plan, noisy, case.test, case.charged, asymmetric=False)


@BOTH
@pytest.mark.parametrize("errors", [2.0, 10.0])
def test_test_basis_errors_discard_the_block_and_the_reason_names_the_rates(case, errors):
    noisy = scaled(case.test, 1.0, errors)
    with pytest.raises(QBERTooHigh, match="qber_x"):
        precheck(case.plan, case.key.detections, noisy)
    with pytest.raises(QBERTooHigh, match=f"qber_z {case.key.error_rate:.2%}, qber_x {noisy.error_rate:.2%}"):
        accept(case.plan, case.key, noisy, case.charged, asymmetric=False)


@BOTH
def test_intercept_resend_of_every_pulse_is_an_error_rate_too_high(case):
    key = IntensityCounts(case.key.detections, tuple(n // 4 for n in case.key.detections))
    test = IntensityCounts(case.test.detections, tuple(n // 4 for n in case.test.detections))
    with pytest.raises(QBERTooHigh):
        accept(case.plan, key, test, case.charged, asymmetric=False)


@BOTH
def test_a_cut_fibre_is_not_blamed_on_errors(case):
    none = scaled(case.key, 0.0)
    with pytest.raises(BlockDiscarded, match="single photons") as caught:
        accept(case.plan, none, none, 0, asymmetric=False)
    assert type(caught.value) is BlockDiscarded


@BOTH
def test_a_refusal_holds_just_outside_each_threshold(case):
    terms = accept(case.plan, case.key, case.test, case.charged, asymmetric=False)
    a = case.plan.acceptance
    at = replace(
        a, single_photons_lower_min=terms.s1_lower, phase_error_upper_max=terms.phase_error_upper,
        sifted_bits_max=sum(case.key.detections), disclosed_bits_max=case.charged,
    )  # fmt: skip
    accept(replace(case.plan, acceptance=at), case.key, case.test, case.charged, asymmetric=False)
    for outside in (
        replace(at, single_photons_lower_min=terms.s1_lower * (1 + 1e-12)),
        replace(at, phase_error_upper_max=terms.phase_error_upper * (1 - 1e-12)),
        replace(at, sifted_bits_max=sum(case.key.detections) - 1),
        replace(at, disclosed_bits_max=case.charged - 1),
        replace(at, single_photons_lower_min=float("nan")),
        replace(at, phase_error_upper_max=float("nan")),
    ):
        with pytest.raises(BlockDiscarded):
            accept(replace(case.plan, acceptance=outside), case.key, case.test, case.charged, asymmetric=False)


@BOTH
def test_parameters_as_planned_pass(case):
    check_parameters(case.plan)
    check_parameters(replace(case.plan, secret_key_length=1))


@BOTH
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
        (lambda p: replace(p, light=replace(p.light, intensities=UNPROVABLE[len(p.light.intensities)])), "intensities"),
        (lambda p: replace(p, theorem=theorem_for(4 - len(p.light.intensities)).name), "intensities"),
        (lambda p: replace(p, theorem="lim2014"), "theorem"),
        (lambda p: replace(p, theorem=""), "theorem"),
    ],
)
def test_parameters_that_promise_more_than_is_proved_are_refused(case, change, reason):
    with pytest.raises(ConfigurationError, match=reason):
        check_parameters(change(case.plan))


def test_a_site_may_tolerate_a_larger_epsilon_only_by_its_own_registration():
    looser = plan_block("loose", fibre_link(25), 100_000, eps_sec=1e-10, eps_cor=1e-10)
    with pytest.raises(ConfigurationError, match="eps_sec"):
        check_parameters(looser)
    check_parameters(looser, eps_sec_max=1e-10, eps_cor_max=1e-10)


def test_with_two_decoys_the_errors_of_the_key_basis_are_judged_by_what_correcting_them_disclosed():
    case, noisy = TWO_DECOYS, scaled(TWO_DECOYS.key, 1.0, 9.0)
    assert accept(case.plan, noisy, case.test, case.charged, asymmetric=False) == accept(
        case.plan, case.key, case.test, case.charged, asymmetric=False
    )
    with pytest.raises(ReconciliationFailed, match=f"qber_z {noisy.error_rate:.2%}"):
        accept(case.plan, noisy, case.test, case.plan.acceptance.disclosed_bits_max + 1, asymmetric=False)


@pytest.mark.parametrize(("case", "module"), [(ONE_DECOY, wiesemann2024), (TWO_DECOYS, lim2014_serfling)])
def test_the_name_in_the_record_leads_to_the_formulas_of_that_theorem_and_no_other(case, module):
    a, plan = case.plan.acceptance, case.plan
    corner = module.secret_key_length(
        a.single_photons_lower_min, a.phase_error_upper_max, a.disclosed_bits_max + 128, plan.eps_sec, plan.eps_cor
    )
    assert plan.secret_key_length == math.floor(corner)
    terms = accept(plan, case.key, case.test, case.charged, asymmetric=False)
    assert terms == module.bounds(case.key, case.test, plan.light, plan.eps_sec)


@BOTH
def test_a_block_names_the_theorem_its_light_needs(case):
    theorem = theorem_named(case.plan.theorem)
    assert theorem.decoys == len(case.plan.light.intensities) - 1
    assert theorem_for(theorem.decoys) is theorem
    assert {ONE_DECOY.plan.theorem, TWO_DECOYS.plan.theorem} == {"wiesemann2024", "lim2014-serfling"}


@pytest.mark.parametrize("decoys", [0, 3, -1])
def test_a_number_of_decoys_without_a_theorem_is_refused(decoys):
    with pytest.raises(ConfigurationError, match=f"decoys = {decoys}"):
        plan_block("none", fibre_link(25), 100_000, decoys=decoys)
