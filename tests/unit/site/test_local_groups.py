"""A whole site, opened from SITE.toml, serves a group of its own SAEs and their quota while its link makes nothing."""

import asyncio
import json
import shutil

import pytest
from site_on_disk import SiteOnDisk, listening, make_site

from heliograph.errors import ConfigurationError, InsufficientKeys
from heliograph.http.client import Etsi014Client
from heliograph.http.tls import client_tls
from heliograph.site.config import parse_address, read_site
from heliograph.site.site import run_site
from heliograph.vault.certificates import SiteCa
from heliograph.vault.filekek import FileKek
from heliograph.vault.randomness import SystemRandomness

KME = {
    "groups": [{"master": "sae-a", "slaves": ["sae-a2"]}],
    "quotas": [{"master": "sae-a", "slaves": ["sae-a2"], "keys_per_hour": 1.0, "burst": 2}],
    "key_ttl_s": 3600.0,
    "requests_per_s": 50.0,
}


@pytest.fixture
def site(tmp_path):
    light = tmp_path / "light.sock"
    with listening(light):
        yield SiteOnDisk(make_site(tmp_path / "site", light=light))


def with_kme(site, **more):
    document = site.document()
    document.pop("agent", None)
    document["kme"] |= more
    site.write(document)


def test_a_site_serves_its_own_group_and_no_more_than_its_quota(site):
    with_kme(site, **KME)
    pki = site.directory / "pki"
    shutil.rmtree(pki)
    pki.mkdir()  # an authority of this test's own: it has SAEs to certify that the site's set-up does not know
    ca = SiteCa.create("site A")
    ca.issue_kme("kme-a", ["127.0.0.1"]).write(pki, "kme")
    files = {sae: ca.issue_sae(sae).write(pki, sae) for sae in ("sae-a", "sae-a2")}
    config = read_site(site.toml)
    host, port = parse_address(config.file.kme.listen, "")

    async def use():
        url = f"https://{host}:{port}"
        async with (
            Etsi014Client(url, client_tls(*files["sae-a"], "kme-a"), "sae-a", "sae-a2") as master,
            Etsi014Client(url, client_tls(*files["sae-a2"], "kme-a"), "sae-a2", "sae-a") as slave,
        ):
            keys = await master.get_keys(2)
            with pytest.raises(InsufficientKeys, match="the quota of this pair of SAEs is 2 keys"):
                await master.get_key()
            assert [await slave.get_key_with_id(key.key_id) for key in keys] == keys
            return await master.status()

    async def act():
        stop, found = asyncio.Event(), []

        async def ready():
            try:
                found.append(await use())
            finally:
                stop.set()

        await run_site(config, FileKek(config.path(config.file.kek), SystemRandomness()), ready, stop)
        return found[0]

    status = asyncio.run(act())
    assert (status.source_kme, status.target_kme, status.peer_sae) == ("kme-a", "kme-a", "sae-a2")


@pytest.mark.parametrize(
    "more",
    [
        {"groups": [{"master": "sae-a", "slaves": ["sae-b"]}]},
        {"groups": [{"master": "sae-a", "slave": "sae-c"}]},
        {"quotas": [{"master": "sae-q", "slaves": ["sae-b"], "keys_per_hour": 1.0, "burst": 1}]},
        {"requests_per_s": 0.0},
        {"key_ttl_s": 0.5},
    ],
    ids=json.dumps,
)
def test_a_wrong_entry_is_refused_with_the_files_name(site, more):
    with_kme(site, **more)
    with pytest.raises(ConfigurationError) as refusal:
        read_site(site.toml)
    assert str(refusal.value).startswith(f"{site.toml}: ")
    assert "\n" not in str(refusal.value)
