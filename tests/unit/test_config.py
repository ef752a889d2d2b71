"""The configuration file: complete validation, values from the environment, secrets from protected files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from holdover.cli import main
from holdover.runtime import GuardConfigError, PagerDutyChannel, read_config
from holdover.runtime.secrets import SecretError, secret_from_file


def write_config(directory: Path, text: str) -> Path:
    """The configuration in a file."""
    (directory / "desk.toml").write_text(text)
    return directory / "desk.toml"


def test_all_problems_are_listed_at_once(tmp_path: Path) -> None:
    """Unknown tables and fields, wrong types, channels that nobody knows, levels out of order: one sentence each."""
    config_path = write_config(
        tmp_path,
        """
[guard]
directory = "g"
obey_within_ms = -1
[gaurd]
x = 1
[store]
timeout_s = "soon"
[pages]
repeat = 5
[heartbeat]
every = 1
[[instrument]]
symbol = "IBM"
tick_size = "much"
""",
    )
    with pytest.raises(GuardConfigError) as problem:
        read_config(config_path)
    lines = str(problem.value).splitlines()
    assert all(line.startswith("desk.toml: ") for line in lines)
    for part in ("[gaurd]", "[store]", "[pages]", "[heartbeat]", "[[instrument]] 1", "obey_within_ms"):
        assert any(part in line for line in lines), part


def test_levels_and_channels_must_fit(tmp_path: Path) -> None:
    """A level that names no channel there is, channels without what they need, a URL with a password in it."""
    config_path = write_config(
        tmp_path,
        """
[guard]
directory = "g"
[[pages.channel]]
name = "desk"
kind = "pagerduty"
[[pages.channel]]
name = "hook"
kind = "webhook"
url = "https://ann:hunter2@example.org/x"
[[pages.channel]]
name = "log"
kind = "apprise"
[[pages.level]]
after_s = 10
channels = ["desk", "nobody"]
[[pages.level]]
after_s = 5
channels = []
""",
    )
    with pytest.raises(GuardConfigError) as problem:
        read_config(config_path)
    message = str(problem.value)
    assert len(message.splitlines()) == 7
    assert "hunter2" not in message
    for part in ("by key_env or key_file", "url carries a secret", "two of that name", "nobody", "begin with 0"):
        assert part in message


def test_the_environment_takes_the_place_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """HOLDOVER__TABLE__KEY, read as TOML where it is that, else as a word; what fits nowhere is a problem."""
    config_path = write_config(tmp_path, '[guard]\ndirectory = "g"\n')
    monkeypatch.setenv("HOLDOVER__GUARD__OBEY_WITHIN_MS", "50")
    monkeypatch.setenv("HOLDOVER__GUARD__NAME", "desk-2")
    monkeypatch.setenv("HOLDOVER__HEARTBEAT__SILENT_AFTER_S", "4.5")
    config = read_config(config_path)
    assert (config.guard.obey_within_ms, config.name, config.heartbeat.silent_after_s) == (50.0, "desk-2", 4.5)
    monkeypatch.setenv("HOLDOVER__GUARD", "x")
    monkeypatch.setenv("HOLDOVER__GUARD__NAMES", "x")
    with pytest.raises(GuardConfigError) as problem:
        read_config(config_path)
    assert "HOLDOVER__GUARD should read" in str(problem.value)
    assert "names" in str(problem.value)


def test_secrets_come_from_the_environment_or_a_closed_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that others may read is refused, and said; what it holds never is."""
    key = tmp_path / "key"
    key.write_text("R0UT1NG\n")
    key.chmod(0o644)
    config_path = write_config(
        tmp_path,
        '[guard]\ndirectory = "g"\n[[pages.channel]]\nname = "desk"\nkind = "pagerduty"\nkey_file = "$KEYS/key"\n'
        '[store]\nurl_env = "NO_SUCH_VARIABLE"\n',
    )
    monkeypatch.setenv("KEYS", str(tmp_path))
    config = read_config(config_path)
    problems = config.find_problems()
    assert len(problems) == 2
    assert "0644; it should be 0600" in problems[1]
    assert "NO_SUCH_VARIABLE" in problems[0]
    assert "R0UT1NG" not in "".join(problems)
    key.chmod(0o600)
    (channel,) = [candidate for candidate in config.make_channels() if candidate.name == "desk"]
    assert isinstance(channel, PagerDutyChannel)
    assert channel._key == "R0UT1NG"


def test_a_secret_file_is_regular_and_says_something(tmp_path: Path) -> None:
    """A folder, an empty file, none at all: one sentence each."""
    (tmp_path / "empty").write_text("\n")
    (tmp_path / "empty").chmod(0o600)
    for name, message in (("empty", "is empty"), ("none", "cannot be read"), (".", "regular file")):
        with pytest.raises(SecretError, match=message):
            secret_from_file(tmp_path / name)


def test_the_command_says_all_of_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Sound: 0; else every problem on a line of its own, and 2; never a traceback."""
    good = write_config(tmp_path, '[guard]\ndirectory = "g"\n')
    assert main(["config", "check", str(good), "--connect"]) == 0
    assert "a guard can use it" in capsys.readouterr().out
    bad = write_config(
        tmp_path,
        '[guard]\ndirectory = "g"\ncatalogue = ["no_such_package"]\naxes = ["no_such_module"]\n'
        '[store]\nurl_env = "NO_SUCH_VARIABLE"\n',
    )
    assert main(["config", "check", str(bad), "--connect", "--json"]) == 2
    problems = json.loads(capsys.readouterr().out)["problems"]
    assert len(problems) == 3
    assert main(["config", "check", str(tmp_path / "none.toml")]) == 2
    assert "cannot be read" in capsys.readouterr().out
    bad.write_text("[guard\n")
    assert main(["config", "check", str(bad)]) == 2
    assert "not a TOML file" in capsys.readouterr().out
