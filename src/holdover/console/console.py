"""What all pages share: the store, the users, the catalogue, the words, and how a page is made of a template."""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import jinja2
import msgspec
from markupsafe import Markup, escape
from starlette.datastructures import QueryParams
from starlette.responses import HTMLResponse, RedirectResponse, Response

from holdover import __version__
from holdover.catalogue import Catalogue
from holdover.catalogue.book import allows_words, asserted_words, freezes_words
from holdover.console.live import Live, Picture, picture
from holdover.console.sessions import Session, Sessions
from holdover.console.throttle import Throttle
from holdover.console.users import Users
from holdover.runtime import FreezeStore, GuardConfig
from holdover.runtime.redaction import Rules

HERE: Final = Path(__file__).parent
NUMBER_MAX: Final = 2**53
"""No row of a store has a higher number."""

SAID: Final = {
    "thawed": "Thawed. What was frozen there may leave again.",
    "acknowledged": "Acknowledged. It goes no further up.",
    "taken": "Somebody has acknowledged that before, or it is over.",
    "ticked": "Ticked off.",
    "incident": "Written down.",
    "out": "You are logged out.",
}
"""What a page may say of the act that led to it, by the word in the address."""


class Console:
    """One console over one store.

    `secure` says that browsers come by TLS, `hosts` the names by which they may call it. `stream_s` is how long one
    stream of events lasts before the browser opens the next, `wait_s` how long a thaw waits for the guard's answer.
    """

    def __init__(
        self,
        config: GuardConfig,
        *,
        store: FreezeStore | None = None,
        users: Users | None = None,
        throttle: Throttle | None = None,
        secure: bool = False,
        hosts: frozenset[str] = frozenset(),
        clock: Callable[[], int] = time.time_ns,
        stream_s: float = 300.0,
        wait_s: float = 5.0,
    ) -> None:
        self.config = config
        self.store = store or config.open_store()
        self.users = users or Users(self.store)
        self.sessions = Sessions(self.store, config.console.idle_s, config.console.day_s)
        self.throttle = throttle or Throttle()
        self.catalogue = Catalogue.load(*config.catalogue)
        self.rules = Rules.usual(config.redact_fields, config.redact_patterns)
        self.secure = secure
        own = {config.console.host, *config.console.names, "localhost", "127.0.0.1", "::1"} - {"0.0.0.0", "::"}
        self.hosts = frozenset(f"[{name.lower()}]" if ":" in name else name.lower() for name in own) | hosts
        self.clock = clock
        self.wait_s = wait_s
        self.live = Live(self.picture, stream_s)
        self.cookie = "__Host-holdover" if secure else "holdover"
        self.nav: list[tuple[str, str]] = []
        self.static = _static()
        self._templates = _templates(self.catalogue)
        digest = hashlib.sha256(b"".join(content for content, _ in self.static.values())).hexdigest()[:12]
        self._templates.globals.update(version=__version__, static=digest)

    def picture(self) -> Picture:
        """How everything stands now. Raises `StoreProblem`."""
        return picture(self.store, self.clock())

    def render(self, template: str, ask: Ask | None, *, status: int = 200, **told: Any) -> HTMLResponse:
        """A page. `ask` is what it answers; None where nobody is logged in."""
        who = ask.who if ask is not None else None
        now_ns = self.clock()
        shared = {
            "who": who.user if who is not None else None,
            "csrf": who.csrf if who is not None else "",
            "may_act": who is not None and who.user.may("operator"),
            "nav": self.nav if who is not None else [],
            "path": ask.path if ask is not None else "",
            "now_ns": now_ns,
            "said": SAID.get(ask.query.get("said", "")) if ask is not None else None,
            "picture": self.picture() if who is not None and told.get("live", True) else None,
        }
        return HTMLResponse(self._templates.get_template(template).render({**shared, **told}), status_code=status)

    def problem(self, status: int, said: str, ask: Ask | None = None) -> HTMLResponse:
        """A page that says what is wrong in a sentence, and nothing else; needs no store."""
        return self.render("problem.html", ask, status=status, problem=said, status_code=status, live=False)


class Ask(msgspec.Struct, frozen=True, kw_only=True):
    """What a page is asked: by whom, from where, with what."""

    console: Console
    path: str
    params: dict[str, Any]
    query: QueryParams
    address: str
    who: Session
    form: dict[str, str] = {}

    def text(self, name: str, most: int = 4000) -> str:
        """A field of the form, without control characters and outer white space, cut to `most` characters."""
        told = "".join(sign for sign in self.form.get(name, "") if sign.isprintable() or sign in "\n\t")
        return told.strip()[:most]

    def number(self, name: str = "number") -> int:
        """A number in the address; 0 where it is none that a row can have."""
        found = int(self.params.get(name, 0))
        return found if 0 < found < NUMBER_MAX else 0

    def before(self) -> int:
        """From where on a list goes on; 0 from its top."""
        told = self.query.get("before", "")
        return int(told) if re.fullmatch(r"[0-9]{1,15}", told, re.ASCII) else 0

    def render(self, template: str, *, status: int = 200, **told: Any) -> HTMLResponse:
        """The page that answers it."""
        return self.console.render(template, self, status=status, **told)

    def lost(self, said: str) -> Response:
        """There is no such thing."""
        return self.console.problem(404, said, self)

    def back(self, path: str, said: str) -> Response:
        """The act is done: on to a page that says so."""
        return RedirectResponse(f"{path}?said={said}", status_code=303)


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that the console answers: method, path, what answers, and the role that it needs."""

    path: str
    answer: Callable[[Ask], Response]
    method: str = "GET"
    role: str = "viewer"


# -- words and templates ------------------------------------------------------------------------------------------


def moment(time_ns: int) -> Markup:
    """A time for people and for programs, in UTC."""
    try:
        told = datetime.fromtimestamp(time_ns / 1e9, UTC)
    except (OverflowError, ValueError, OSError):
        return escape(f"{time_ns} ns")
    return Markup('<time datetime="{}">{}</time>').format(told.isoformat(), told.strftime("%Y-%m-%d %H:%M:%S UTC"))


def lasted(seconds: float) -> str:
    """How long, as a person says it."""
    left = max(0, round(seconds))
    for unit, size in (("day", 86400), ("hour", 3600), ("minute", 60)):
        if left >= size:
            count = left // size
            return f"{count} {unit}{'s' if count != 1 else ''}"
    return f"{left} second{'s' if left != 1 else ''}"


def prose(said: str) -> Markup:
    """A catalogue's text: escaped, and what stands between back quotes marked as code."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(said))))


def _templates(catalogue: Catalogue) -> jinja2.Environment:
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters.update(moment=moment, lasted=lasted, prose=prose)
    made.globals.update(
        known=catalogue.invariants,
        allows_words=allows_words,
        asserted_words=asserted_words,
        freezes_words=freezes_words,
    )
    return made


def _static() -> dict[str, tuple[bytes, str]]:
    kinds = {".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml"}
    return {
        path.name: (path.read_bytes(), kinds[path.suffix])
        for path in sorted((HERE / "static").iterdir())
        if path.suffix in kinds
    }
