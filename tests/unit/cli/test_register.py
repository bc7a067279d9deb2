"""`heliograph site register` and `site revoke`: what they show, and what they refuse in one line, nothing written."""

import json
import resource
import shutil
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.x509.ocsp import load_der_ocsp_response
from registered_sites import forget, refused, run, snapshot, two_sites

from heliograph.authentication.anchors.words import parse_value
from heliograph.site.anchors import open_anchors
from heliograph.site.config import read_site
from heliograph.testing.openpgp_web import OpenPgpWeb
from heliograph.vault.rehearsal_ca import RehearsalCa

NEEDS_GPG = pytest.mark.skipif(shutil.which("gpg") is None, reason="gpg is not installed: apt-get install -y gnupg")
METHODS = ["psk", "pki", "psk+pki", *(pytest.param(m, marks=NEEDS_GPG) for m in ("openpgp", "psk+openpgp"))]


@pytest.fixture
def sites(request):
    with two_sites(request.param) as directory:
        for home in ("a", "b"):
            forget(directory / home)
        yield directory


def of(*methods):
    return pytest.mark.parametrize("sites", methods, indirect=True)


def options(sites, home):
    """Return what an operator types, by what the bootstrap needs."""
    other = {"a": "b", "b": "a"}[home]
    found = []
    if (sites / f"ca-{other}").exists():
        found += ["--ca", sites / f"ca-{other}" / "root.pem", "--crl", sites / f"ca-{other}" / "crl.pem"]
    if (sites / "people").exists():
        found += ["--introducers", sites / "people" / "introducers.asc", "--threshold", 2]
        found += ["--user-id", f"site-{other} <site-{other}@example>"]
        found += ["--peer-certificate", sites / other / "identity" / "openpgp.asc"]
    return found


def register(sites, home, *more):
    return run("site", "register", sites / home / "SITE.toml", "--approver", "Ann", *more)


@of(*METHODS)
def test_both_sites_show_one_fingerprint_in_words_and_digits(sites):
    shown = []
    for home in ("a", "b"):
        done = register(sites, home, *options(sites, home))
        assert done.exit_code == 0, done.output
        lines = [line for line in done.stdout.splitlines() if line.startswith("  ")]
        *said, digits = lines[-3:]
        assert parse_value(" ".join(said)) == parse_value(digits)
        shown.append(digits)
        found = open_anchors(read_site(sites / home / "SITE.toml"))
        assert parse_value(digits).hex() == found.record.fingerprint
        assert found.record.approver == "Ann"
    assert shown[0] == shown[1]


@of("psk", "pki")
def test_the_report_for_programs_says_the_same(sites):
    done = register(sites, "a", "--json", *options(sites, "a"))
    document = json.loads(done.stdout)
    assert parse_value(document["fingerprint"]["words"]).hex() == document["fingerprint"]["hex"]
    assert (document["site"], document["peer"], document["approver"]) == ("site-a", "site-b", "Ann")
    assert document["anchors_changed"] is False


@of("psk")
def test_a_registration_is_replaced_only_when_asked_and_the_log_tells_of_both(sites):
    assert register(sites, "a").exit_code == 0
    before = snapshot(sites)
    refused(register(sites, "a"), "registered already by 'Ann'", "--replace")
    assert snapshot(sites) == before
    done = register(sites, "a", "--replace")
    assert done.exit_code == 0
    assert "another one than before" not in done.stdout
    log = run("audit", "verify", sites / "a" / "SITE.toml", "--json")
    assert [entry["event"] for entry in json.loads(log.stdout)["entries"]] == ["registration", "re-registration"]


@of("psk")
def test_another_book_asks_for_a_new_bootstrap(sites):
    assert register(sites, "a").exit_code == 0
    (sites / "a" / "psk.book").unlink()
    run("site", "psk", sites / "a" / "psk.book")
    done = register(sites, "a", "--replace")
    assert done.exit_code == 0
    assert "another one than before" in done.stdout
    assert "heliograph site rebootstrap" in done.stdout


@of("psk")
def test_a_book_in_use_is_registered_again_but_never_first(sites):
    """Its slots are burnt, differently at each site perhaps: only what was registered before vouches for it."""
    assert register(sites, "a").exit_code == 0
    first = open_anchors(read_site(sites / "a" / "SITE.toml")).record.fingerprint
    for home in ("a", "b"):
        path = sites / home / "psk.book"
        book = bytearray(path.read_bytes())
        book[64 : 64 + 1856] = bytes(1856)
        path.write_bytes(book)
    assert register(sites, "a", "--replace").exit_code == 0
    assert open_anchors(read_site(sites / "a" / "SITE.toml")).record.fingerprint == first
    before = snapshot(sites)
    refused(register(sites, "b"), "psk.book", "used before", "new one")
    assert snapshot(sites) == before


