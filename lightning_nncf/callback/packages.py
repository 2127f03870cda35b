"""The two packages in which Lightning is published, and which of them is in use.

`pytorch_lightning` is imported here. `lightning.pytorch` has the same classes once more, which count as others; it is
never imported here before somebody else has.
"""

from __future__ import annotations

import importlib
import pydoc
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import yaml

__all__ = ["Package", "join_packages", "lightning_cli", "package_in_use", "package_of"]

Package = Literal["pytorch_lightning", "lightning.pytorch"]

_PACKAGES: tuple[Package, ...] = ("pytorch_lightning", "lightning.pytorch")
_COMMANDS = ("fit", "validate", "test", "predict")
_PARTS = ("model", "data")


def package_of(cls: type) -> Package | None:
    """Return the package that a class of Lightning comes from, or is derived from.

    >>> import pytorch_lightning
    >>> package_of(pytorch_lightning.LightningModule), package_of(dict)
    ('pytorch_lightning', None)
    """
    names = [f"{base.__module__}." for base in cls.__mro__]
    return next((package for name in names for package in _PACKAGES if name.startswith(f"{package}.")), None)


def join_packages(cls: type, name: str = "Callback") -> None:
    """Derive a callback from a class of each package that has been imported, so that both know it for theirs.

    Args:
        cls: A class derived from that of one of them.
        name: Name of the class.
    """
    for package in _PACKAGES:
        base = getattr(sys.modules.get(f"{package}.callbacks"), name, None)
        if base is not None and base not in cls.__mro__:
            cls.__bases__ = (*cls.__bases__, base)


def package_in_use(arguments: Sequence[str]) -> Package:
    """Return the package of the module that arguments of a LightningCLI name, by default `pytorch_lightning`.

    Args:
        arguments: Arguments of a command line; files that they name are read. What is wrong in them is left to the
            parser to tell.
    """
    named = list(_named(arguments))
    for part in _PARTS:
        for path in [value for key, value in reversed(named) if key == part]:
            cls = _find(path, "LightningModule" if part == "model" else "LightningDataModule")
            package = None if cls is None else package_of(cls)
            if package is not None:
                return package
    return "pytorch_lightning"


def lightning_cli(package: Package) -> Any:
    """Return the LightningCLI of a package that is in use."""
    return importlib.import_module(f"{package}.cli").LightningCLI


def _named(arguments: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield ``(part, path of a class)`` in the order in which a parser reads them."""
    for argument, after in zip(arguments, [*arguments[1:], ""], strict=False):
        key, given, value = argument.partition("=")
        value = value if given else after
        name = key.lstrip("-").removesuffix(".class_path")
        if key in ("-c", "--config"):
            yield from _named_in_file(Path(value))
        elif key.startswith("--") and name in _PARTS:
            yield from _named_in_section({name: value}, Path())


def _named_in_file(file: Path) -> Iterator[tuple[str, str]]:
    content = _read(file)
    for section in (content, *(content.get(command) for command in _COMMANDS)):
        if isinstance(section, Mapping):
            yield from _named_in_section(section, file.parent)


def _named_in_section(section: Mapping[str, Any], folder: Path) -> Iterator[tuple[str, str]]:
    for part in _PARTS:
        value = section.get(part)
        if isinstance(value, str) and value.endswith((".yaml", ".yml", ".json")):
            value = _read(folder / value)
        if isinstance(value, Mapping):
            value = value.get("class_path")
        if isinstance(value, str):
            yield part, value


def _read(file: Path) -> Mapping[str, Any]:
    try:
        content = yaml.safe_load(file.read_text())
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    return content if isinstance(content, Mapping) else {}


def _find(path: str, kind: str) -> type | None:
    """Return the class at a path, or the one of that name derived from a class of Lightning."""
    if "." in path:
        try:
            found = pydoc.locate(path)
        except pydoc.ErrorDuringImport:
            return None
        return found if isinstance(found, type) else None
    for package in _PACKAGES:
        base: type | None = getattr(sys.modules.get(package), kind, None)
        derived: Iterator[type] = iter(()) if base is None else _derived(base)
        for cls in derived:
            if cls.__name__ == path:
                return cls
    return None


def _derived(base: type) -> Iterator[type]:
    below: list[type] = type.__subclasses__(base)
    for cls in below:
        yield cls
        yield from _derived(cls)
