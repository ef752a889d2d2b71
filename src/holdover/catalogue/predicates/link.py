"""Session and sequence: no message is missed on the link, and no message is sent on a link that is down."""

from __future__ import annotations

from typing import Annotated

from holdover.catalogue.predicate import predicate
from holdover.catalogue.reads import Before, Via
from holdover.model import Link, LinkState, Request


@predicate("sequence-continuous")
def sequence_continuous(link: Annotated[Link, "gateway"], before: Before[Link]) -> bool | None:
    """Source: FIX 4.4 volume 2, MsgSeqNum (34), Sequence Reset with GapFillFlag (123)."""
    if before is None or link.change in (LinkState.RESET, LinkState.LOGON, LinkState.LOGOUT):
        return None
    if link.change == LinkState.GAP_FILL:
        return link.in_seq >= before.in_seq and link.out_seq >= before.out_seq
    return 0 <= link.in_seq - before.in_seq <= 1 and 0 <= link.out_seq - before.out_seq <= 1


@predicate("no-send-while-down")
def no_send_while_down(request: Request, link: Annotated[Link | None, Via("gateway", by="link")]) -> bool | None:
    """A system that counts such a message as sent waits for its answer forever."""
    if link is None:
        return None
    return link.is_up and request.link_epoch == link.epoch
