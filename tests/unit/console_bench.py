"""A console over a guard's store, and browsers that are logged in."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from argon2 import PasswordHasher
from msgspec.structs import replace
from starlette.testclient import TestClient

from holdover.console import Console, Users, application
from holdover.console.throttle import Throttle
from holdover.runtime import FreezeStore, GuardConfig

PASSWORD = "correct horse battery"
FAST = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
ORIGIN = {"Origin": "http://localhost"}
NOBODY_NEEDED = {"/login", "/logout", "/static/{name}", "/healthz"}
"""What is answered to everybody; everything else wants a login."""


class Bench:
    """One console, its users vera (viewer), olga (operator), amir and anna (approvers), and its clock."""

    def __init__(self, directory: Path, clock: Callable[[], int], **options: Any) -> None:
        config = GuardConfig(directory=directory, here=directory, **options.pop("config", {}))
        self.store = FreezeStore(directory / "guard.db", config.name)
        self.users = Users(self.store, FAST)
        for name, role in (("vera", "viewer"), ("olga", "operator"), ("amir", "approver"), ("anna", "approver")):
            self.users.add(name, role, PASSWORD, by="test", time_ns=clock())
        self.throttle = Throttle()
        told = {"stream_s": 0.0, "wait_s": 0.2, "throttle": self.throttle, "clock": clock, **options}
        self.console = Console(config, store=self.store, users=self.users, **told)
        self.app = application(self.console)

    def browser(self, name: str = "", scheme: str = "http") -> Browser:
        """A browser, logged in as `name` if that is given."""
        browser = Browser(self.app, base_url=f"{scheme}://localhost", headers={"Origin": f"{scheme}://localhost"})
        if name:
            assert browser.log_in(name).status_code == 303
        return browser

    def dump(self, *but: str) -> dict[str, list[Any]]:
        """Every table of the store with all rows."""
        tables = self.store.database.read("SELECT name FROM sqlite_master WHERE type='table' ORDER BY name")
        return {
            name: self.store.database.read(f"SELECT * FROM {name}") for (name,) in tables if name not in ("beat", *but)
        }

    def acts(self, act: str) -> list[str]:
        """What the audit log keeps of one kind of act."""
        return [detail for _, _, kind, detail in self.store.audit() if kind == act]


class Browser(TestClient):
    """A test client that fills in forms. `token` is for those that a test makes itself."""

    token = ""

    def __init__(self, app: Any, **told: Any) -> None:
        super().__init__(app, follow_redirects=False, raise_server_exceptions=True, **told)

    def csrf(self, path: str = "/") -> str:
        """The token that the forms of a page carry."""
        found = re.search(r'name="csrf" value="([^"]*)"', self.get(path).text)
        assert found, path
        return found[1]

    def log_in(self, name: str, password: str = PASSWORD, **told: str) -> Any:
        """Fill in the form of the door."""
        form = {"csrf": self.csrf("/login"), "name": name, "password": password, **told}
        return self.post("/login", data=form)

    def submit(self, path: str, **form: str) -> Any:
        """Send a form of a page, with its token."""
        return self.post(path, data={"csrf": self.csrf(), **form})


def without_age(store: FreezeStore, name: str, time_ns: int, beat: Any) -> None:
    """A sign of life as old as it says."""
    import msgspec

    store.beat(name, time_ns, msgspec.json.encode(replace(beat, time_ns=time_ns)))
