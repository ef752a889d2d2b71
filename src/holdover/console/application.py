"""The ASGI application of the console: routes, login checks and error pages."""

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
from holdover.console.console import Console, PageRequest, PageRoute
from holdover.console.login import make_login_routes, read_form, safe_path
from holdover.console.request_filter import RequestFilter
from holdover.console.sessions import ConsoleSession, tokens_match
from holdover.runtime import StoreError

log = logging.getLogger("holdover.console")

STORE_LOST: Final = "The store cannot be read, so what is frozen cannot be told here. Assume that everything is."
_STATUS_SENTENCES: Final = {
    404: "There is no such page.",
    405: "That cannot be done with this page.",
    400: "That was not understood.",
}


def make_application(console: Console) -> ASGIApp:
    """Returns the console as an ASGI application."""
    console.nav = [module.NAV for module in pages.PAGES if module.NAV is not None]
    inner = Starlette(routes=routes(console), exception_handlers={HTTPException: _error_handler(console)})
    inner.router.redirect_slashes = False
    return RequestFilter(inner, console.hosts, console.is_secure, console.error_page)


def routes(console: Console) -> list[Route]:
    """Returns all routes of the console."""
    return [
        *(Route(part.path, _require_login(console, part), methods=[part.method]) for part in _page_routes()),
        *make_login_routes(console, _with_error_pages),
        Route("/live", _with_error_pages(console, _live_endpoint(console)), methods=["GET"]),
        Route("/static/{name}", _with_error_pages(console, _static_endpoint(console)), methods=["GET"]),
        Route("/healthz", _with_error_pages(console, _healthz), methods=["GET"]),
    ]


def _page_routes() -> list[PageRoute]:
    return [part for module in pages.PAGES for part in module.PARTS]


Endpoint = Callable[[Request], Awaitable[Response]]


def _with_error_pages(console: Console, endpoint: Endpoint) -> Endpoint:
    """Turn every failure of an endpoint into an error page."""

    async def answer(request: Request) -> Response:
        try:
            return await endpoint(request)
        except HTTPException:
            raise
        except StoreError as problem:
            log.error("%s", problem)
            return console.error_page(503, STORE_LOST)
        except Exception:
            log.exception("the page %s failed", request.url.path)
            return console.error_page(
                500, "This page failed. The rest of the console may still work; the log says why."
            )

    return answer


def _require_login(console: Console, route: PageRoute) -> Endpoint:
    async def answer(request: Request) -> Response:
        is_automatic = request.headers.get("x-live") == "1"  # the script reloads the page: no user action
        session = await run_in_threadpool(_find_session, console, request, used=not is_automatic)
        if session is None:
            return _redirect_to_login(console, request)
        form: dict[str, str] = {}
        if route.method == "POST":
            fields = await read_form(request)
            if fields is None:
                return console.error_page(415, "A form is expected, as the pages here send it.")
            form = fields
            if not tokens_match(form.get("csrf", ""), session.csrf):
                return console.error_page(403, "The form is out of date. Open the page again and repeat it.")
        page_request = PageRequest(
            console=console,
            path=request.url.path,
            params=dict(request.path_params),
            query=request.query_params,
            address=request.client.host if request.client is not None else "",
            session=session,
            form=form,
        )
        if not session.user.has_role(route.role):
            return await run_in_threadpool(
                console.error_page,
                403,
                f"You are a {session.user.role}; this needs the role {route.role}.",
                page_request,
            )
        return await run_in_threadpool(route.answer, page_request)

    return _with_error_pages(console, answer)


def _find_session(console: Console, request: Request, *, used: bool) -> ConsoleSession | None:
    return console.sessions.find(request.cookies.get(console.cookie, ""), console.clock(), marks_use=used)


def _redirect_to_login(console: Console, request: Request) -> Response:
    if request.method not in ("GET", "HEAD"):
        return console.error_page(401, "You are not logged in any more. Nothing was done: log in and repeat it.")
    path = safe_path(request.url.path)
    if request.headers.get("sec-fetch-site") == "cross-site":
        # A strict cookie comes only with requests from our own site; after a link elsewhere, request again.
        return console.render("continue.html", None, to=path, live=False)
    query = "" if path == "/" else "?" + urllib.parse.urlencode({"to": path})
    return RedirectResponse(f"/login{query}", status_code=303)


def _live_endpoint(console: Console) -> Endpoint:
    async def stream(request: Request) -> Response:
        session = await run_in_threadpool(_find_session, console, request, used=False)
        if session is None:
            return PlainTextResponse("log in first\n", status_code=401)
        name = session.user.name
        if console.live.is_full(name):
            return PlainTextResponse("too many streams are open\n", status_code=429, headers={"Retry-After": "10"})

        async def is_logged_in() -> bool:
            try:
                return await run_in_threadpool(_find_session, console, request, used=False) is not None
            except StoreError:
                return True  # the page reports that the store is lost; the user stays logged in

        return StreamingResponse(console.live.stream_events(name, is_logged_in), media_type="text/event-stream")

    return stream


def _static_endpoint(console: Console) -> Endpoint:
    async def file(request: Request) -> Response:
        content = console.static.get(request.path_params["name"])
        if content is None:
            return console.error_page(404, _STATUS_SENTENCES[404])
        return Response(content[0], media_type=content[1], headers={"Cache-Control": "public, max-age=3600"})

    return file


async def _healthz(request: Request) -> Response:
    return PlainTextResponse("ok\n")


def _error_handler(console: Console) -> Callable[[Request, Exception], Awaitable[Response]]:
    async def answer(request: Request, problem: Exception) -> Response:
        status = problem.status_code if isinstance(problem, HTTPException) else 500
        return console.error_page(status, _STATUS_SENTENCES.get(status, "That cannot be answered."))

    return answer
