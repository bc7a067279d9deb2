"""The files of an OpenPGP anchor, the program behind it, and GnuPG's own web of trust as a second opinion."""

import contextlib
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from heliograph.authentication.anchors.openpgp import anchor_digest
from heliograph.errors import AnchorRefused, ConfigurationError
from heliograph.testing.openpgp_web import OpenPgpWeb
from heliograph.vault.gnupg import GnuPG
from heliograph.vault.openpgp_trust import OpenPgpTrust

BOB = "Site B <site-b@qkd.test>"


@pytest.fixture(scope="module")
def land(web):
    """Three introducers and a peer whom the first two certified."""
    introducers = [web.make(f"{name} <{name}@intro.test>") for name in ("Ian", "Jan", "Kim")]
    bob = web.make(BOB)
    for one in introducers[:2]:
        web.certify(one, bob)
    return introducers, bob


@pytest.fixture
def file(web, land, tmp_path):
    introducers, _ = land
    (tmp_path / "introducers").write_bytes(web.public(*introducers))
    return tmp_path / "introducers"


def test_the_digest_is_of_the_set_the_threshold_and_the_name(land, file, web):
    introducers, _ = land
    mine = OpenPgpTrust(file, 2, BOB, None).fingerprint()
    assert mine == anchor_digest(reversed([one.upper() for one in introducers]), 2, BOB)
    assert len({mine, *(anchor_digest(introducers, n, name) for n, name in ((1, BOB), (3, BOB), (2, BOB + " ")))}) == 4
    assert anchor_digest(introducers[:2], 2, BOB) != mine
    file.write_bytes(b"".join(web.public(one, armour=True) for one in introducers[::-1]))
    assert OpenPgpTrust(file, 2, BOB, None).fingerprint() == mine


def test_a_digest_does_not_change_between_releases():
    assert anchor_digest(["00" * 20, "11" * 20], 2, "B") == (
        "166ec906f373f64b2ce014abc1676fdaab0de358b7ed22f982b9b83c07605d1f"  # worked by hand from the docstring
    )


def test_armoured_introducers_one_after_another_are_all_read(land, file, web):
    introducers, bob = land
    file.write_bytes(b"\n".join(web.public(one, armour=True) for one in introducers))
    assert OpenPgpTrust(file, 2, BOB, None).accept(web.public(bob), time.time()).fingerprint == bob


def test_an_anchor_that_cannot_work_is_refused_at_once(land, file, web, tmp_path):
    introducers, _ = land
    for threshold, name, why in (
        (0, BOB, "at least one"),
        (4, BOB, "3 keys, but 4"),
        (1, "", "user ID"),
        (1, "a\nb", "user ID"),
    ):
        with pytest.raises(ConfigurationError, match=why):
            OpenPgpTrust(file, threshold, name, None)
    with pytest.raises(ConfigurationError, match="No such file"):
        OpenPgpTrust(tmp_path / "none", 1, BOB, None)
    for content, why in (
        (b"", "0 keys"),
        (b"not a key", "0 keys"),
        (web.secret(introducers[0]), "SECRET"),
        (web.public(*introducers)[:-1], "cut short"),
        (web.public(introducers[0], armour=True)[:-40], "damaged"),
    ):
        file.write_bytes(content)
        with pytest.raises(ConfigurationError, match=why):
            OpenPgpTrust(file, 1, BOB, None)


def test_one_introducer_listed_twice_is_one(land, file, web):
    introducers, _ = land
    file.write_bytes(web.public(introducers[0]) * 2)
    with pytest.raises(ConfigurationError, match="1 keys, but 2"):
        OpenPgpTrust(file, 2, BOB, None)


