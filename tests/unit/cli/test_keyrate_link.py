"""keyrate --link: a link's description to the chosen light and the key; anything that cannot be is one clear line."""

import json
import re

import pytest
from typer.testing import CliRunner

from heliograph.cli.main import app
from heliograph.postprocessing.secrecy.link import fibre_link
from heliograph.postprocessing.secrecy.planning import plan_block
from heliograph.postprocessing.secrecy.table import LightChoice

# All of the light given: nothing to search, so quick.
LIGHT = "[light]\nsignal = 0.3\ndecoy = 0.1\nsignal_probability = 0.4\nz_probability = 0.8\n"
BLOCK = "[block]\nsifted_bits = 1e6\n"
PLAIN = "[link]\ndistance_km = 25\n" + BLOCK + LIGHT
CURVE = PLAIN.replace("= 25", "= {from = 0, to = 160, step = 80}")
PRINTED = 'theorem = "rusca2018"\neps_sec = 1e-9\n[link]\nloss_db = 16\n[block]\nkey_bits = 10000000\n'


def run(document, *options):
    text = document if isinstance(document, bytes) else document.encode()
    return CliRunner().invoke(app, ["keyrate", "--link", "-", *options], input=text)


def report(document):
    done = run(document, "--json")
    assert done.exit_code == 0, done.output
    assert done.stderr == ""
    return json.loads(done.stdout, parse_constant=pytest.fail)


def test_a_link_gets_the_block_that_planning_gives_it():
    found = report(PLAIN)
    plan = plan_block("x", fibre_link(25), 10**6, light=LightChoice(0.3, 0.1, 0.4, 0.8))
    assert found["secret_key_length"] == plan.secret_key_length
    assert found["pulses"] == plan.light.pulses
    assert found["block_s"] == pytest.approx(plan.light.pulses / 1e9)
    assert found["secret_key_rate_bps"] == pytest.approx(plan.secret_key_length / found["block_s"])
    assert found["secret_key_per_pulse"] == pytest.approx(plan.secret_key_length / plan.light.pulses)
    assert found["sifted_bits"] == pytest.approx(10**6, abs=5)
    assert 0.005 < found["qber"] < 0.02
    assert found["light"] == {"intensities": [0.3, 0.1], "probabilities": [0.4, 0.6], "z_probability": 0.8}
    assert found["terms"]["single_photons_lower_min"] == plan.acceptance.single_photons_lower_min
    assert (found["label"], found["policy"], found["eps_sec"]) == ("fixed", "fixed", 1e-15)
    assert found["link"]["detector_efficiency"] == 0.1, "what was assumed is said"
    assert found["loss_db"] == 5.0


def test_the_light_is_chosen_where_it_is_not_given():
    found = report(PRINTED)
    assert found["label"] == "indicative"
    assert any("no key may rest on it" in line for line in found["assumptions"])
    assert found["key_bits"] == pytest.approx(10**7, rel=1e-6)
    settled = report(PRINTED + "[light]\nsignal = 0.5\ndecoy = 0.2\nsignal_probability = 0.5\nz_probability = 0.9\n")
    assert found["secret_key_per_pulse"] > settled["secret_key_per_pulse"] > 0
    assert found["terms"]["gamma"] > 0


def test_a_curve_is_a_list_and_places_without_key_say_so():
    found = report(CURVE)
    assert [place["distance_km"] for place in found["curve"]] == [0, 80, 160]
    near, middle, far = found["curve"]
    assert near["secret_key_rate_bps"] > middle["secret_key_rate_bps"] > 0
    assert (far["secret_key_length"], far["light"], far["pulses"]) == (0, None, None)
    assert "secret_key_length" not in found
    (one,) = report(PLAIN.replace("= 25", "= [25]"))["curve"]
    assert one["secret_key_length"] == report(PLAIN)["secret_key_length"]


