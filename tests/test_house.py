"""The house keeps its order: short files, and a sign at the door of every room."""

from __future__ import annotations

import ast
import configparser
import re
from pathlib import Path

import pytest

import lightning_nncf

PACKAGE = Path(lightning_nncf.__file__).parent
ROOT = Path(__file__).parents[1]
FOLDERS = sorted(path.parent for path in PACKAGE.rglob("__init__.py"))


def test_no_file_is_longer_than_a_reader_can_keep_in_mind() -> None:
    lengths = {str(path.relative_to(PACKAGE)): len(path.read_text().splitlines()) for path in PACKAGE.rglob("*.py")}
    assert len(lengths) > 200
    assert {name: length for name, length in lengths.items() if length > 300} == {}


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.relative_to(PACKAGE.parent).as_posix())
def test_each_folder_says_what_lives_there_and_what_never_does(folder: Path) -> None:
    text = ast.get_docstring(ast.parse((folder / "__init__.py").read_text())) or ""
    assert len(re.findall(r"[^.]\.(?=\s|$)", text)) >= 2, f"{folder.name} says only: {text}"


def test_readme_draws_the_floors_that_are_checked() -> None:
    settings = configparser.ConfigParser()
    settings.read(ROOT / "setup.cfg")
    floors = settings["importlinter:contract:layers"]["layers"].split("\n")[1:]
    drawing = (ROOT / "README.md").read_text().rpartition("\n## Development\n")[2].split("```\n")[1]
    assert [re.split(r" {2,}", line)[0] for line in drawing.splitlines()] == floors
