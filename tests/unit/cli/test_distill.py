"""``heliograph distill``: fields and exit codes, two real processes, and one line for whatever cannot be distilled."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from heliograph.bits import BitString
from heliograph.cli.main import app
from heliograph.errors import BlockDiscarded, QBERTooHigh
from heliograph.lab.distill import check_agreement
from heliograph.lab.distill_side import key_check
from heliograph.lab.recordings import read_recording
from heliograph.postprocessing.recorded import format_bits

pytestmark = pytest.mark.slow  # real processes or real time: `make test` runs it

NUMBER = (int, float)
FIELDS = {
    "sifted_bits": int, "qber": float, "error_given_0": float, "error_given_1": float, "bias": float,
    "disclosed_bits": int, "two_way_rule": str, "efficiency": float, "verified": bool, "eps_cor": float,
    "eps_sec": float, "secret_key_bits": int, "claim": str, "assumptions": list, "keys_equal": bool,
    "elapsed_s": float, "sifted_bps": float,
}  # fmt: skip
ASSUMED = [
    "single photons, or BBM92", "not measured", "basis-independent detection", "fixed run length",
    "never seen by others", "one host, channel unauthenticated", "two-way rule both",
]  # fmt: skip


def recorded(n, given_0=0.02, given_1=0.02, ones=0.5, seed=1):
    rng = np.random.default_rng([seed, n])
    a = (rng.random(n) < ones).astype(np.uint8)
    return a, a ^ (rng.random(n) < np.where(a, given_1, given_0)).astype(np.uint8)


def save(directory, a, b, suffix="txt"):
    form = {"txt": "text", "npy": "npy", "bin": "packed"}[suffix]
    paths = directory / f"alice.{suffix}", directory / f"bob.{suffix}"
    for path, bits in zip(paths, (a, b), strict=True):
        path.write_bytes(format_bits(BitString.from_array(bits), form))
    return paths


def run(*arguments):
    return CliRunner().invoke(app, ["distill", *map(str, arguments)])


def report_of(*arguments):
    done = run(*arguments, "--json")
    assert done.exit_code == 0, done.stderr
    assert done.stderr == ""
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    return save(tmp_path_factory.mktemp("keys"), *recorded(60_000, 0.01, 0.03, ones=0.52))


@pytest.fixture(scope="module")
def command(keys):
    """Run a real command; return its process number and its report."""
    program = [sys.executable, "-m", "heliograph.cli.main", "distill", *map(str, keys), "--json"]
    with subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        output, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (0, "")
    return process.pid, json.loads(output)


@pytest.fixture(scope="module")
def report(command):
    return command[1]


def test_the_report_has_the_promised_fields_and_both_sides_are_processes_of_their_own(command):
    pid, report = command
    for name, kind in FIELDS.items():
        assert type(report[name]) is kind, (name, report[name])
    assert len({*report["processes"].values(), pid, os.getpid()}) == 4
    assert report["verified"]
    assert report["keys_equal"]
    assert (report["claim"], report["two_way_rule"]) == ("conditional", "both")
    assert (report["eps_sec"], report["eps_cor"]) == (1e-15, 1e-15)


def test_every_figure_is_that_of_the_files(keys, report):
    a, b = (read_recording(path).to_array() for path in keys)
    wrong = a != b
    assert report["sifted_bits"] == 60_000
    assert report["qber"] == wrong.mean()
    assert report["error_given_0"] == wrong[a == 0].mean()
    assert report["error_given_1"] == wrong[a == 1].mean()
    assert report["bias"] == pytest.approx(a.mean() - 0.5, abs=1e-12)
    assert report["bias_bob"] == pytest.approx(b.mean() - 0.5, abs=1e-12)
    assert report["disclosed_bits"] == report["parities_a"] + report["parities_b"] + 128
    assert 1.0 < report["efficiency"] < 1.15  # 60,000 bits, with fresh passes in each run
    assert 0 < report["secret_key_bits"] < 60_000 - report["disclosed_bits"] - report["bias_deducted_bits"]


def test_the_report_says_on_what_its_claim_is_conditional(keys, report):
    for phrase in ASSUMED:
        assert any(phrase in line for line in report["assumptions"]), phrase
    assert report["bias_sigma"] > 4
    assert any(f"{report['bias_deducted_bits']} bits were deducted" in line for line in report["assumptions"])
    text = run(*keys).stdout
    for line in (*report["assumptions"], "conditional", f"{report['sifted_bits']:,} bits"):
        assert line in text


def test_measured_test_counts_make_the_claim_a_theorems(tmp_path, keys, report):
    counts = tmp_path / "counts.json"
    counts.write_text('{"protocol": "tomamichel2012", "k": 50000, "errors": 1000}')
    with_counts, without = report_of(*keys, "--test-counts", counts), report
    assert (with_counts["claim"], with_counts["theorem"]) == ("indicative", "tomamichel2012")
    assert with_counts["phase_error_upper"] < without["phase_error_upper"]
    assert with_counts["secret_key_bits"] > without["secret_key_bits"]
    assert any("1000 errors in 50000 bits" in line for line in with_counts["assumptions"])
    assert not any("not measured" in line for line in with_counts["assumptions"])


def test_without_errors_there_is_no_efficiency_and_unasked_nothing_is_written(tmp_path):
    a, _ = recorded(20_000)
    files = save(tmp_path, a, a)
    report = report_of(*files)
    assert sorted(tmp_path.iterdir()) == sorted(files)
    assert report["efficiency"] is None
    assert report["qber"] == 0
    assert report["secret_key_bits"] > 0


@pytest.mark.parametrize("suffix", [pytest.param("txt", marks=pytest.mark.slow), "npy", "bin"])
def test_keys_are_written_equal_private_and_only_where_asked(tmp_path, suffix):
    files = save(tmp_path, *recorded(20_000), suffix)
    out = tmp_path / "out"
    out.mkdir()
    report = report_of(*files, "--out-alice", out / f"a.{suffix}", "--out-bob", out / f"b.{suffix}")
    first, second = (read_recording(out / f"{name}.{suffix}") for name in "ab")
    assert first == second
    whole = report["secret_key_bits"]
    assert len(first) == (whole // 8 * 8 if suffix == "bin" else whole)
    assert sorted(path.name for path in out.iterdir()) == [f"a.{suffix}", f"b.{suffix}"]
    assert {path.stat().st_mode & 0o777 for path in out.iterdir()} == {0o600}
    assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.slow
def test_one_side_alone_may_be_written_and_runs_never_repeat_a_key(tmp_path):
    files = save(tmp_path, *recorded(20_000))
    report_of(*files, "--out-alice", tmp_path / "k1")
    report_of(*files, "--out-bob", tmp_path / "k2")
    assert read_recording(tmp_path / "k1")[:1000] != read_recording(tmp_path / "k2")[:1000]


def test_one_key_that_cannot_be_written_takes_the_other_back(tmp_path):
    files = save(tmp_path, *recorded(20_000))
    done = run(*files, "--out-alice", tmp_path / "key", "--out-bob", tmp_path / ("x" * 300))
    assert done.exit_code == 1
    assert "File name too long" in done.stderr
    assert sorted(tmp_path.iterdir()) == sorted(files)


def test_a_command_that_is_killed_leaves_no_key_and_no_process(tmp_path):
    """Killed when a side has written its key and waits for the word to keep it."""

    async def kill_before_keep():
        program = [sys.executable, "-m", "heliograph.lab.distill_side"]
        pipes = {"stdin": asyncio.subprocess.PIPE, "stdout": asyncio.subprocess.PIPE}
        sides = [await asyncio.create_subprocess_exec(*program, **pipes) for _ in range(2)]

        async def ask(process, **order):
            process.stdin.write(json.dumps(order).encode() + b"\n")
            return json.loads(await process.stdout.readline())

        common = {"order": "begin", "eps_sec": 1e-15, "eps_cor": 1e-15, "strict": False, "sample": None}
        common |= {"family": "modified-multiply-shift", "reconciliation": "cascade"}
        common |= {"block_bits": None, "in_flight": 1}
        names = ("reference", "correction")
        ready = [
            await ask(process, **common, side=name, path=str(path), secret="00")
            for process, name, path in zip(sides, names, files, strict=True)
        ]
        await asyncio.gather(*(ask(side, order="connect", port=ready[0]["port"], biased=False) for side in sides))
        assert (await ask(sides[0], order="write", path=str(tmp_path / "key")))["answer"] == "written"
        assert (tmp_path / "key").exists()
        for side in sides:
            side.stdin.close()  # as the system does it for a starter that was killed
        return [await side.wait() for side in sides]

    files = save(tmp_path, *recorded(20_000))
    assert asyncio.run(kill_before_keep()) == [0, 0]
    assert sorted(tmp_path.iterdir()) == sorted(files)


@pytest.mark.slow
def test_ctrl_c_ends_both_sides(tmp_path):
    """The input is a pipe's worth of work: the command is stopped while its sides read or talk."""
    files = save(tmp_path, *recorded(400_000))
    program = [sys.executable, "-m", "heliograph.cli.main", "distill", *map(str, files), "--out-alice"]
    with subprocess.Popen([*program, str(tmp_path / "key")], stderr=subprocess.PIPE, text=True) as process:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        while len(started := children.read_text().split()) < 2:
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
    assert process.returncode != 0
    assert "Traceback" not in errors
    assert not [pid for pid in started if Path(f"/proc/{pid}").exists()]
    assert sorted(tmp_path.iterdir()) == sorted(files)


