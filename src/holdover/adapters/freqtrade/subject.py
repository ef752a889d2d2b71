"""One incarnation of freqtrade: its worker in a fibre, its database commits as records, its polls as reconciliation.

This module is the adapter: hooks, record, restore. The exchange (`exchange`), the clock (`fibre`) and the conversions
(`records`, `configuration`) are separate modules.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Final

from freqtrade import freqtradebot, worker
from freqtrade.exceptions import TemporaryError
from freqtrade.persistence import Order, Trade

from holdover.adapters.freqtrade.configuration import make_configuration, read_rows
from holdover.adapters.freqtrade.exchange import ExchangeGateway, register_exchange
from holdover.adapters.freqtrade.fibre import Fibre, replace_sleep
from holdover.adapters.freqtrade.records import FreqtradeRecords, open_database
from holdover.model import Reconciliation

if TYPE_CHECKING:
    from holdover.harness.subject import Env, Plan

_ACCOUNT: Final = "A1"


class FreqtradeSubject:
    """The plan's settings are keys of freqtrade's configuration: `strategy` with `strategy_path`, and any other."""

    rows = staticmethod(read_rows)
    is_isolated = False
    """Its database sessions are global to the process, so trials run in forks."""

    def __init__(self, plan: Plan) -> None:
        self.plan, self.accounts = plan, [_ACCOUNT]
        register_exchange()

    def start(self, env: Env) -> None:
        """Restore what the database has, then run the worker from its start."""
        self.env, self.epoch = env, 0
        self.config = make_configuration(self.plan, env)
        self.fibre = Fibre(env, self.run)
        self.gateway = ExchangeGateway(env, _ACCOUNT, self.fibre, self.config)
        self.records, self.gateway.on_query = FreqtradeRecords(self.gateway), self.on_polled
        open_database(self.config["db_url"])
        with env.guard.step("start"), Trade.session() as session:
            for subsystem, entries in self.records.read_records(session, session.query(Order).order_by(Order.id)):
                env.guard.restore(subsystem, entries)
            for subsystem, record in self.records.begin_trade_date(session):
                env.guard.record(subsystem, record)
            session.commit()
        env.clock.on_timer(self.gateway.on_timer)
        env.link.listen(self.gateway)
        self.gateway.log_on()

    def stop(self) -> None:
        """Stop as freqtrade's SIGTERM handler does."""
        with self.env.guard.step("stop"), contextlib.suppress(KeyboardInterrupt):
            self.fibre.throw(KeyboardInterrupt())
        self.env.link.disconnect()

    def run(self) -> None:
        """Do what freqtrade's `trade` command does, once the exchange can be reached."""
        freqtradebot.init_db = self.on_database_opened
        worker.Worker._sleep = staticmethod(self.sleep_between_polls)
        replace_sleep("freqtrade", self.sleep_before_retry)
        self.fibre.wait(self.env.close_ns, lambda: self.env.link.is_up)
        # An operator restarts a bot that ended because it could not reach anything.
        bot_worker = self.fibre.retry(lambda: worker.Worker({}, self.config), TemporaryError, 30.0)
        manage_open_orders = bot_worker.freqtrade.manage_open_orders
        bot_worker.freqtrade.manage_open_orders = lambda: self.on_polled(manage_open_orders())
        try:
            bot_worker.run()
        finally:
            if not self.env.guard.is_dead:
                bot_worker.exit()

    def on_database_opened(self, url: str) -> None:
        """Open the database and record each commit of its session."""
        open_database(url)
        self.records.record_commits(Trade.session, self.env.guard.record)

    def sleep_between_polls(self, seconds: float) -> None:
        """Sleep between two iterations: until the time, or until the venue has sent something."""
        self.fibre.sleep(seconds, lambda: self.gateway.has_news)
        self.gateway.has_news = False

    def sleep_before_retry(self, seconds: float) -> None:
        """Sleep in the middle of an iteration, unreconciled: its knowledge may be out of date."""
        self.record_reconciliation(is_complete=False)
        self.fibre.sleep(seconds)
        self.record_reconciliation(is_complete=self.epoch == self.env.link.epoch)

    def on_polled(self, _: None = None) -> None:
        """Mark it reconciled when it has queried, on this connection, every order that it has open."""
        link = self.env.link
        if self.epoch != link.epoch and self.records.open_order_ids <= self.gateway.queried_orders:
            self.epoch = link.epoch
            self.record_reconciliation(is_complete=True)
            self.env.guard.reconciled(self.env.trade_date, ["orders", "positions"])

    def record_reconciliation(self, is_complete: bool) -> None:
        """Record the state of the reconciliation."""
        link = self.env.link
        self.env.guard.record("reconciler", Reconciliation(link=link.name, epoch=link.epoch, is_complete=is_complete))
