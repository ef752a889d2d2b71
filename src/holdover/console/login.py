"""Login and logout: the same response for an unknown name and a wrong password, and a limit on attempts.

A login gives the browser a device token next to the session. The token opens nothing; it lets later attempts from this
browser be counted apart from those of everybody else.
"""

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
from holdover.console.gate import LoginGateFullError
from holdover.console.sessions import tokens_match
from holdover.console.throttle import DEVICE_DAYS, LoginOrigin, is_device_token
from holdover.console.users import ConsoleUser

Endpoint = Callable[[Request], Awaitable[Response]]
_FIELDS_MAX: Final = 50
_WRONG_PASSWORD: Final = "Name and password do not go together."
_BUSY: Final = "Too many people are logging in at this moment. Nothing was counted: try again in a few seconds."
_PATH: Final = re.compile(r"/[A-Za-z0-9_.-]+(?:/[A-Za-z0-9_.-]+)*|/", re.ASCII)


def safe_path(to: str) -> str:
    """Returns the path when it has the shape of a path of this console, else `/`."""
    return to if _PATH.fullmatch(to) else "/"


def make_login_routes(console: Console, with_error_pages: Callable[[Console, Endpoint], Endpoint]) -> list[Route]:
    """Returns the routes that need no login: login and logout."""

    async def show(request: Request) -> Response:
        notice = NOTICES.get(request.query_params.get("notice", ""), "")
        answer = _login_page(console, request, to=request.query_params.get("to", "/"), notice=notice)
        token = request.query_params.get("device", "")
        if is_device_token(token) and console.device_cookie not in request.cookies:
            _set_device(console, answer, token)
        return answer

    async def enter(request: Request) -> Response:
        form = await read_form(request)
        if form is None:
            return console.error_page(415, "A form is expected, as the pages here send it.")
        to = form.get("to", "/")
        if not tokens_match(form.get("csrf", ""), request.cookies.get(_form_cookie(console), "")):
            return _login_page(console, request, to=to, problem="The form was out of date. Try again.", status=403)
        name, password = form.get("name", "")[:64], form.get("password", "")
        address = request.client.host if request.client is not None else ""
        device = request.cookies.get(console.device_cookie, "")
        origin = await run_in_threadpool(console.throttle.find_origin, name, address, device, console.clock())
        if wait_s := console.throttle.recent_refusal_s(name, origin, console.clock()):
            return _login_page(console, request, to=to, problem=_wait_sentence(wait_s), status=429, name=name)
        try:
            user, problem, status = await console.gate.run(
                origin.is_device, check_password, console, name, password, address, "login", origin
            )
        except LoginGateFullError:
            answer = _login_page(console, request, to=to, problem=_BUSY, status=503, name=name)
            answer.headers["Retry-After"] = "5"
            return answer
        if user is None:
            return _login_page(console, request, to=to, problem=problem, status=status, name=name)
        return await run_in_threadpool(_begin_session, console, user, to, address, device)

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
    console: Console, name: str, password: str, address: str, action: str, origin: LoginOrigin | None = None
) -> tuple[ConsoleUser | None, str, int]:
    """Check a password. Counts the attempt before the password is hashed, and audits a failure.

    Args:
        console: the console.
        name: the user's name, as it was typed.
        password: the password, as it was typed.
        address: where the attempt comes from; part of the audit entry.
        action: `login`, or the other action that the password is for.
        origin: what the attempt is counted by; default: the address.

    Returns:
        The user, no problem and 200; or None, the reason in a sentence and the status of the response.
    """
    now_ns = console.clock()
    origin = origin or console.throttle.find_origin(name, address, "", now_ns)
    if wait_s := console.throttle.admit(name, origin, now_ns):
        return None, _wait_sentence(wait_s), 429
    user = console.users.check_password(name, password)
    if user is None:
        console.store.log_action(f"{action} failed", f"{name!r} from {address}", now_ns)
        return None, _WRONG_PASSWORD, 401
    console.throttle.record_success(name, origin)
    return user, "", 200


def _wait_sentence(wait_s: int) -> str:
    """Returns when to try again; the sentence is the same for a name that exists and one that does not."""
    wait_text = f"{wait_s} seconds" if wait_s < 100 else f"{-(-wait_s // 60)} minutes"
    return f"Too many tries. Wait {wait_text}, then try again."


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


def _begin_session(console: Console, user: ConsoleUser, to: str, address: str, device: str) -> Response:
    token = console.sessions.begin(user, console.clock())
    console.store.log_action("login", user.name, console.clock())
    device = console.throttle.remember_device(user.name, address, device, console.clock())
    answer = RedirectResponse(safe_path(to), status_code=303)
    answer.set_cookie(console.cookie, token, path="/", secure=console.is_secure, httponly=True, samesite="strict")
    answer.delete_cookie(_form_cookie(console), path="/", secure=console.is_secure, httponly=True, samesite="strict")
    _set_device(console, answer, device)
    return answer


def _set_device(console: Console, answer: Response, token: str) -> None:
    answer.set_cookie(
        console.device_cookie,
        token,
        max_age=DEVICE_DAYS * 24 * 3600,
        path="/",
        secure=console.is_secure,
        httponly=True,
        samesite="strict",
    )


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
