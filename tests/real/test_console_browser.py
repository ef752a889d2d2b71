"""The console in a real browser: live, by keyboard, on a phone, in the dark, for a screen reader, without script."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from holdover.console import live_updates
from holdover.runtime import Guard

from ..unit.console_bench import FAST_HASHER, PASSWORD
from ..unit.orders import BAD, GOOD

CHROMIUM, DRIVER = shutil.which("chromium") or "", shutil.which("chromedriver") or ""
if not os.environ.get("CI"):
    pytest.importorskip("selenium", reason="selenium is not installed")
    if not (CHROMIUM and DRIVER):
        pytest.skip("chromium and chromedriver are not installed", allow_module_level=True)

from selenium.common.exceptions import NoSuchElementException, StaleElementReferenceException  # noqa: E402
from selenium.webdriver import ActionChains, Chrome, ChromeOptions, Keys  # noqa: E402
from selenium.webdriver.chrome.service import Service  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.support.ui import WebDriverWait  # noqa: E402

SWITCHES = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
)


def load_axe() -> str:
    """The source of axe-core, as the wheel that carries it has it."""
    spec = importlib.util.find_spec("axe_playwright_python")
    assert spec is not None
    assert spec.origin is not None
    return (Path(spec.origin).parent / "axe.min.js").read_text(encoding="utf-8")


class Desk:
    """A guard that runs, and a console over its store as an operator starts it."""

    def __init__(self, folder: Path) -> None:
        from holdover.console import ConsoleUsers

        self.toml = folder / "desk.toml"
        self.toml.write_text('[guard]\ndirectory = "guard"\nname = "desk"\nobey_within_ms = 50\n[pages]\nlog = false\n')
        self.guard = Guard.open(self.toml)
        self.users = ConsoleUsers(self.guard.store, FAST_HASHER)
        for name, role in (("vera", "viewer"), ("olga", "operator"), ("amir", "approver")):
            self.users.add_user(name, role, PASSWORD, by="test", time_ns=time.time_ns())
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[str]
        self.start()

    def start(self) -> None:
        """Start the console and wait until it listens."""
        command = [sys.executable, "-m", "holdover", "serve", "--config", str(self.toml), "--port", str(self.port)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        assert self.url in self.process.stdout.readline()

    def stop(self) -> None:
        """Stop the console."""
        self.process.terminate()
        self.process.wait(20)
        if self.process.stdout is not None:
            self.process.stdout.close()

    def close(self) -> None:
        """Stop everything."""
        self.stop()
        self.guard.close()


class Screen:
    """A browser and what a test does with it."""

    def __init__(self, driver: Any, desk: Desk) -> None:
        self.driver = driver
        self.desk = desk

    def open(self, path: str = "/") -> None:
        """Go to a page."""
        self.driver.get(self.desk.url + path)

    def wait_until(self, condition: Callable[[], Any], within_s: float = 20) -> Any:
        """Wait on a condition. An element of the page that is just being left is asked for again."""
        wait = WebDriverWait(self.driver, within_s, 0.02, [NoSuchElementException, StaleElementReferenceException])
        return wait.until(lambda driver: condition())

    def text(self, css: str) -> str:
        """What a part of the page says."""
        return str(self.driver.execute_script("return document.querySelector(arguments[0])?.innerText || ''", css))

    def run_script(self, source: str) -> Any:
        """What a script says."""
        return self.driver.execute_script(source)

    def log_in(self, name: str, path: str = "/") -> None:
        """Fill in the door."""
        self.open(path)
        self.driver.find_element(By.ID, "name").send_keys(name)
        self.driver.find_element(By.ID, "password").send_keys(PASSWORD, Keys.ENTER)
        self.wait_until(lambda: self.driver.find_elements(By.CSS_SELECTOR, ".user"))

    def wait_until_live(self) -> None:
        """The stream is open."""
        self.wait_until(lambda: self.text("#live-words").startswith("Live"))

    def set_viewport(self, width: int, height: int = 740, *, dark: bool = False) -> None:
        """The screen's size, and whether the person wants it dark."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        wish = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [wish]})

    def press_keys(self, *keys: str) -> None:
        """On the keyboard, to whatever has the focus."""
        ActionChains(self.driver).send_keys(*keys).perform()

    def tab_to(self, selector: str) -> None:
        """Tab until the element that the selector names has the focus; it must be seen to have it."""
        elements = []
        for _ in range(120):
            self.press_keys(Keys.TAB)
            has_focus, outline = self.run_script(
                f"const e = document.activeElement; return [e.matches({selector!r}), getComputedStyle(e).outlineStyle]"
            )
            elements.append(self.run_script("return document.activeElement.outerHTML.slice(0, 60)"))
            if has_focus:
                assert outline != "none", selector
                return
        raise AssertionError(f"{selector} is not reached by tabbing: {elements}")


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    """A guard and a console of its own."""
    new_desk = Desk(tmp_path)
    yield new_desk
    new_desk.close()


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """One browser for all tests, with a profile of its own."""
    options = ChromeOptions()
    options.binary_location = CHROMIUM
    for switch in (*SWITCHES, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(switch)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = Chrome(options=options, service=Service(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture
def screen(chromium: Any, desk: Desk) -> Iterator[Screen]:
    """The browser, on a desktop's screen, with no cookie and no complaint of an earlier test."""
    chromium.delete_all_cookies()
    chromium.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
    new_screen = Screen(chromium, desk)
    new_screen.set_viewport(1100, 900)
    chromium.get_log("browser")
    yield new_screen
    chromium.get("about:blank")


def test_a_freeze_appears_within_a_second(screen: Screen, desk: Desk) -> None:
    """Without a reload, said to a screen reader, and gone again with the thaw.

    The server looks at the store at least twice a second and pushes what it sees, and no page asks again by itself: the
    interval is the bound. The time on this machine is not measured, because it depends on what else runs.
    """
    assert live_updates._POLL_INTERVAL_S <= 0.5
    screen.log_in("olga")
    screen.wait_until_live()
    screen.run_script("window.mark = 1")
    for scope in ("account:A", "account:B", "account:C"):
        desk.guard.freeze(scope, operator="olga", reason="test")
        screen.wait_until(lambda scope=scope: scope in screen.text("#frozen"))
    assert "3 freezes in force" in screen.text("#verdict")
    assert "account:C" in screen.text("#news")
    for scope in ("account:A", "account:B", "account:C"):
        desk.guard.thaw(scope, operator="olga", reason="r", evidence="e")
    screen.wait_until(lambda: "Nothing is frozen" in screen.text("#verdict"))
    assert screen.run_script("return window.mark") == 1
    assert screen.driver.get_log("browser") == []


def test_from_page_to_thaw_by_keyboard_alone(screen: Screen, desk: Desk) -> None:
    """Log in, open the card, acknowledge, tick every step, thaw: by Tab, Enter and letters."""
    desk.guard.record("orders", BAD)
    screen.open("/")
    screen.wait_until(lambda: screen.run_script("return document.activeElement.id") == "name")
    screen.press_keys("olga", Keys.TAB, PASSWORD, Keys.ENTER)
    screen.wait_until_live()
    screen.press_keys(Keys.TAB)
    assert screen.run_script("return document.activeElement.className") == "skip"
    screen.press_keys(Keys.ENTER)
    screen.wait_until(lambda: screen.run_script("return document.activeElement.id") == "main")
    screen.tab_to("#frozen a.button")
    screen.press_keys(Keys.ENTER)
    screen.wait_until(lambda: "/breach/" in screen.driver.current_url)
    number = int(screen.driver.current_url.rpartition("/")[2])
    screen.wait_until_live()
    screen.tab_to("#ack-here")
    screen.press_keys(Keys.ENTER)
    screen.wait_until(lambda: "Acknowledged by olga" in screen.text("#taken"))
    desk.guard.record("orders", GOOD)
    steps = len(screen.driver.find_elements(By.CSS_SELECTOR, ".steps > li"))
    for step in range(1, steps + 1):
        screen.tab_to(f"#tick-{step}")
        screen.press_keys(Keys.ENTER)
        screen.wait_until(lambda step=step: f"{step} of {steps} done" in screen.text("#todo"))
    assert set(desk.guard.store.done_steps(number)) == set(range(1, steps + 1))
    screen.tab_to("#reason")
    screen.press_keys("the venue busted the fill", Keys.TAB, "ticket 7")
    screen.tab_to("button.strong")
    screen.press_keys(Keys.ENTER)
    screen.wait_until(lambda: "Nothing is frozen" in screen.text("#verdict"))
    assert not desk.guard.active_freezes
    actions = [action for _, _, action, _ in desk.guard.store.audit_rows()]
    assert [action for action in actions if action in ("login", "acknowledge", "thaw")] == [
        "login",
        "acknowledge",
        "thaw",
    ]


def test_a_refused_thaw_is_forced_by_a_second_person(screen: Screen, desk: Desk) -> None:
    """The refusal has the focus and keeps what was typed; the approver enters his own password on the same form."""
    desk.guard.record("orders", BAD)
    screen.log_in("olga", "/breach/1")
    screen.driver.find_element(By.ID, "reason").send_keys("close is near")
    screen.driver.find_element(By.ID, "evidence").send_keys("ticket 8")
    screen.driver.find_element(By.CSS_SELECTOR, "button.strong").click()
    screen.wait_until(lambda: "still does not hold" in screen.text("#problem"))
    screen.wait_until(lambda: screen.run_script("return document.activeElement.id") == "problem")
    assert screen.driver.find_element(By.ID, "reason").get_attribute("value") == "close is near"
    screen.driver.find_element(By.ID, "second_name").send_keys("amir")
    screen.driver.find_element(By.ID, "second_password").send_keys(PASSWORD, Keys.ENTER)
    screen.wait_until(lambda: "Nothing is frozen" in screen.text("#verdict"))
    thaw_detail = next(detail for _, _, action, detail in desk.guard.store.audit_rows() if action == "thaw")
    assert '"operator":"olga"' in thaw_detail
    assert '"forced_by":"amir"' in thaw_detail


def test_what_is_typed_stays_while_the_page_lives(screen: Screen, desk: Desk) -> None:
    """Another freeze comes in and a step is ticked elsewhere; form and focus are not touched."""
    desk.guard.record("orders", BAD)
    screen.log_in("olga", "/breach/1")
    screen.wait_until_live()
    screen.driver.find_element(By.ID, "reason").send_keys("half a sen")
    desk.guard.store.mark_step_done(1, 1, "amir", time.time_ns())
    screen.wait_until(lambda: "Done by amir" in screen.text("#todo"))
    assert screen.driver.find_element(By.ID, "reason").get_attribute("value") == "half a sen"
    assert screen.run_script("return document.activeElement.id") == "reason"


def test_a_dead_console_says_so_and_comes_back(screen: Screen, desk: Desk) -> None:
    """The page does not go on as if it were live."""
    screen.log_in("vera")
    screen.wait_until_live()
    desk.stop()
    screen.wait_until(lambda: screen.text("#live-words").startswith("Not live"))
    desk.guard.freeze("account:Z", operator="olga", reason="test")
    desk.start()
    screen.wait_until(lambda: "account:Z" in screen.text("#frozen"))
    screen.wait_until_live()


def test_a_session_that_ends_ends_the_page(screen: Screen, desk: Desk) -> None:
    """With another password the open page goes to the door by itself, as soon as anything changes."""
    screen.log_in("vera")
    screen.wait_until_live()
    desk.users.set_password("vera", "plough velvet anchor thimble quarry", by="test", time_ns=time.time_ns())
    desk.guard.freeze("account:Z", operator="olga", reason="test")
    screen.wait_until(lambda: "/login" in screen.driver.current_url)


def test_it_works_without_script(screen: Screen, desk: Desk) -> None:
    """Plain forms: log in, acknowledge, tick, thaw; the page says that it has to be reloaded."""
    desk.guard.record("orders", BAD)
    screen.driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    find = screen.driver.find_element
    screen.open("/breach/1")
    find(By.ID, "name").send_keys("olga")
    find(By.ID, "password").send_keys(PASSWORD, Keys.ENTER)
    screen.wait_until(lambda: "Reload the page" in find(By.ID, "live-words").text)
    find(By.ID, "ack-here").click()
    screen.wait_until(lambda: "Acknowledged by olga" in find(By.ID, "taken").text)
    desk.guard.record("orders", GOOD)
    find(By.ID, "tick-1").click()
    screen.wait_until(lambda: "Done by olga" in find(By.ID, "todo").text)
    find(By.ID, "reason").send_keys("r")
    find(By.ID, "evidence").send_keys("e")
    find(By.CSS_SELECTOR, "button.strong").click()
    screen.wait_until(lambda: "Nothing is frozen" in find(By.ID, "verdict").text)


def page_paths(desk: Desk) -> list[str]:
    """Every page that a person can come to."""
    hand = next(freeze.number for freeze in desk.guard.store.active_freezes() if not freeze.breach)
    return [
        "/",
        "/breach/1",
        f"/freeze/{hand}",
        "/alerts",
        "/incidents",
        "/incident/1",
        "/shadow",
        "/health",
        "/catalogue",
        "/catalogue/positions-agree",
        "/audit",
    ]


@pytest.fixture
def populated_screen(screen: Screen, desk: Desk) -> Screen:
    """Something of everything is there to be shown, also long words."""
    with desk.guard.step("execution-report"):
        desk.guard.record("orders", GOOD)
    with desk.guard.step("execution-report"):
        desk.guard.record("orders", BAD)
    desk.guard.freeze("account:" + "LONG" * 30, operator="olga", reason="w" * 200)
    desk.guard.store.mark_step_done(1, 1, "amir", time.time_ns())
    return screen


def test_a_phone_needs_no_sideways_scrolling(populated_screen: Screen, desk: Desk) -> None:
    """At 360 pixels, on every page; what is pressed is large enough for a thumb."""
    populated_screen.set_viewport(360)
    populated_screen.open("/")
    widths = {"/login": populated_screen.run_script("return document.documentElement.scrollWidth")}
    populated_screen.log_in("olga")
    for path in page_paths(desk):
        populated_screen.open(path)
        widths[path] = populated_screen.run_script("return document.documentElement.scrollWidth")
        low = populated_screen.run_script(
            "return [...document.querySelectorAll('button, a.button, nav a')]"
            ".filter(e => e.getBoundingClientRect().height < 43).map(e => e.outerHTML)"
        )
        assert low == [], path
    assert {path: width for path, width in widths.items() if width > 360} == {}


@pytest.mark.parametrize("dark", [pytest.param(False, marks=pytest.mark.slow), True], ids=["light", "dark"])
def test_axe_finds_nothing(populated_screen: Screen, desk: Desk, dark: bool) -> None:
    """Labels, names, landmarks, headings, order, contrast AA: every page, narrow in the light and wide in the dark."""
    source = load_axe()
    violations: dict[str, list[str]] = {}
    backgrounds = []

    def check_page(path: str) -> None:
        """Let axe look at the page that is open."""
        populated_screen.run_script(source)
        page_violations = populated_screen.driver.execute_async_script(
            "const done = arguments[arguments.length - 1];"
            "axe.run({runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice']})"
            ".then(r => done(r.violations.map(v => v.id + ': ' + v.nodes.map(n => n.html).join(' '))))"
            ".catch(e => done(['failed: ' + e]))"
        )
        if page_violations:
            violations[path] = page_violations
        backgrounds.append(populated_screen.run_script("return getComputedStyle(document.body).backgroundColor"))

    for width in (1100,) if dark else (360,):
        populated_screen.set_viewport(width, dark=dark)
        populated_screen.driver.delete_all_cookies()
        populated_screen.open("/login")
        check_page(f"/login {width}")
        populated_screen.log_in("olga")
        for path in page_paths(desk):
            populated_screen.open(path)
            check_page(f"{path} {width}")
        populated_screen.open("/nowhere")
        check_page(f"/nowhere {width}")
    assert violations == {}
    populated_screen.run_script("document.getElementById('main').append(document.createElement('input'))")
    check_page("an input without a label")
    assert "label" in violations["an input without a label"][0]
    light = [sum(int(part) for part in re.findall(r"\d+", colour)[:3]) for colour in set(backgrounds)]
    assert len(light) == 1
    assert (light[0] < 150) if dark else (light[0] > 700)


def test_the_policy_holds_in_the_browser(populated_screen: Screen, desk: Desk) -> None:
    """No page breaks its own Content-Security-Policy, and a script put into one does not run."""
    populated_screen.log_in("olga")
    for path in page_paths(desk):
        populated_screen.open(path)
        populated_screen.wait_until_live()
    assert populated_screen.driver.get_log("browser") == []
    populated_screen.run_script(
        "const s = document.createElement('script'); s.textContent = 'window.ran = 1'; document.body.append(s);"
        "const d = document.createElement('div'); d.innerHTML = '<img src=x onerror=\"window.ran = 1\">';"
        "document.body.append(d);"
    )
    populated_screen.wait_until(
        lambda: any(
            "Content Security Policy" in entry["message"] for entry in populated_screen.driver.get_log("browser")
        )
    )
    assert populated_screen.run_script("return window.ran") is None
