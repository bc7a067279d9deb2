"""Two running sites whose files name other sizes of keys: each says so in one line, and there is no key."""

import asyncio
import tempfile
from dataclasses import replace
from pathlib import Path

from link_pair import REGISTRATION, link_pair, running, until
from structlog.testing import capture_logs

from heliograph.protocol.registration import SaePair

OTHER = replace(REGISTRATION, transmitter_pairs=(SaePair("sae-a", "sae-b", key_sizes=(256, 128)),))


def test_sites_whose_sizes_differ_make_no_key_and_both_logs_say_why():
    async def scenario(room):
        async with link_pair(room, (REGISTRATION, OTHER)) as ends:
            with capture_logs() as lines:
                async with running(*ends):
                    await until(lambda: len(lines) >= 4)
                    states = [end.link.status().state for end in ends]
            return lines, states, [end.key_ids() for end in ends], [end.stages() for end in ends]

    with tempfile.TemporaryDirectory(prefix="hgs") as room:
        lines, states, keys, stages = asyncio.run(scenario(Path(room)))
    assert keys == [set(), set()]
    assert stages == [{}, {}]
    caller, listener = "registration of link 'a-b' are not the same as here", "registrations (link.json) or the anchors"
    assert caller in states[0]
    assert listener in states[1]
    for line in lines:
        assert caller in line["reason"] or listener in line["reason"]
        assert "\n" not in line["reason"]
