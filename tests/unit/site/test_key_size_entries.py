"""Whoever needs keys of some size and could not have any is refused at the start, in one line."""

import json

import pytest
from site_on_disk import SiteOnDisk, listening, make_site

from heliograph.errors import ConfigurationError
from heliograph.site.config import read_site
from heliograph.site.site_supply import key_sizes

STREAMS = {"listen": "127.0.0.1:1", "promised_bps": 1000, "peer_listen": "127.0.0.1:2", "peer_dial": "127.0.0.1:3"}
FOREIGN = {
    "listen": "127.0.0.1:1",
    "url": "https://127.0.0.1:1",
    "peers": [{"kme": "kme-x", "url": "https://127.0.0.1:2", "pairs": [{"local": "sae-a", "foreign": "sae-x"}]}],
}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    where = tmp_path_factory.mktemp("sizes")
    with listening(where / "light.sock"):
        yield SiteOnDisk(make_site(where / "site", light=where / "light.sock"))


def with_sizes(made, directory, sizes, **sections):
    site = made.copy(directory / "site")
    link = json.loads(site.registration.read_text())
    link["transmitter_pairs"][0]["key_sizes"] = sizes
    site.registration.write_text(json.dumps(link))
    document = site.document()
    if sections:
        document.pop("agent")
    site.write(document | sections)
    return site.toml


def test_an_encryptor_whose_pair_has_no_keys_of_its_size_does_not_start(made, tmp_path):
    with pytest.raises(
        ConfigurationError, match=r"\[agent\] needs keys of 256 bits.*add 256 to the pair's key_sizes"
    ) as no:
        read_site(with_sizes(made, tmp_path, [128, 512]))
    assert "\n" not in str(no.value)


def test_an_encryptor_takes_its_size_beside_others(made, tmp_path):
    config = read_site(with_sizes(made, tmp_path, [128, 256]))
    assert config.supply().sizes.of("sae-a", "sae-b") == (128, 256)


def test_streams_need_a_first_size_that_messages_can_be_authenticated_with(made, tmp_path):
    (tmp_path / "good").mkdir()
    assert read_site(with_sizes(made, tmp_path / "good", [256, 128], etsi004=STREAMS)).file.etsi004 is not None
    with pytest.raises(ConfigurationError, match=r"\[etsi004\].*of its first size, need at least 256 bits"):
        read_site(with_sizes(made, tmp_path, [128, 256], etsi004=STREAMS))


def test_a_pair_behind_another_key_manager_may_have_a_size_of_its_own(made, tmp_path):
    FOREIGN["peers"][0]["pairs"][0]["key_size_bits"] = 512
    config = read_site(with_sizes(made, tmp_path, [256], etsi020=FOREIGN))
    sizes = key_sizes(config, config.supply())
    assert sizes.of("sae-a", "sae-x") == sizes.of("sae-x", "sae-a") == (512,)
    assert sizes.of("sae-a", "sae-b") == (256,)
    FOREIGN["peers"][0]["pairs"][0]["key_size_bits"] = 100
    (tmp_path / "bad").mkdir()
    with pytest.raises(ConfigurationError, match="a multiple of 8, 64 to 4096"):
        read_site(with_sizes(made, tmp_path / "bad", [256], etsi020=FOREIGN))


def test_a_misspelt_entry_of_sizes_is_refused(made, tmp_path):
    site = made.copy(tmp_path / "site")
    link = json.loads(site.registration.read_text())
    link["transmitter_pairs"][0]["key_size"] = [128]
    site.registration.write_text(json.dumps(link))
    with pytest.raises(ConfigurationError, match="unknown entry 'key_size'"):
        read_site(site.toml)
