"""Certificates, keys and preshared keys that are exchanged while a reload reads them: one set of them, or none."""

import asyncio
import json
import os
import shutil
import tempfile
from pathlib import Path

import pytest
from site_on_disk import SiteOnDisk, make_site

from heliograph.errors import ConfigurationError
from heliograph.site.config import read_site
from heliograph.site.kme_doors import kme_tls
from heliograph.site.live_settings import site_changes, site_reloads
from heliograph.site.reload import Reloads, Rules
from heliograph.vault.certificates import SiteCa
from heliograph.vault.preshared_key import read_preshared_key


@pytest.fixture(scope="module")
def made():
    directory = Path(tempfile.mkdtemp(prefix="hgr"))
    yield SiteOnDisk(make_site(directory / "site", light=directory / "no-light.sock"))
    shutil.rmtree(directory)


@pytest.fixture
def site(made):
    directory = Path(tempfile.mkdtemp(prefix="hgs"))
    copy = made.copy(directory / "s")
    document = copy.document()
    document.pop("agent")
    document["skip"] = {
        "psk_listen": "127.0.0.1:7443", "local_system_id": "kp-a", "remote_systems": {"kp-b": ["sae-b"]},
        "psk": {"router": {"sae": "sae-a", "file": "router.psk"}},
    }  # fmt: skip
    move_in(copy.directory / "router.psk", os.urandom(32).hex().encode())
    copy.write(document)
    yield copy
    shutil.rmtree(directory)


def move_in(path, content):
    """Exchange a file as a careful person does: whole, under its name at once."""
    new = path.with_suffix(".new")
    new.write_bytes(content)
    new.chmod(0o600)
    new.replace(path)


def fresh_pair(site):
    """Return another certificate and its key, by their paths."""
    pki = site.directory / "pki"
    issued = SiteCa.load(pki).issue_kme("kme-a", ["127.0.0.1"])
    return {pki / "kme.pem": issued.certificate, pki / "kme.key": issued.key}


def reading(site, act, applied):
    """Return the reloads of a site whose doors read the certificate; ``act`` comes before they read preshared keys."""

    def read_psk(config):
        act()
        return read_preshared_key(config.path(config.file.skip.psk["router"].file))

    reloads = site_reloads(read_site(site.toml))
    reloads.add(kme_tls, lambda _: applied.append("certificate"))
    reloads.add(read_psk, lambda _: applied.append("preshared key"))
    return reloads


def in_place(files):
    for path, content in files.items():
        move_in(path, content)


@pytest.mark.parametrize(
    "which", [["kme.pem", "kme.key"], ["router.psk"], ["kme.pem", "kme.key", "router.psk"], ["ca.pem"]]
)
def test_files_of_a_new_set_that_come_between_two_reads_are_refused_and_the_old_set_stays(site, which):
    applied = []
    new = {**fresh_pair(site), site.directory / "router.psk": os.urandom(32).hex().encode()}
    SiteCa.create("another").write(site.directory.parent)
    new[site.directory / "pki" / "ca.pem"] = (site.directory.parent / "ca.pem").read_bytes()
    chosen = {path: content for path, content in new.items() if path.name in which}
    once = [chosen]
    reloads = reading(site, lambda: in_place(once.pop() if once else {}), applied)

    async def act():
        with pytest.raises(ConfigurationError, match="exchanged while the files were read; put all of them in") as why:
            await reloads.reload("Ann")
        assert all(name in str(why.value) for name in which)
        assert applied == []
        assert reloads.status().refused == 1
        said = await reloads.reload("Ann")  # now they stand still
        assert said.startswith("renewed: ")
        assert sorted(Path(name).name for name in said.removeprefix("renewed: ").split(", ")) == sorted(which)
        assert applied == ["certificate", "preshared key"]

    asyncio.run(act())


def test_a_key_that_was_exchanged_and_put_back_under_way_is_noticed_though_its_content_is_the_old_one(site):
    """The certificate was read beside the other key in the meantime: before and after look the same."""
    applied, key = [], site.directory / "pki" / "kme.key"
    content = key.read_bytes()
    once = [content]
    reloads = reading(site, lambda: move_in(key, once.pop()) if once else None, applied)

    async def act():
        with pytest.raises(ConfigurationError, match=r"pki/kme\.key: exchanged while"):
            await reloads.reload("Ann")
        assert applied == []
        assert (await reloads.reload("Ann")).startswith("nothing to reload")

    asyncio.run(act())


def test_a_file_of_settings_that_was_exchanged_and_put_back_while_it_was_read_is_not_believed(site):
    sound = site.toml.read_bytes()

    def read(path):
        site.set(kme__max_key_per_request=7)
        found = read_site(path)
        move_in(path, sound)
        return found

    config = read_site(site.toml)
    rules = Rules(read, lambda of: [of.toml], lambda _: [], site_changes)

    async def act():
        with pytest.raises(ConfigurationError, match="it was being written while it was read"):
            await Reloads(config, rules).reload("Ann")

    asyncio.run(act())


@pytest.mark.parametrize("first", ["kme.pem", "kme.key"])
def test_half_of_a_new_pair_is_refused_whole_and_both_halves_are_taken(site, first):
    applied = []
    reloads = reading(site, lambda: None, applied)
    pair = fresh_pair(site)
    half = site.directory / "pki" / first

    async def act():
        move_in(half, pair.pop(half))
        with pytest.raises(ConfigurationError, match="does not belong to"):
            await reloads.reload("Ann")
        assert applied == []
        in_place(pair)
        assert await reloads.reload("Ann") == "renewed: pki/kme.pem, pki/kme.key"
        assert applied == ["certificate", "preshared key"]

    asyncio.run(act())


def test_a_file_that_vanishes_under_way_is_refused_and_a_pipe_in_its_place_holds_nobody_up(site):
    applied, psk = [], site.directory / "router.psk"
    reloads = reading(site, psk.unlink, applied)

    async def act():
        with pytest.raises(ConfigurationError, match=r"router\.psk"):
            await reloads.reload("Ann")
        os.mkfifo(psk, 0o600)
        again = reading(site, lambda: None, applied)
        with pytest.raises(ConfigurationError, match=r"router\.psk: not a plain file"):
            await asyncio.wait_for(again.reload("Ann"), 20)
        assert applied == []

    asyncio.run(act())


def test_a_reload_says_what_changed_and_when_nothing_did(site):
    reloads = reading(site, lambda: None, [])

    async def act():
        nothing = "nothing to reload: no setting, certificate or key file differs from what is in force"
        assert await reloads.reload("Ann") == nothing
        in_place({path: path.read_bytes() for path in fresh_pair(site)})  # the same content in new files
        assert await reloads.reload("Ann") == nothing
        in_place(fresh_pair(site))
        site.set(kme__max_key_per_request=7)
        assert await reloads.reload("Ann") == "renewed: pki/kme.pem, pki/kme.key; changed: [kme] max_key_per_request"
        assert await reloads.reload("Ann") == nothing

    asyncio.run(act())


def test_a_digest_of_a_key_reaches_neither_the_line_nor_the_audit_log(site):
    reloads = reading(site, lambda: None, [])
    in_place(fresh_pair(site))
    site.set(kme__max_key_per_request=7)
    said = asyncio.run(reloads.reload("Ann"))
    log = json.loads((site.directory / "audit.jsonl").read_text().splitlines()[-1])
    assert log["details"] == {"process": "site", "changed": ["[kme] max_key_per_request"]}
    assert said == reloads.status().last
    assert not any(len(word) >= 40 for word in said.replace(",", " ").split())
