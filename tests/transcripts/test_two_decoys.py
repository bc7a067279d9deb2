"""A link with two decoys, from the registration to keys: the same machines, another theorem."""

from __future__ import annotations

from dataclasses import replace

import pytest

from heliograph.errors import ConfigurationError, QBERTooHigh
from heliograph.postprocessing.secrecy.acceptance import accept
from heliograph.postprocessing.secrecy.lim2014_serfling import bounds
from heliograph.protocol import actions as a
from heliograph.protocol.codec import decode
from heliograph.protocol.frames import parse_frame
from heliograph.protocol.messages import BasisReveal
from heliograph.protocol.records import CommittedLocal
from heliograph.sim.eve import InterceptResend
from heliograph.testing.links import quick_channel, quick_registration
from heliograph.testing.pair import Pair

REGISTRATION = quick_registration(decoys=2)
PARAMETERS = REGISTRATION.parameters[0]


def run(directory, *, seed=1, attack=None):
    pair = Pair(REGISTRATION, quick_channel(), directory, seed=seed, attack=attack, prefilter=False)
    pair.run_block()
    pair.time_out()
    return pair


def keys(pair):
    """Every key a master gets, with what the slave gets for the same key_ID."""
    found = {}
    for owner, master, slave in ((pair.tx, "sae-a", "sae-b"), (pair.rx, "sae-b", "sae-a")):
        for key_id, material in owner.deliverable(master, slave, 10_000):
            (peer,) = pair.other(owner).keys.deliver_to_slave(slave, master, [key_id], 0.0)
            found[key_id] = (material, peer.material)
    return found


def test_both_sides_hold_the_same_keys(tmp_path):
    pair = run(tmp_path / "pair")
    assert len(PARAMETERS.light.intensities) == 3
    assert pair.tx.finished() == pair.rx.finished() == [1]
    found = keys(pair)
    assert len(found) == (PARAMETERS.secret_key_length - 1024 - 2 * 1792) // 256
    assert all(master == slave for master, slave in found.values())


def test_the_block_earned_its_length_by_the_theorem_it_names(tmp_path):
    pair = run(tmp_path / "pair", seed=2)
    (record,) = [
        x.action.record
        for x in pair.rx.done
        if isinstance(x.action, a.Persist) and isinstance(x.action.record, CommittedLocal)
    ]
    report = record.report
    terms = bounds(report.key, report.test, PARAMETERS.light, PARAMETERS.eps_sec)
    assert accept(PARAMETERS, report.key, report.test, report.disclosed.parities_a, asymmetric=False) == terms
    assert terms.s1_lower >= PARAMETERS.acceptance.single_photons_lower_min
    assert report.phase_error_upper == terms.phase_error_upper <= PARAMETERS.acceptance.phase_error_upper_max
    assert len(record.secret) == report.secret_key_length == PARAMETERS.secret_key_length
    assert all(n > 0 for n in report.key.detections[:2])


def test_each_intensity_takes_two_bits_on_the_wire(tmp_path):
    pair = run(tmp_path / "pair")
    (reveal,) = [m for m in (decode(parse_frame(f).body) for _, f in pair.frames) if isinstance(m, BasisReveal)]
    assert len(reveal.intensities) == pytest.approx(2 * len(reveal.bases), abs=1)


@pytest.mark.parametrize("fraction", [1.0, 0.5, 0.25])
@pytest.mark.parametrize("z_probability", [0.5, 1.0])
def test_intercept_resend_is_seen_and_yields_no_key(tmp_path, fraction, z_probability):
    pair = run(tmp_path / "pair", attack=InterceptResend(fraction, z_probability))
    assert pair.rx.discards() == [QBERTooHigh.__name__]
    assert pair.tx.finished() == pair.rx.finished() == []
    assert keys(pair) == {}


def test_sites_that_differ_in_the_number_of_decoys_have_unequal_registrations():
    assert REGISTRATION.digest() != quick_registration().digest()


@pytest.mark.parametrize("theorem", ["wiesemann2024", "lim2014", "rusca2018", ""])
def test_a_registration_under_a_theorem_that_does_not_cover_its_light_is_refused(theorem):
    with pytest.raises(ConfigurationError, match=r"theorem|intensities"):
        replace(REGISTRATION, parameters=(replace(PARAMETERS, theorem=theorem),))


def test_a_record_from_before_there_was_a_choice_means_one_decoy():
    one = quick_registration().parameters[0]
    light, acceptance = one.light, one.acceptance
    assert type(one)(one.name, light, acceptance, one.secret_key_length, one.eps_sec, one.eps_cor) == one