def test_a_revocation_file_that_cannot_be_read_whole_stops_the_link(land, file, web, tmp_path):
    introducers, bob = land
    revocations = tmp_path / "revocations"
    with pytest.raises(ConfigurationError, match="No such file"):
        OpenPgpTrust(file, 2, BOB, revocations)
    revocations.write_bytes(b"\n")
    trust = OpenPgpTrust(file, 2, BOB, revocations)
    assert trust.accept(web.public(bob), time.time()).fingerprint == bob
    whole = web.revocation(introducers[2])
    guarded = web.revocation(introducers[0]).replace(b"-----BEGIN", b":-----BEGIN")
    signature = web.gpg(f"--local-user={bob}", "--output=-", "--detach-sign", data=b"hello")
    for content, why in (
        (guarded, "colon"),
        (whole + b"\n" + guarded, "colon"),
        (whole + whole.replace(b"-----END", b"-----DEN"), "damaged"),
        (whole + whole[:90], "damaged"),
        (b"revoked: Ian", "no OpenPGP data"),
        (signature, "no revocation of a key"),
        (web.secret(bob), "SECRET"),
    ):
        revocations.write_bytes(content)
        with pytest.raises(ConfigurationError, match=why):
            trust.accept(web.public(bob), time.time())


def test_two_keys_with_one_short_id_are_refused(file):
    """Nobody has 2^64 steps to spare for a real pair, so these are fingerprints only."""
    trust = OpenPgpTrust(file, 2, BOB, None)
    ian, same, other = ("1" * 24 + "a" * 16, "2" * 24 + "a" * 16, "3" * 24 + "b" * 16)
    trust._check_key_ids(SimpleNamespace(keys=[other]), [SimpleNamespace(keys=[ian]), SimpleNamespace(keys=[ian])])
    with pytest.raises(AnchorRefused, match="short ID"):
        trust._check_key_ids(SimpleNamespace(keys=[other, same]), [SimpleNamespace(keys=[ian])])


def test_a_clock_that_openpgp_cannot_write_down_is_refused(land, file, web):
    _, bob = land
    for now in (float("nan"), float("inf"), -1.0, 0.0, 2.0**32):
        with pytest.raises(ConfigurationError, match="clock"):
            OpenPgpTrust(file, 2, BOB, None).accept(web.public(bob), now)


def _program(tmp_path, text):
    program = tmp_path / "gpg"
    program.write_text(f"#!/bin/sh\n{text}\n")
    program.chmod(0o700)
    return str(program)


BANNER = 'case "$1" in --version) echo "gpg (GnuPG) 2.2.40"; exit 0;; esac\n'


@pytest.mark.parametrize(
    ("text", "timeout_s"),
    [
        ("exec sleep 60", 0.2),
        ("kill -9 $$", 20),
        ("exit 2", 20),
        ('gpg "$@"; exit 2', 20),
        ("exit 0", 20),
        ("echo 'pub:-:'", 20),
        ("echo 'uid:u::'", 20),
        ("head -c 100000 /dev/urandom", 20),
    ],
)
def test_a_gnupg_that_hangs_dies_or_raves_is_nobodys_yes(land, file, web, tmp_path, text, timeout_s):
    _, bob = land
    started = time.monotonic()
    trust = OpenPgpTrust(file, 2, BOB, None, GnuPG(_program(tmp_path, BANNER + text), timeout_s))
    with pytest.raises((AnchorRefused, ConfigurationError)):
        trust.accept(web.public(bob), time.time())
    assert time.monotonic() - started < 15


def test_a_revocation_that_gnupg_passes_over_in_silence_stops_the_link(land, file, web, tmp_path):
    introducers, bob = land
    (tmp_path / "revocations").write_bytes(web.revocation(introducers[2]))
    third = 'case "$*" in *--import) echo >> "$HOME/n"; [ "$(wc -l < "$HOME/n")" = 3 ] && exit 0;; esac; exec gpg "$@"'
    trust = OpenPgpTrust(file, 2, BOB, tmp_path / "revocations", GnuPG(_program(tmp_path, BANNER + third)))
    with pytest.raises(ConfigurationError, match="does not take the revocation"):
        trust.accept(web.public(bob), time.time())


def test_a_missing_or_old_gnupg_is_named_with_the_remedy(tmp_path):
    with pytest.raises(ConfigurationError, match="apt-get install -y gnupg"):
        GnuPG(str(tmp_path / "none"))
    for text in ('echo "gpg (GnuPG) 2.2.17"', 'echo "gpg (GnuPG) 1.4.23"', "echo hello", "exit 1"):
        with pytest.raises(ConfigurationError, match="gnupg"):
            GnuPG(_program(tmp_path, text))


