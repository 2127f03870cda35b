from __future__ import annotations

import platform
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from lightning_nncf import NNCFCallback, heap

GLIBC = platform.libc_ver()[0] == "glibc"

STAYING = """
import resource, sys
from pathlib import Path
import torch
from lightning_nncf import heap

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()

def step():
    blocks = [torch.ones(1 << 20) for _ in range(64)]  # 256 MiB in blocks of 4 MiB
    held = resident()
    while blocks:
        blocks.pop()
    return held

print(heap.keep() if sys.argv[1] == "keep" else None)
for _ in range(3):
    held = step()
print(held - resident())
"""


def given_back(argument: str, **environment: str) -> tuple[str, int]:
    """What `keep` answered, and the bytes that a step gave back to the system when it freed 256 MiB."""
    done = subprocess.run(
        [sys.executable, "-c", STAYING, argument],
        check=True,
        capture_output=True,
        text=True,
        cwd=Path(__file__).parent.parent,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": ".", **environment},
    )
    answer, count = done.stdout.split()
    return answer, int(count)


@pytest.mark.skipif(not GLIBC, reason="another C library")
def test_what_a_step_frees_stays_in_the_process() -> None:
    answer, count = given_back("keep")
    assert answer == "True"
    assert count < 32 << 20
    # Whether the library gives memory back by itself depends on what lies behind it; mapped blocks it always does.
    assert given_back("plain", MALLOC_MMAP_THRESHOLD_="1000000")[1] > 128 << 20


@pytest.mark.skipif(not GLIBC, reason="another C library")
def test_what_the_environment_says_stays() -> None:
    assert given_back("keep", MALLOC_TRIM_THRESHOLD_="1000000")[0] == "False"


def test_release_gives_memory_back() -> None:
    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()

    with heap.kept() as done:
        if not done:
            pytest.skip("another C library, or settings of its own in the environment")
        blocks = [torch.ones(1 << 20) for _ in range(64)]
        held = resident()
        del blocks
    assert resident() < held - (128 << 20)


class Module(pl.LightningModule):
    def __init__(self, *, fails: bool) -> None:
        super().__init__()
        self.network, self.fails = nn.Sequential(nn.Linear(4, 4), nn.ReLU()), fails

    def training_step(self, batch: Tensor, index: int) -> Tensor:
        if self.fails and index:
            raise ArithmeticError
        loss: Tensor = self.network(batch).sum()
        return loss

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=1e-3)


@pytest.mark.parametrize("fails", [False, True])
def test_the_callback_keeps_memory_while_it_trains_and_no_longer(
    fails: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    monkeypatch.setattr(heap, "keep", lambda: calls.append("keep"))
    monkeypatch.setattr(heap, "release", lambda: calls.append("release"))
    trainer = pl.Trainer(
        max_epochs=1,
        accelerator="cpu",
        default_root_dir=tmp_path,
        logger=False,
        enable_checkpointing=False,
        callbacks=NNCFCallback({"compression": {"algorithm": "quantization"}}, export_path=None),
    )
    loader = torch.utils.data.DataLoader(torch.rand(8, 4), batch_size=2)
    if fails:
        with pytest.raises(ArithmeticError):
            trainer.fit(Module(fails=True), loader)
    else:
        trainer.fit(Module(fails=False), loader)
    assert calls == ["keep", "release"]
