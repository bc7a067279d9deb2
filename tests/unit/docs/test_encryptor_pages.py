"""The pages about encryptors of others, run as they are written."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from markdown_pages import ROOT, blocks, table_rows

from heliograph.agent.config import AgentConfig
from heliograph.encryptors.strongswan_config import StrongSwanConfig
from heliograph.site.snippet_texts import TEXTS

HOW_TO = ROOT / "docs/how-to"


def _block(page, marker):
    (found,) = [block.text for block in blocks(HOW_TO / page) if block.marker == marker]
    return found


def test_the_snippet_that_the_page_shows_is_printed(tmp_path):
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    words = ["sh", "-eu", "-c", _block("snippets.md", "snippet")]
    done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert 'set server "kms.example"' in done.stdout


def test_the_page_lists_every_device():
    rows = table_rows(HOW_TO / "snippets.md")
    assert {row[0].strip("`") for row in rows if row[0].startswith("`") and row[0] != "`--for`"} == set(TEXTS)


def test_the_strongswan_table_of_the_page_is_one_that_works():
    document = tomllib.loads(re.sub(r"\n +", " ", _block("strongswan.md", "table")))
    config = AgentConfig.from_mapping(document["tunnel"]).strongswan
    assert config is not None
    told = {row[0]: row[1] for row in table_rows(HOW_TO / "strongswan.md") if row[0].startswith("`")}
    assert told["`socket`"] == f"`{config.socket}`"
    assert told["`proposal`, `esp_proposal`"] == f"`{config.proposal}`, `{config.esp_proposal}`"
    entries = {name.strip("` ") for names in told for name in names.split(",")}
    assert entries <= set(StrongSwanConfig.__dataclass_fields__)


@pytest.mark.skipif(os.geteuid() != 0, reason="a network namespace needs root")
@pytest.mark.skipif(shutil.which("ip") is None, reason="ip is missing: apt-get install -y iproute2")
def test_the_guard_is_set_and_goes_away_as_the_page_says():
    from heliograph.encryptors.guard import refuse_clear_text  # noqa: PLC0415

    space = f"hgd{os.getpid()}"
    if subprocess.run(["ip", "netns", "add", space], capture_output=True, check=False).returncode:
        pytest.skip("this kernel or container allows no network namespaces")
    try:

        def rules():
            return subprocess.run(["ip", "-netns", space, "rule"], capture_output=True, text=True, check=True).stdout

        words = _block("strongswan.md", "guard").split()
        subprocess.run(["ip", "netns", "exec", space, *words], check=True, capture_output=True)
        for _ in range(2):  # setting it again changes nothing
            assert refuse_clear_text(["10.2.0.0/24"], space) == ()
            assert rules().count("to 10.2.0.0/24 unreachable") == 1
        subprocess.run(["ip", "-netns", space, "rule", "del", "pref", "221"], check=True, capture_output=True)
        assert refuse_clear_text(["10.2.0.0/24"], space) == ("10.2.0.0/24",)  # and whoever removed it is noticed
        refuse_clear_text(["2001:db8:2::/48"], space)
        words = _block("strongswan.md", "unguard").split()
        subprocess.run(["ip", "netns", "exec", space, *words], check=True, capture_output=True)
        assert "unreachable" not in rules()
    finally:
        subprocess.run(["ip", "netns", "del", space], check=True, capture_output=True)