@pytest.mark.parametrize("name", ["check", "counts", "disclosed", "terms", "rounds", "discarded"])
def test_keys_or_figures_that_differ_in_the_end_are_never_reported(name):
    block = {"counts": {"zeros": 1}, "disclosed": {"parities_a": 1}, "terms": {"secret_key_length": 1}, "rounds": 7}
    side = {"check": "aa", "bits": 8, "blocks": [block | {"discarded": False}] * 2}
    assert check_agreement(side, dict(side)) is True
    if name == "check":
        other = {**side, "check": "ab"}
    else:
        spoilt = {"discarded": True, "code": "x", "message": "y"} if name == "discarded" else {name: {}}
        other = {**side, "blocks": [side["blocks"][0], side["blocks"][1] | spoilt]}
    with pytest.raises(BlockDiscarded, match="different keys"):
        check_agreement(side, other)


def test_blocks_that_both_sides_lost_are_no_difference_but_for_all_of_them():
    lost = [{"discarded": True, "code": code, "message": f"{code} says"} for code in ("PeerGaveUp", "QBERTooHigh")]
    kept = {"counts": {}, "disclosed": {}, "terms": {}, "rounds": 7, "discarded": False}
    sides = [{"check": "aa", "blocks": [one, kept]} for one in lost]
    assert check_agreement(*sides) is True
    with pytest.raises(QBERTooHigh, match=r"^QBERTooHigh says$"):
        check_agreement(*({"check": "aa", "blocks": [one]} for one in lost))
    with pytest.raises(QBERTooHigh, match="2 blocks alike"):
        check_agreement(*({"check": "aa", "blocks": [one, one]} for one in lost))


