"""freqtrade's configuration for one incarnation, and the comparable content of its database."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from freqtrade.enums import CandleType, RunMode

from holdover.adapters.freqtrade.exchange import NAME

if TYPE_CHECKING:
    from holdover.harness.subject import Env, Plan

FILE: Final = "tradesv3.sqlite"
"""The default name of freqtrade's database."""
_STRATEGIES: Final = Path(__file__).parent / "strategies"
_TABLES: Final = (
    "SELECT 'order', ft_trade_id, ft_is_open, order_id, status, side, price, amount, filled, cost FROM orders",
    "SELECT 'trade', id, pair, is_open, amount, stake_amount, open_rate, exit_reason FROM trades",
    "SELECT 'day', day FROM holdover_day",
)


def make_configuration(plan: Plan, env: Env) -> dict[str, Any]:
    """Returns the configuration of a live bot on the simulated exchange; the plan's settings override it."""
    pairs = {f"{instrument.symbol}/{instrument.currency}": instrument for instrument in plan.instruments()}
    hours = sorted({(meta.open_ns, meta.close_ns) for meta in plan.days})
    amounts = {
        pair: _usual_lots(plan, instrument.symbol) * float(instrument.lot_size) for pair, instrument in pairs.items()
    }
    pricing = {"price_side": "same", "use_order_book": False, "price_last_balance": 0.0}
    return {
        "runmode": RunMode.LIVE,
        "dry_run": False,
        "bot_name": "holdover",
        "initial_state": "running",
        "trading_mode": "spot",
        "margin_mode": "",
        "candle_type_def": CandleType.SPOT,
        "stake_currency": env.instruments[0].currency,
        "stake_amount": 100_000.0,
        "available_capital": 100_000_000.0,
        "tradable_balance_ratio": 0.99,
        "max_open_trades": len(pairs),
        "timeframe": "1m",
        "entry_pricing": dict(pricing),
        "exit_pricing": dict(pricing),
        "unfilledtimeout": {"entry": 6, "exit": 6, "unit": "minutes", "exit_timeout_count": 0},
        "use_exit_signal": True,
        "exchange": {
            "name": NAME,
            "key": "",
            "secret": "",
            "pair_whitelist": list(pairs),
            "pair_blacklist": [],
            "enable_ws": False,
        },
        "pairlists": [{"method": "StaticPairList"}],
        "internals": {"process_throttle_secs": 60, "heartbeat_interval": 0},
        "db_url": f"sqlite:///{env.directory / FILE}",
        "user_data_dir": env.directory,
        "datadir": env.directory,
        "strategy": "Restless",
        "strategy_path": str(_STRATEGIES),
        "restless": {"hours": hours, "amounts": amounts},
        **plan.settings,
    }


def read_rows(directory: Path) -> Iterator[tuple[Any, ...]]:
    """Yield orders, trades and the day, without local times."""
    with closing(sqlite3.connect(f"file:{directory / FILE}?mode=ro", uri=True)) as reader:
        for select in _TABLES:
            yield from reader.execute(select)


def _usual_lots(plan: Plan, symbol: str) -> int:
    """An order size that the recorded market fills in parts."""
    days = [meta for meta in plan.days if meta.instrument.symbol == symbol]
    traded, prints = sum(meta.traded_qty for meta in days), sum(meta.trades for meta in days)
    return max(traded // prints * 2 if prints else 100, 1)
