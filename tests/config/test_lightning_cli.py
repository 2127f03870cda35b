"""LightningCLI takes the configuration as a path and inline."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from pytorch_lightning.cli import LightningCLI

from lightning_nncf import NNCFCallback
from lightning_nncf.algorithms.quantization.config import QuantizationConfig
from lightning_nncf.config import NNCFConfig

pytestmark = pytest.mark.filterwarnings("ignore:LightningCLI's args parameter")
QUICKSTART = Path(__file__).parents[2] / "configs" / "quickstart.yaml"


def _callback(config: Any, folder: Path) -> NNCFCallback:
    path = folder / "fit.yaml"
    settings = {
        "model": {"class_path": "example_modules.classification.ImageClassifier"},
        "data": {"class_path": "example_modules.digits.DigitsDataModule"},
        "trainer": {
            "accelerator": "cpu",
            "logger": False,
            "callbacks": [{"class_path": "lightning_nncf.NNCFCallback", "init_args": {"config": config}}],
        },
    }
    path.write_text(yaml.safe_dump(settings))
    cli = LightningCLI(run=False, args=["--config", str(path)], save_config_callback=None)
    (callback,) = (each for each in cli.trainer.callbacks if isinstance(each, NNCFCallback))
    return callback


@pytest.mark.parametrize(
    "compression",
    [{"algorithm": "quantization", "preset": "mixed"}, [{"algorithm": "quantization", "preset": "mixed"}]],
    ids=["object", "list"],
)
def test_path_and_inline_give_the_same(compression: Any, tmp_path: Path) -> None:
    values = {"compression": compression, "epochs": 3, "compression_lr_multiplier": 1e-5}
    path = tmp_path / "nncf.json"
    path.write_text(f"// a comment\n{json.dumps(values)}")
    expected = NNCFConfig.load(values)
    assert _callback(values, tmp_path).config == expected
    assert _callback(str(path), tmp_path).config == expected


def test_error_inside_names_the_key(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises((SystemExit, ValueError)) as caught:
        _callback({"compression": {"algorithm": "quantization", "preset": "mix"}}, tmp_path)
    assert (
        "`compression.preset` must be 'performance' or 'mixed', got 'mix'"
        in str(caught.value) + capsys.readouterr().err
    )


def test_section_of_the_quickstart_loads() -> None:
    settings = yaml.safe_load(QUICKSTART.read_text())
    config = NNCFConfig.load(settings["trainer"]["callbacks"][0]["init_args"]["config"])
    section = config.section(QuantizationConfig)
    assert section is not None
    assert section.initializer.range[0].num_init_samples == 512
    assert config.unused_keys == ()
