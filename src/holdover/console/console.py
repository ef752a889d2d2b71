"""What all pages share: the store, the users, the catalogue, the words and the templates."""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import jinja2
import msgspec
from starlette.datastructures import QueryParams
from starlette.responses import HTMLResponse, RedirectResponse, Response

from holdover.catalogue import Catalogue
from holdover.catalogue.words import describe_allowed, describe_assertion, describe_freeze
from holdover.console.audit_check import AuditVerifier
from holdover.console.gate import LoginGate
from holdover.console.live_updates import LiveUpdates, PictureCache, StatusPicture
from holdover.console.sessions import ConsoleSession, ConsoleSessions
from holdover.console.throttle import LoginThrottle
from holdover.console.users import ConsoleUsers
from holdover.pages import make_environment, read_base_style
from holdover.runtime import FreezeStore, GuardConfig

PACKAGE_DIRECTORY: Final = Path(__file__).parent
NUMBER_MAX: Final = 2**53
"""No row of a store has a higher number."""

NOTICES: Final = {
    "thawed": "Thawed. Orders of that scope may leave again.",
    "acknowledged": "Acknowledged. The alert is not escalated further.",
    "taken": "This alert was already acknowledged or is over.",
    "ticked": "Step ticked off.",
    "incident": "Saved.",
    "out": "You are logged out.",
}
"""The notices that a page may show after an action, by the word in the address."""


class Console:
    """A console for one store.

    `is_secure` says that browsers connect over TLS, `hosts` are the host names that it answers to. `stream_s` is
    how long an event stream lasts before the browser opens the next, `wait_s` how long a thaw waits for the guard's
    answer.
    """

    def __init__(
        self,
        config: GuardConfig,
        *,
        store: FreezeStore | None = None,
        users: ConsoleUsers | None = None,
        throttle: LoginThrottle | None = None,
        secure: bool = False,
        hosts: frozenset[str] = frozenset(),
        clock: Callable[[], int] = time.time_ns,
        stream_s: float = 300.0,
        wait_s: float = 5.0,
    ) -> None:
        self.config = config
        self.store = store or config.open_store()
        self.users = users or ConsoleUsers(self.store)
        self.sessions = ConsoleSessions(self.store, config.console.idle_s, config.console.day_s)
        self.throttle = throttle or LoginThrottle(self.store)
        self.gate = LoginGate()
        self.catalogue = config.load_catalogue()
        self.rules = config.redaction_rules()
        self.is_secure = secure
        host_names = {config.console.host, *config.console.names, "localhost", "127.0.0.1", "::1"} - {"0.0.0.0", "::"}
        self.hosts = frozenset(f"[{name.lower()}]" if ":" in name else name.lower() for name in host_names) | hosts
        self.clock = clock
        self.wait_s = wait_s
        self.audit_verifier = AuditVerifier(self.store, config.directory)
        self._pictures = PictureCache(self.store)
        self.live = LiveUpdates(self.take_picture, stream_s)
        self.cookie = "__Host-holdover" if secure else "holdover"
        self.device_cookie = f"{self.cookie}-device"
        self.nav: list[tuple[str, str]] = []
        self.static = _read_static_files()
        self._templates = _make_templates(self.catalogue)
        digest = hashlib.sha256(b"".join(content for content, _ in self.static.values())).hexdigest()[:12]
        self._templates.globals.update(static=digest)

    def take_picture(self) -> StatusPicture:
        """Returns the current state of everything that pages show. Raises `StoreError`."""
        return self._pictures.take_picture(self.clock())

    def render(self, template: str, request: PageRequest | None, *, status: int = 200, **context: Any) -> HTMLResponse:
        """Render a page. `request` is None when no user is logged in."""
        session = request.session if request is not None else None
        now_ns = self.clock()
        shared = {
            "user": session.user if session is not None else None,
            "csrf": session.csrf if session is not None else "",
            "may_act": session is not None and session.user.has_role("operator"),
            "nav": self.nav if session is not None else [],
            "path": request.path if request is not None else "",
            "now_ns": now_ns,
            "notice": NOTICES.get(request.query.get("notice", "")) if request is not None else None,
            "picture": self.take_picture() if session is not None and context.get("live", True) else None,
        }
        return HTMLResponse(self._templates.get_template(template).render({**shared, **context}), status_code=status)

    def error_page(self, status: int, sentence: str, request: PageRequest | None = None) -> HTMLResponse:
        """Returns a page with one sentence about a problem; it needs no store."""
        return self.render("problem.html", request, status=status, problem=sentence, status_code=status, live=False)


class PageRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A request for a page: the session, the address, the parameters and the form."""

    console: Console
    path: str
    params: dict[str, Any]
    query: QueryParams
    address: str
    session: ConsoleSession
    form: dict[str, str] = {}

    def text(self, name: str, length_max: int = 4000) -> str:
        """Returns a form field without control characters and outer white space, cut to `length_max` characters."""
        text = "".join(sign for sign in self.form.get(name, "") if sign.isprintable() or sign in "\n\t")
        return text.strip()[:length_max]

    def number(self, name: str = "number") -> int:
        """Returns a number in the address; 0 when no row can have it."""
        number = int(self.params.get(name, 0))
        return number if 0 < number < NUMBER_MAX else 0

    def page_start(self, name: str = "before") -> int:
        """Returns the number from which a list continues, a parameter of the address; 0 for its start."""
        value = self.query.get(name, "")
        return int(value) if re.fullmatch(r"[0-9]{1,15}", value, re.ASCII) else 0

    def render(self, template: str, *, status: int = 200, **context: Any) -> HTMLResponse:
        """Render the response page."""
        return self.console.render(template, self, status=status, **context)

    def not_found(self, sentence: str) -> Response:
        """Returns a page for a thing that does not exist."""
        return self.console.error_page(404, sentence, self)

    def redirect(self, path: str, notice: str) -> Response:
        """Redirect after an action to a page that shows its notice."""
        return RedirectResponse(f"{path}?notice={notice}", status_code=303)


class PageRoute(msgspec.Struct, frozen=True, kw_only=True):
    """One route of the console: path, method, handler and the required role."""

    path: str
    answer: Callable[[PageRequest], Response]
    method: str = "GET"
    role: str = "viewer"


def _make_templates(catalogue: Catalogue) -> jinja2.Environment:
    return make_environment(
        PACKAGE_DIRECTORY,
        describe_allowed=describe_allowed,
        describe_assertion=describe_assertion,
        describe_freeze=describe_freeze,
    )


def _read_static_files() -> dict[str, tuple[bytes, str]]:
    kinds = {".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml"}
    files = {
        path.name: (path.read_bytes(), kinds[path.suffix])
        for path in sorted((PACKAGE_DIRECTORY / "static").iterdir())
        if path.suffix in kinds
    }
    return {**files, "base.css": (read_base_style(), kinds[".css"])}
