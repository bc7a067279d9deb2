"""Wrong input to any command is one line that names the cause and the remedy, with exit 1, and writes nothing."""

import os
import shutil
import socket
import subprocess
import sys

import pytest
from registered_sites import refused, run, snapshot, two_sites

# What stands for a file that it is not, by the name under which the tables below ask for it.
WRONG_FILES = ["absent", "empty", "binary", "directory", "below", "loop", "sparse", "deep", "digits"]
INIT = ["--name", "a", "--peer", "b", "--role", "transmitter"]
NODE = ["--edge", "a:b", "--listen", "127.0.0.1:7101"]


@pytest.fixture(scope="module")
def world():
    """Return a directory with two sites that are not running, and every kind of wrong file."""
    with two_sites("psk") as directory:
        (directory / "empty").touch()
        (directory / "binary").write_bytes(b"\x00\xff\xfe" * 1000)
        (directory / "directory").mkdir()
        (directory / "text").write_text("hello\n")
        (directory / "loop").symlink_to("loop")
        (directory / "negative.json").write_text(
            '{"protocol": "tomamichel2012", "n": -5, "k": 9, "qber": 0.01, "leak_ec_bits": 0, "eps_sec": 1e-9, '
            '"eps_cor": 1e-9}'
        )
        (directory / "no-block.toml").write_text("[link]\ndistance_km = 25\n")
        (directory / "deep").write_text("name = " + "[" * 5000)
        (directory / "digits").write_text("name = " + "1" * 5000)
        with (directory / "sparse").open("wb") as file:
            file.truncate(3 << 30)  # takes no room; would not fit in memory
        yield directory


def place(directory, name):
    return directory / "text" / "below" if name == "below" else directory / name


def says(world, words, *remedies):
    """Run a command that must refuse, and leave everything as it was."""
    before = snapshot_without_sparse(world)
    line = refused(run(*(word.replace("{}", str(world)) for word in map(str, words))), *remedies)
    assert snapshot_without_sparse(world) == before
    return line


def snapshot_without_sparse(world):
    return {home: snapshot(world / home) for home in ("a", "b", "directory")} | {"": sorted(world.iterdir())}


TAKES_SITE_TOML = [
    ["site", "run"], ["site", "status"], ["site", "seal"], ["site", "unseal"], ["site", "window"],
    ["site", "compare"], ["site", "policy", "--approver", "Ann"], ["site", "snippet", "--for", "wireguard"],
    ["site", "register", "--approver", "Ann"], ["site", "revoke", "--approver", "Ann"],
    ["site", "reload", "--approver", "Ann"], ["site", "rebootstrap", "--approver", "Ann", "--yes"],
    ["store", "migrate"], ["store", "move"], ["store", "erase", "--approver", "Ann", "--yes"],
    ["store", "reopen", "--front-end", "x", "--approver", "Ann", "--yes"], ["kme", "serve", "--front-end", "x"],
]  # fmt: skip
REMEDIES = {
    "absent": "heliograph site init",
    "empty": "heliograph site init",
    "binary": "name SITE.toml",
    "directory": "name a SITE.toml",
    "below": "correct the path",
    "loop": "correct the path",
    "sparse": "name SITE.toml",
    "deep": "correct it there",
    "digits": "correct it there",
}


@pytest.mark.parametrize("command", TAKES_SITE_TOML, ids=lambda words: "-".join(words[:2]))
def test_what_is_no_site_file_says_which_file_to_name(world, command):
    for name in WRONG_FILES:
        says(world, [*command[:2], place(world, name), *command[2:]], str(place(world, name)), REMEDIES[name])


def test_a_sites_directory_is_answered_with_its_file(world):
    says(world, ["site", "run", "{}/a"], "a directory", f"name {world}/a/SITE.toml")


def test_what_is_no_node_file_says_which_file_to_name(world):
    for name in WRONG_FILES:
        for command in (["run", "{}"], ["status", "{}"], ["paths", "{}", "node-b"]):
            words = ["network", *(word.replace("{}", str(place(world, name))) for word in command)]
            says(world, words, REMEDIES[name].replace("SITE", "NODE").replace("site", "network"))


