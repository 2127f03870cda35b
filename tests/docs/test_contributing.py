"""What CONTRIBUTING.md shows is true."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from lightning_nncf.config import registry as config_registry
from lightning_nncf.core import registry

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "CONTRIBUTING.md").read_text()
SNIPPETS = {
    section.partition("\n")[0]: code
    for section in TEXT.split("\n## ")
    for code in re.findall(r"^```python\n(.*?)^```", section, re.MULTILINE | re.DOTALL)
}


def test_snippets_are_found() -> None:
    assert list(SNIPPETS) == ["Add a statistic", "Add an export pass"]
    assert TEXT.count("```python") == len(SNIPPETS)


@pytest.mark.parametrize("title", SNIPPETS)
def test_snippet_runs_and_what_it_asserts_holds(title: str, monkeypatch: pytest.MonkeyPatch) -> None:
    config_registry.algorithm_names()
    monkeypatch.setattr(config_registry, "_registered", dict(config_registry._registered))
    monkeypatch.setattr(registry, "_ALGORITHMS", dict(registry._ALGORITHMS))
    assert "assert " in SNIPPETS[title]
    namespace: dict[str, Any] = {"__name__": "contributing"}
    exec(compile(SNIPPETS[title], f"CONTRIBUTING.md, {title}", "exec", dont_inherit=True), namespace)


def test_links_lead_somewhere() -> None:
    links = re.findall(r"\]\(([^)#]+)", TEXT)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []
