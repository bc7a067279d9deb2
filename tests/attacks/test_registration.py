"""Attacks on what a link's trust starts from: nobody registered, something exchanged, or somebody in between."""

import dataclasses
import json
import os
import shutil
import tempfile
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path

import pytest
from typer.testing import CliRunner

from heliograph.authentication.anchors.psk import SLOTS, make_book, secret_size, slot_range
from heliograph.authentication.bootstrap import METHODS
from heliograph.authentication.registration import anchor_kinds, registration_fingerprint
from heliograph.cli.main import app
from heliograph.errors import ConfigurationError
from heliograph.lab.rehearsal import Ports, Rehearsal
from heliograph.site.anchors import open_anchors
from heliograph.site.audit import AuditLog
from heliograph.site.config import read_site
from heliograph.site.credentials import PeerFiles
from heliograph.site.register import register, revoke
from heliograph.testing.links import example_registration
from heliograph.testing.openpgp_web import OpenPgpWeb
from heliograph.vault.rehearsal_ca import RehearsalCa

NEEDS_GPG = pytest.mark.skipif(shutil.which("gpg") is None, reason="gpg is not installed: apt-get install -y gnupg")
WITH_OPENPGP = {method: (NEEDS_GPG,) if "openpgp" in method else () for method in METHODS}
ALL = [pytest.param(method, marks=WITH_OPENPGP[method]) for method in METHODS]
FILES = [
    ("psk", "psk.book"),
    ("pki", "trust/ca.pem"),
    ("pki", "trust/crl.pem"),
    ("psk+pki", "trust/ca.pem"),
    ("psk+pki", "psk.book"),
    pytest.param("openpgp", "trust/introducers.asc", marks=NEEDS_GPG),
    pytest.param("openpgp", "trust/peer.asc", marks=NEEDS_GPG),
]
KEPT = []


@cache
def pattern(method):
    """Both sites, registered at each other; made once for each method."""
    keeper = tempfile.TemporaryDirectory(prefix="hgr")
    KEPT.append(keeper)
    directory = Path(keeper.name) / "pair"
    registration = dataclasses.replace(example_registration(), bootstrap=method)
    Rehearsal(directory, Ports.free(), registration=registration).prepare()
    return directory


@pytest.fixture
def pair(request, tmp_path):
    """Return a fresh copy of both sites, "a" and "b"."""
    shutil.copytree(pattern(request.param), tmp_path / "pair")
    return tmp_path / "pair"


def of(*methods):
    marked = [pytest.param(method, marks=WITH_OPENPGP[method]) for method in methods]
    return pytest.mark.parametrize("pair", marked, indirect=True)


def site(pair, home="a"):
    return read_site(pair / home / "SITE.toml")


def snapshot(directory):
    return {p: p.read_bytes() if p.is_file() else None for p in sorted(directory.rglob("*"))}


def refused(pair, *says, home="a"):
    """Check that the site does not start, says so in one line, and leaves nothing on the disk."""
    before = snapshot(pair)
    done = CliRunner().invoke(app, ["site", "run", str(pair / home / "SITE.toml")])
    assert done.exit_code == 1, done.output
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    for word in says:
        assert word in line, line
    assert snapshot(pair) == before
    assert not (pair / home / "store").exists()
    with pytest.raises(ConfigurationError):
        open_anchors(site(pair, home))


@of(*METHODS)
def test_an_unregistered_peer_is_refused_before_anything_is_opened(pair):
    open_anchors(site(pair))
    shutil.rmtree(pair / "a" / "trust")
    refused(pair, "site-b", "not registered", f"`heliograph site register {pair}/a/SITE.toml --approver NAME`")


@pytest.mark.parametrize(("pair", "name"), FILES, indirect=["pair"])
@pytest.mark.parametrize("change", ["cut", "flip", "remove", "exchange"])
def test_an_anchor_file_that_was_changed_is_refused(pair, name, change):
    path = pair / "a" / name
    content = path.read_bytes()
    if change == "remove":
        path.unlink()
    elif change == "cut":
        path.write_bytes(content[:-1])
    elif change == "flip":
        path.write_bytes(content[:-9] + bytes([content[-9] ^ 1]) + content[-8:])
    else:  # another file of the same kind, sound in itself
        path.write_bytes(another(pair, name))
    refused(pair, name.rpartition("/")[2])


def another(pair, name):
    if name.endswith("book"):
        return make_book(os.urandom(secret_size()))
    if name.endswith("asc"):
        return (pair / "a" / "identity" / "openpgp.asc").read_bytes()
    return (pair / "ca-a" / {"ca.pem": "root.pem", "crl.pem": "crl.pem"}[Path(name).name]).read_bytes()


@of("psk")
def test_a_book_with_the_registered_header_and_other_slots_is_refused(pair):
    path = pair / "a" / "psk.book"
    book = path.read_bytes()
    start, _ = slot_range(3)
    path.write_bytes(book[:start] + bytes([book[start] ^ 1]) + book[start + 1 :])
    refused(pair, "slot 3", "registered")


@of("psk")
def test_burnt_slots_are_the_registered_book_still(pair):
    path = pair / "a" / "psk.book"
    for count in (1, SLOTS):
        book = bytearray(path.read_bytes())
        start, stop = slot_range(0)[0], slot_range(count - 1)[1]
        book[start:stop] = bytes(stop - start)
        path.write_bytes(book)
        open_anchors(site(pair))


@of("pki", "openpgp")
def test_this_sites_own_credential_exchanged_is_refused(pair):
    shutil.copytree(pair / "b" / "identity", pair / "a" / "identity", dirs_exist_ok=True)
    refused(pair, "this site's anchor")


@of(*METHODS)
def test_a_link_that_was_changed_after_registration_is_refused(pair):
    path = pair / "a" / "link.json"
    document = json.loads(path.read_bytes())
    path.write_text(json.dumps(document | {"eps_total_max": 1e-3}))
    refused(pair, "link.json", "was changed", "--replace")


@of("psk", "pki")
def test_the_other_sites_record_is_refused_here(pair):
    for name in ("trust", "audit.jsonl", "audit.jsonl.head"):
        path = pair / "a" / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    shutil.copytree(pair / "b" / "trust", pair / "a" / "trust")
    refused(pair, "another site")


@of("pki")
def test_a_record_forged_together_with_its_anchor_is_refused(pair):
    """Who may write the trust store, but not read the key-encryption key, cannot make a record."""
    mallory = RehearsalCa.create(pair / "mallory", "CA of site-b", "ed25519", 30.0)
    assert mallory
    trust = pair / "a" / "trust"
    fake = PeerFiles(ca=pair / "mallory" / "root.pem", crl_required=False)
    honest = (trust / "record.json").read_bytes()
    made = register(site(pair), "Mallory", fake, replace=True)  # what a forged record would say
    (trust / "record.json").write_bytes(
        json.dumps(
            {"record": json.loads((trust / "record.json").read_bytes())["record"], "seal": json.loads(honest)["seal"]}
        ).encode()
    )
    assert made.record.peer_anchors["pki"].encode() in (trust / "record.json").read_bytes()
    refused(pair, "record.json", "altered")


@of("psk", "pki")
@pytest.mark.parametrize("entry", ["approver", "peer_anchors", "registration_digest", "fingerprint", "files"])
def test_every_entry_of_a_record_is_sealed(pair, entry):
    path = pair / "a" / "trust" / "record.json"
    document = json.loads(path.read_bytes())
    value = document["record"][entry]
    document["record"][entry] = {**value, "x": "0" * 64} if isinstance(value, dict) else "0" * 64
    path.write_text(json.dumps(document))
    refused(pair, "record.json", "altered", "--replace")