CASES = [
    # A site that does not run, or lacks what the command is for.
    (["site", "run", "{}/a/SITE.toml"], ["no fibre at", "start the fibre first", "module's address"]),
    (["site", "status", "{}/a/SITE.toml"], ["Start it"]),
    (["site", "reload", "{}/a/SITE.toml", "--approver", "Ann"], ["No such file or directory; is it running? Start it"]),
    (["site", "window", "{}/a/SITE.toml"], ["Start it"]),
    (["site", "seal", "{}/a/SITE.toml"], ["plain key file", "--kek passphrase or pkcs11"]),
    (["site", "unseal", "{}/a/SITE.toml"], ["plain key file", "--kek passphrase or pkcs11"]),
    (["store", "move", "{}/a/SITE.toml"], ["no [delivery]", "add the table"]),
    (["store", "reopen", "{}/a/SITE.toml", "--front-end", "x", "--approver", "Ann", "--yes"], ["add the table"]),
    (["kme", "serve", "{}/a/SITE.toml", "--front-end", "x"], ["no [delivery]", "add the table"]),
    # Where something is to be written.
    (["site", "psk", "{}/text"], ["exists", "name another"]),
    (["site", "psk", "{}/absent/book"], ["name a new file that this user can write"]),
    (["site", "psk", "/proc/book"], ["name a new file that this user can write"]),
    (["agent", "key", "{}/absent/key"], ["name a file this user can write"]),
    (["site", "init", "{}/text", *INIT], ["name a directory this user can write"]),
    (["site", "init", "{}/a", *INIT], ["name another directory"]),
    (["kme", "rehearse", "{}/text"], ["name another"]),
    (["kme", "rehearse", "{}/a"], ["name another"]),
    (["kme", "rehearse", "{}/new", "--first-port", "80"], ["write one between 1024 and 65000"]),
    # What is to be read.
    (["site", "book", "{}/empty"], ["empty: this is not a Heliograph key book", "heliograph site psk FILE"]),
    (["site", "book", "{}/absent"], ["a readable key book is needed"]),
    (["site", "book", "{}/sparse"], ["this is no key book"]),
    (["keyrate", "{}/absent"], ["No such file", "name a COUNTS.json"]),
    (["keyrate", "{}/directory"], ["name a COUNTS.json"]),
    (["keyrate", "{}/text"], ["docs/how-to/keyrate.md"]),
    (["keyrate", "{}/negative.json"], ["n = -5", "write 0 or more"]),
    (["keyrate", "--link", "{}/absent"], ["name a LINK.toml"]),
    (["keyrate", "--link", "{}/binary"], ["docs/how-to/keyrate.md"]),
    (["keyrate", "--link", "{}/no-block.toml"], ["[block]: missing; add it"]),
    (["audit", "verify", "{}/absent"], ["no audit log here", "name SITE.toml", "heliograph site register"]),
    (["audit", "verify", "{}/directory"], ["name SITE.toml or audit.jsonl"]),
    (["audit", "verify", "{}/empty"], ["name another copy"]),
    (["audit", "verify", "{}/text"], ["line 1", "evidence", "name SITE.toml or a copy of audit.jsonl"]),
    (["audit", "verify", "{}/sparse"], ["line 1", "evidence"]),
    (["demo", "{}/absent"], ["name a file that can be read"]),
    (["demo", "{}/empty"], ["is empty", "name another"]),
    (["demo", "--keep", "{}/a"], ["name a directory that does not exist yet"]),
    # Numbers that are none, or that cannot be.
    *((["site", "init", "{}/new", *INIT, "--distance-km", n], [n[:4], "give a length of 0 km or more"])
      for n in ("nan", "inf", "-inf", "-1")),
    (["site", "init", "{}/new", *INIT, "--distance-km", "1e9"], ["no light arrives", "shorter fibre"]),
    *((["demo", "--distance-km", n], ["--distance-km", "between 0 and 1000 km"]) for n in ("nan", "inf", "-1")),
    *((["demo", "--seconds", n], ["--seconds", "between 0 and 86400"]) for n in ("nan", "inf", "-1", "0")),
    *((["network", "demo", "--distance-km", n], ["--distance-km", "between 0 and 1000 km"]) for n in ("nan", "-1")),
    *((["distill", "{}/text", "{}/text", "--eps-sec", n], ["--eps-sec", "between"]) for n in ("nan", "0", "-1", "2")),
    *((["site", "init", "{}/new", *INIT, "--key-size", n], [n, "write a multiple of 8"]) for n in ("7", "0", "-8")),
    (["network", "demo", "--relays", "0"], ["--relays", "1 <= threshold"]),
    (["network", "demo", "--keys", "-1"], ["--keys -1", "between 1 and 64"]),
    # What contradicts itself.
    (["site", "init", "{}/new", *INIT[:3], "a", *INIT[4:]], ["both ends", "its own name"]),
    (["site", "init", "{}/new", *INIT, "--kek", "pkcs11"], ["[seal] module", "--pkcs11-module"]),
    (["site", "init", "{}/new", *INIT, "--pkcs11-token", "x"], ["[seal] token", "leave it out"]),
    (["site", "init", "{}/new", *INIT, "--kek", "passphrase", "--secret", "credential:/none"],
     ["no passphrase", "in a terminal", "fd:N"]),
    (["network", "init", "{}/new", "--name", "r", *NODE], ["--name 'r'", "no --edge", "as in its edges"]),
]  # fmt: skip