def test_the_comparison_depends_on_every_bit_the_lengths_their_order_and_the_secret():
    key = BitString(bytes(4), 32)
    others = [key_check([BitString((1 << i).to_bytes(4, "big"), 32)], b"s") for i in range(32)]
    others += [key_check([BitString(bytes(4), 31)], b"s"), key_check([key], b"t"), key_check([key, key], b"s")]
    others += [key_check([key[:8], key[8:]], b"s"), key_check([key[8:], key[:8]], b"s")]
    assert len({key_check([key], b"s"), *others}) == 38


@pytest.mark.parametrize("suffix", ["txt", "bin"])
def test_a_recording_cut_into_blocks_gives_one_key_and_failures_that_add_up(tmp_path, suffix):
    files = save(tmp_path, *recorded(100_000), suffix)
    out = [tmp_path / f"key-{name}.npy" for name in "ab"]
    report = report_of(*files, "--block-bits", 30_000, "--in-flight", 2, "--out-alice", out[0], "--out-bob", out[1])
    assert (report["blocks"], report["blocks_discarded"], report["in_flight"]) == (3, 0, 2)
    assert (report["sifted_bits"], report["eps_sec"]) == (100_000, 1e-15)
    first, second = map(read_recording, out)
    assert first == second
    assert len(first) == report["secret_key_bits"]
    whole = report_of(*files)
    assert (whole["blocks"], whole["qber"]) == (1, report["qber"])
    # Smaller blocks with a third of the failure probability each: never more key than from one.
    assert 0 < report["secret_key_bits"] < whole["secret_key_bits"]
    assert report["phase_error_upper"] > whole["phase_error_upper"]


