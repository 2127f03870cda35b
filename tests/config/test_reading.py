from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_nncf.config.reading import parse_json, parse_yaml, read_file, strip_comments
from lightning_nncf.errors import ConfigError

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(alphabet='ab/*,"\\{}[] \n'),
    lambda children: st.lists(children) | st.dictionaries(st.text(alphabet='k/"\\,'), children),
    max_leaves=10,
)


@given(JSON)
def test_json_without_comments_is_left_as_it_is(value: object) -> None:
    text = json.dumps(value, indent=1)
    assert json.loads(strip_comments(text)) == value


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"a": 1} // end', {"a": 1}),
        ('// start\n{"a": 1}', {"a": 1}),
        ('{"a": "http://x//y", /* "b": 2, \n */ "c": 3}', {"a": "http://x//y", "c": 3}),
        ('{"a": "say \\"// no\\"" // yes "\n}', {"a": 'say "// no"'}),
        ('{"a": [1, 2, ], // trailing\n}', {"a": [1, 2]}),
        ('{"a": "1,]"}', {"a": "1,]"}),
    ],
)
def test_comments_and_trailing_commas_go_and_strings_stay(text: str, expected: object) -> None:
    assert parse_json(text) == expected


def test_position_of_a_json_error_is_that_of_the_file() -> None:
    with pytest.raises(ConfigError, match=r"c\.json is not valid JSON.*line 3, column 3"):
        parse_json('{ // one\n  "a": 1 /* two */\n  "b": 2\n}', "c.json")


@pytest.mark.parametrize("text", ["[1, 2]", "3", '"text"'])
def test_top_of_a_file_must_be_an_object(text: str) -> None:
    with pytest.raises(ConfigError, match="must be an object"):
        parse_json(text)
    with pytest.raises(ConfigError, match="must be an object"):
        parse_yaml(text)


@pytest.mark.parametrize(("text", "value"), [("1e-5", 1e-5), ("-2E+3", -2000.0), (".5e1", 5.0), ("1.5", 1.5), ("7", 7)])
def test_yaml_numbers(text: str, value: float) -> None:
    assert parse_yaml(f"lr: {text}") == {"lr": value}
    assert type(parse_yaml(f"lr: {text}")["lr"]) is type(value)


def test_yaml_builds_no_objects() -> None:
    with pytest.raises(ConfigError, match="not valid YAML"):
        parse_yaml("a: !!python/object/apply:os.getcwd []")


def test_absent_file_is_named_with_its_neighbours(tmp_path: Path) -> None:
    (tmp_path / "resnet50_int8.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"resnet_int8\.json' does not exist; did you mean 'resnet50_int8\.json'"):
        read_file(tmp_path / "resnet_int8.json")


def test_other_suffix_and_unreadable_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"must end in \.json.*got .*model\.onnx"):
        read_file(tmp_path / "model.onnx")
    folder = tmp_path / "folder.json"
    folder.mkdir()
    with pytest.raises(ConfigError, match="cannot be read"):
        read_file(folder)
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="cannot be read"):
        read_file(tmp_path / "binary.yaml")
