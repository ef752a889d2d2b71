"""The ASGI application: every part of every page behind the same door."""

from __future__ import annotations

import logging
import urllib.parse
from collections.abc import Awaitable, Callable
from typing import Final

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp

from holdover.console import pages
from holdover.console.console import Ask, Console, Part
from holdover.console.defences import Defences
from holdover.console.login import login_routes, path_within, read_form
from holdover.console.sessions import Session, same
from holdover.runtime import StoreProblem

log = logging.getLogger("holdover.console")

STORE_LOST: Final = "The store cannot be read, so what is frozen cannot be told here. Assume that everything is."
_WORDS: Final = {
    404: "There is no such page.",
    405: "That cannot be done with this page.",
    400: "That was not understood.",
}


def application(console: Console) -> ASGIApp:
    """The console as an ASGI application."""
    console.nav = [module.NAV for module in pages.PAGES if module.NAV is not None]
    inner = Starlette(routes=routes(console), exception_handlers={HTTPException: _said(console)})
    inner.router.redirect_slashes = False
    return Defences(inner, console.hosts, console.secure, console.problem)


def routes(console: Console) -> list[Route]:
    """All that the console answers."""
    return [
        *(Route(part.path, _behind_login(console, part), methods=[part.method]) for part in _parts()),
        *login_routes(console, _calm),
        Route("/live", _calm(console, _live(console)), methods=["GET"]),
        Route("/static/{name}", _calm(console, _static(console)), methods=["GET"]),
        Route("/healthz", _calm(console, _healthz), methods=["GET"]),
    ]


def _parts() -> list[Part]:
    return [part for module in pages.PAGES for part in module.PARTS]


Endpoint = Callable[[Request], Awaitable[Response]]


def _calm(console: Console, endpoint: Endpoint) -> Endpoint:
    """Whatever goes wrong inside is a page in words."""

    async def answer(request: Request) -> Response:
        try:
            return await endpoint(request)
        except HTTPException:
            raise
        except StoreProblem as problem:
            log.error("%s", problem)
            return console.problem(503, STORE_LOST)
        except Exception:
            log.exception("the page %s failed", request.url.path)
            return console.problem(500, "This page failed. The rest of the console may still work; the log says why.")

    return answer


def _behind_login(console: Console, part: Part) -> Endpoint:
    async def answer(request: Request) -> Response:
        quiet = request.headers.get("x-live") == "1"  # the script reloads by itself: nobody has clicked
        who = await run_in_threadpool(_who, console, request, used=not quiet)
        if who is None:
            return _to_login(console, request)
        form: dict[str, str] = {}
        if part.method == "POST":
            told = await read_form(request)
            if told is None:
                return console.problem(415, "A form is expected, as the pages here send it.")
            form = told
            if not same(form.get("csrf", ""), who.csrf):
                return console.problem(403, "The form is out of date. Open the page again and repeat it.")
        ask = Ask(
            console=console,
            path=request.url.path,
            params=dict(request.path_params),
            query=request.query_params,
            address=request.client.host if request.client is not None else "",
            who=who,
            form=form,
        )
        if not who.user.may(part.role):
            return await run_in_threadpool(
                console.problem, 403, f"You are a {who.user.role}; this needs the role {part.role}.", ask
            )
        return await run_in_threadpool(part.answer, ask)

    return _calm(console, answer)


def _who(console: Console, request: Request, *, used: bool) -> Session | None:
    return console.sessions.find(request.cookies.get(console.cookie, ""), console.clock(), used=used)


def _to_login(console: Console, request: Request) -> Response:
    if request.method not in ("GET", "HEAD"):
        return console.problem(401, "You are not logged in any more. Nothing was done: log in and repeat it.")
    path = path_within(request.url.path)
    if request.headers.get("sec-fetch-site") == "cross-site":
        # From a link in a page: a strict cookie comes only with what our own site asks for, so ask once more.
        return console.render("continue.html", None, to=path, live=False)
    query = "" if path == "/" else "?" + urllib.parse.urlencode({"to": path})
    return RedirectResponse(f"/login{query}", status_code=303)


def _live(console: Console) -> Endpoint:
    async def stream(request: Request) -> Response:
        who = await run_in_threadpool(_who, console, request, used=False)
        if who is None:
            return PlainTextResponse("log in first\n", status_code=401)
        name = who.user.name
        if console.live.is_full(name):
            return PlainTextResponse("too many streams are open\n", status_code=429, headers={"Retry-After": "10"})

        async def still_there() -> bool:
            try:
                return await run_in_threadpool(_who, console, request, used=False) is not None
            except StoreProblem:
                return True  # the page says that the store is lost; nobody is logged out by it

        return StreamingResponse(console.live.events(name, still_there), media_type="text/event-stream")

    return stream


def _static(console: Console) -> Endpoint:
    async def file(request: Request) -> Response:
        found = console.static.get(request.path_params["name"])
        if found is None:
            return console.problem(404, _WORDS[404])
        return Response(found[0], media_type=found[1], headers={"Cache-Control": "public, max-age=3600"})

    return file


async def _healthz(request: Request) -> Response:
    return PlainTextResponse("ok\n")


def _said(console: Console) -> Callable[[Request, Exception], Awaitable[Response]]:
    async def answer(request: Request, problem: Exception) -> Response:
        status = problem.status_code if isinstance(problem, HTTPException) else 500
        return console.problem(status, _WORDS.get(status, "That cannot be answered."))

    return answer
