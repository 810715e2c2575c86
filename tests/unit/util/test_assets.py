from __future__ import annotations

import json
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from vmproxy.errors import BadArtifact, UsageError
from vmproxy.util import assets

HOSTILE = [
    "a \"quote\" and 'another'",
    "two\nlines\r\n\ttab",
    "{{ 7 * 7 }} {% raw %}",
    "# no comment",
    "key: value",
    "- item",
    "grün 漢字 \N{GRINNING FACE} \x85 \u2028 \x7f \ufeff",
    "!!python/object:os.system",
    "&anchor *alias",
    "yes",
    "0x10",
    "C:\\ProgramData\\vmproxy",
    "",
]


def through_a_template(value: object) -> str:
    return assets.render_text("key: {{ value | tojson }}\n", origin=Path("x.j2"), value=value)


@pytest.mark.parametrize("value", [*HOSTILE, 1, True, None, ["a", {"b": 1}]])
def test_a_hostile_value_comes_out_of_a_yaml_template_as_it_went_in(value: object) -> None:
    assert YAML(typ="safe", pure=True).load(through_a_template(value)) == {"key": value}


@pytest.mark.parametrize("value", HOSTILE)
def test_a_value_is_json_too(value: str) -> None:
    assert json.loads(through_a_template(value).removeprefix("key: ")) == value


def test_addresses_and_paths_are_written_as_text() -> None:
    assert through_a_template([IPv4Address("10.0.0.1"), Path("/etc")]) == 'key: ["10.0.0.1", "/etc"]\n'


def test_a_name_that_is_not_given_is_an_error_that_lists_the_known_ones() -> None:
    with pytest.raises(UsageError, match=r"my\.j2.*nothere") as caught:
        assets.render_text("{{ nothere }}", origin=Path("my.j2"), host="h", site="s")
    assert caught.value.hint == "available variables: host, site"


def test_wrong_syntax_is_named_with_its_line() -> None:
    with pytest.raises(UsageError, match=r"my\.j2:2"):
        assets.render_text("a\n{% if %}", origin=Path("my.j2"))


def test_a_users_template_can_not_reach_python() -> None:
    with pytest.raises(UsageError, match="unsafe"):
        assets.render_text("{{ ''.__class__.__mro__[1].__subclasses__() }}", origin=Path("my.j2"))


def test_a_missing_template_is_an_error() -> None:
    with pytest.raises(BadArtifact, match=r"guest/none\.j2"):
        assets.render("guest/none.j2")


def test_a_missing_file_is_an_error() -> None:
    with pytest.raises(BadArtifact, match=r"cannot read guest/none"):
        assets.text("guest/none")