@of("psk")
def test_a_site_with_another_key_encryption_key_refuses_its_record(pair):
    (pair / "a" / "kek").write_bytes(os.urandom(32))
    refused(pair, "key-encryption key")


@of("pki")
def test_an_anchor_that_was_replaced_does_not_come_back_from_a_backup(pair):
    shutil.copytree(pair / "a" / "trust", pair / "backup")
    new = RehearsalCa.create(pair / "ca-new", "new CA of site-b", "ed25519", 30.0)
    (pair / "ca-new" / "crl.pem").write_bytes(new.revocation_lists(7.0))
    files = PeerFiles(ca=pair / "ca-new" / "root.pem", crl=pair / "ca-new" / "crl.pem")
    before = open_anchors(site(pair)).mark
    assert register(site(pair), "Ann", files, replace=True).anchors_changed
    assert open_anchors(site(pair)).mark != before
    shutil.rmtree(pair / "a" / "trust")
    (pair / "backup").rename(pair / "a" / "trust")
    refused(pair, "record.json", "old copy", "line 2")


@of("pki")
def test_a_revocation_does_not_go_away_with_a_backup_or_an_older_list(pair):
    shutil.copytree(pair / "a" / "trust", pair / "backup")
    authority = RehearsalCa.load(pair / "ca-b")
    newer = pair / "newer.pem"
    newer.write_bytes(authority.revocation_lists(7.0))
    revoke(site(pair), "Ann", PeerFiles(crl=newer))
    open_anchors(site(pair))
    older = old_lists(pair)
    with pytest.raises(ConfigurationError, match="older than the registered one"):
        revoke(site(pair), "Ann", PeerFiles(crl=older))
    again = PeerFiles(ca=pair / "ca-b" / "root.pem", crl=older)
    with pytest.raises(ConfigurationError, match="older than the registered one"):
        register(site(pair), "Ann", again, replace=True)
    shutil.rmtree(pair / "a" / "trust")
    (pair / "backup").rename(pair / "a" / "trust")
    refused(pair, "old copy")


def old_lists(pair):
    path = pair / "old.pem"
    path.write_bytes(RehearsalCa.load(pair / "ca-b").revocation_lists(7.0, datetime.now(UTC) - timedelta(hours=1)))
    return path


@of("psk")
def test_a_trust_store_that_others_can_reach_is_refused(pair):
    (pair / "a" / "trust").chmod(0o755)
    refused(pair, "trust", "chmod 700")
    (pair / "a" / "trust").chmod(0o700)
    (pair / "a" / "trust" / "record.json").chmod(0o644)
    refused(pair, "record.json", "chmod 600")


# The man in the middle: he hands each site an anchor of his own.
@of("psk")
def test_two_books_show_in_the_fingerprint_even_if_their_public_parts_are_equal(pair):
    shown = []
    for home in ("a", "b"):
        path = pair / home / "psk.book"
        header = path.read_bytes()[: slot_range(0)[0]]
        path.write_bytes(header + make_book(os.urandom(secret_size()))[len(header) :])
        shown.append(register(site(pair, home), "Ann", PeerFiles(), replace=True).fingerprint)
    assert shown[0] != shown[1]


@of("pki", "psk+pki")
def test_a_ca_of_his_own_shows_in_the_fingerprint(pair):
    honest = open_anchors(site(pair, "b")).record.fingerprint
    RehearsalCa.create(pair / "mallory", "CA of site-b", "ed25519", 30.0)
    fake = PeerFiles(ca=pair / "mallory" / "root.pem", crl_required=False)
    assert register(site(pair), "Ann", fake, replace=True).fingerprint.hex() != honest