WRONG = {
    "psk": [
        (["--ca", "{ca}"], ["--ca", "psk"]),
        (["--crl", "{crl}"], ["--crl", "psk"]),
        (["--ocsp", "{crl}"], ["--ocsp", "psk"]),
        (["--no-crl"], ["--no-crl", "psk"]),
        (["--introducers", "{ca}"], ["--introducers"]),
        (["--threshold", "1"], ["--threshold"]),
        (["--user-id", "x"], ["--user-id"]),
        (["--peer-certificate", "{ca}"], ["--peer-certificate"]),
    ],
    "pki": [
        ([], ["--ca", "--crl", "--no-crl"]),
        (["--ca", "{ca}"], ["--crl", "--no-crl"]),
        (["--crl", "{crl}"], ["--ca"]),
        (["--ca", "{absent}", "--crl", "{crl}"], ["absent"]),
        (["--ca", "{ca}", "--crl", "{absent}"], ["absent"]),
        (["--ca", "{crl}", "--crl", "{crl}"], ["crl.pem", "certificate"]),
        (["--ca", "{ca}", "--crl", "{ca}"], ["root.pem", "revocation list"]),
        (["--ca", "{ca}", "--crl", "{crl}", "--ocsp", "{crl}"], ["crl.pem", "OCSP"]),
        (["--ca", "{leaf}", "--crl", "{crl}"], ["link.pem", "self-signed"]),
        (["--ca", "{ca}", "--crl", "{crl}", "--user-id", "x"], ["--user-id", "pki"]),
    ],
    "openpgp": [
        ([], ["--introducers", "--threshold", "--user-id", "--peer-certificate"]),
        (["--introducers", "{people}", "--threshold", "2", "--user-id", "{user}"], ["--peer-certificate"]),
        (["--introducers", "{people}", "--user-id", "{user}", "--peer-certificate", "{key}"], ["--threshold"]),
        (["--introducers", "{people}", "--threshold", "0", "--user-id", "{user}", "--peer-certificate", "{key}"],
         ["threshold 0"]),
        (["--introducers", "{people}", "--threshold", "3", "--user-id", "{user}", "--peer-certificate", "{key}"],
         ["openpgp.asc", "2"]),
        (["--introducers", "{people}", "--threshold", "4", "--user-id", "{user}", "--peer-certificate", "{key}"],
         ["introducers.asc", "4"]),
        (["--introducers", "{people}", "--threshold", "2", "--user-id", "{user}x", "--peer-certificate", "{key}"],
         ["openpgp.asc", "made out"]),
        (["--introducers", "{absent}", "--threshold", "2", "--user-id", "{user}", "--peer-certificate", "{key}"],
         ["absent"]),
        (["--introducers", "{key}", "--threshold", "1", "--user-id", "{user}", "--peer-certificate", "{absent}"],
         ["absent"]),
        (["--introducers", "{people}", "--threshold", "2", "--user-id", "site-a <site-a@example>",
          "--peer-certificate", "{own}"], ["own certificate"]),
    ],
}  # fmt: skip
CASES = [
    pytest.param(method, words, says, marks=NEEDS_GPG if method == "openpgp" else (), id=f"{method}-{number}")
    for method, cases in WRONG.items()
    for number, (words, says) in enumerate(cases)
]


@pytest.mark.parametrize(("sites", "words", "says"), CASES, indirect=["sites"])
def test_options_that_do_not_fit_are_refused_and_nothing_is_written(sites, words, says):
    ca = sites / "ca-b"
    (sites / "crl.pem").write_text("no list")
    places = {
        "ca": ca / "root.pem",
        "crl": ca / "crl.pem" if ca.exists() else sites / "crl.pem",
        "leaf": sites / "b" / "identity" / "link.pem",
        "absent": sites / "absent",
        "people": sites / "people" / "introducers.asc",
        "user": "site-b <site-b@example>",
        "key": sites / "b" / "identity" / "openpgp.asc",
        "own": sites / "a" / "identity" / "openpgp.asc",
    }
    before = snapshot(sites)
    refused(register(sites, "a", *(word.format(**places) for word in words)), *says)
    assert snapshot(sites) == before


