"""How a venue behaves where venues differ."""

from __future__ import annotations

from typing import Literal

import msgspec


class VenuePolicy(msgspec.Struct, frozen=True, kw_only=True):
    """The choices that FIX leaves to a venue.

    `recovery`: after a reconnect the venue replays what was missed (with PossDupFlag), or drops it and leaves the
    client to ask. `exec_ids_restart`: ExecIDs start again each trading day. `restate_gtc`: carried orders are restated
    (ExecType Restated) at the next begin. `done_for_day`: they are reported done for the day at the close.
    `send_pending`: pending cancel and pending replace are reported before the answer. `reset_seq_overnight`: sequence
    numbers start again with the trading day.
    """

    recovery: Literal["replay", "drop"] = "replay"
    exec_ids_restart: bool = True
    restate_gtc: bool = True
    done_for_day: bool = True
    send_pending: bool = True
    reset_seq_overnight: bool = True
    latency_ns: int = 500_000
    heartbeat_ns: int = 30_000_000_000
