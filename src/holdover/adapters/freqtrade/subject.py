"""One life of freqtrade: its worker in a fibre, its database's commits as records, its polls as reconciliation."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import freqtrade.freqtradebot
import freqtrade.worker
from freqtrade.persistence import Order, Trade

from holdover.adapters.freqtrade.books import Books, open_database
from holdover.adapters.freqtrade.configuration import configuration, rows
from holdover.adapters.freqtrade.exchange import Gateway, listed
from holdover.adapters.freqtrade.fibre import Fibre, sleeping_in
from holdover.model import Inbound, Reconciliation

if TYPE_CHECKING:
    from holdover.harness.subject import Env, Plan

_ACCOUNT: Final = "A1"


class FreqtradeSubject:
    """The plan's settings may have any key of freqtrade's configuration (`strategy` with `strategy_path`, ...)."""

    isolated = False
    """Its sessions and configuration are the process's: trials are tried in forks."""

    def __init__(self, plan: Plan) -> None:
        self.plan, self.accounts = plan, [_ACCOUNT]
        listed()

    def start(self, env: Env) -> None:
        """Say what the database has, then run the worker, from its first line on."""
        self.env = env
        self.config = configuration(self.plan, env)
        self.gateway = Gateway(env, _ACCOUNT, self.config["strategy"])
        self.config["exchange"]["ccxt_config"] = {"gateway": self.gateway}
        self.books, self.fibre, self.epoch = Books(self.gateway), Fibre(env, self.run), 0
        self.gateway.fibre, self.gateway.thin = self.fibre, bool(self.config.get("thin", False))
        open_database(self.config["db_url"])
        with env.guard.step("start"):
            orders, positions = self.books.read(Trade.session, Order.session.query(Order).order_by(Order.id))
            env.guard.restore("orders", orders)
            env.guard.restore("positions", positions)
            for position in self.books.roll(Trade.session):
                env.guard.record("positions", position)
            for exposure in self.books.exposures(Trade.session):
                env.guard.record("risk", exposure)
        Trade.session.commit()
        Trade.session.remove()
        env.link.listen(self)
        env.clock.on_timer(lambda name, told: self.gateway.log_on(*told) if name == "log on" else self.go(name))
        self.gateway.log_on()

    def run(self) -> None:
        """What freqtrade's own `trade` command does once there is an exchange to be reached."""
        freqtrade.freqtradebot.init_db = self.init_db
        sleeping_in("freqtrade", self.backoff)
        freqtrade.worker.Worker._sleep = staticmethod(self.throttle)
        self.fibre.wait(self.env.close_ns + 10**15, lambda: self.env.link.up)
        worker = freqtrade.worker.Worker({}, self.config)
        polls = worker.freqtrade.manage_open_orders
        worker.freqtrade.manage_open_orders = lambda: (polls(), self.reconciled(True))
        try:
            worker.run()
        finally:
            if not self.env.guard.dead:
                worker.exit()

    def init_db(self, url: str) -> None:
        open_database(url)
        self.books.attach(Trade.session, Order, self.env.guard.record)

    def throttle(self, seconds: float) -> None:
        """Between two iterations: until it is time, or the venue has something to tell."""
        self.fibre.sleep(seconds, lambda: self.gateway.told)
        self.gateway.told = False

    def backoff(self, seconds: float) -> None:
        """In the middle of one: what it knows is not what is so, and it does not say that it was."""
        done = self.epoch == self.env.link.epoch
        self.reconciled(False)
        self.fibre.sleep(seconds)
        if done:
            self.reconciled(True)

    def reconciled(self, done: bool) -> None:
        """It has asked for every open order that it knows."""
        link = self.env.link
        self.env.guard.record("reconciler", Reconciliation(link=link.name, epoch=link.epoch, done=done))
        if done and self.epoch != link.epoch:
            self.epoch = link.epoch
            self.env.guard.reconciled(self.env.trade_date, ["orders", "positions"])

    def stop(self) -> None:
        """As SIGTERM does."""
        with self.env.guard.step("stop"), contextlib.suppress(SystemExit):
            self.fibre.end(SystemExit("SIGTERM"))
        self.env.link.disconnect()

    def go(self, cause: str) -> None:
        with self.env.guard.step(cause):
            self.fibre.go()

    # -- the link's listener ------------------------------------------------------------------------------------------

    def on_up(self, epoch: int, out_seq: int) -> None:
        self.gateway.on_up()
        self.go("logon")

    def on_down(self, reason: str) -> None:
        self.gateway.on_down()
        self.go("logout")

    def on_message(self, seq: int, poss_dup: bool, message: Inbound) -> None:
        self.gateway.on_message(seq, poss_dup, message)
        self.go("message")

    def on_sequence_reset(self, new_seq: int) -> None:
        self.gateway.on_sequence_reset(new_seq)
        self.go("reset")

    def on_heartbeat(self, seq: int) -> None:
        self.gateway.on_heartbeat(seq)
        self.go("heartbeat")

    def rows(self, directory: Path) -> Iterator[tuple[Any, ...]]:
        """What its database comes to."""
        return rows(directory)
