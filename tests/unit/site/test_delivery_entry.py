"""[delivery] in SITE.toml: what cannot be served is refused in one line, before anything is opened."""

import pytest
from site_on_disk import SiteOnDisk, make_site

from heliograph.errors import ConfigurationError
from heliograph.site.config import read_site
from heliograph.site.front_end import delivery_of

FRONT = {"name": "fe-1", "listen": "127.0.0.1:8443", "directory": "fe-1"}
GOOD = {"server": "host=/run/postgresql dbname=heliograph", "front_ends": [FRONT]}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    directory = tmp_path_factory.mktemp("made")
    return SiteOnDisk(make_site(directory / "a", light=directory / "light.sock"))


@pytest.fixture
def site(made, tmp_path):
    return made.copy(tmp_path / "a")


def test_a_site_with_a_delivery_server_is_read(site):
    site.set(delivery=GOOD)
    delivery = read_site(site.toml).file.delivery
    assert delivery.names == ("fe-1",)
    assert delivery.front_end("fe-1").listen == "127.0.0.1:8443"
    with pytest.raises(ConfigurationError, match="there is no 'fe-9', only fe-1"):
        delivery.front_end("fe-9")


def test_a_site_without_one_has_no_front_end(site):
    with pytest.raises(ConfigurationError, match="hands out its keys itself"):
        delivery_of(read_site(site.toml))


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        ({"front_ends": []}, "between 1 and 32"),
        ({"front_ends": [FRONT, FRONT]}, "a name comes twice"),
        ({"front_ends": [FRONT, FRONT | {"name": "fe-2"}]}, "a directory comes twice"),
        ({"front_ends": [FRONT, FRONT | {"name": "fe-2", "directory": "fe-1/"}]}, "a directory comes twice"),
        ({"front_ends": [FRONT | {"name": ""}]}, "plain characters"),
        ({"front_ends": [FRONT | {"directory": "."}]}, "a directory of its own"),
        ({"front_ends": [FRONT | {"listen": "8443"}]}, "host:port"),
        ({"standby": "a, b"}, "standby = 'a, b'"),
        ({"server": "host=/run/x password=geheim"}, "a password stands in it"),
        ({"server": "host=db.example"}, "sslmode=verify-full"),
        ({"quota": 1}, "unknown field `quota`"),
    ],
)
def test_a_wrong_entry_is_refused_in_one_line(site, entry, reason):
    site.set(delivery=GOOD | entry)
    with pytest.raises(ConfigurationError) as refused:
        read_site(site.toml)
    assert reason in str(refused.value)
    assert "\n" not in str(refused.value)
    assert "geheim" not in str(refused.value)


SKIP = {
    "listen": "127.0.0.1:8444",
    "local_system_id": "key-provider-a",
    "remote_systems": {"key-provider-b": ["sae-b"]},
}


@pytest.mark.parametrize(
    ("more", "named"),
    [
        ({"skip": SKIP}, "[skip]"),
        ({"kme__groups": [{"master": "sae-a", "slaves": ["sae-a2"]}]}, "[kme] groups"),
        ({"boundary": {"socket": "run/kme.sock", "users": {"root": "sae-a"}}}, "[boundary] socket"),
    ],
)
def test_what_front_ends_do_not_serve_is_refused_beside_them(site, more, named):
    if "boundary" in more:
        site.set(agent=None)
    site.set(**more)
    read_site(site.toml)
    site.set(delivery=GOOD)
    with pytest.raises(ConfigurationError, match="nothing else; take one out") as refused:
        read_site(site.toml)
    assert f"[delivery] and {named}" in str(refused.value)
