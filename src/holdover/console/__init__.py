"""The console: what an alerted operator sees and does, in a browser. Optional: needs the extra `console`.

`Console` holds what all pages share, `make_application` builds the ASGI application, and each page is one module in
`pages`. Pages are rendered on the server and updated by server-sent events; they work without scripts, too.
"""

from holdover.console.application import make_application
from holdover.console.console import Console
from holdover.console.sessions import ConsoleSession, ConsoleSessions
from holdover.console.throttle import LoginThrottle
from holdover.console.users import ROLES, ConsoleUser, ConsoleUsers, UserError

__all__ = [
    "UserError",
    "Console",
    "ROLES",
    "ConsoleSession",
    "ConsoleSessions",
    "ConsoleUser",
    "ConsoleUsers",
    "LoginThrottle",
    "make_application",
]
