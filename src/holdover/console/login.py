"""Login and logout: the same response for an unknown name and a wrong password, and a limit on attempts."""

from __future__ import annotations

import re
import secrets
import urllib.parse
from collections.abc import Awaitable, Callable
from typing import Final

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from holdover.console.console import NOTICES, Console
from holdover.console.sessions import tokens_match
from holdover.console.users import ConsoleUser

Endpoint = Callable[[Request], Awaitable[Response]]
_FIELDS_MAX: Final = 50
_WRONG_PASSWORD: Final = "Name and password do not go together."
_PATH: Final = re.compile(r"/[A-Za-z0-9_.-]+(?:/[A-Za-z0-9_.-]+)*|/", re.ASCII)


def safe_path(to: str) -> str:
    """Returns the path when it has the shape of a path of this console, else `/`."""
    return to if _PATH.fullmatch(to) else "/"


def make_login_routes(console: Console, with_error_pages: Callable[[Console, Endpoint], Endpoint]) -> list[Route]:
    """Returns the routes that need no login: login and logout."""

    async def show(request: Request) -> Response:
        notice = NOTICES.get(request.query_params.get("notice", ""), "")
        return _login_page(console, request, to=request.query_params.get("to", "/"), notice=notice)

    async def enter(request: Request) -> Response:
        form = await read_form(request)
        if form is None:
            return console.error_page(415, "A form is expected, as the pages here send it.")
        to = form.get("to", "/")
        if not tokens_match(form.get("csrf", ""), request.cookies.get(_form_cookie(console), "")):
            return _login_page(console, request, to=to, problem="The form was out of date. Try again.", status=403)
        name, password = form.get("name", "")[:64], form.get("password", "")
        address = request.client.host if request.client is not None else ""
        user, problem, status = await run_in_threadpool(check_password, console, name, password, address, "login")
        if user is None:
            return _login_page(console, request, to=to, problem=problem, status=status, name=name)
        return await run_in_threadpool(_begin_session, console, user, to)

    async def leave(request: Request) -> Response:
        token = request.cookies.get(console.cookie, "")
        session = await run_in_threadpool(console.sessions.find, token, console.clock())
        form = await read_form(request)
        if session is None:
            return RedirectResponse("/login", status_code=303)
        if form is None or not tokens_match(form.get("csrf", ""), session.csrf):
            return console.error_page(403, "The form is out of date. Open the page again and repeat it.")
        await run_in_threadpool(console.sessions.end, session.key)
        await run_in_threadpool(console.store.log_action, "logout", session.user.name, console.clock())
        answer = RedirectResponse("/login?notice=out", status_code=303)
        answer.delete_cookie(console.cookie, path="/", secure=console.is_secure, httponly=True, samesite="strict")
        return answer

    return [
        Route("/login", with_error_pages(console, show), methods=["GET"]),
        Route("/login", with_error_pages(console, enter), methods=["POST"]),
        Route("/logout", with_error_pages(console, leave), methods=["POST"]),
    ]


def check_password(
    console: Console, name: str, password: str, address: str, action: str
) -> tuple[ConsoleUser | None, str, int]:
    """Check a password. Returns (user, "", 200) or (None, the reason, status); counts and audits failures."""
    now_ns = console.clock()
    wait_s = console.throttle.wait_s(name, address, now_ns)
    if wait_s:
        return None, f"Too many tries. Wait {-(-wait_s // 60)} minutes, then try again.", 429
    user = console.users.check_password(name, password)
    if user is None:
        console.throttle.record_failure(name, address, now_ns)
        console.store.log_action(f"{action} failed", f"{name!r} from {address}", now_ns)
        return None, _WRONG_PASSWORD, 401
    console.throttle.record_success(name)
    return user, "", 200


async def read_form(request: Request) -> dict[str, str] | None:
    """Returns the fields of a form; None when the request has none. The first value of a repeated field counts."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/x-www-form-urlencoded":
        return None
    body = await request.body()
    try:
        pairs = urllib.parse.parse_qsl(
            body.decode("utf-8"), keep_blank_values=True, max_num_fields=_FIELDS_MAX, encoding="utf-8", errors="strict"
        )
    except ValueError:
        return None
    return {name: value.replace("\x00", "") for name, value in reversed(pairs)}


def _begin_session(console: Console, user: ConsoleUser, to: str) -> Response:
    token = console.sessions.begin(user, console.clock())
    console.store.log_action("login", user.name, console.clock())
    answer = RedirectResponse(safe_path(to), status_code=303)
    answer.set_cookie(console.cookie, token, path="/", secure=console.is_secure, httponly=True, samesite="strict")
    answer.delete_cookie(_form_cookie(console), path="/", secure=console.is_secure, httponly=True, samesite="strict")
    return answer


def _form_cookie(console: Console) -> str:
    return f"{console.cookie}-form"


def _login_page(
    console: Console,
    request: Request,
    *,
    to: str,
    notice: str = "",
    problem: str = "",
    status: int = 200,
    name: str = "",
) -> Response:
    token = request.cookies.get(_form_cookie(console), "")
    if not re.fullmatch(r"[A-Za-z0-9_-]{43}", token):
        token = secrets.token_urlsafe(32)
    answer = console.render(
        "login.html",
        None,
        status=status,
        token=token,
        to=safe_path(to),
        notice=notice,
        problem=problem,
        name=name,
        live=False,
    )
    answer.set_cookie(
        _form_cookie(console), token, path="/", secure=console.is_secure, httponly=True, samesite="strict"
    )
    return answer
