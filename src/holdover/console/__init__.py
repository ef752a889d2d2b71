"""The console: what an operator who was paged sees and does, in a browser. Optional: needs the extra `console`.

`Console` holds what all pages share, `application` makes the ASGI application of it, and each page is one module in
`pages`. Server-rendered; live by server-sent events; works without script as well.
"""

from holdover.console.application import application
from holdover.console.console import Console
from holdover.console.sessions import Session, Sessions
from holdover.console.users import ROLES, BadUser, User, Users

__all__ = ["BadUser", "Console", "ROLES", "Session", "Sessions", "User", "Users", "application"]
