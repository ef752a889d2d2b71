"""Logging in and out: the same answer for a name that there is not and a wrong password, and not too many tries."""

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

from holdover.console.console import SAID, Console
from holdover.console.sessions import same
from holdover.console.users import User

Endpoint = Callable[[Request], Awaitable[Response]]
_FIELDS_MAX: Final = 50
_WRONG: Final = "Name and password do not go together."
_TO: Final = re.compile(r"/[A-Za-z0-9_.-]+(?:/[A-Za-z0-9_.-]+)*|/", re.ASCII)


def path_within(to: str) -> str:
    """Where a login may lead: the path as told when it is one of this console's shape, else the first page."""
    return to if _TO.fullmatch(to) else "/"


def login_routes(console: Console, calm: Callable[[Console, Endpoint], Endpoint]) -> list[Route]:
    """What is answered to somebody who is not logged in yet, and the way out."""

    async def show(request: Request) -> Response:
        said = SAID.get(request.query_params.get("said", ""), "")
        return _form(console, request, to=request.query_params.get("to", "/"), said=said)

    async def enter(request: Request) -> Response:
        form = await read_form(request)
        if form is None:
            return console.problem(415, "A form is expected, as the pages here send it.")
        to = form.get("to", "/")
        if not same(form.get("csrf", ""), request.cookies.get(_cookie(console), "")):
            return _form(console, request, to=to, problem="The form was out of date. Try again.", status=403)
        name, password = form.get("name", "")[:64], form.get("password", "")
        address = request.client.host if request.client is not None else ""
        user, problem, status = await run_in_threadpool(checked, console, name, password, address, "login")
        if user is None:
            return _form(console, request, to=to, problem=problem, status=status, name=name)
        return await run_in_threadpool(_let_in, console, user, to)

    async def leave(request: Request) -> Response:
        token = request.cookies.get(console.cookie, "")
        who = await run_in_threadpool(console.sessions.find, token, console.clock())
        form = await read_form(request)
        if who is None:
            return RedirectResponse("/login", status_code=303)
        if form is None or not same(form.get("csrf", ""), who.csrf):
            return console.problem(403, "The form is out of date. Open the page again and repeat it.")
        await run_in_threadpool(console.sessions.end, who.key)
        await run_in_threadpool(console.store.say, "logout", who.user.name, console.clock())
        answer = RedirectResponse("/login?said=out", status_code=303)
        answer.delete_cookie(console.cookie, path="/", secure=console.secure, httponly=True, samesite="strict")
        return answer

    return [
        Route("/login", calm(console, show), methods=["GET"]),
        Route("/login", calm(console, enter), methods=["POST"]),
        Route("/logout", calm(console, leave), methods=["POST"]),
    ]


def checked(console: Console, name: str, password: str, address: str, act: str) -> tuple[User | None, str, int]:
    """(the user, "", 200) when name and password go together, else (None, why not, status); counted and audited."""
    now_ns = console.clock()
    wait_s = console.throttle.wait_s(name, address, now_ns)
    if wait_s:
        return None, f"Too many tries. Wait {-(-wait_s // 60)} minutes, then try again.", 429
    user = console.users.check(name, password)
    if user is None:
        console.throttle.failed(name, address, now_ns)
        console.store.say(f"{act} failed", f"{name!r} from {address}", now_ns)
        return None, _WRONG, 401
    console.throttle.passed(name)
    return user, "", 200


async def read_form(request: Request) -> dict[str, str] | None:
    """The fields of a form; None when it is none. Of a field that comes twice the first is taken."""
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


def _let_in(console: Console, user: User, to: str) -> Response:
    token = console.sessions.begin(user, console.clock())
    console.store.say("login", user.name, console.clock())
    answer = RedirectResponse(path_within(to), status_code=303)
    answer.set_cookie(console.cookie, token, path="/", secure=console.secure, httponly=True, samesite="strict")
    answer.delete_cookie(_cookie(console), path="/", secure=console.secure, httponly=True, samesite="strict")
    return answer


def _cookie(console: Console) -> str:
    return f"{console.cookie}-form"


def _form(
    console: Console,
    request: Request,
    *,
    to: str,
    said: str = "",
    problem: str = "",
    status: int = 200,
    name: str = "",
) -> Response:
    token = request.cookies.get(_cookie(console), "")
    if not re.fullmatch(r"[A-Za-z0-9_-]{43}", token):
        token = secrets.token_urlsafe(32)
    answer = console.render(
        "login.html",
        None,
        status=status,
        token=token,
        to=path_within(to),
        said=said,
        problem=problem,
        name=name,
        live=False,
    )
    answer.set_cookie(_cookie(console), token, path="/", secure=console.secure, httponly=True, samesite="strict")
    return answer
