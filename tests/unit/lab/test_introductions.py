"""A rehearsal gives both sites what trust starts from and registers each at the other, for each bootstrap."""

import dataclasses
import shutil

import pytest

from heliograph.authentication.bootstrap import METHODS
from heliograph.errors import ConfigurationError
from heliograph.lab.introductions import APPROVER
from heliograph.lab.rehearsal import Ports, Rehearsal
from heliograph.site.anchors import open_anchors
from heliograph.site.clocks import WallClock
from heliograph.site.config import read_site
from heliograph.testing.links import example_registration

NEEDS_GPG = pytest.mark.skipif(shutil.which("gpg") is None, reason="gpg is not installed: apt-get install -y gnupg")
CASES = [pytest.param(m, marks=(NEEDS_GPG, pytest.mark.slow) if "openpgp" in m else ()) for m in METHODS]


@pytest.mark.parametrize("method", CASES)
def test_each_site_believes_the_other_and_nobody_else(tmp_path, method):
    registration = dataclasses.replace(example_registration(), bootstrap=method)
    rehearsal = Rehearsal(tmp_path / "r", Ports.free(), registration=registration, bootstrap=method)
    assert rehearsal.prepare().bootstrap == method
    a, b = (open_anchors(read_site(path)) for path in rehearsal.sites.values())
    assert a.record.fingerprint == b.record.fingerprint
    assert (a.record.own_anchors, a.record.peer_anchors) == (b.record.peer_anchors, b.record.own_anchors)
    assert a.record.approver == APPROVER
    assert (a.book is not None, b.book is not None) == (method.startswith("psk"),) * 2
    for here, there in ((a, b), (b, a)):
        assert (here.signer is None, here.trust is None) == (method == "psk",) * 2
        if here.signer is not None:
            key = there.trust.accept(here.signer.credential, WallClock().now())
            key.verify(b"a message", here.signer.sign(b"a message"))
            with pytest.raises(Exception, match=r"site-|certif|issued|anchor|registered"):
                here.trust.accept(here.signer.credential, WallClock().now())  # not its own peer


def test_a_rehearsal_plans_a_link_with_its_bootstrap(tmp_path):
    rehearsal = Rehearsal(tmp_path / "r", Ports.free(), bootstrap="pki")
    assert rehearsal.prepare().bootstrap == "pki"


def test_without_gnupg_a_rehearsal_with_openpgp_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    registration = dataclasses.replace(example_registration(), bootstrap="openpgp")
    with pytest.raises(ConfigurationError, match="apt-get install -y gnupg"):
        Rehearsal(tmp_path / "r", Ports.free(), registration=registration).prepare()
