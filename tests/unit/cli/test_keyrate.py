"""keyrate's contract: fields, policy and label, edges that stay finite, and one line for whatever cannot be judged."""

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from heliograph.cli.main import app

LIM = {
    "protocol": "lim2014",
    "bound": "hoeffding",
    "intensities": [0.5, 0.15, 0.0002],
    "probabilities": [0.6, 0.25, 0.15],
    "key_counts": [24244210, 3037250, 26710],
    "test_counts": [2993100, 375000, 3300],
    "key_errors": [244820, 31360, 1220],
    "test_errors": [30200, 3900, 150],
    "leak_ec_bits": 2600000,
    "eps_sec": 1e-10,
    "eps_cor": 1e-15,
}
ONE_DECOY = {
    **LIM,
    "intensities": [0.5, 0.15],
    "probabilities": [0.6, 0.4],
    **{name: LIM[name][:2] for name in ("key_counts", "test_counts", "key_errors", "test_errors")},
}
RUSCA = {**ONE_DECOY, "protocol": "rusca2018"}
WIESEMANN = {**ONE_DECOY, "protocol": "wiesemann2024"}
TOMAMICHEL = {
    "protocol": "tomamichel2012", "n": 90000, "k": 10000, "qber": 0.02, "leak_ec_bits": 15000, "eps_sec": 1e-10,
    "eps_cor": 1e-15,
}  # fmt: skip
ALL = {"lim2014": LIM, "rusca2018": RUSCA, "wiesemann2024": WIESEMANN, "tomamichel2012": TOMAMICHEL}
TERMS = {"s0_lower", "s1_lower", "s1_test_lower", "v1_upper", "gamma", "phase_error_upper"}
LISTS = ("key_counts", "test_counts", "key_errors", "test_errors")


def expected_of(document):
    return {name: document[name] for name in LISTS}


def run(document, *options):
    text = document if isinstance(document, bytes) else json.dumps(document).encode()
    return CliRunner().invoke(app, ["keyrate", "-", *options], input=text)


def report(document):
    done = run(document, "--json")
    assert done.exit_code == 0, done.output
    assert done.stderr == ""
    return json.loads(done.stdout)


@pytest.mark.parametrize("bound", ["hoeffding", "chernoff", "kato"])
@pytest.mark.parametrize("protocol", list(ALL))
def test_the_report_has_the_promised_fields(protocol, bound):
    document = dict(ALL[protocol])
    if protocol != "tomamichel2012":
        document |= {"bound": bound, "expected": expected_of(document)}
    got = report(document)
    assert type(got["secret_key_length"]) is int
    assert got["secret_key_length"] == max(0, math.floor(got["raw_length"])) > 0
    assert set(got["terms"]) >= TERMS
    assert all(type(value) is float and math.isfinite(value) for value in got["terms"].values())
    assert got["policy"] == "fixed"
    assert got["protocol"] == protocol
    assert got["bound"] == ("serfling" if protocol == "tomamichel2012" else bound)
    assert got["theorem"]
    assert any("fixed before the first pulse" in line for line in got["assumptions"])
    assert any("fixed before the data" in line for line in got["assumptions"]) == ("expected" in document)


def test_the_numbers_of_one_example_of_each_theorem():
    """Regression: what each theorem gave when its independent derivation agreed with it to 9 digits."""
    got = {name: round(report(document)["raw_length"], 3) for name, document in ALL.items()}
    assert got == LENGTHS


LENGTHS = {"lim2014": 10977243.179, "rusca2018": 739245.291, "wiesemann2024": 675227.07, "tomamichel2012": 41253.995}


@pytest.mark.parametrize(
    ("protocol", "policy", "label"),
    [
        ("wiesemann2024", "fixed", "fixed"),
        ("tomamichel2012", "fixed", "fixed"),
        ("wiesemann2024", "variable", "indicative"),
        ("tomamichel2012", "variable", "indicative"),
        ("lim2014", "fixed", "indicative"),
        ("rusca2018", "fixed", "indicative"),
        ("rusca2018", "variable", "indicative"),
    ],
)
def test_only_a_fixed_length_under_a_rigorous_sampling_bound_is_a_claim(protocol, policy, label):
    got = report({**ALL[protocol], "policy": policy})
    assert (got["policy"], got["label"]) == (policy, label)
    assert any(line.startswith("indicative") for line in got["assumptions"]) == (label == "indicative")


def zeros(document):
    return {**document, **{name: [0] * len(document[name]) for name in LISTS}}


