"""The behaviours in which venues differ."""

from __future__ import annotations

from typing import Literal

import msgspec


class VenuePolicy(msgspec.Struct, frozen=True, kw_only=True):
    """The choices that FIX leaves to a venue.

    `recovery`: after a reconnect the venue replays the missed messages (with PossDupFlag), or drops them so that
    the client has to query. `exec_ids_restart`: ExecIDs restart each trading day. `restate_gtc`: carried orders
    are restated (ExecType Restated) at the next begin. `done_for_day`: carried orders are reported done for the
    day at the close. `send_pending`: pending cancel and pending replace are reported before the answer.
    `reset_seq_overnight`: sequence numbers restart with the trading day. `latency_ns` is one-way.

    The remaining fields concern the accounts that are open (see `accounts`), amounts in `CASH_UNIT`s, rates in
    hundredths of a percent. `opening_cash` is deposited on the first day, `interest_bp` of the cash is paid or charged
    at the begin of each later day. `commission_bp` is charged for each fill: in cash, or with `commission_in_kind` for
    a buy in the asset bought. `initial_margin_bp` and `maintenance_margin_bp` are shares of the gross value of the
    positions; `leverage_max` 0 means that none is stated.
    """

    recovery: Literal["replay", "drop"] = "replay"
    exec_ids_restart: bool = True
    restate_gtc: bool = True
    done_for_day: bool = True
    send_pending: bool = True
    reset_seq_overnight: bool = True
    latency_ns: int = 500_000
    heartbeat_ns: int = 30_000_000_000
    opening_cash: int = 1_000_000_000_000_000_000
    interest_bp: int = 1
    commission_bp: int = 0
    commission_in_kind: bool = False
    initial_margin_bp: int = 0
    maintenance_margin_bp: int = 0
    leverage_max: int = 0

    def __post_init__(self) -> None:
        if self.recovery not in ("replay", "drop"):
            raise ValueError(f"a venue's recovery is {self.recovery!r}, should be replay or drop")
        if self.latency_ns < 0:
            raise ValueError(f"a venue's latency is {self.latency_ns} ns, should be from 0 on")
        if self.heartbeat_ns <= 0:
            raise ValueError(f"a venue's heartbeat is every {self.heartbeat_ns} ns, should be above 0")
        for field in ("opening_cash", "commission_bp", "initial_margin_bp", "maintenance_margin_bp", "leverage_max"):
            if getattr(self, field) < 0:
                raise ValueError(f"a venue's {field} is {getattr(self, field)}, should be from 0 on")
