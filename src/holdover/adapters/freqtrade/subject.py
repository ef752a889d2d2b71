"""One life of freqtrade: its worker in a fibre, its database's commits as records, its polls as reconciliation.

This module is the adapter: hooks, record, restore. What stands for the exchange (`exchange`), for the clock (`fibre`)
and for the words of both sides (`books`, `configuration`) is beside it.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Final

from freqtrade import freqtradebot, worker
from freqtrade.exceptions import TemporaryError
from freqtrade.persistence import Order, Trade

from holdover.adapters.freqtrade.books import Books, open_database
from holdover.adapters.freqtrade.configuration import configuration, rows
from holdover.adapters.freqtrade.exchange import Gateway, listed
from holdover.adapters.freqtrade.fibre import Fibre, sleeping_in
from holdover.model import Reconciliation

if TYPE_CHECKING:
    from holdover.harness.subject import Env, Plan

_ACCOUNT: Final = "A1"


class FreqtradeSubject:
    """The plan's settings are keys of freqtrade's configuration: `strategy` with `strategy_path`, and any other."""

    rows = staticmethod(rows)
    isolated = False
    """Its database sessions are the process's: trials are tried in forks."""

    def __init__(self, plan: Plan) -> None:
        self.plan, self.accounts = plan, [_ACCOUNT]
        listed()

    def start(self, env: Env) -> None:
        """Say what the database has, then run the worker from its first line on."""
        self.env, self.epoch = env, 0
        self.config = configuration(self.plan, env)
        self.fibre = Fibre(env, self.run)
        self.gateway = Gateway(env, _ACCOUNT, self.fibre, self.config)
        self.books, self.gateway.on_asked = Books(self.gateway), self.asked
        open_database(self.config["db_url"])
        with env.guard.step("start"), Trade.session() as session:
            for subsystem, records in self.books.read(session, session.query(Order).order_by(Order.id)):
                env.guard.restore(subsystem, records)
            for subsystem, record in self.books.roll(session):
                env.guard.record(subsystem, record)
            session.commit()
        env.clock.on_timer(self.gateway.on_timer)
        env.link.listen(self.gateway)
        self.gateway.log_on()

    def stop(self) -> None:
        """Go down as its handler of SIGTERM has it go."""
        with self.env.guard.step("stop"), contextlib.suppress(KeyboardInterrupt):
            self.fibre.end(KeyboardInterrupt())
        self.env.link.disconnect()

    def run(self) -> None:
        """What its `trade` command does, once the exchange can be reached."""
        freqtradebot.init_db = self.opened
        worker.Worker._sleep = staticmethod(self.throttle)
        sleeping_in("freqtrade", self.backoff)
        self.fibre.wait(self.env.close_ns, lambda: self.env.link.up)
        # Whoever runs it has it started again when it ended because nothing could be reached.
        theirs = self.fibre.insist(lambda: worker.Worker({}, self.config), TemporaryError, 30.0)
        polls = theirs.freqtrade.manage_open_orders
        theirs.freqtrade.manage_open_orders = lambda: self.asked(polls())
        try:
            theirs.run()
        finally:
            if not self.env.guard.dead:
                theirs.exit()

    def opened(self, url: str) -> None:
        """Each commit of its session is recorded."""
        open_database(url)
        self.books.attach(Trade.session, self.env.guard.record)

    def throttle(self, seconds: float) -> None:
        """Between two iterations: until it is time, or until the venue has something to tell."""
        self.fibre.sleep(seconds, lambda: self.gateway.told)
        self.gateway.told = False

    def backoff(self, seconds: float) -> None:
        """In the middle of one: what it knows need not be so, and it has not said that it is."""
        self.say(done=False)
        self.fibre.sleep(seconds)
        self.say(done=self.epoch == self.env.link.epoch)

    def asked(self, _: None = None) -> None:
        """It is reconciled when it has asked, on this connection, for every order that it holds open."""
        link = self.env.link
        if self.epoch != link.epoch and self.books.working <= self.gateway.asked:
            self.epoch = link.epoch
            self.say(done=True)
            self.env.guard.reconciled(self.env.trade_date, ["orders", "positions"])

    def say(self, done: bool) -> None:
        """How far it is."""
        link = self.env.link
        self.env.guard.record("reconciler", Reconciliation(link=link.name, epoch=link.epoch, done=done))