@of("psk")
@pytest.mark.parametrize("name", ["", " ", "Ann\nBob", "x" * 65])
def test_a_registration_needs_a_person(sites, name):
    before = snapshot(sites)
    refused(run("site", "register", sites / "a" / "SITE.toml", "--approver", name), "--approver")
    assert snapshot(sites) == before
    assert run("site", "register", sites / "a" / "SITE.toml").exit_code == 2


@of("pki")
def test_a_site_without_its_own_chain_is_told_what_is_missing(sites):
    config = read_site(sites / "a" / "SITE.toml").file.link.pki
    for name in (config.root, config.key, config.certificate):
        (sites / "a" / name).unlink()
        refused(register(sites, "a", *options(sites, "a")), name)
    document = register(sites, "a", "--json", *options(sites, "a")).stdout
    assert "link.pem" in json.loads(document)["error"]["message"]


@of("pki")
def test_a_chain_that_does_not_lead_to_the_named_root_is_refused(sites):
    shutil.copy(sites / "ca-b" / "root.pem", sites / "a" / "identity" / "root.pem")
    refused(register(sites, "a", *options(sites, "a")), "root.pem", "did not issue")


@of("pki")
def test_a_trust_entry_that_names_something_else_takes_nothing_over(sites):
    toml = sites / "a" / "SITE.toml"
    toml.write_text(toml.read_text().replace('trust = "trust"', 'trust = "pki"'))
    before = snapshot(sites)
    refused(register(sites, "a", *options(sites, "a")), "pki", "something else")
    assert snapshot(sites) == before


# Revocations.
@of("pki")
def test_revocations_are_brought_up_to_date_without_a_new_registration(sites):
    assert register(sites, "a", *options(sites, "a")).exit_code == 0
    first = open_anchors(read_site(sites / "a" / "SITE.toml"))
    ca = RehearsalCa.load(sites / "ca-b")
    (sites / "new.pem").write_bytes(ca.revocation_lists(7.0))
    leaf = next(c for c in (sites / "ca-b" / "issued").glob("*.pem"))
    (sites / "new.der").write_bytes(ca.ocsp_response(ca.find(int(leaf.stem, 16)), 7.0))
    done = run("site", "revoke", sites / "a" / "SITE.toml", "--crl", sites / "new.pem", "--ocsp", sites / "new.der",
               "--approver", "Bob", "--json")  # fmt: skip
    assert done.exit_code == 0, done.output
    assert set(json.loads(done.stdout)["files"]) == {"ca.pem", "crl.pem", "ocsp.der"}
    assert (sites / "a" / "trust" / "crl.pem").read_bytes() == (sites / "new.pem").read_bytes()
    now = open_anchors(read_site(sites / "a" / "SITE.toml"))
    assert (now.mark, now.record.fingerprint, now.record.approver) == (first.mark, first.record.fingerprint, "Ann")
    log = json.loads(run("audit", "verify", sites / "a" / "SITE.toml", "--json").stdout)
    assert [(e["event"], e["approver"]) for e in log["entries"]] == [("registration", "Ann"), ("revocation", "Bob")]


@of("openpgp")
@NEEDS_GPG
def test_openpgp_revocations_are_added_and_never_taken_back(sites):
    assert register(sites, "a", *options(sites, "a")).exit_code == 0
    toml = sites / "a" / "SITE.toml"
    with OpenPgpWeb() as web:
        for number in (1, 2):
            (sites / f"{number}.rev").write_bytes(web.revocation(web.make(f"Somebody {number}")))
    for number in (1, 2, 1):
        done = run("site", "revoke", toml, "--revocation", sites / f"{number}.rev", "--approver", "Ann")
        assert done.exit_code == 0, done.output
    kept = (sites / "a" / "trust" / "revocations.asc").read_bytes()
    assert kept.count(b"-----BEGIN PGP") == 2
    open_anchors(read_site(toml))
    assert register(sites, "a", "--replace", *options(sites, "a")).exit_code == 0
    assert (sites / "a" / "trust" / "revocations.asc").read_bytes() == kept
    before = snapshot(sites)
    (sites / "guarded").write_bytes((sites / "1.rev").read_bytes().replace(b"-----BEGIN", b":----BEGIN"))
    for bad in ("guarded", "absent", "people/introducers.asc/x"):
        refused(run("site", "revoke", toml, "--revocation", sites / bad, "--approver", "Ann"), bad.split("/")[0])
    (sites / "guarded").unlink()
    assert snapshot(sites) == before


