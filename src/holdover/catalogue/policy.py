"""The policy of a catalogue: how a guard responds to a breach of each entry, and the thresholds that differ.

An entry is enforced unless its policy says otherwise. `observe` records a breach and freezes nothing; `off` does not
evaluate the entry. Both need a reason and the last day on which they are valid, so that an exception cannot outlive the
reason for it. A policy is part of the catalogue's digest: the same digest means the same entries, the same thresholds
and the same responses.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, date, datetime
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Annotated, Final, Literal, get_args

import msgspec

from holdover.catalogue.entry import CatalogueError
from holdover.catalogue.reads import duration_ns

if TYPE_CHECKING:
    from holdover.catalogue.catalogue import Catalogue

Mode = Literal["enforce", "observe", "off"]
"""How a guard responds to a breach of one entry: it freezes, it records only, or it does not evaluate the entry."""

GuardMode = Literal["enforce", "observe"]
"""How a whole guard responds; in `observe`, an entry that is enforced otherwise is observed."""

ENFORCE: Final = "enforce"
OBSERVE: Final = "observe"
SWITCHED_OFF: Final = "off"


class Policy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The policy of one entry: a table `[[policy]]` of a guard's configuration.

    `expires` is the last day, in UTC, on which `observe` or `off` is valid. `within`, `limit` and `tolerance` replace
    the entry's own values; `tolerance` maps a currency to an amount as a decimal text.
    """

    invariant: str
    mode: Mode = ENFORCE
    reason: str = ""
    expires: date | None = None
    within: str = ""
    limit: Annotated[int, msgspec.Meta(ge=0)] | None = None
    tolerance: dict[str, str] = {}

    def __post_init__(self) -> None:
        if isinstance(self.expires, str):  # msgspec checks types in files only
            msgspec.structs.force_setattr(self, "expires", date.fromisoformat(self.expires))
        if self.mode not in get_args(Mode):
            raise ValueError(f"mode of {self.invariant} is {self.mode!r}, should be one of {', '.join(get_args(Mode))}")

    def tolerance_of(self, currency: str, default: str = "0") -> Decimal:
        """Return the amount by which two balances in a currency may differ."""
        return Decimal(self.tolerance.get(currency, default))

    def is_expired(self, today: date) -> bool:
        """Return whether the last valid day is over."""
        return self.expires is not None and today > self.expires

    def find_problems(self) -> list[tuple[str, str]]:
        """Return what is wrong with the values themselves, as pairs of key and sentence."""
        problems: list[tuple[str, str]] = []
        if self.mode != ENFORCE:
            if not self.reason.strip():
                problems.append(("reason", f"mode {self.mode!r} needs reason, a text that says why"))
            if self.expires is None:
                problems.append(("expires", f"mode {self.mode!r} needs expires, the last day on which it is valid"))
        elif self.expires is not None:
            problems.append(("expires", "expires is given, but an entry with mode 'enforce' does not expire"))
        if self.within and not duration_ns(self.within):
            problems.append(("within", f"within is {self.within!r}, should be a time such as 500ms, 30s, 5m"))
        for currency, amount in self.tolerance.items():
            if not currency.isalnum() or not _is_amount(amount):
                problems.append(
                    ("tolerance", f'tolerance of {currency!r} is {amount!r}, should be an amount such as USD = "0.01"')
                )
        return problems

    def encode(self) -> bytes:
        """Return every value as canonical bytes, for the digest."""
        return msgspec.json.encode(self, order="sorted")

    def describe(self) -> str:
        """Return the policy as one sentence without the entry's name."""
        overrides = ", ".join(
            [f"within {self.within}"] * bool(self.within)
            + [f"limit {self.limit}"] * (self.limit is not None)
            + [f"tolerance {amount} {currency}" for currency, amount in sorted(self.tolerance.items())]
        )
        until = f" until {self.expires}" if self.expires is not None else ""
        reason = f": {self.reason}" if self.reason else ""
        return f"{self.mode}{until}{f' with {overrides}' if overrides else ''}{reason}"


def _is_amount(text: str) -> bool:
    try:
        amount = Decimal(text)
    except InvalidOperation:
        return False
    return amount.is_finite() and amount >= 0


def find_policy_problems(
    policies: Iterable[Policy], catalogue: Catalogue | None = None, today: date | None = None
) -> Iterator[tuple[int, str, str]]:
    """Yield every problem of a list of policies: the index of the policy, the key, and a sentence.

    Args:
        policies: the policies in their order.
        catalogue: the catalogue without a policy that they are for; names and overrides are checked against it.
        today: the day for which they must be valid; None does not check expiry.
    """
    names: set[str] = set()
    for index, policy in enumerate(policies):
        for key, problem in policy.find_problems():
            yield index, key, problem
        if policy.invariant in names:
            yield index, "invariant", f"there are two policies of {policy.invariant}; keep one of them"
        names.add(policy.invariant)
        if today is not None and policy.is_expired(today):
            yield (
                index,
                "expires",
                f"mode {policy.mode!r} expired on {policy.expires}; remove this table to enforce the entry, or enter "
                f"a later day and the reason for it",
            )
        if catalogue is None:
            continue
        try:
            entry = catalogue[policy.invariant].entry
        except CatalogueError as problem:
            yield index, "invariant", str(problem)
            continue
        if policy.within and entry.asserted != "within":
            yield index, "within", f"within is given, but {entry.name} has no time; it is asserted {entry.asserted!r}"
        if policy.limit is not None and entry.limit is None:
            yield index, "limit", f"limit is given, but {entry.name} counts nothing"


def date_of(time_ns: int) -> date:
    """Return the day of a time in ns since the epoch, in UTC."""
    return datetime.fromtimestamp(time_ns / 1e9, UTC).date()
