"""Turns pydantic's validation errors into one readable `ConfigError`."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pydantic import ValidationError

from lightning_nncf.errors import ConfigError, near

__all__ = ["ConfigProblemsError", "Problem", "collect", "show"]

_SHOWN = 80
_TYPES = {
    "bool_type": "true or false",
    "int_type": "an integer",
    "float_type": "a number",
    "string_type": "a string",
    "finite_number": "a finite number",
    "tuple_type": "a list",
    "list_type": "a list",
    "dict_type": "an object of keys and values",
    "model_type": "an object of keys and values",
}


@dataclass(frozen=True)
class Problem:
    """One thing wrong with a configuration.

    Args:
        path: Keys and list positions that lead to it.
        text: What is wrong, to be read after the path.
    """

    path: tuple[str | int, ...]
    text: str

    def below(self, *parents: str | int) -> Problem:
        """Return the same problem seen from further up.

        >>> Problem(("bits",), "is wrong").below("weights").path
        ('weights', 'bits')
        """
        return replace(self, path=(*parents, *self.path))


class ConfigProblemsError(ConfigError):
    """All the problems of one configuration, found in one pass.

    Args:
        problems: The problems; at least one.
        data: The configuration as given, used to write paths as the user wrote them.
        source: Where it came from, a file name for instance.
    """

    def __init__(self, problems: Iterable[Problem], data: object = None, source: str = "") -> None:
        self.problems = tuple(problems)
        lines = [f"`{_write_path(problem.path, data)}` {problem.text}".replace("`` ", "") for problem in self.problems]
        where = f" in {source}" if source else ""
        if len(lines) == 1:
            super().__init__(f"{lines[0]}{f' ({where.strip()})' if where else ''}")
        else:
            super().__init__("\n  ".join([f"{len(lines)} problems{where or ' in the configuration'}:", *lines]))

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle by message and problems, since the source data may not be picklable."""
        return _restore, (str(self), self.problems)


def _restore(message: str, problems: tuple[Problem, ...]) -> ConfigProblemsError:
    error = ConfigProblemsError(problems)
    error.args = (message,)
    return error


def collect(error: ValidationError, known: Iterable[str], unused: Iterable[str] = ()) -> list[Problem]:
    """List the problems inside a pydantic error.

    Args:
        error: What pydantic raised for one model.
        known: Keys which that model has, for hints.
        unused: Keys which it accepts without having them; hinted at only where they are close.

    Returns:
        The problems with paths relative to the model.
    """
    known, unused = list(known), list(unused)
    found: list[Problem] = []
    for detail in error.errors(include_url=False):
        path = tuple(detail["loc"])
        inner = detail.get("ctx", {}).get("error")
        if isinstance(inner, ConfigProblemsError):
            found += [problem.below(*path) for problem in inner.problems]
        else:
            found.append(Problem(path, _explain(detail["type"], detail, known, unused)))
    return found


def show(value: object) -> str:
    """Write a value as short as an error message needs it.

    >>> show("eight")
    "'eight'"
    >>> show(list(range(100)))[-5:]
    ', ...'
    """
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[: text.rfind(',', 0, _SHOWN) + 1] or text[:_SHOWN]} ..."


def _explain(kind: str, detail: Mapping[str, Any], known: list[str], unused: list[str]) -> str:
    got, context = detail["input"], detail.get("ctx", {})
    if kind == "extra_forbidden":
        key = str(detail["loc"][-1])
        hint = near(key, [*known, *unused]) or near(key, known)
        return f"is not a known key{'; ' + hint if hint else ''}"
    if kind in _TYPES:
        return f"must be {_TYPES[kind]}, got {show(got)}"
    explain = _EXPLAIN.get(kind)
    if explain is not None:
        return explain(got, context)
    message = detail["msg"]
    return f"{message[:1].lower()}{message[1:]}, got {show(got)}"


def _bound(words: str, key: str) -> Callable[[object, Mapping[str, Any]], str]:
    return lambda got, context: f"must be {words} {context[key]}, got {show(got)}"


def _literal(got: object, context: Mapping[str, Any]) -> str:
    text = f"must be {context['expected']}, got {show(got)}"
    hint = near(got, re.findall(r"'([^']*)'", context["expected"])) if isinstance(got, str) else ""
    # all that is known stands in the text already
    return f"{text}; {hint}" if hint.startswith("did you mean") else text


_EXPLAIN: dict[str, Callable[[object, Mapping[str, Any]], str]] = {
    "missing": lambda got, context: "is required but absent",
    "literal_error": _literal,
    "value_error": lambda got, context: str(context["error"]),
    "greater_than": _bound("greater than", "gt"),
    "greater_than_equal": _bound("at least", "ge"),
    "less_than": _bound("less than", "lt"),
    "less_than_equal": _bound("at most", "le"),
}


def _write_path(path: Iterable[str | int], data: object) -> str:
    """Write ``compression.weights`` where one object was given and ``compression[0].weights`` for a list."""
    text, here = "", data
    for part in path:
        if isinstance(part, str):
            text += f".{part}" if text else part
            here = here.get(part) if isinstance(here, Mapping) else None
        elif not isinstance(here, (Mapping, str)):
            text += f"[{part}]"
            here = here[part] if isinstance(here, Sequence) and part < len(here) else None
    return text
