"""What an agent reports: a record without key material by construction (a key_ID is public)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["AgentStatus", "Mode"]

Mode = Literal["encrypting", "without-qkd", "fail-closed"]


@dataclass(frozen=True, slots=True)
class AgentStatus:
    """A snapshot of one agent.

    ``mode``: "fail-closed" whenever no generation may be sent under: nothing passes then; "without-qkd" while the
    active key has no secret of the link in it, as the policies qkd-preferred and pqc-only allow. ``state``: the
    rotation's state by name; ``key_id``: of the active generation; ``key_age_s``: since its key was fetched;
    ``rekeys``: rotations completed on both ends, the first key not counted; ``policy``: the one in force;
    ``components``: what the active key is made of, so that a key without QKD is seen; ``alarm``: what an operator
    must look at; ``pad_bytes_left``: to send, with a one-time pad; records and payload bytes since the start;
    ``refused_records``, ``cut_connections``, ``turned_away``: see ForwarderCounts; ``refused_messages``: control
    messages that were not well-formed, proved nothing or came from the wrong side; ``last_refusal``: why the key
    manager or a message was refused last.
    """

    role: str
    mode: Mode
    state: str
    control_connected: bool
    key_id: str | None
    key_age_s: float | None
    rekeys: int
    live_connections: int
    completed_connections: int
    sent_records: int
    sent_bytes: int
    received_records: int
    received_bytes: int
    refused_records: int
    refused_messages: int
    cut_connections: int
    turned_away: int
    last_refusal: str | None
    policy: str
    components: tuple[str, ...]
    cipher: str
    alarm: str | None
    pad_bytes_left: int | None
