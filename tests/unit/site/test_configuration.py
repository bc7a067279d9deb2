"""Whatever is wrong with a site's files is said in one line, with exit 1, and nothing on the disk changes."""

import json
import os
import shutil
import sqlite3
import tempfile
from pathlib import Path

import msgspec
import pytest
from site_on_disk import SiteOnDisk, make_site
from typer.testing import CliRunner

from heliograph.cli.main import app
from heliograph.site.config import read_site
from heliograph.testing.links import example_registration
from heliograph.vault.pskfile import create_book
from heliograph.vault.randomness import SystemRandomness


@pytest.fixture(scope="module")
def pattern():
    with tempfile.TemporaryDirectory(prefix="hgs") as name:
        yield SiteOnDisk(make_site(Path(name) / "site", light=Path(name) / "no-fibre.sock"))


@pytest.fixture
def site(pattern):
    with tempfile.TemporaryDirectory(prefix="hgs") as name:
        yield pattern.copy(Path(name) / "site")


def refused(site, *says, changes_nothing=True):
    """Run the site, which must refuse in one line that says all this. No fibre runs: it could never run on."""
    before = site.snapshot()
    done = CliRunner().invoke(app, ["site", "run", str(site.toml)])
    assert done.exit_code == 1, (done.output, done.exception)
    assert done.stdout == ""
    lines = [line for line in done.stderr.splitlines() if line]
    assert len(lines) == 1, lines
    assert lines[0].startswith("heliograph: ")
    assert "Traceback" not in lines[0]
    assert "internal error" not in lines[0]
    for word in says:
        assert str(word) in lines[0], lines[0]
    if changes_nothing:
        assert site.snapshot() == before
    return lines[0]


def test_the_pattern_itself_lacks_nothing_but_its_fibre(site):
    refused(site, "no fibre at unix:", changes_nothing=False)


# Every entry of SITE.toml: of a wrong type, missing, misspelt.
STRINGS = [
    "name", "store", "kek", "anchor", "status", "link__registration", "link__book", "link__role", "module__name",
    "kme__id", "kme__peer_id", "kme__listen", "kme__certificate", "kme__key", "kme__ca", "agent__sae",
    "agent__peer_sae", "agent__certificate", "agent__key",
]  # fmt: skip
OPTIONAL = {"link__dial": 7, "link__listen": 7, "link__block_seconds": "long", "link__keys_max": 1.5,
            "link__in_flight": "2", "module__settings": "x", "kme__max_key_per_request": "all"}  # fmt: skip


@pytest.mark.parametrize("entry", STRINGS)
def test_an_entry_of_a_wrong_type_is_named(site, entry):
    site.set(**{entry: 7})
    refused(site, "SITE.toml", entry.rpartition("__")[2])


@pytest.mark.parametrize(("entry", "value"), OPTIONAL.items())
def test_an_optional_entry_of_a_wrong_type_is_named(site, entry, value):
    site.set(**{entry: value})
    refused(site, "SITE.toml", entry.rpartition("__")[2])


@pytest.mark.parametrize("entry", STRINGS)
def test_a_missing_entry_is_named(site, entry):
    site.set(**{entry: None})
    refused(site, "SITE.toml", entry.rpartition("__")[2])


@pytest.mark.parametrize("entry", [*STRINGS, *OPTIONAL, "agent__tunnel"])
def test_a_misspelt_entry_is_named(site, entry):
    site.set(**{f"{entry}s": "x"})
    refused(site, "SITE.toml", f"{entry.rpartition('__')[2]}s")


@pytest.mark.parametrize("table", ["link", "module", "kme", "lnik"])
def test_a_missing_or_unknown_table_is_named(site, table):
    document = site.document()
    if table in document:
        del document[table]
    else:
        document[table] = {}
    site.write(document)
    refused(site, "SITE.toml", table)


