"""Reads configuration files: JSON with comments, and YAML."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from lightning_nncf.errors import ConfigError, near

__all__ = ["parse_json", "parse_yaml", "read_file", "strip_comments"]

_STRING_OR_COMMENT = re.compile(r'("(?:\\.|[^"\\\n])*")|//[^\n]*|/\*.*?\*/', re.DOTALL)
_STRING_OR_COMMA = re.compile(r'("(?:\\.|[^"\\\n])*")|,(?=\s*[}\]])')


class _Loader(yaml.SafeLoader):  # type: ignore[misc]
    """PyYAML reads ``1e-5`` as a string (YAML 1.1 wants ``1.0e-5``); here it is a number."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:\d+\.?\d*|\.\d+)[eE][-+]?\d+$"),
    list("-+0123456789."),
)


def strip_comments(text: str) -> str:
    """Blank out ``//`` and ``/* */`` comments and trailing commas, leaving strings and line numbers as they are.

    >>> strip_comments('{"url": "http://x", // note')
    '{"url": "http://x",        '
    >>> strip_comments('[1, 2,]')
    '[1, 2 ]'
    """
    blank = re.compile(r"[^\n]")

    def keep_strings(match: re.Match[str]) -> str:
        return match.group(1) or blank.sub(" ", match.group(0))

    return _STRING_OR_COMMA.sub(keep_strings, _STRING_OR_COMMENT.sub(keep_strings, text))


def parse_json(text: str, source: str = "") -> dict[str, Any]:
    """Read a JSON object that may hold comments and trailing commas.

    Args:
        text: The text.
        source: Name for error messages.

    Raises:
        ConfigError: If it is no valid JSON, or no object at the top.
    """
    try:
        return _as_object(json.loads(strip_comments(text)), source)
    except json.JSONDecodeError as error:
        raise ConfigError(
            f"{source or 'the configuration'} is not valid JSON: {error.msg} at line {error.lineno}, "
            f"column {error.colno}"
        ) from None


def parse_yaml(text: str, source: str = "") -> dict[str, Any]:
    """Read a YAML mapping.

    Args:
        text: The text.
        source: Name for error messages.

    Raises:
        ConfigError: If it is no valid YAML, or no mapping at the top.
    """
    try:
        # The loader derives from SafeLoader: it builds plain values only.
        return _as_object(yaml.load(text, Loader=_Loader), source)
    except yaml.YAMLError as error:
        raise ConfigError(f"{source or 'the configuration'} is not valid YAML: {error}") from None


_PARSERS = {".json": parse_json, ".jsonc": parse_json, ".yaml": parse_yaml, ".yml": parse_yaml}


def read_file(path: Path) -> dict[str, Any]:
    """Read a configuration file by its suffix.

    Args:
        path: File ending in ``.json``, ``.jsonc``, ``.yaml`` or ``.yml``.

    Raises:
        ConfigError: If the file is absent, unreadable, of another kind, or malformed.
    """
    parse = _PARSERS.get(path.suffix.lower())
    if parse is None:
        raise ConfigError(f"a configuration file must end in {', '.join(_PARSERS)}, got {str(path)!r}")
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        there = [each.name for each in path.parent.glob("*") if each.suffix in _PARSERS]
        hint = near(path.name, there)
        raise ConfigError(f"configuration file {str(path)!r} does not exist{'; ' + hint if hint else ''}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"configuration file {str(path)!r} cannot be read: {error}") from error
    return parse(text, str(path))


def _as_object(value: object, source: str) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        kind = type(value).__name__
        raise ConfigError(f"{source or 'the configuration'} must be an object of keys and values, got {kind}")
    return dict(value)