@pytest.mark.parametrize(("words", "remedies"), CASES, ids=[" ".join(words) for words, _ in CASES])
def test_a_refusal_names_cause_and_remedy(world, words, remedies):
    before = snapshot(world / "a") if words[1] != "run" else None
    shutil.rmtree(world / "new", ignore_errors=True)
    refused(run(*(word.replace("{}", str(world)) for word in words)), *remedies)
    assert not [path for path in (world / "new").rglob("*") if path.is_file()]
    assert before is None or snapshot(world / "a") == before


@pytest.mark.parametrize("kind", ["tun", "strongswan", "wireguard"])
def test_a_tunnel_without_its_programs_says_which_and_what_installs_them(world, monkeypatch, kind):
    monkeypatch.setenv("PATH", str(world / "directory"))
    line = says(world, ["demo", "--tunnel", kind], "ip: not in PATH", "iproute2", "--tunnel built-in")
    assert ("wireguard-tools" in line) == (kind == "wireguard")


@pytest.mark.parametrize(
    ("table", "line", "remedy"),
    [
        ("kme", "request_burst = -1", "between 1 and 1000000000"),
        ("kme", "request_burst = 0", "between 1 and 1000000000"),
        ("kme", "requests_per_s = nan", "write 1 to 1e9"),
        ("kme", "requests_per_s = inf", "write 1 to 1e9"),
        ("kme", "key_ttl_s = nan", "between 60 and 1e9"),
        ("kme", "reserve = -1", "between 0 and 1024"),
        ("link", "block_seconds = nan", "between 1 and 86400"),
        ("link", "keys_max = 100000000000000000000", "between 1 and 10000000"),
        ("link", 'keys_max = "many"', "correct that entry"),
        ("link", "keys_mx = 1", "correct that entry"),
    ],
)
def test_a_setting_that_cannot_be_is_named_with_what_can(table, line, remedy):
    with two_sites("psk") as directory:
        site = directory / "a" / "SITE.toml"
        site.write_text(site.read_text().replace(f"[{table}]\n", f"[{table}]\n{line}\n", 1))
        assert line.split()[0] in refused(run("site", "run", site), remedy)


def test_a_port_that_is_taken_is_named_with_the_option_that_moves_it(world):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        says(
            world, ["kme", "rehearse", "{}/new", "--first-port", port], f"127.0.0.1:{port}", "name another --first-port"
        )


@pytest.mark.parametrize("number", ["9" * 20, "1" + "0" * 30])
def test_more_keys_than_a_file_can_hold_are_wrong_usage_and_no_bug(world, number):
    pki = world / "a" / "pki"
    done = run("sae", "get", "b", "--url", "https://127.0.0.1:9", "--ca", pki / "ca.pem", "--cert", pki / "sae.pem",
               "--key", pki / "sae.key", "--out", world / "keys", "--number", number)  # fmt: skip
    assert done.exit_code == 2
    assert "internal error" not in done.stderr


def test_an_error_of_the_system_that_no_command_foresaw_has_a_remedy_too(world):
    says(world, ["kme", "rehearse", "{}/" + "n" * 300], "File name too long", "take a shorter one")


def test_migrating_a_store_on_a_read_only_place_says_so():
    with two_sites("psk") as directory:
        home = directory / "a"
        refused(run("site", "run", home / "SITE.toml"), "no fibre at")  # the store is made before
        words = [sys.executable, "-m", "heliograph.cli.main", "store", "migrate", str(home / "SITE.toml")]
        if os.geteuid() == 0:  # whom no mode stops
            script = 'mount --bind "$0" "$0" && mount -o remount,ro,bind "$0" && exec "$@"'
            mounted = ["unshare", "--mount", "sh", "-c", script, str(home)]
            if shutil.which("unshare") is None or subprocess.run([*mounted, "true"], check=False).returncode:
                pytest.skip("this kernel or container allows no mounts")
            words = [*mounted, *words]
        else:
            (home / "store").chmod(0o500)
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        (home / "store").chmod(0o700)
    assert done.returncode == 1, done
    (line,) = done.stderr.splitlines()
    assert "let this user write there, or name another `store`" in line