@of("openpgp")
def test_a_key_of_his_own_shows_in_the_fingerprint_though_introducers_were_deceived(pair):
    honest = open_anchors(site(pair, "b")).record.fingerprint
    user = open_anchors(site(pair)).record.user_id
    with OpenPgpWeb() as web:
        deceived, mallory = web.make("Introducer <i@example>"), web.make(user, usage="sign")
        web.certify(deceived, mallory)
        (pair / "i.asc").write_bytes(web.public(deceived, armour=True))
        (pair / "m.asc").write_bytes(web.public(mallory, armour=True))
    files = PeerFiles(introducers=pair / "i.asc", threshold=1, user_id=user, certificate=pair / "m.asc")
    assert register(site(pair), "Ann", files, replace=True).fingerprint.hex() != honest


@of("openpgp")
def test_a_key_for_which_no_introducer_vouches_is_not_registered(pair):
    user = open_anchors(site(pair)).record.user_id
    with OpenPgpWeb() as web:
        (pair / "m.asc").write_bytes(web.public(web.make(user, usage="sign"), armour=True))
    before = snapshot(pair)
    files = PeerFiles(
        introducers=pair / "people" / "introducers.asc", threshold=2, user_id=user, certificate=pair / "m.asc"
    )
    with pytest.raises(ConfigurationError, match=r"m\.asc.*introducers|m\.asc.*certif"):
        register(site(pair), "Ann", files, replace=True)
    assert snapshot(pair) == before


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_the_fingerprint_changes_with_every_anchor_parameter_and_end(method):
    registration = dataclasses.replace(example_registration(), bootstrap=method)
    here = {kind: f"{number:02x}" * 20 for number, kind in enumerate(anchor_kinds(method), start=1)}
    there = {kind: f"{number:02x}" * 20 for number, kind in enumerate(anchor_kinds(method), start=9)}

    def shown(registration=registration, transmitter=here, receiver=there, method=method):
        return registration_fingerprint(registration.identity().prefix(), method, transmitter, receiver)

    seen = [shown(), shown(transmitter=there, receiver=here)]
    for kind in here:
        seen += [shown(transmitter={**here, kind: "ff" * 20}), shown(receiver={**there, kind: "ff" * 20})]
    block = registration.parameters[0]
    for changed in (
        {"link": "another"},
        {"eps_total_max": 1e-7},
        {"opening_blocks": 2},
        {"receiver_site": "site-c"},
        {"parameters": (dataclasses.replace(block, secret_key_length=block.secret_key_length - 1),)},
    ):
        seen.append(shown(dataclasses.replace(registration, **changed)))
    assert len(set(seen)) == len(seen)
    assert shown() == seen[0]


@of("psk")
@pytest.mark.parametrize("act", ["change", "remove", "reorder", "insert", "cut off the end", "append", "remove all"])
def test_a_log_that_was_tampered_with_is_found_and_the_site_stops(pair, act):
    config = site(pair)
    for number in range(3):
        AuditLog(config.audit).append("an act", "Ann", {"number": number})
    lines = config.audit.read_bytes().splitlines(keepends=True)
    altered = {
        "change": [lines[0], lines[1].replace(b'"Ann"', b'"Bob"'), *lines[2:]],
        "remove": [lines[0], *lines[2:]],
        "reorder": [lines[0], lines[2], lines[1], lines[3]],
        "insert": [*lines[:2], lines[1], *lines[2:]],
        "cut off the end": lines[:3],
        "append": [*lines, lines[3]],
        "remove all": [],
    }[act]
    assert altered != lines
    config.audit.write_bytes(b"".join(altered))
    done = CliRunner().invoke(app, ["audit", "verify", str(config.toml)])
    assert done.exit_code == 1, done.output
    assert "audit.jsonl" in done.stderr
    refused(pair, "audit.jsonl", "evidence", "--replace")
    # The way out that the line names.
    for path in (config.audit, config.audit.with_name("audit.jsonl.head")):
        path.rename(pair / path.name)
    register(config, "Ann", PeerFiles(), replace=True)
    open_anchors(site(pair))