EDGES = {
    "no counts": zeros,
    "no test counts": lambda d: {**d, **dict.fromkeys(("test_counts", "test_errors"), [0] * len(d["test_counts"]))},
    "one detection": lambda d: {**zeros(d), "key_counts": [1] + [0] * (len(d["key_counts"]) - 1)},
    "one zero": lambda d: {**d, "key_counts": [*d["key_counts"][:-1], 0], "key_errors": [*d["key_errors"][:-1], 0]},
    "no errors": lambda d: {**d, **dict.fromkeys(("key_errors", "test_errors"), [0] * len(d["key_errors"]))},
    "all errors": lambda d: {**d, "key_errors": d["key_counts"], "test_errors": d["test_counts"]},
    "half errors": lambda d: {**d, "test_errors": [n // 2 for n in d["test_counts"]]},
    "dark decoy": lambda d: {**d, "intensities": [*d["intensities"][:-1], 0]},
    "dark decoy, float": lambda d: {**d, "intensities": [*d["intensities"][:-1], 0.0]},
    "next to no light": lambda d: {**d, "intensities": [*d["intensities"][:-1], 5e-324]},
    "only the weakest": lambda d: {**d, **{n: [0] * (len(d[n]) - 1) + [d[n][0]] for n in LISTS}},
    "huge": lambda d: {**d, **{n: [2**53] * len(d[n]) for n in LISTS}},
    "nothing leaked": lambda d: {**d, "leak_ec_bits": 0},
    "more leaked than there is": lambda d: {**d, "leak_ec_bits": 2**53},
    "smallest eps": lambda d: {**d, "eps_sec": 5e-324, "eps_cor": 5e-324},
    "largest eps": lambda d: {**d, "eps_sec": 1 - 2**-53, "eps_cor": 1 - 2**-53},
    "whole floats": lambda d: {**d, "leak_ec_bits": 1e6},
}  # fmt: skip


@pytest.mark.parametrize("edge", list(EDGES))
@pytest.mark.parametrize("bound", ["hoeffding", "chernoff", "kato"])
@pytest.mark.parametrize("protocol", ["lim2014", "rusca2018", "wiesemann2024"])
def test_an_edge_gives_a_finite_answer(protocol, bound, edge):
    document = EDGES[edge](ALL[protocol])
    for expected in (expected_of(document), expected_of(ALL[protocol]), expected_of(zeros(document))):
        got = report({**document, "bound": bound, "expected": expected})
        assert math.isfinite(got["raw_length"])
        assert all(math.isfinite(value) for value in got["terms"].values())
        assert got["secret_key_length"] >= 0
        assert got["secret_key_length"] <= sum(document["key_counts"]) * (1 + 1e-12)
        assert 0 <= got["terms"]["phase_error_upper"] <= 0.5
        if edge in ("all errors", "half errors", "no test counts"):
            assert got["terms"]["phase_error_upper"] == 0.5
            assert got["secret_key_length"] == 0
        if edge in ("dark decoy", "next to no light") and protocol != "lim2014":
            assert (got["terms"]["s1_lower"], got["terms"]["phase_error_upper"]) == (0, 0.5)
        if edge in ("no counts", "one detection"):
            assert got["terms"]["s1_lower"] == 0


def test_errors_observed_as_none_are_not_taken_for_none():
    """Nothing observed in k draws still leaves something possible."""
    for protocol in ("lim2014", "rusca2018", "wiesemann2024"):
        assert report(EDGES["no errors"](ALL[protocol]))["terms"]["phase_error_upper"] > 0
    assert report({**TOMAMICHEL, "qber": 0})["terms"]["phase_error_upper"] > 0.01


@pytest.mark.parametrize("change", [{"n": 0}, {"k": 0}, {"n": 0, "k": 0}, {"qber": 1}, {"qber": 0.5}, {"n": 2**53}])
def test_single_photon_edges_give_a_finite_answer(change):
    got = report({**TOMAMICHEL, **change})
    assert math.isfinite(got["raw_length"])
    assert got["secret_key_length"] == (0 if "n" not in change or not change["n"] else got["secret_key_length"])


def test_no_key_is_an_answer_with_exit_0():
    done = run({**LIM, "leak_ec_bits": 10**12})
    assert done.exit_code == 0
    assert done.stdout.startswith("secret key  0 bits")


def test_the_text_says_what_the_json_says():
    text, got = run(WIESEMANN).stdout, report(WIESEMANN)
    assert f"secret key  {got['secret_key_length']} bits" in text
    for line in (*got["assumptions"], got["theorem"], *got["terms"]):
        assert line in text


def with_(document, **change):
    return {**document, **change}


def without(document, field):
    return {name: value for name, value in document.items() if name != field}


BAD = {
    "not an object": (b"[1]", "object"),
    "empty": (b"", "UTF-8 JSON"),
    "not JSON": (b"{counts}", "UTF-8 JSON"),
    "not UTF-8": (b'{"protocol": "\xff"}', "UTF-8 JSON"),
    "UTF-16": (json.dumps(LIM).encode("utf-16"), "UTF-8 JSON"),
    "two documents": (json.dumps(LIM).encode() * 2, "UTF-8 JSON"),
    "a name twice": (b'{"protocol": "lim2014", "protocol": "lim2014"}', "twice"),
    "deeply nested": (b"[" * 100_000, "JSON"),
    "endless": (b" " * (2 << 20), "1 MiB"),
    "NaN": (json.dumps(with_(LIM, eps_sec=math.nan)).encode(), "JSON"),
    "Infinity": (json.dumps(with_(LIM, key_counts=[math.inf, 1, 1])).encode(), "JSON"),
    "1e999 as eps": (json.dumps(LIM).replace("1e-10", "1e999").encode(), ""),
    "1e999 as count": (json.dumps(LIM).replace("24244210", "1e999").encode(), ""),
    "a thousand digits": (json.dumps(LIM).replace("24244210", "9" * 1000).encode(), ""),
    "ten thousand digits": (json.dumps(LIM).replace("24244210", "9" * 10000).encode(), ""),
    "a thousand digits as eps": (json.dumps(LIM).replace("1e-10", "9" * 1000).encode(), ""),
    "a thousand digits as intensity": (json.dumps(LIM).replace("0.5", "9" * 1000).encode(), ""),
    "unknown protocol": (with_(LIM, protocol="bb84"), "protocol"),
    "protocol a list": (with_(LIM, protocol=["lim2014"]), "protocol"),
    "no protocol": (without(LIM, "protocol"), "protocol"),
    "unknown bound": (with_(LIM, bound="azuma"), "bound"),
    "unknown policy": (with_(LIM, policy="loose"), "policy"),
    "unknown field": (with_(LIM, key_count=[1, 2, 3]), "key_count"),
    "a field of another theorem": (with_(LIM, qber=0.1), "qber"),
    "kato without a prediction": (with_(LIM, bound="kato"), "expected"),
    "a prediction of two lists": (with_(LIM, bound="kato", expected={"key_counts": [1, 1, 1]}), "expected"),
    "a negative prediction": (
        with_(LIM, bound="kato", expected={**expected_of(LIM), "key_counts": [1, 1, -1]}),
        "expected.key_counts[2]",
    ),
    "more errors than detections": (with_(LIM, key_errors=[24244211, 1, 1]), "key_errors[0]"),
    "more test errors than detections": (with_(LIM, test_errors=[1, 1, 3301]), "test_errors[2]"),
    "a negative count": (with_(LIM, test_counts=[1, -1, 1]), "test_counts[1]"),
    "half a detection": (with_(LIM, key_counts=[1.5, 1, 1]), "key_counts[0]"),
    "true is no count": (with_(LIM, key_counts=[True, 1, 1]), "key_counts[0]"),
    "a word is no count": (with_(LIM, key_counts=["3", 1, 1]), "key_counts[0]"),
    "null is no count": (with_(LIM, key_counts=[None, 1, 1]), "key_counts[0]"),
    "a list is no count": (with_(LIM, key_counts=[[3], 1, 1]), "key_counts[0]"),
    "counts beyond 2^53": (with_(LIM, key_counts=[2**53 + 1, 1, 1]), "2^53"),
    "counts as 1e300": (with_(LIM, key_counts=[1e300, 1, 1]), "2^53"),
    "too few counts": (with_(LIM, key_counts=[3, 2]), "key_counts"),
    "too many counts": (with_(LIM, key_errors=[3, 2, 1, 0]), "key_errors"),
    "counts no list": (with_(LIM, key_counts=3), "key_counts"),
    "counts an object": (with_(LIM, key_counts={"0": 3}), "key_counts"),
    "probabilities sum to less": (with_(LIM, probabilities=[0.6, 0.25, 0.05]), "sum to 1"),
    "a negative probability": (with_(LIM, probabilities=[0.9, 0.3, -0.2]), "probabilities[2]"),
    "a probability of 0": (with_(LIM, probabilities=[0.6, 0.4, 0]), "probabilities"),
    "a tiny probability": (with_(LIM, probabilities=[0.6, 0.4 - 1e-12, 1e-12]), "probabilities"),
    "two probabilities": (with_(LIM, probabilities=[0.6, 0.4]), "probabilities"),
    "a probability true": (with_(LIM, probabilities=[0.0, True, 0.0]), "probabilities[1]"),
    "intensities rise": (with_(LIM, intensities=[0.1, 0.3, 0.0]), "descending"),
    "intensities equal": (with_(LIM, intensities=[0.5, 0.1, 0.1]), "descending"),
    "intensities nearly equal": (with_(LIM, intensities=[0.5, 0.1 + 1e-12, 0.1]), "apart"),
    "a negative intensity": (with_(LIM, intensities=[0.5, 0.1, -0.1]), "intensities[2]"),
    "a bright intensity": (with_(LIM, intensities=[800, 0.1, 0]), "intensities"),
    "no signal above the sum": (with_(LIM, intensities=[0.5, 0.3, 0.2]), "above the sum"),
    "no intensities": (with_(LIM, intensities=[]), "intensities"),
    "1-decoy counts for lim2014": (with_(RUSCA, protocol="lim2014"), "exactly 3"),
    "2-decoy counts for rusca2018": (with_(LIM, protocol="rusca2018"), "exactly 2"),
    "2-decoy counts for wiesemann2024": (with_(LIM, protocol="wiesemann2024"), "exactly 2"),
    "leak half a bit": (with_(LIM, leak_ec_bits=1.5), "leak_ec_bits"),
    "leak negative": (with_(LIM, leak_ec_bits=-1), "leak_ec_bits"),
    "eps 0": (with_(LIM, eps_sec=0), "eps_sec"),
    "eps 1": (with_(LIM, eps_cor=1), "eps_cor"),
    "eps below every number": (json.dumps(LIM).replace("1e-10", "1e-999").encode(), "eps_sec"),
    "eps a word": (with_(LIM, eps_cor="1e-15"), "eps_cor"),
    "eps true": (with_(LIM, eps_sec=True), "eps_sec"),
    "qber in per cent": (with_(TOMAMICHEL, qber=2), "qber"),
    "qber negative": (with_(TOMAMICHEL, qber=-0.1), "qber"),
    "n half": (with_(TOMAMICHEL, n=0.5), "n ="),
    "k negative": (with_(TOMAMICHEL, k=-5), "k ="),
    "n null": (with_(TOMAMICHEL, n=None), "n ="),
    "serfling replaced": (with_(TOMAMICHEL, bound="kato"), "bound"),
    "a line break in a field": (with_(LIM, **{"a\nb": 1}), "field"),
    **{f"without {field}": (without(LIM, field), field) for field in LIM if field != "protocol"},
    **{f"single without {field}": (without(TOMAMICHEL, field), field) for field in TOMAMICHEL if field != "protocol"},
}


@pytest.mark.parametrize("case", list(BAD))
def test_what_cannot_be_judged_is_refused_in_one_line(case):
    document, says = BAD[case]
    for options in ((), ("--json",)):
        done = run(document, *options)
        assert done.exit_code == 1, done.output
        lines = done.stderr.splitlines()
        assert len(lines) == 1, lines
        assert lines[0].startswith("heliograph: standard input: ")
        assert says in lines[0]
        assert len(lines[0]) < 300
        if options:
            error = json.loads(done.stdout)["error"]
            assert error == {"code": "ConfigurationError", "message": lines[0].removeprefix("heliograph: ")}
        else:
            assert done.stdout == ""


def test_a_file_is_read_and_a_missing_one_is_named(tmp_path):
    path = tmp_path / "counts.json"
    path.write_text(json.dumps(WIESEMANN))
    program = [sys.executable, "-m", "heliograph.cli.main", "keyrate"]
    done = subprocess.run([*program, str(path), "--json"], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout) == report(WIESEMANN)
    for missing in (tmp_path / "absent.json", tmp_path):
        done = CliRunner().invoke(app, ["keyrate", str(missing)])
        assert done.exit_code == 1
        assert str(missing) in done.stderr
        assert len(done.stderr.splitlines()) == 1
    path.write_text("{")
    assert CliRunner().invoke(app, ["keyrate", str(path)]).stderr.startswith(f"heliograph: {path}: ")


def test_the_page_of_numbers_shows_what_the_command_says():
    page = (Path(__file__).parents[3] / "docs/numbers.md").read_text()
    document = page.partition("```json\n")[2].partition("```")[0]
    assert f"It gives {report(document.encode())['secret_key_length']:,} bits" in page
    assert json.loads(document) == WIESEMANN


@pytest.mark.parametrize("arguments", [[], ["a", "b"], ["-", "--no-such"]])
def test_wrong_usage_is_exit_2(arguments):
    assert CliRunner().invoke(app, ["keyrate", *arguments]).exit_code == 2
