from __future__ import annotations

import sys
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path
from typing import Literal

import pytest

from lightning_nncf.algorithms.quantization.config import QuantizationConfig
from lightning_nncf.config import AlgorithmConfig, NNCFConfig, algorithm_names, json_schema, register_algorithm_config
from lightning_nncf.config import registry as registry_module
from lightning_nncf.errors import ConfigError


@pytest.fixture(autouse=True)
def _own_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    algorithm_names()
    monkeypatch.setattr(registry_module, "_registered", dict(registry_module._registered))


class HalfConfig(AlgorithmConfig):
    """Halve everything."""

    algorithm: Literal["half"] = "half"
    factor: float = 0.5


def test_registered_algorithm_can_be_named_and_appears_in_the_schema() -> None:
    assert register_algorithm_config("half", HalfConfig) is HalfConfig
    config = NNCFConfig.load({"compression": [{"algorithm": "quantization"}, {"algorithm": "half", "factor": 0.25}]})
    assert config.section(HalfConfig) == HalfConfig(factor=0.25)
    assert config.to_dict()["compression"][1]["factor"] == 0.25
    assert "HalfConfig" in json_schema()["$defs"]


def test_registering_twice_is_harmless_and_another_class_is_refused() -> None:
    register_algorithm_config("quantization", QuantizationConfig)
    with pytest.raises(ConfigError, match=r"'quantization' is already registered with .*QuantizationConfig"):
        register_algorithm_config("quantization", HalfConfig)


def test_entry_point_is_imported_when_its_algorithm_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "third_party_half.py").write_text(
        "from typing import Literal\n"
        "from lightning_nncf.config import AlgorithmConfig, register_algorithm_config\n"
        "class ThirdConfig(AlgorithmConfig):\n"
        "    algorithm: Literal['third'] = 'third'\n"
        "register_algorithm_config('third', ThirdConfig)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    entries = EntryPoints(
        [
            EntryPoint("third", "third_party_half", registry_module.ENTRY_POINT_GROUP),
            EntryPoint("broken", "no_such_module_at_all", registry_module.ENTRY_POINT_GROUP),
        ]
    )
    monkeypatch.setattr(registry_module, "entry_points", lambda group: entries.select(group=group))
    assert {"broken", "quantization", "third"} <= set(algorithm_names())
    assert "third_party_half" not in sys.modules
    config = NNCFConfig.load({"compression": {"algorithm": "third"}})
    assert type(config.compression[0]).__name__ == "ThirdConfig"
    with pytest.raises(ConfigError, match=r"'broken'.*no_such_module_at_all"):
        NNCFConfig.load({"compression": {"algorithm": "broken"}})