CONTRADICTIONS = {
    "neither dial nor listen": ({"link__dial": None}, ["dial and listen"]),
    "both dial and listen": ({"link__listen": "127.0.0.1:1"}, ["dial and listen"]),
    "another role than registered": ({"link__role": "receiver"}, ["site-a", "registration"]),
    "a role that does not exist": ({"link__role": "sender"}, ["role"]),
    "a name nobody registered": ({"name": "site-c"}, ["site-c", "registration"]),
    "an address without a port": ({"link__dial": "127.0.0.1"}, ["host:port"]),
    "an empty address": ({"link__dial": ""}, ["host:port"]),
    "an address without a host": ({"kme__listen": ":8443"}, ["host:port"]),
    "port 0": ({"kme__listen": "127.0.0.1:0"}, ["host:port"]),
    "a port above 65535": ({"kme__listen": "127.0.0.1:65536"}, ["host:port"]),
    "a port of other digits": ({"kme__listen": "127.0.0.1:\u0661"}, ["host:port"]),
    "no block at all": ({"link__in_flight": 0}, ["in_flight"]),
    "too many blocks": ({"link__in_flight": 9}, ["in_flight"]),
    "no time": ({"link__block_seconds": 0}, ["block_seconds"]),
    "no keys": ({"link__keys_max": 0}, ["keys_max"]),
    "no key per request": ({"kme__max_key_per_request": 0}, ["max_key_per_request"]),
    "one KME at both sites": ({"kme__peer_id": "kme-a"}, ["kme-a"]),
    "a module nobody installed": ({"module__name": "real-laser"}, ["real-laser", "simulated-transmitter"]),
    "a module setting that does not exist": ({"module__settings": {"adress": "unix:/x"}}, ["adress"]),
    "a module without an address": ({"module__settings": {}}, ["address"]),
    "an SAE nobody registered": ({"agent__sae": "sae-c"}, ["sae-c", "registration"]),
    "a tunnel without a control channel": ({"agent__tunnel": {"role": "initiator"}}, ["tunnel", "control"]),
    "a tunnel entry that does not exist": (
        {"agent__tunnel": {"role": "initiator", "control": "127.0.0.1:1", "rekey": 1}}, ["tunnel", "rekey"]),
    "a store in no file": ({"store": ""}, ["store"]),
    "one file for two things": ({"anchor": "kek"}, ["different files"]),
    "an anchor beside the store": ({"anchor": "store/anchor"}, ["anchor", "outside"]),
    "a status socket with too long a name": ({"status": "s" * 120}, ["status", "too long"]),
    "a registration that is absent": ({"link__registration": "absent.json"}, ["absent.json", "No such file"]),
    "a book that is absent": ({"link__book": "absent.book"}, ["absent.book", "site psk"]),
    "a key-encryption key that is absent": ({"kek": "absent.kek"}, ["absent.kek"]),
    "a certificate that is absent": ({"kme__certificate": "absent.pem"}, ["absent.pem"]),
    "a private key in the certificate's place": ({"kme__certificate": "pki/kme.key"}, ["kme.key"]),
    "a certificate and another's key": ({"kme__key": "pki/sae.key"}, ["sae.key", "kme.pem"]),
    "an agent's certificate that is absent": ({"agent__certificate": "absent.pem"}, ["absent.pem"]),
}  # fmt: skip


@pytest.mark.parametrize("name", CONTRADICTIONS)
def test_a_contradiction_is_refused(site, name):
    entries, says = CONTRADICTIONS[name]
    site.set(**entries)
    # The module is asked only once all else is right: then the store is there already.
    refused(site, *says, changes_nothing=not name.startswith("a module"))


def test_what_is_not_toml_is_refused(site):
    for content in (b"name = ", b"\xff\xfe", b"name = 1\nname = 2\n"):
        site.toml.write_bytes(content)
        refused(site, "SITE.toml", "TOML")


def test_a_configuration_without_end_is_refused(site):
    site.toml.unlink()
    site.toml.symlink_to("/dev/zero")
    refused(site, "SITE.toml", "more than", changes_nothing=False)


def test_an_absent_configuration_is_refused(site):
    site.toml.unlink()
    refused(site, "SITE.toml", "site init")


def entries_of(value, path=()):
    """Every entry of a JSON document, by its path."""
    found = []
    for name, inner in value.items() if isinstance(value, dict) else enumerate(value):
        found.append((*path, name))
        if isinstance(inner, dict | list):
            found += entries_of(inner, (*path, name))
    return found


def registration_entries():
    document = json.loads(msgspec.json.encode(example_registration()))
    return [path for path in entries_of(document) if isinstance(path[-1], str)]


def change(document, path, act):
    place = document
    for name in path[:-1]:
        place = place[name]
    act(place, path[-1])


def misspell(place, name):
    place[f"{name}_"] = place.pop(name)


def mistype(place, name):
    place[name] = {"of": "another type"}


def negate(place, name):
    place[name] = -abs(place[name] or 1) if isinstance(place[name], int | float) else None


@pytest.mark.parametrize("path", registration_entries(), ids=lambda path: ".".join(map(str, path)))
@pytest.mark.parametrize("act", [misspell, mistype, negate])
def test_every_entry_of_the_registration_is_checked(site, path, act):
    document = json.loads(site.registration.read_text())
    change(document, path, act)
    site.registration.write_text(json.dumps(document))
    refused(site, "link.json")