def test_a_block_with_too_many_errors_costs_its_own_bits_only(tmp_path):
    a, b = recorded(90_000)
    b[30_000:60_000] ^= np.random.default_rng(3).random(30_000) < 0.2
    files = save(tmp_path, a, b, "npy")
    report = report_of(*files, "--block-bits", 30_000)
    assert (report["blocks"], report["blocks_discarded"], report["sifted_bits"]) == (3, 1, 60_000)
    assert report["keys_equal"]
    assert "BLOCKS    3, 1 without a key; 3 at once" in run(*files, "--block-bits", 30_000).stdout


def test_a_bias_that_no_block_shows_by_itself_is_deducted_from_each_or_refused(tmp_path):
    """Cutting a recording into small blocks must not hide what the whole one shows (security.md 10)."""
    files = save(tmp_path, *recorded(240_000, 0.01, 0.01, ones=0.508), "npy")
    whole, cut = report_of(*files), report_of(*files, "--block-bits", 30_000)
    assert whole["bias_sigma"] == cut["bias_sigma"] > 4
    assert cut["blocks"] == 8
    assert cut["bias_deducted_bits"] >= whole["bias_deducted_bits"] > 0
    done = run(*files, "--block-bits", 30_000, "--strict")
    assert done.exit_code == 1
    assert "biased by" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_blocks_of_which_none_gives_a_key_end_in_one_line_that_says_why(tmp_path):
    a, _ = recorded(60_000)
    b, _ = recorded(60_000, seed=2)
    done = run(*save(tmp_path, a, b), "--block-bits", 30_000)
    assert done.exit_code == 1
    assert "of the bits differ" in done.stderr
    assert "(2 blocks alike)" in done.stderr


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--block-bits", 100), "--block-bits 100: between 10000 and"),
        (("--block-bits", 2**30), "between 10000 and"),
        (("--block-bits", 20_000, "--test-counts", "counts.json"), "leave out --block-bits"),
        (("--block-bits", 20_000, "--eps-sec", "1e-30"), "3 blocks share the failure probabilities"),
    ],
)
def test_a_cut_that_cannot_be_is_one_line(tmp_path, monkeypatch, options, says):
    monkeypatch.chdir(tmp_path)
    Path("counts.json").write_text('{"protocol": "tomamichel2012", "k": 50000, "errors": 1000}')
    done = run(*save(tmp_path, *recorded(60_000)), *options)
    assert done.exit_code != 0
    assert says in done.stderr
    assert "Traceback" not in done.stderr


def test_a_long_line_costs_a_round_trip_for_each_round_and_changes_nothing_else(tmp_path):
    files = save(tmp_path, *recorded(20_000))
    near, far = (report_of(*files, "--round-trip-ms", late) for late in ("0", "4"))
    assert far["round_trip_s"] == 0.004
    assert far["reconciliation_s"] >= far["rounds"] * 0.004
    assert far["keys_equal"]
    assert far["sifted_bits"] == near["sifted_bits"]
    assert near["reconciliation_bps"] == pytest.approx(20_000 / near["reconciliation_s"])


def test_the_hash_can_be_the_classic_one(tmp_path):
    report = report_of(*save(tmp_path, *recorded(20_000)), "--hash", "toeplitz")
    assert (report["hash"], report["keys_equal"]) == ("toeplitz", True)


# --- What cannot be distilled.