def test_a_person_reads_a_table_or_one_block():
    lines = run(CURVE).stdout.splitlines()
    assert lines[0].split()[:2] == ["km", "dB"]
    assert [line.split()[0] for line in lines[1:4]] == ["0", "80", "160"]
    assert lines[3].split()[2:] == ["-", "0"]
    one = run(PLAIN).stdout
    assert one.startswith("secret key  ")
    assert "25 km, 5 dB of fibre" in one
    far = run(PLAIN.replace("= 25", "= 250"))
    assert far.exit_code == 0
    assert far.stdout.startswith("secret key  none: ")


def test_decoys_choose_the_theorem():
    two = LIGHT.replace("signal_probability = 0.4", "signal_probability = 0.2\ndecoy_probability = 0.5")
    found = report("decoys = 2\n[link]\ndistance_km = 25\n" + BLOCK + two)
    assert found["protocol"] == "lim2014-serfling"
    assert found["light"]["intensities"] == [0.3, 0.1, 2e-4]
    assert any("ADR 0019" in line for line in found["assumptions"])
    assert report("decoys = 1\n" + PLAIN)["protocol"] == "wiesemann2024"


def test_tolerances_are_the_operators_to_set():
    wide, narrow = (report(PLAIN + f"[margin]\nqber = {x}\n")["secret_key_length"] for x in (0.5, 0.0))
    assert wide < narrow


def test_counts_or_a_link_but_never_both_or_neither(tmp_path):
    both = CliRunner().invoke(app, ["keyrate", "COUNTS.json", "--link", "LINK.toml"])
    neither = CliRunner().invoke(app, ["keyrate"])
    assert (both.exit_code, neither.exit_code) == (2, 2)
    assert "either COUNTS.json or --link" in both.stderr
    missing = CliRunner().invoke(app, ["keyrate", "--link", str(tmp_path / "none.toml")])
    assert missing.exit_code == 1
    assert "No such file" in missing.stderr


