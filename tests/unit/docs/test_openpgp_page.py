"""docs/how-to/openpgp.md, run as it is written: four people with a keyring each, and what the files then do."""

import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import pytest
from markdown_pages import ROOT, blocks

from heliograph.errors import AnchorRefused

pytestmark = [
    pytest.mark.slow,  # real processes
    pytest.mark.skipif(shutil.which("gpg") is None, reason="gpg is not installed: apt-get install -y gnupg"),
]

NAME = "Site B <site-b@example.org>"
# "$GNUPGHOME is ~/.gnupg unless you set it": here each person has one.
PEOPLE = {"jan took it back": "site a", "site b lost it": "site a"}


@pytest.fixture
def homes():
    with tempfile.TemporaryDirectory(prefix="hg-page-") as place:  # short, for the agent's socket
        homes = {who: Path(place) / who.replace(" ", "-") for who in ("site a", "site b", "ian", "jan")}
        for home in homes.values():
            home.mkdir(mode=0o700)
        yield homes
        for home in homes.values():
            subprocess.run(["gpgconf", "--homedir", str(home), "--kill", "all"], check=False, timeout=30)


def test_the_page_leads_two_sites_to_trust_and_back(homes, tmp_path):
    pytest.importorskip("pysequoia", reason="pysequoia is not installed: pip install 'heliograph[pgp]'")
    from heliograph.vault.openpgp import OpenPgpSigner  # noqa: PLC0415  - only with the extra
    from heliograph.vault.openpgp_certificate import certificate_fingerprint  # noqa: PLC0415
    from heliograph.vault.openpgp_trust import OpenPgpTrust  # noqa: PLC0415

    def run(who, text):
        done = subprocess.run(
            ["sh", "-eu", "-c", text],
            cwd=tmp_path,
            env={**os.environ, "GNUPGHOME": str(homes[who])},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, (text, done.stderr)
        return done.stdout

    for who in ("ian", "jan"):  # introducers have keys already
        run(who, f"gpg --batch --passphrase '' --quick-generate-key '{who} <{who}@example.org>' ed25519 sign 2y")
    page = blocks(ROOT / "docs/how-to/openpgp.md")
    assert {block.marker for block in page} == {*homes, *PEOPLE}
    fingerprint = "FINGERPRINT-OF-SITE-B"
    threads = {block.marker: block.text for block in page if block.marker in PEOPLE}
    for block in page:
        if block.marker in PEOPLE:
            continue
        out = run(block.marker, block.text.replace("FINGERPRINT-OF-SITE-B", fingerprint))
        if (tmp_path / "site-b.asc").exists():
            fingerprint = certificate_fingerprint(tmp_path / "site-b.asc").upper()
        if "--fingerprint" in block.text:
            assert fingerprint in out.replace(" ", "")

    signer = OpenPgpSigner(tmp_path / "site-b.key", tmp_path / "site-b.pgp")
    trust = OpenPgpTrust(tmp_path / "introducers.asc", 2, NAME, tmp_path / "revocations.asc")
    trust.accept(signer.credential, time.time()).verify(b"hello", signer.sign(b"hello"))
    run("site a", threads["jan took it back"])
    with pytest.raises(AnchorRefused, match=r"1 of 2 needed introducers vouch.*revoked its certification"):
        trust.accept(signer.credential, time.time())
    run("site a", threads["site b lost it"])
    with pytest.raises(AnchorRefused, match="it is revoked"):
        trust.accept(signer.credential, time.time())
