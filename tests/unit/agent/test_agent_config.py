"""A configuration that cannot work is refused by one line that names the entry."""

from __future__ import annotations

import asyncio

import pytest
from tunnel_pair import Sites

from heliograph.agent.config import AgentConfig
from heliograph.errors import ConfigurationError


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"role": "both"}, "role"),
        ({"role": None}, "role"),
        ({"control": "nowhere"}, "address"),
        ({"rekey_bytes": 1}, "rekey_bytes"),
        ({"rekey_bytes": "many"}, "rekey_bytes"),
        ({"rekey_seconds": 600.0}, "rekey_seconds"),
        ({"rekey_seconds": 296.0}, "rekey_seconds"),
        ({"max_key_age_s": -1.0}, "max_key_age_s"),
        ({"max_key_age_s": 86_401.0}, "max_key_age_s"),
        ({"rekey_bytes": (1 << 38) + 1}, "rekey_bytes"),
        ({"outer_connect": None}, "outer_connect"),
        ({"forwards": {"": "127.0.0.1:0"}}, "name"),
        ({"forwards": {"web": "0.0.0.0:0"}}, "clear"),
        ({"targets": {"web": "127.0.0.1:1"}}, "outer_listen"),
        ({"secret": "x"}, "secret"),
    ],
    ids=str,
)
def test_a_configuration_that_cannot_work_is_refused_by_name(change, named):
    good = {
        "role": "initiator",
        "control": "127.0.0.1:1",
        "outer_connect": "127.0.0.1:2",
        "forwards": {"web": "127.0.0.1:0"},
    }
    AgentConfig.from_mapping(good)
    with pytest.raises(ConfigurationError, match=named):
        AgentConfig.from_mapping(good | change)


def test_a_port_in_use_is_named():
    async def scenario():
        async with Sites() as sites:
            taken, running = sites.b.control_address, sites.b
            with pytest.raises(ConfigurationError, match=str(taken.port)):
                await sites.start_b(control=str(taken))
            await sites.b.close()  # the one that could not start
            sites.b = running
            assert sites.a.status().control_connected

    asyncio.run(scenario())