@of("pki")
@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], ["--crl", "--ocsp", "--revocation"]),
        (["--revocation", "{0}/ca-b/root.pem"], ["--revocation", "pki"]),
        (["--crl", "{0}/absent"], ["absent"]),
        (["--crl", "{0}/ca-b/root.pem"], ["root.pem", "revocation list"]),
        (["--crl", "{0}/ca-a/crl.pem"], ["crl.pem", "missing"]),
        (["--ocsp", "{0}/ca-b/crl.pem"], ["crl.pem", "OCSP"]),
    ],
)
def test_what_is_no_newer_revocation_is_refused_and_nothing_is_written(sites, words, says):
    toml = sites / "a" / "SITE.toml"
    refused(run("site", "revoke", toml, "--approver", "Ann", "--crl", sites / "ca-b" / "crl.pem"), "not registered")
    assert register(sites, "a", *options(sites, "a")).exit_code == 0
    before = snapshot(sites)
    refused(run("site", "revoke", toml, "--approver", "Ann", *(word.format(sites) for word in words)), *says)
    assert snapshot(sites) == before


@of("pki")
@pytest.mark.parametrize("cut", ["before the file", "before the record"])
def test_a_revocation_cut_short_stops_the_site_until_it_is_made_again(sites, cut, monkeypatch):
    assert register(sites, "a", *options(sites, "a")).exit_code == 0
    (sites / "new.pem").write_bytes(RehearsalCa.load(sites / "ca-b").revocation_lists(7.0))
    revoke = ("site", "revoke", sites / "a" / "SITE.toml", "--approver", "Ann", "--crl", sites / "new.pem")
    with monkeypatch.context() as patch:
        from heliograph.site import trust_store  # noqa: PLC0415

        left = [trust_store.replace_file][: 1 if cut == "before the record" else 0]

        def ends(*arguments):
            if not left:
                raise KeyboardInterrupt
            left.pop()(*arguments)

        patch.setattr(trust_store, "replace_file", ends)
        assert run(*revoke).exit_code != 0
    refused(run("site", "run", sites / "a" / "SITE.toml"), "trust")
    assert run(*revoke).exit_code == 0
    open_anchors(read_site(sites / "a" / "SITE.toml"))


def produced(response, at):
    """Return a response with another time of making: whoever changes a byte breaks its signature only."""
    made = load_der_ocsp_response(response).produced_at_utc
    return response.replace(*(f"{moment:%Y%m%d%H%M%SZ}".encode() for moment in (made, at)), 1)


@of("pki")
@pytest.mark.parametrize("kind", ["crl", "ocsp"])
def test_a_forged_list_from_the_future_does_not_keep_the_real_ones_out(sites, kind):
    """Lists are fetched over any network: a date that none reaches for years would outrank every genuine one."""
    assert register(sites, "a", *options(sites, "a")).exit_code == 0
    toml, later = sites / "a" / "SITE.toml", datetime.now(UTC) + timedelta(days=9999)
    real = RehearsalCa.load(sites / "ca-b")
    forger = RehearsalCa.create(sites / "forger", real.root.subject.rfc4514_string()[3:].removesuffix(" root"),
                                "ed25519", 30.0)  # fmt: skip
    leaf = real.find(int(next((sites / "ca-b" / "issued").glob("*.pem")).stem, 16))
    made = {
        "crl": (forger.revocation_lists(7.0, later), real.revocation_lists(7.0)),
        "ocsp": (produced(real.ocsp_response(leaf, 7.0), later), real.ocsp_response(leaf, 7.0)),
    }
    before = snapshot(sites / "a")
    for content, refuses in zip(made[kind], (True, False), strict=True):
        (sites / "list").write_bytes(content)
        done = run("site", "revoke", toml, "--approver", "Ann", f"--{kind}", sites / "list")
        if refuses:
            refused(done, "list", "clock")
            assert snapshot(sites / "a") == before
        else:
            assert done.exit_code == 0, done.output


def false_revocation(web, key):
    """Return a revocation that names ``key``, which another key signed."""
    other = web.make("Mallory")
    content = web.gpg("--dearmor", data=web.revocation(other))
    told, name = bytes.fromhex(other), bytes.fromhex(key)
    assert told in content
    content = content.replace(told, name).replace(told[-8:], name[-8:])
    return web.gpg("--enarmor", data=content).replace(b"PGP ARMORED FILE", b"PGP PUBLIC KEY BLOCK")


