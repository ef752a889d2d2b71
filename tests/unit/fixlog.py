"""Writes FIX logs for tests: stories in the terms of FIX 4.4, in any version, framing and style of prefix."""

from __future__ import annotations

from typing import Any

TAGS = {
    "msg_type": "35",
    "cl_ord_id": "11",
    "orig_cl_ord_id": "41",
    "exec_id": "17",
    "exec_ref_id": "19",
    "exec_type": "150",
    "ord_status": "39",
    "order_qty": "38",
    "cum_qty": "14",
    "leaves_qty": "151",
    "last_qty": "32",
    "last_px": "31",
    "price": "44",
    "avg_px": "6",
    "time_in_force": "59",
    "order_id": "37",
    "exec_restatement_reason": "378",
    "poss_dup": "43",
    "poss_resend": "97",
    "symbol": "55",
    "cxl_rej_reason": "102",
    "ord_rej_reason": "103",
}
VERSIONS = ("FIX.4.2", "FIX.4.4", "FIXT.1.1")
SEPARATORS = (b"\x01", b"|", b"^A")
PREFIXES = {
    "none": b"",
    "quickfix": b"20240102-13:30:00.123 : ",
    "quickfixj": b"20240102-13:30:00 FIX.4.4:CLIENT->VENUE, incoming: ",
    "log4j": b"2024-01-02 13:30:00,123 INFO  [main] fix.in - <",
}


def frame(begin: str, fields: list[tuple[str, Any]], separator: bytes = b"\x01", prefix: bytes = b"") -> bytes:
    """One line: BodyLength and CheckSum are those of the message with SOH between its fields."""
    body = "".join(f"{tag}={value}\x01" for tag, value in fields).encode("latin-1")
    text = f"8={begin}\x019={len(body)}\x01".encode() + body
    text += b"10=%03d\x01" % (sum(text) % 256)
    return prefix + text.replace(b"\x01", separator) + b"\n"


class Writer:
    """A log of one session, with the numbers of both directions. `told` messages are mappings as in FIX 4.4."""

    def __init__(
        self,
        version: str = "FIX.4.4",
        separator: bytes = b"\x01",
        prefix: bytes = b"",
        client: str = "CLIENT",
        venue: str = "VENUE",
    ) -> None:
        self.version, self.separator, self.prefix = version, separator, prefix
        self.client, self.venue = client, venue
        self.seq = {"C": 0, "V": 0}
        self.clock = 0
        self.lines: list[bytes] = []

    def raw(self, who: str, kind: str, fields: list[tuple[str, Any]], day: int = 1, **header: Any) -> None:
        """One message of the client (C) or the venue (V); `header` may set seq, dup."""
        seq = header.get("seq")
        if seq is None:
            self.seq[who] += 1
            seq = self.seq[who]
        self.clock += 1
        sender, target = (self.client, self.venue) if who == "C" else (self.venue, self.client)
        sent = f"202401{day + 1:02d}-{9 + self.clock // 3600:02d}:{self.clock // 60 % 60:02d}:{self.clock % 60:02d}.000"
        head: list[tuple[str, Any]] = [("35", kind), ("34", seq), ("49", sender), ("52", header.get("sent", sent))]
        head += [("56", target)]
        head += [("1128", "9")] if self.version == "FIXT.1.1" and kind in "D89FG" else []
        head += [("43", "Y")] if header.get("dup") else []
        self.lines.append(frame(self.version, head + fields, self.separator, self.prefix))

    def say(self, told: dict[str, Any], **header: Any) -> None:
        """One order message."""
        told = {"symbol": "ABC", **told}
        kind = told.pop("msg_type")
        day = told.pop("day", 1)
        who = "V" if kind in "89" else "C"
        if told.pop("poss_dup", "") == "Y":
            header = {"seq": self.seq[who], "dup": True, **header}
        if kind == "8" and self.version == "FIX.4.2":
            told = _in_42(told)
        fields = [(TAGS.get(name, name.lstrip("_")), value) for name, value in told.items()]
        self.raw(who, kind, fields, day, **header)

    def log(self) -> list[bytes]:
        """What has been written."""
        return self.lines


def _in_42(told: dict[str, Any]) -> dict[str, Any]:
    """An execution report as FIX 4.2 says it."""
    told = dict(told)
    kind = told["exec_type"]
    whole = told["cum_qty"] == told.get("order_qty")
    told["_20"] = {"H": "1", "G": "2", "I": "3"}.get(kind, "0")
    if kind in ("F", "G", "H", "I"):
        told["exec_type"] = "2" if whole else "1"
    if kind == "5" and told["ord_status"] == "0":
        told["ord_status"] = "5"
    return told