def test_a_registration_cut_short_is_refused(site):
    content = site.registration.read_bytes()
    for size in (0, 1, len(content) // 2):
        site.registration.write_bytes(content[:size])
        refused(site, "link.json")


def test_blocks_too_small_to_pay_for_their_authentication_are_refused(site):
    document = json.loads(site.registration.read_text())
    document["parameters"][0]["secret_key_length"] = 1800
    site.registration.write_text(json.dumps(document))
    refused(site, "larger blocks")


# Files with the wrong mode, owner or content.
@pytest.mark.parametrize("name", ["kek", "psk.book", "pki/kme.key", "pki/sae.key"])
def test_a_secret_that_others_can_read_is_refused(site, name):
    (site.directory / name).chmod(0o640)
    refused(site, name, "chmod 600")


@pytest.mark.parametrize("name", ["kek", "psk.book", "pki/kme.key", "pki/kme.pem", "pki/ca.pem", "pki/sae.pem"])
def test_a_damaged_file_is_refused(site, name):
    path = site.directory / name
    path.write_bytes(path.read_bytes()[:-40] if name != "kek" else b"short")
    refused(site, name)


def test_a_used_up_or_foreign_file_is_no_book(site):
    (site.directory / "psk.book").write_bytes(os.urandom(29_024))
    refused(site, "key book")


def test_a_store_that_others_can_enter_is_refused(site):
    (site.directory / "store").mkdir(mode=0o755)
    (site.directory / "store").chmod(0o755)
    refused(site, "store", "chmod 700")


def test_a_store_in_the_place_of_a_directory_is_refused(site):
    (site.directory / "store").write_text("a file")
    refused(site, "store")


def stored(site):
    with sqlite3.connect(f"file:{site.directory}/store/site.db?mode=ro", uri=True) as store:
        content = list(store.iterdump())
    store.close()
    return content


def test_another_key_encryption_key_is_refused(site):
    refused(site, "no fibre", changes_nothing=False)
    before = stored(site)
    (site.directory / "kek").write_bytes(os.urandom(32))
    refused(site, "key-encryption key", changes_nothing=False)
    assert stored(site) == before


def test_a_damaged_anchor_asks_for_an_operator(site):
    refused(site, "no fibre", changes_nothing=False)
    (site.directory / "anchor").write_text("1 2\n")
    refused(site, "anchor", "rebootstrap", changes_nothing=False)


def test_the_registration_is_the_one_that_was_planned(site):
    registration = read_site(site.toml).registration
    assert (registration.transmitter_site, registration.receiver_site) == ("site-a", "site-b")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["psk", "{}/psk.book"], "exists"),
        (["psk", "{}/absent/book"], "No such file"),
        (["book", "{}/absent"], "absent"),
        (["book", "{}/kek"], "key book"),
        (["init", "{}", "--name", "x", "--peer", "y", "--role", "receiver"], "already"),
        (["init", "{}/kek/below", "--name", "x", "--peer", "y", "--role", "receiver"], "kek/below"),
        (["init", "{}/new", "--name", "x", "--peer", "x", "--role", "receiver"], "both ends"),
        (["init", "{}/new", "--name", "x", "--peer", "y", "--role", "receiver", "--distance-km", "400"], "no key"),
        (["init", "{}/new", "--name", "x", "--peer", "y", "--role", "receiver", "--kme-listen", "here"], "host:port"),
        (["init", "{}/new", "--name", "x", "--peer", "y", "--role", "receiver", "--listen", "here"], "host:port"),
        (["init", "{}/new", "--name", "", "--peer", "y", "--role", "receiver"], "name"),
        (["status", "{}/SITE.toml"], "is it running"),
        (["status", "{}/absent.toml"], "absent.toml"),
        (["rebootstrap", "{}/SITE.toml", "--approver", "Ann"], "--yes"),
        (["rebootstrap", "{}/absent.toml", "--yes", "--approver", "Ann"], "absent.toml"),
    ],
)
def test_the_other_commands_refuse_in_one_line_too(site, arguments, says):
    before = site.snapshot()
    done = CliRunner().invoke(app, ["site", *(word.format(site.directory) for word in arguments)])
    assert done.exit_code == 1, done.output
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert len(lines) == 1, lines
    assert says in lines[0]
    assert "internal error" not in lines[0]
    assert site.snapshot() == before


@pytest.mark.parametrize("arguments", [["run"], ["run", "a", "b"], ["init"], ["psk"], ["run", "--log-level", "x", "a"]])
def test_wrong_usage_is_exit_2(arguments):
    assert CliRunner().invoke(app, ["site", *arguments]).exit_code == 2


def test_two_copies_of_a_book_show_one_fingerprint(tmp_path):
    create_book(tmp_path / "one", SystemRandomness())
    shutil.copy(tmp_path / "one", tmp_path / "other")
    create_book(tmp_path / "third", SystemRandomness())
    shown = [CliRunner().invoke(app, ["site", "book", str(tmp_path / name)]) for name in ("one", "other", "third")]
    assert [done.exit_code for done in shown] == [0, 0, 0]
    assert shown[0].stdout == shown[1].stdout != shown[2].stdout


def test_a_site_set_up_by_hand_lacks_only_the_book_its_registration_and_the_fibre(tmp_path):
    arguments = ["site", "init", str(tmp_path / "s"), "--name", "site-a", "--peer", "site-b", "--role", "transmitter",
                 "--module-address", f"unix:{tmp_path}/no.sock"]  # fmt: skip
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    site = SiteOnDisk(tmp_path / "s")
    refused(site, "site-b", "not registered", f"heliograph site register {site.toml}")
    register = ["site", "register", str(site.toml), "--approver", "Ann"]
    without = CliRunner().invoke(app, register)
    assert without.exit_code == 1
    assert "psk.book" in without.stderr
    assert "site psk" in without.stderr
    made = CliRunner().invoke(app, ["site", "psk", str(site.directory / "psk.book"), "--json"])
    assert json.loads(made.stdout)["fingerprint"]
    assert CliRunner().invoke(app, register).exit_code == 0
    refused(site, "no fibre", changes_nothing=False)
