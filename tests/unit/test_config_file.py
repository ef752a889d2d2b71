"""The reader of configuration files: every problem at once, with its line, and the nearest right key."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdover.adapters.fix.config import read_live_config
from holdover.adapters.process.config import read_process_config
from holdover.model import Side
from holdover.runtime import read_config
from holdover.runtime.config_file import (
    ConfigFile,
    NonNegativeInt,
    PlainName,
    Port,
    PositiveFloat,
    describe_type,
    find_lines,
    read_config_file,
)
from holdover.shadow import read_shadow_config
from holdover.watch import FixConfig


class ExampleError(ValueError):
    """What the example reader raises."""


class ItemTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A table in a list."""

    name: str
    size: NonNegativeInt = 0


class ServerTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A table with ranges."""

    host: str
    port: Port = 80
    timeout_s: PositiveFloat = 1.0
    mode: Literal["slow", "fast"] = "slow"
    side: Side = Side.BUY
    item: list[ItemTable] = []


class ExampleTables(msgspec.Struct, frozen=True):
    """A file."""

    server: ServerTable
    item: list[ItemTable] = []


def read_example(path: Path, text: str, **settings: Any) -> ExampleTables:
    """Read the example configuration."""
    path.write_text(text)
    return read_config_file(path, ExampleTables, ExampleError, check_example, **settings)


def check_example(file: ConfigFile) -> None:
    """The one rule that concerns several tables."""
    rows = file.rows("item", ItemTable)
    file.add_duplicates([(f"{place}.name", item.name) for place, item in rows], "[[item]]")


def problems_of(path: Path, text: str, **settings: Any) -> list[str]:
    """Return the problems of a file, a line each."""
    with pytest.raises(ExampleError) as error:
        read_example(path, text, **settings)
    return str(error.value).splitlines()


BAD = """
[sever]
x = 1

[server]
hots = "here"
port = 70000
timeout_s = "soon"
mode = "fats"
[[server.item]]
size = -1