@pytest.fixture
def folder(tmp_path):
    a, b = recorded(20_000)
    save(tmp_path, a, b)
    files = {
        "short.txt": "01" * 5000,
        "tiny.txt": "01" * 200,
        "empty.txt": "",
        "blank.txt": " \n\t\r\n",
        "letters.txt": "0101\n01x1",
        "inverted.npy": a ^ 1,
        "other.npy": recorded(20_000, seed=9)[0],
        "noisy.npy": recorded(20_000, 0.07, 0.07)[1] ^ recorded(20_000, 0.07, 0.07)[0] ^ a,
        "zeros.npy": np.zeros(20_000, dtype=np.uint8),
        "float.npy": a.astype(float),
        "square.npy": a.reshape(100, 200),
        "twos.npy": a * 2,
        "counts.json": '{"protocol": "tomamichel2012", "k": 5000, "errors": 100}',
        "false.json": '{"protocol": "tomamichel2012", "k": 5000, "errors": 5001}',
        "other.json": '{"protocol": "lim2014", "k": 5000, "errors": 100}',
        "part.json": '{"protocol": "tomamichel2012", "k": 5000}',
        "real.json": '{"protocol": "tomamichel2012", "k": 5000, "errors": 1.5}',
        "true.json": '{"protocol": "tomamichel2012", "k": true, "errors": 0}',
        "twice.json": '{"protocol": "tomamichel2012", "k": 5000, "k": 9, "errors": 1}',
        "half.json": '{"protocol": "tomamichel2012", "k": 5000, "errors": 2500}',
        "no.json": "{",
    }
    for name, content in files.items():
        if isinstance(content, str):
            (tmp_path / name).write_text(content)
        else:
            np.save(tmp_path / name, content)
    np.save(tmp_path / "objects.npy", np.array([0, None], dtype=object), allow_pickle=True)
    biased = recorded(20_000, ones=0.6)
    save(tmp_path, *biased, "npy")
    (tmp_path / "directory").mkdir()
    os.mkfifo(tmp_path / "pipe.txt")
    with (tmp_path / "huge.bin").open("wb") as file:
        file.truncate(1 << 40)
    with (tmp_path / "large.bin").open("wb") as file:
        file.truncate(1 << 23)
    return tmp_path