def test_nothing_is_left_behind(land, file, web, tmp_path):
    """Not a directory, not an agent; with a long TMPDIR as with a short one (GnuPG's socket path has a limit)."""
    _, bob = land
    watched = _program(
        tmp_path, 'printf "%s\\n" "$GNUPGHOME" >> ' + f"{tmp_path}/homes\n" + f'exec {shutil.which("gpg")} "$@"'
    )
    trust = OpenPgpTrust(file, 2, BOB, None, GnuPG(watched))
    long = tmp_path / ("long" * 20)
    long.mkdir()
    for place in (tempfile.gettempdir(), str(long)):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(tempfile, "tempdir", place)
            assert trust.accept(web.public(bob), time.time()).fingerprint == bob
    homes = {Path(line) for line in (tmp_path / "homes").read_text().split()} - {Path("/nonexistent")}
    assert len(homes) == 2
    assert [home for home in homes if home.exists()] == []
    assert list(long.iterdir()) == []
    assert not [line for line in _command_lines() for home in homes if bytes(home) in line]


def _command_lines():
    """Yield the command line of every process that is still there when it is looked at."""
    for one in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            yield (one / "cmdline").read_bytes()


@pytest.mark.slow
def test_gnupgs_own_web_of_trust_gives_the_same_answer(web):
    """The form that was rejected (ADR 0022) as an oracle: a root that signs the introducers, completes-needed = k."""
    now = int(time.time())
    old = web.make("Old <old@intro.test>", "1y", at=now - 2 * 365 * 86_400)
    introducers = [*(web.make(f"I{n} <i{n}@intro.test>", at=now) for n in range(3)), old]
    revoked = web.make("Revoked <r@intro.test>", at=now)
    everybody = [*introducers, revoked]
    peers = {
        who: web.make(f"Peer {who} <p@qkd.test>", at=now)
        for who in ("none", "one", "two", "three", "rev", "old", "back")
    }
    by = {"none": [], "one": [0], "two": [0, 1], "three": [0, 1, 2], "back": [0, 1, 2]}
    for who, numbers in by.items():
        for number in numbers:
            web.certify(introducers[number], peers[who], at=now + 1)
    web.certify(introducers[0], peers["rev"], at=now + 1)
    web.certify(revoked, peers["rev"], at=now + 1)
    web.certify(introducers[0], peers["old"], at=now + 1)
    web.gpg("--quick-revoke-sig", peers["back"].upper(), introducers[2].upper(), at=now + 2)
    keys = {key: web.public(key) for key in [*everybody, *peers.values()]}
    with OpenPgpWeb() as third:
        third.gpg("--import", data=keys[revoked])
        third.gpg("--import", data=web.revocation(revoked))
        keys[revoked] = third.public(revoked)

    with OpenPgpWeb() as root:
        me = root.make("Root <root@site.test>", at=now)
        root.gpg("--import", data=b"".join(keys.values()))
        for one in everybody:
            # GnuPG does not sign a key that is revoked or expired: such an introducer is out there by itself.
            subprocess.run(
                ["gpg", f"--homedir={root.home}", "--batch", "--yes", "--pinentry-mode=loopback", "--passphrase=",
                 f"--faked-system-time={now + 2}!", "--quick-lsign-key", one.upper()],
                capture_output=True, check=False, timeout=30,
            )  # fmt: skip
        owner = "".join(f"{one.upper()}:5:\n" for one in everybody) + f"{me.upper()}:6:\n"
        root.gpg("--import-ownertrust", data=owner.encode())
        for threshold in (1, 2, 3):
            model = ("--trust-model=classic", f"--completes-needed={threshold}", "--marginals-needed=9")
            root.gpg(*model, "--check-trustdb", at=now + 10)
            for who, peer in peers.items():
                listing = root.gpg(*model, "--with-colons", "--list-keys", peer, at=now + 10).decode()
                theirs = next(line for line in listing.splitlines() if line.startswith("uid:")).split(":")[1] == "f"
                assert theirs == _ours(root.home, everybody, keys, threshold, peer, who, now + 10), (who, threshold)


def _ours(directory, everybody, keys, threshold, peer, who, now):
    file = directory / "introducers"
    file.write_bytes(b"".join(keys[one] for one in everybody))
    try:
        OpenPgpTrust(file, threshold, f"Peer {who} <p@qkd.test>", None).accept(keys[peer], now)
    except AnchorRefused:
        return False
    return True
