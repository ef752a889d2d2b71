"""Breach bundles: a bundle reproduces its breach and contains no secret."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from holdover.catalogue import Catalogue
from holdover.cli import main
from holdover.model import ExecType, Execution, OrdStatus, Side
from holdover.runtime import Guard, GuardSettings
from holdover.runtime.bundle import Bundle, BundleError, replay
from holdover.runtime.redaction import RedactionRuleError, RedactionRules

from .orders import order

GOOD = order(account="A", strategy="S")
FILL = Execution(
    exec_id="E1", exec_type=ExecType.TRADE, root_cl_ord_id=GOOD.key, symbol=GOOD.symbol, side=Side.BUY,
    trade_date="2024-11-27", account="A", strategy="S", last_qty=40, last_px=100, qty_delta=40, notional_delta=4_000,
)  # fmt: skip
FILLED = replace(
    GOOD, cum_qty=40, leaves_qty=GOOD.order_qty - 40, notional=4_000, ord_status=OrdStatus.PARTIALLY_FILLED,
    exec_type=ExecType.TRADE, exec_id="E1",
)  # fmt: skip


def make_bundling_guard(place: Path, catalogue: Catalogue, rules: RedactionRules | None = None) -> Guard:
    """A guard that leaves bundles."""
    times_ns = iter(range(1_000, 10**9, 1_000))
    return Guard(
        place,
        GuardSettings(bundles=place / "bundles", rules=rules),
        catalogue=catalogue,
        clock=lambda: next(times_ns),
        channels=[],
    )


def make_breach_bundle(guard: Guard, bad: object) -> Bundle:
    """Trade for a while, then record what cannot be."""
    for number in range(5):
        with guard.step("new"):
            guard.record("orders", replace(GOOD, root_cl_ord_id=f"R{number}", cl_ord_id=f"R{number}"))
    with guard.step("new"):
        guard.record("orders", GOOD)
    with guard.step("execution-report"):
        guard.record("orders", FILL)
        guard.record("orders", FILLED)
    assert guard.breaches == []
    with guard.step("execution-report"):
        guard.record("orders", bad)  # type: ignore[arg-type]
    guard.close()
    return Bundle.open(guard.directory / "bundles" / "breach-1.hbundle")


BAD = [
    (replace(FILLED, leaves_qty=GOOD.order_qty), "order-quantity-conserved"),
    (replace(FILLED, cum_qty=10, leaves_qty=GOOD.order_qty - 10), "cumulative-never-falls"),
    (replace(FILL, last_qty=41), "execution-booked-once"),
]


@pytest.mark.parametrize(("bad", "invariant"), BAD)
def test_the_last_mutations_done_again_come_to_the_same_breach(
    tmp_path: Path, catalogue: Catalogue, bad: object, invariant: str
) -> None:
    bundle = make_breach_bundle(make_bundling_guard(tmp_path, catalogue), bad)
    assert bundle.info.mark == f"orders/{invariant}"
    assert bundle.info.catalogue == catalogue.digest
    breaches = replay(bundle, catalogue)
    assert (breaches[0].invariant, breaches[0].key) == (invariant, bundle.info.key)
    assert breaches[0].explanation == bundle.info.explanation
    assert bundle.info.cell["orders"] == "both"
    # The memory was taken after the breach: its freeze is in force when the mutations are done again.
    assert breaches[0].cell == {**bundle.info.cell, "freeze": "part"}


def test_a_bundle_of_before_is_read(tmp_path: Path, catalogue: Catalogue) -> None:
    """One that tells no state, neither of itself nor in its breach, comes to the same breach."""
    bundle = make_breach_bundle(make_bundling_guard(tmp_path, catalogue), BAD[0][0])
    buffer = io.BytesIO()
    breach = json.loads(bundle.parts["breach.json"])
    del breach["cell"], breach["after"]
    parts = {**bundle.parts, "breach.json": json.dumps(breach).encode()}
    bundle_file = io.BytesIO(Bundle(bundle.info, parts).encode())
    with zipfile.ZipFile(bundle_file) as whole, zipfile.ZipFile(buffer, "w") as archive:
        for name in whole.namelist():
            content = whole.read(name)
            if name == "bundle.json":
                about = json.loads(content)
                del about["cell"], about["after"]
                content = json.dumps(about).encode()
            archive.writestr(name, content)
    (tmp_path / "old.hbundle").write_bytes(buffer.getvalue())
    old = Bundle.open(tmp_path / "old.hbundle")
    assert (old.info.cell, old.info.after) == ({}, "")
    assert replay(old, catalogue)[0].identity == replay(bundle, catalogue)[0].identity


def test_a_life_that_came_up_on_a_memory_leaves_a_bundle_that_can_be_done_again(
    tmp_path: Path, catalogue: Catalogue
) -> None:
    """What was recorded in an earlier life is in the memory, and judges what comes after."""
    first = make_bundling_guard(tmp_path, catalogue)
    with first.step("new"):
        first.record("orders", GOOD)
    with first.step("execution-report"):
        first.record("orders", FILL)
        first.record("orders", FILLED)
    first.save_memory()
    first.close()
    second = make_bundling_guard(tmp_path, catalogue)
    second.load_memory()
    with second.step("restore"):
        second.restore("orders", [FILLED, FILL])
    with second.step("execution-report"):
        second.record("orders", replace(FILLED, cum_qty=0, leaves_qty=GOOD.order_qty, ord_status=OrdStatus.NEW))
    second.close()
    bundle = Bundle.open(tmp_path / "bundles" / "breach-1.hbundle")
    assert [breach.invariant for breach in replay(bundle, catalogue)][:1] == [second.breaches[0].invariant]


def test_the_command_does_it_again_and_says_so(
    tmp_path: Path, catalogue: Catalogue, capsys: pytest.CaptureFixture[str]
) -> None:
    make_breach_bundle(make_bundling_guard(tmp_path, catalogue), BAD[0][0])
    path = str(tmp_path / "bundles" / "breach-1.hbundle")
    assert main(["reproduce", path, "--out", str(tmp_path / "again"), "--json"]) == 1
    result = json.loads(capsys.readouterr().out)
    assert (result["verdict"], result["found"]) == ("breach", "orders/order-quantity-conserved")
    assert result["same_catalogue"] is True
    assert result["cell"]["carried-partial"] == "no"
    assert main(["reproduce", path, "--out", str(tmp_path / "again")]) == 1
    assert "\n      state: no partial fill to carry\n" in capsys.readouterr().out


# -- secrets --------------------------------------------------------------------------------------------------------

PLANTED = {
    "a password in an assignment": ("login password=hunter2-XQ failed", "hunter2-XQ"),
    "a token with a space": ("api_key: 'k-93kd02kd02kd'", "k-93kd02kd02kd"),
    "a bearer token": ("Authorization: Bearer abcdefgh12345678", "abcdefgh12345678"),
    "a URL with a user": ("postgres://trader:s3cr3tpw@db/x", "s3cr3tpw"),
    "a service's key": ("AKIAABCDEFGHIJKLMNOP", "AKIAABCDEFGHIJKLMNOP"),
    "a FIX password": ("8=FIX.4.4\x0135=A\x01553=me\x01554=Sup3r!\x0110=000\x01", "Sup3r!"),
    "a private key": ("-----BEGIN RSA PRIVATE KEY-----\nMIIEow\n-----END RSA PRIVATE KEY-----", "MIIEow"),
    "JSON in a text": ('{"password": "in-json-99"}', "in-json-99"),
}


@pytest.mark.parametrize("kind", PLANTED)
def test_no_planted_secret_is_in_any_part(tmp_path: Path, catalogue: Catalogue, kind: str) -> None:
    """Planted in a record, in its key, in the cause and in the breach's own words; hunted in every part, unpacked."""
    text, secret = PLANTED[kind]
    guard = make_bundling_guard(tmp_path, catalogue)
    planted = replace(GOOD, order_id=text, strategy=text, cl_ord_link_id=text)
    with guard.step(f"from {text}"):
        guard.record("orders", planted)
        guard.record("orders", replace(planted, leaves_qty=GOOD.order_qty + 1, root_cl_ord_id=text, cl_ord_id=text))
    guard.close()
    path = tmp_path / "bundles" / "breach-1.hbundle"
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            assert secret.encode() not in archive.read(name), name
    assert secret.encode() not in path.read_bytes()


