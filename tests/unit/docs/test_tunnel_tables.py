"""The tables of a tunnel that the how-to pages show are tables that an agent takes."""

import tomllib

import pytest
from markdown_pages import ROOT, blocks

from heliograph.agent.config import AgentConfig
from heliograph.consumer.keys import Cipher

PAGES = {"tls-psk.md": Cipher.TLS_PSK, "packets.md": Cipher.AES_256_GCM}


@pytest.mark.parametrize("page", PAGES)
def test_the_table_of_the_page_is_accepted(page):
    (shown,) = [b.text for b in blocks(ROOT / "docs/how-to" / page) if b.text.startswith("tunnel = ")]
    config = AgentConfig.from_mapping(tomllib.loads(shown)["tunnel"])
    assert config.rotation.cipher is PAGES[page]
    assert (config.tun is not None) is (page == "packets.md")
