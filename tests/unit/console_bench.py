"""A console on the store of a guard, and browsers that are logged in."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from argon2 import PasswordHasher
from msgspec.structs import replace
from starlette.testclient import TestClient

from holdover.console import Console, ConsoleUsers, make_application
from holdover.console.throttle import LoginThrottle
from holdover.runtime import FreezeStore, GuardConfig

PASSWORD = "correct horse battery"
FAST_HASHER = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
ORIGIN = {"Origin": "http://localhost"}
PUBLIC_PATHS = {"/login", "/logout", "/static/{name}", "/healthz"}
"""What is answered to everybody; everything else wants a login."""


class ConsoleBench:
    """One console, its users vera (viewer), olga (operator), amir and anna (approvers), and its clock."""

    def __init__(self, directory: Path, clock: Callable[[], int], **options: Any) -> None:
        config = GuardConfig.for_directory(directory, **options.pop("config", {}))
        self.store = FreezeStore(directory / "guard.db", config.name)
        self.users = ConsoleUsers(self.store, FAST_HASHER)
        for name, role in (("vera", "viewer"), ("olga", "operator"), ("amir", "approver"), ("anna", "approver")):
            self.users.add_user(name, role, PASSWORD, by="test", time_ns=clock())
        self.throttle = LoginThrottle(self.store)
        console_options = {"stream_s": 0.0, "wait_s": 0.2, "throttle": self.throttle, "clock": clock, **options}
        self.console = Console(config, store=self.store, users=self.users, **console_options)
        self.app = make_application(self.console)

    def browser(self, name: str = "", scheme: str = "http") -> Browser:
        """A browser, logged in as `name` if that is given."""
        browser = Browser(self.app, base_url=f"{scheme}://localhost", headers={"Origin": f"{scheme}://localhost"})
        if name:
            assert browser.log_in(name).status_code == 303
        return browser

    def read_tables(self, *excluded: str) -> dict[str, list[Any]]:
        """Return all rows of every table of the store, by table."""
        tables = self.store.database.read("SELECT name FROM sqlite_master WHERE type='table' ORDER BY name")
        return {
            name: self.store.database.read(f"SELECT * FROM {name}")
            for (name,) in tables
            if name not in ("beat", *excluded)
        }

    def audit_details(self, action: str) -> list[str]:
        """Return the details of the audit log entries of one action."""
        return [detail for _, _, kind, detail in self.store.audit_rows() if kind == action]


class Browser(TestClient):
    """A test client that fills in forms. A test that posts a form itself sends `token`."""

    token = ""

    def __init__(self, app: Any, **client_options: Any) -> None:
        super().__init__(app, follow_redirects=False, raise_server_exceptions=True, **client_options)

    def csrf(self, path: str = "/") -> str:
        """Return the CSRF token of the forms of a page."""
        match = re.search(r'name="csrf" value="([^"]*)"', self.get(path).text)
        assert match, path
        return match[1]

    def log_in(self, name: str, password: str = PASSWORD, **form_fields: str) -> Any:
        """Submit the login form."""
        form = {"csrf": self.csrf("/login"), "name": name, "password": password, **form_fields}
        return self.post("/login", data=form)

    def submit(self, path: str, **form: str) -> Any:
        """Submit a form of a page with its CSRF token."""
        return self.post(path, data={"csrf": self.csrf(), **form})


def write_beat(store: FreezeStore, name: str, time_ns: int, beat: Any) -> None:
    """Write a heartbeat with the given time."""
    import msgspec

    store.write_heartbeat(name, time_ns, msgspec.json.encode(replace(beat, time_ns=time_ns)))