LINK = "[link]\ndistance_km = {}\n" + BLOCK
FIELD = "[link]\ndistance_km = 25\n{}\n" + BLOCK
REFUSED = {
    "not TOML": ("link = [", "not a TOML document"),
    "not text": (b"\xff\xfe", "not a TOML document"),
    "too long": (b"#" * (1 << 20) + b"#", "larger than 1 MiB"),
    "deep": ("x = " + "[" * 5000, "not a TOML document"),
    "twice": ("[link]\ndistance_km = 1\ndistance_km = 2\n", "not a TOML document"),
    "a number of 5000 digits": (LINK.format("1" * 5000), "not a TOML document|distance_km"),
    "empty": ("", r"\[link\]: missing"),
    "no block": ("[link]\ndistance_km = 1\n", r"\[block\]: missing"),
    "link is no table": ("link = 3\n" + BLOCK, "link: must be a table"),
    "no place": ("[link]\nclock_hz = 1e9\n" + BLOCK, "either distance_km or loss_db"),
    "two places": (FIELD.format("loss_db = 5"), "either distance_km or loss_db"),
    "loss and attenuation": ("[link]\nloss_db = 5\nattenuation_db_per_km = 0.2\n" + BLOCK, "attenuation_db_per_km"),
    "unknown top": ("fibre = 1\n" + PLAIN, "'fibre': unknown"),
    "unknown link": (FIELD.format("dead_time = 1e-6"), "link.'dead_time': unknown"),
    "unknown light": (PLAIN + "weak = 1\n", "light.'weak': unknown"),
    "unknown margin": (PLAIN + "[margin]\nsigma = 4\n", "margin.'sigma': unknown"),
    "NaN": (LINK.format("nan"), "distance_km = nan"),
    "infinite": (LINK.format("inf"), "distance_km = inf"),
    "negative": (LINK.format("-1"), "distance_km = -1"),
    "huge": (LINK.format("1e9"), "distance_km"),
    "too much loss": ("[link]\nloss_db = 250\n" + BLOCK, "loss_db = 250"),
    "loss in sum": ("[link]\nloss_db = 150\nreceiver_loss_db = 60\n" + BLOCK, "210 dB before the detectors"),
    "text": (LINK.format('"25"'), "distance_km = '25'"),
    "true": (LINK.format("true"), "distance_km = True"),
    "date": (LINK.format("2024-01-01"), "distance_km = datetime.date"),
    "empty list": (LINK.format("[]"), "list of 1 to 200"),
    "long list": (LINK.format(f"[{'1, ' * 201}]"), "list of 1 to 200"),
    "bad item": (LINK.format("[1, nan]"), r"distance_km\[1\]"),
    "half a range": (LINK.format("{from = 0, to = 5}"), "a range is"),
    "no step": (LINK.format("{from = 0, to = 5, step = 0}"), "step > 0"),
    "backwards": (LINK.format("{from = 5, to = 0, step = 1}"), "to >= from"),
    "fine range": (LINK.format("{from = 0, to = 500, step = 1e-9}"), "at most 200"),
    "efficiency": (FIELD.format("detector_efficiency = 1.1"), "detector_efficiency = 1.1"),
    "no efficiency": (FIELD.format("detector_efficiency = 0"), "detector_efficiency = 0"),
    "clock": (FIELD.format("clock_hz = 0"), "clock_hz = 0"),
    "dark": (FIELD.format("dark_count_probability = 0.6"), "dark_count_probability"),
    "two blocks": ("[link]\ndistance_km = 1\n[block]\npulses = 5\nsifted_bits = 5\n", "exactly one of"),
    "no size": ("[link]\ndistance_km = 1\n[block]\n", "exactly one of"),
    "half a pulse": ("[link]\ndistance_km = 1\n[block]\npulses = 1.5\n", "whole number"),
    "no pulses": ("[link]\ndistance_km = 1\n[block]\npulses = 0\n", "pulses = 0"),
    "endless block": ("[link]\ndistance_km = 1\n[block]\npulses = 1e30\n", "pulses"),
    "key bits of a real link": ("[link]\ndistance_km = 1\n[block]\nkey_bits = 1e6\n", "key_bits bounds no"),
    "theorem": ('theorem = "gllp"\n' + PLAIN, "theorem = 'gllp'"),
    "theorem and decoys": ('theorem = "lim2014"\ndecoys = 1\n' + PLAIN, "decoys = 1 contradicts"),
    "three decoys": ("decoys = 3\n" + PLAIN, "decoys = 3"),
    "eps": ("eps_sec = 1\n" + PLAIN, "eps_sec = 1"),
    "eps zero": ("eps_cor = 0.0\n" + PLAIN, "eps_cor = 0"),
    "eps NaN": ("eps_cor = nan\n" + PLAIN, "eps_cor = nan"),
    "published with tolerance": (PRINTED + "[margin]\nqber = 0.1\n", "without tolerances"),
    "margin": (PLAIN + "[margin]\nefficiency = 0.9\n", "margin.efficiency = 0.9"),
    "second decoy of one": (PLAIN + "weakest = 1e-3\n", "only with two decoys"),
    "upside down": (PLAIN.replace("decoy = 0.1", "decoy = 0.4"), "must descend"),
    "nothing left": (
        "decoys = 2\n" + PLAIN + "decoy_probability = 0.7\n",
        "leave nothing",
    ),
    "probability": (PLAIN.replace("z_probability = 0.8", "z_probability = 1.0"), "z_probability = 1.0"),
    "dark light": (PLAIN.replace("signal = 0.3", "signal = 0.0"), "signal = 0.0"),
    "no room": (
        "decoys = 2\n" + PLAIN.replace("0.3\n", "0.1\n").replace("= 0.1\nsignal_", "= 0.06\nweakest = 0.05\nsignal_"),
        "nothing fits",
    ),
}


@pytest.mark.parametrize(("document", "words"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_is_refused_in_one_line(document, words):
    done = run(document)
    assert done.exit_code == 1
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("heliograph: standard input: ")
    assert len(line) < 300
    assert re.search(words, line), line
    told = run(document, "--json")
    assert json.loads(told.stdout)["error"]["code"] == "ConfigurationError"


def test_a_person_is_told_the_terms_of_a_published_curve():
    done = run(PRINTED + "[light]\nsignal = 0.5\ndecoy = 0.2\nsignal_probability = 0.5\nz_probability = 0.9\n")
    assert "label indicative" in done.stdout
    assert "s1_test_lower" in done.stdout
