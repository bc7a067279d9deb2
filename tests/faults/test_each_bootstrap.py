"""Two real sites, registered at each other, make a key with each bootstrap and show one chain for two people."""

import asyncio
import dataclasses
import json
import shutil
import tempfile
from pathlib import Path

import pytest
from fault_rehearsal import DISTANCE_KM, SITES, direct_ports, new_block
from typer.testing import CliRunner

from heliograph.authentication.bootstrap import METHODS
from heliograph.cli.main import app
from heliograph.lab.rehearsal import Rehearsal
from heliograph.testing.links import example_registration

pytestmark = pytest.mark.slow
NEEDS_GPG = pytest.mark.skipif(shutil.which("gpg") is None, reason="gpg is not installed: apt-get install -y gnupg")
SAMPLES = ("pki", "psk+openpgp")  # the others in `make soak`; psk alone is in every other test of this folder
CASES = [
    pytest.param(
        method,
        marks=[*([NEEDS_GPG] if "openpgp" in method else []), *([] if method in SAMPLES else [pytest.mark.soak])],
    )
    for method in METHODS
]


async def ask(*words):
    """Run a command as an operator would, beside the running sites."""
    done = await asyncio.to_thread(CliRunner().invoke, app, ["site", *map(str, words)])
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


@pytest.mark.parametrize("method", CASES)
def test_a_key_is_made_and_its_chain_compared(method):
    async def scene():
        rehearsal = Rehearsal(
            Path(tempfile.mkdtemp(prefix="hgf")),
            direct_ports(),
            DISTANCE_KM,
            1,
            registration=dataclasses.replace(example_registration(), bootstrap=method),
        )
        try:
            rehearsal.prepare()
            await rehearsal.start_all()
            await new_block(rehearsal)
            shown = [await ask("compare", rehearsal.sites[name], "--json") for name in SITES]
            assert shown[0]["chain"] == shown[1]["chain"]
            compare = ("compare", rehearsal.sites["site_a"], "--approver", "Ann", "--json", "--matches")
            matched = await ask(*compare, shown[1]["chain"]["words"])
            assert matched["compared"]["approver"] == "Ann"
            window = await ask("window", rehearsal.sites["site_a"], "--json")
            assert window["compared"]["approver"] == "Ann"
            assert window["bootstrap"] == method
            # Both sites' signatures, whoever asks.
            assert len(window["algorithms"]) == ("psk" in method) + 2 * (method != "psk")
            assert window["blocks"] >= 1
            assert window["opened_at"] > window["registered"]["time"]
            assert "Ann" in (await rehearsal.status("site_a")).link.compared
            assert (await rehearsal.status("site_b")).link.compared == ""
            # The chain is the epoch's: it survives a restart, and later blocks do not change it.
            await rehearsal.stop("site_a")
            await rehearsal.start("site_a")
            await new_block(rehearsal)
            assert (await ask("compare", rehearsal.sites["site_a"], "--json"))["chain"] == shown[0]["chain"]
        finally:
            await rehearsal.stop_all()
            rehearsal.remove()

    asyncio.run(scene())