BAD = {
    "absent": (["{}/absent.txt", "{}/bob.txt"], "No such file"),
    "the second absent": (["{}/alice.txt", "{}/absent"], "absent: No such file"),
    "a directory": (["{}/directory", "{}/bob.txt"], "not a regular file"),
    "a pipe": (["{}/pipe.txt", "{}/bob.txt"], "not a regular file"),
    "a device": (["/dev/zero", "{}/bob.txt"], "not a regular file"),
    "empty": (["{}/empty.txt", "{}/bob.txt"], "not a single bit"),
    "only white space": (["{}/alice.txt", "{}/blank.txt"], "not a single bit"),
    "other characters": (["{}/letters.txt", "{}/bob.txt"], "line 2: 'x'"),
    "an array of reals": (["{}/float.npy", "{}/bob.txt"], "bool or integers"),
    "a square": (["{}/square.npy", "{}/bob.txt"], "2 dimensions"),
    "other numbers": (["{}/twos.npy", "{}/bob.txt"], "neither 0 nor 1"),
    "pickled objects": (["{}/objects.npy", "{}/bob.txt"], "bool or integers"),
    "a terabyte": (["{}/huge.bin", "{}/bob.txt"], "at most"),
    "too many bits": (["{}/large.bin", "{}/bob.txt"], "67108864 bits; cut"),
    "unequal lengths": (["{}/alice.txt", "{}/short.txt"], "alice.txt has 20000 bits, "),
    "too few bits": (["{}/tiny.txt", "{}/tiny.txt"], "400 sifted bits are too few"),
    "another key": (["{}/alice.txt", "{}/other.npy"], "of the bits differ"),
    "inverted": (["{}/alice.txt", "{}/inverted.npy"], "inverted"),
    "an error rate beyond any key": (["{}/alice.txt", "{}/noisy.npy"], "no secret key"),
    "one value only": (["{}/zeros.npy", "{}/zeros.npy"], "no secret key"),
    "biased, strict": (["{}/alice.npy", "{}/bob.npy", "--strict"], "biased by"),
    "test errors beyond any key": (["{}/alice.txt", "{}/bob.txt", "--test-counts", "{}/half.json"], "at most 50.0%"),
    "impossible test counts": (["{}/alice.txt", "{}/bob.txt", "--test-counts", "{}/false.json"], "cannot be"),
    "test counts of others": (["{}/alice.txt", "{}/bob.txt", "--test-counts", "{}/other.json"], "tomamichel2012"),
    "part of the counts": (["{}/alice.txt", "{}/bob.txt", "--test-counts", "{}/part.json"], "errors"),
    "half an error": (["{}/alice.txt", "{}/bob.txt", "--test-counts", "{}/real.json"], "whole number"),
    "true bits": (["{}/alice.txt", "{}/bob.txt", "--test-counts", "{}/true.json"], "whole number"),
    "counts twice": (["{}/alice.txt", "{}/bob.txt", "--test-counts", "{}/twice.json"], "twice"),
    "no counts": (["{}/alice.txt", "{}/bob.txt", "--test-counts", "{}/no.json"], "JSON"),
    "absent counts": (["{}/alice.txt", "{}/bob.txt", "--test-counts", "{}/absent"], "No such file"),
    "eps of nothing": (["{}/alice.txt", "{}/bob.txt", "--eps-sec", "0"], "--eps-sec"),
    "eps of everything": (["{}/alice.txt", "{}/bob.txt", "--eps-cor", "1"], "--eps-cor"),
    "eps not a number": (["{}/alice.txt", "{}/bob.txt", "--eps-sec", "nan"], "--eps-sec"),
    "eps below the hash": (["{}/alice.txt", "{}/bob.txt", "--eps-cor", "1e-30"], "within eps_cor"),
    "output exists": (["{}/alice.txt", "{}/bob.txt", "--out-alice", "{}/bob.txt"], "never overwrites"),
    "output nowhere": (["{}/alice.txt", "{}/bob.txt", "--out-bob", "{}/none/key"], "is not a directory"),
    "output is a directory": (["{}/alice.txt", "{}/bob.txt", "--out-bob", "{}/directory"], "it exists"),
    "one output for two": (
        ["{}/alice.txt", "{}/bob.txt", "--out-alice", "{}/key", "--out-bob", "{}/key"],
        "the same file",
    ),
}


# Each starts two processes: these stand for the rest in the quick lane; the readers' own cases have quick tests too.
QUICK = {
    "the second absent", "a pipe", "unequal lengths", "another key", "biased, strict", "eps not a number",
    "output exists", "part of the counts",
}  # fmt: skip
CASES = [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow, id=name) for name in BAD]


@pytest.mark.parametrize("name", CASES)
def test_what_cannot_be_distilled_is_refused_in_one_line_and_nothing_is_written(folder, name):
    arguments, says = BAD[name]
    given = [word.format(folder) for word in arguments]
    if "--out-alice" not in given:
        given += ["--out-alice", str(folder / "secret")]
    before = sorted(folder.rglob("*"))
    done = run(*given, "--json")
    assert done.exit_code == 1, done.output
    (line,) = [line for line in done.stderr.splitlines() if line]
    assert line.startswith("heliograph: ")
    assert says in line
    assert json.loads(done.stdout)["error"]["message"] == line.removeprefix("heliograph: ")
    assert sorted(folder.rglob("*")) == before


def test_without_json_a_refusal_leaves_standard_output_empty():
    done = run("a", "b", "--eps-sec", "0")
    assert (done.exit_code, done.stdout) == (1, "")


@pytest.mark.parametrize("arguments", [[], ["one"], ["a", "b", "c"], ["a", "b", "--eps-sec", "small"], ["--no-such"]])
def test_wrong_usage_is_exit_2(arguments):
    assert run(*arguments).exit_code == 2


@pytest.mark.slow
def test_a_million_bits_take_a_few_seconds(tmp_path):
    report = report_of(*save(tmp_path, *recorded(1_000_000, 0.02, 0.04), "npy"))
    assert report["exchange_s"] < 10  # about 0.8 s where nothing else runs
    assert report["efficiency"] < 1.08  # 1.046 in the middle, 1.062 where the sample of the error rate is far off