def test_a_named_field_is_a_mark_that_still_replays(tmp_path: Path, catalogue: Catalogue) -> None:
    bundle = make_breach_bundle(
        make_bundling_guard(tmp_path, catalogue, RedactionRules.with_defaults(fields=["account"])), BAD[0][0]
    )
    assert b'"account":"redacted-' in bundle.parts["mutations.jsonl"]
    assert replay(bundle, catalogue)[0].invariant == "order-quantity-conserved"


def test_a_pattern_of_ones_own_and_one_that_is_none() -> None:
    assert RedactionRules(patterns=["ACC-[0-9]+"]).redact_text("of ACC-123") == "of [redacted]"
    with pytest.raises(RedactionRuleError, match=r"\[unclosed"):
        RedactionRules(patterns=["[unclosed"])


@given(
    st.recursive(
        st.none() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
    )
)
def test_what_no_rule_concerns_stays_as_it_is(value: object) -> None:
    assert RedactionRules(fields=["never"]).redact_value(value) == value


# -- damage -----------------------------------------------------------------------------------------------------------


def test_the_same_content_is_the_same_file(tmp_path: Path, catalogue: Catalogue) -> None:
    bundle = make_breach_bundle(make_bundling_guard(tmp_path, catalogue), BAD[0][0])
    assert Bundle(bundle.info, bundle.parts).encode() == bundle.encode()


@pytest.mark.parametrize("damage", ["cut", "changed", "taken out", "no bundle", "missing"])
def test_a_damaged_bundle_is_refused_in_a_sentence(
    tmp_path: Path, catalogue: Catalogue, capsys: pytest.CaptureFixture[str], damage: str
) -> None:
    bundle = make_breach_bundle(make_bundling_guard(tmp_path, catalogue), BAD[0][0])
    path = tmp_path / "bad.hbundle"
    if damage == "cut":
        path.write_bytes(bundle.encode()[:200])
    elif damage == "no bundle":
        path.write_bytes(b"something else")
    elif damage != "missing":
        buffer = io.BytesIO()
        with zipfile.ZipFile(io.BytesIO(bundle.encode())) as whole, zipfile.ZipFile(buffer, "w") as archive:
            for name in whole.namelist():
                if name == "mutations.jsonl" and damage == "taken out":
                    continue
                archive.writestr(
                    name, whole.read(name).replace(b"NEW", b"OLD") + (b"x" if name == "breach.json" else b"")
                )
        path.write_bytes(buffer.getvalue())
    with pytest.raises(BundleError):
        Bundle.open(path)
    assert main(["reproduce", str(path), "--out", str(tmp_path / "o")]) == 2
    assert "bad.hbundle" in capsys.readouterr().err


def test_a_bundle_of_a_former_version_is_refused(tmp_path: Path) -> None:
    """Its parts have other keys: the sentence names both versions, whatever else its description lacks."""
    path = tmp_path / "breach-1.hbundle"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("bundle.json", '{"version": 1, "mark": "orders/x"}')
    with pytest.raises(BundleError, match="written in version 1, this Holdover reads version 2"):
        Bundle.open(path)
