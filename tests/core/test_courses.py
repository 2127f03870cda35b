from __future__ import annotations

from pathlib import Path

import pytest

from lightning_nncf.cli import main
from lightning_nncf.config import NNCFConfig
from lightning_nncf.core.courses import courses


def test_every_schedule_can_be_drawn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "config.json"
    file.write_text(
        '{"compression": {"algorithm": "magnitude_sparsity", "params": {"schedule": "multistep", '
        '"multistep_steps": [1], "multistep_sparsity_levels": [0.25, 0.5], "sparsity_freeze_epoch": 2}}}'
    )
    main(["schedule", str(file), "--epochs", "3"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "magnitude_sparsity"
    assert [line.split()[:2] for line in lines[2:]] == [["0", "0.2500"], ["1", "0.5000"], ["2", "0.5000"]]
    assert lines[4].endswith("frozen")


def test_adaptive_schedules_are_drawn_as_if_the_network_followed() -> None:
    params = {"schedule": "adaptive", "sparsity_target": 0.12}
    config = NNCFConfig.load({"compression": {"algorithm": "rb_sparsity", "params": params}})
    assert courses(config, 4)[0].levels == pytest.approx((0.05, 0.1, 0.12, 0.12))


def test_algorithms_without_levels_have_no_course() -> None:
    assert courses(NNCFConfig.load({"compression": {"algorithm": "const_sparsity"}}), 2) == []