@of("openpgp")
@NEEDS_GPG
def test_a_false_revocation_is_not_taken_up_where_nothing_could_remove_it(sites):
    """Anyone can write one and send it: registered, it would refuse the peer for ever, since none is taken back."""
    assert register(sites, "a", *options(sites, "a")).exit_code == 0
    toml = sites / "a" / "SITE.toml"
    peer = open_anchors(read_site(toml)).record.peer_anchors["openpgp"]
    with OpenPgpWeb() as web:
        (sites / "false.rev").write_bytes(false_revocation(web, peer))
    before = snapshot(sites)
    refused(run("site", "revoke", toml, "--revocation", sites / "false.rev", "--approver", "Ann"), "revocation")
    assert snapshot(sites) == before
    assert register(sites, "a", "--replace", *options(sites, "a")).exit_code == 0


@of("openpgp")
@NEEDS_GPG
def test_an_option_given_twice_is_refused_not_half_obeyed(sites):
    assert register(sites, "a", *options(sites, "a")).exit_code == 0
    with OpenPgpWeb() as web:
        for number in (1, 2):
            (sites / f"{number}.rev").write_bytes(web.revocation(web.make(f"Somebody {number}")))
    before = snapshot(sites)
    done = run("site", "revoke", sites / "a" / "SITE.toml", "--approver", "Ann", "--revocation", sites / "1.rev",
               "--revocation", sites / "2.rev")  # fmt: skip
    assert done.exit_code == 2, done.output
    assert "--revocation" in done.stderr
    assert "once" in done.stderr
    assert snapshot(sites) == before


@of("openpgp")
@NEEDS_GPG
def test_a_file_without_an_end_is_refused_by_its_size(sites):
    assert register(sites, "a", *options(sites, "a")).exit_code == 0
    toml, before = sites / "a" / "SITE.toml", snapshot(sites)
    with address_space(2 << 30):
        refused(run("site", "revoke", toml, "--revocation", "/dev/zero", "--approver", "Ann"), "/dev/zero", "bytes")
        refused(run("site", "book", "/dev/zero"), "/dev/zero", "bytes")
    assert snapshot(sites) == before


@contextmanager
def address_space(more):
    """Let this process grow by at most ``more`` bytes: who reads for ever ends soon, and alone."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + more, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


@of("pki")
def test_a_later_registration_of_the_same_ca_keeps_the_revocations_of_the_first(sites):
    ca = RehearsalCa.load(sites / "ca-b")
    leaf = next(c for c in (sites / "ca-b" / "issued").glob("*.pem"))
    ca.revoke(int(leaf.stem, 16))
    (sites / "revoked.der").write_bytes(ca.ocsp_response(ca.find(int(leaf.stem, 16)), 7.0))
    trust = sites / "a" / "trust"
    assert register(sites, "a", "--ocsp", sites / "revoked.der", *options(sites, "a")).exit_code == 0
    kept = {name: (trust / name).read_bytes() for name in ("crl.pem", "ocsp.der")}
    before = snapshot(sites)
    root = ["--ca", sites / "ca-b" / "root.pem"]
    refused(register(sites, "a", "--replace", "--no-crl", *root), "--no-crl", "registered", "--crl")
    assert snapshot(sites) == before
    assert register(sites, "a", "--replace", *root).exit_code == 0
    assert {name: (trust / name).read_bytes() for name in kept} == kept
    other = ["--ca", sites / "ca-a" / "root.pem", "--no-crl"]
    assert register(sites, "a", "--replace", *other).exit_code == 0, "of another CA nothing was registered"


@of("openpgp")
@NEEDS_GPG
def test_revocations_that_no_reader_would_take_are_refused(sites, monkeypatch):
    assert register(sites, "a", *options(sites, "a")).exit_code == 0
    toml = sites / "a" / "SITE.toml"
    with OpenPgpWeb() as web:
        for number in (1, 2):
            (sites / f"{number}.rev").write_bytes(web.revocation(web.make(f"Somebody {number}")))
    assert run("site", "revoke", toml, "--revocation", sites / "1.rev", "--approver", "Ann").exit_code == 0
    before = snapshot(sites)
    monkeypatch.setattr("heliograph.site.register.KEYS_BYTES_MAX", (sites / "1.rev").stat().st_size + 100)
    refused(run("site", "revoke", toml, "--revocation", sites / "2.rev", "--approver", "Ann"), "export-minimal")
    assert snapshot(sites) == before