[[item]]
name = "a"
[[item]]
name = 5
[[item]]
name = "a"
"""


def test_every_problem_is_listed_with_its_line(tmp_path: Path) -> None:
    """In the order of the file: key by key, whatever else is wrong."""
    assert problems_of(tmp_path / "a.toml", BAD) == [
        "a.toml: line 2: [sever] is not known here; did you mean server?",
        "a.toml: line 6: [server] has no key hots; did you mean host?",
        "a.toml: line 7: [server] port should be a whole number from 1 to 65535, not 70000",
        'a.toml: line 8: [server] timeout_s should be a number above 0, not "soon"',
        "a.toml: line 9: [server] mode should be 'slow' or 'fast', not \"fats\"; did you mean fast?",
        "a.toml: line 10: [[server.item]] 1 needs name, a text in quotes",
        "a.toml: line 11: [[server.item]] 1 size should be a whole number not below 0, not -1",
        "a.toml: line 16: [[item]] 2 name should be a text in quotes, not 5",
        "a.toml: line 18: [[item]] a: there are two of that name",
    ]


def test_a_good_file_is_read_nested(tmp_path: Path) -> None:
    """The tables stay structs in structs, and defaults fill in."""
    config = read_example(tmp_path / "a.toml", '[server]\nhost = "h"\n[[server.item]]\nname = "x"\n')
    assert config == ExampleTables(server=ServerTable(host="h", item=[ItemTable(name="x")]))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "a.toml: [server] is missing"),
        ("server = 5", "a.toml: line 1: [server] should be a table"),
        ('[server]\nhost = "h"\ntimeout_s = inf', "line 3: [server] timeout_s should be a number above 0, not inf"),
        ('[server]\nhost = "h"\ntimeout_s = nan', "line 3: [server] timeout_s should be a number above 0, not nan"),
        ('[server]\nhost = "h"\nside = "9"', 'line 3: [server] side should be one of "1" (BUY)'),
        (
            '[server]\nhost = "h"\nport = true',
            "line 3: [server] port should be a whole number from 1 to 65535, not true",
        ),
        ('item = 1\n[server]\nhost = "h"', "line 1: [item] item should be [[item]], once for each, not 1"),
        ('item = [1]\n[server]\nhost = "h"', "line 1: [[item]] 1 should be a table"),
        ("[server", "a.toml: not a TOML file"),
    ],
)
def test_a_problem_says_what_would_be_right(tmp_path: Path, text: str, problem: str) -> None:
    """One sentence each."""
    (found_problem,) = problems_of(tmp_path / "a.toml", text)
    assert problem in found_problem


def test_the_environment_overrides_a_value(tmp_path: Path) -> None:
    """A value of the environment is checked like one of the file, and its problem names the variable."""
    text = '[server]\nhost = "h"\n'
    environment = {"HOLDOVER__SERVER__PORT": "8080", "HOLDOVER__SERVER__HOST": "other", "PATH": "x"}
    config = read_example(tmp_path / "a.toml", text, environment=environment)
    assert (config.server.host, config.server.port) == ("other", 8080)
    problems = problems_of(
        tmp_path / "a.toml", text, environment={"HOLDOVER__SERVER__PORT": "0", "HOLDOVER__SERVER": "x"}
    )
    assert "HOLDOVER__SERVER should read HOLDOVER__TABLE__KEY" in problems[0]
    assert problems[1].startswith("a.toml: HOLDOVER__SERVER__PORT in the environment: [server] port should be")


def test_tables_of_other_readers(tmp_path: Path) -> None:
    """A file may be shared: some tables by name, or any."""
    text = '[server]\nhost = "h"\n[other]\n'
    assert read_example(tmp_path / "a.toml", text, other_tables=("other",)).server.host == "h"
    assert read_example(tmp_path / "a.toml", text, other_tables=None).server.host == "h"
    assert "[other] is not known here; there are server, item" in problems_of(tmp_path / "a.toml", text)[0]


def test_types_in_words() -> None:
    """What a key should be is said without the words of Python."""
    assert describe_type(bool) == "true or false"
    assert describe_type(str | None) == "a text in quotes"
    assert describe_type(list[int]) == "a list, each entry a whole number"
    assert describe_type(dict[str, NonNegativeInt]) == "a table, each value a whole number not below 0"
    assert describe_type(dict[str, Any]) == "a table"
    assert describe_type(PlainName) == "a plain name of letters, digits and underscores"


NAMES = st.from_regex(r"[a-z]{1,6}", fullmatch=True)


@given(st.dictionaries(NAMES, st.lists(st.dictionaries(NAMES, st.integers(), max_size=4), max_size=3), max_size=4))
def test_each_key_has_the_line_it_stands_on(document: dict[str, list[dict[str, int]]]) -> None:
    """For every list of tables: the line of a place has the key and its value."""
    lines = [""]
    for name, tables in document.items():
        for table in tables:
            lines += [f"[[ {name} ]]  # comment", *(f"{key} = {value}" for key, value in table.items())]
    places = find_lines("\n".join(lines))
    parsed = tomllib.loads("\n".join(lines))
    for name, tables in parsed.items():
        for index, table in enumerate(tables):
            assert name in lines[places[f"{name}[{index}]"] - 1]
            for key, value in table.items():
                assert lines[places[f"{name}[{index}].{key}"] - 1] == f"{key} = {value}"


def test_lines_of_nested_tables_and_long_texts() -> None:
    """Keys inside a text of several lines are no keys; dotted and quoted keys are."""
    text = 'a = """\nb = 1\n"""\n[t]\n"c d" = 1\ne.f = 2\n[[t.rows]]\n[t.rows.x]\ny = 1\n[[t.rows]]\nz = [\n  1,\n]\n'
    assert find_lines(text) == {
        "a": 1,
        "t": 4,
        "t.c d": 5,
        "t.e.f": 6,
        "t.rows[0]": 7,
        "t.rows[0].x": 8,
        "t.rows[0].x.y": 9,
        "t.rows[1]": 10,
        "t.rows[1].z": 11,
    }


@pytest.mark.parametrize(
    ("read", "text", "hint"),
    [
        (read_config, '[guard]\ndirectory = "g"\njournals = true\n', "has no key journals; did you mean journal?"),
        (read_config, '[guard]\ndirectory = "g"\n[console]\nprot = 1\n', "has no key prot; did you mean port?"),
        (read_live_config, '[guard]\ndirectory = "g"\n[desk]\ndirectori = "d"\n', "did you mean directory?"),
        (read_process_config, "[process]\ncomand = []\n", "has no key comand; did you mean command?"),
        (read_shadow_config, "[clock]\nticks_s = 1\n", "has no key ticks_s; did you mean tick_s?"),
        (FixConfig.load, "[fix]\nheartbeats_s = 1\n", "has no key heartbeats_s; did you mean heartbeat_s?"),
    ],
)
def test_each_configuration_names_the_nearest_key(
    tmp_path: Path, read: Callable[[Path], object], text: str, hint: str
) -> None:
    """The files of guard, console, desk, process, shadow and drop copy are read alike."""
    (tmp_path / "file.toml").write_text(text)
    with pytest.raises(Exception, match=r"file\.toml: line") as error:
        read(tmp_path / "file.toml")
    assert hint in str(error.value)
