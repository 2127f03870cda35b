"""Hooked networks under DDP and FSDP2: every gradient equals that of one process."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.multiprocessing.spawn import spawn
from torch.utils import checkpoint as checkpointing

from tests.capture.networks import gradients, hooked_net

_WORLD = 2


class Checkpointed(nn.Module):
    """Recomputes one of the blocks in backward."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net
        block = net.blocks[1]
        call = block.forward
        block.forward = lambda x: checkpointing.checkpoint(call, x, use_reentrant=False)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        out: dict[str, torch.Tensor] = self.net(x)
        return out


def _batch() -> torch.Tensor:
    return torch.rand(2 * _WORLD, 3, 6, 6, generator=torch.Generator().manual_seed(2))


def _loss(out: dict[str, torch.Tensor]) -> torch.Tensor:
    return out["logits"].square().mean()


def _worker(rank: int, folder: str, kind: str) -> None:
    torch.set_num_threads(1)
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=_WORLD)
    try:
        net, _ = hooked_net()
        part = _batch()[2 * rank : 2 * rank + 2]
        if kind.startswith("fsdp"):
            from torch.distributed.device_mesh import init_device_mesh
            from torch.distributed.fsdp import fully_shard

            mesh = init_device_mesh("cpu", (_WORLD,))
            for block in net.blocks:
                fully_shard(block, mesh=mesh)
            fully_shard(net, mesh=mesh)
            wrapped: nn.Module = Checkpointed(net) if kind.endswith("checkpoint") else net
        else:
            wrapped = nn.parallel.DistributedDataParallel(Checkpointed(net) if kind.endswith("checkpoint") else net)
            if kind.endswith("compile"):
                wrapped = torch.compile(wrapped, backend="aot_eager")
        for _ in range(2):
            net.zero_grad()
            _loss(wrapped(part)).backward()
        found = {
            name: gradient.full_tensor() if hasattr(gradient, "full_tensor") else gradient
            for name, gradient in gradients(net).items()
        }
        if rank == 0:
            torch.save(found, Path(folder) / "gradients.pt")
        dist.barrier()  # a process that leaves while the other still talks to it may be aborted
    finally:
        dist.destroy_process_group()
    # Past the destructors: now and then one of gloo's threads still runs there, which aborts a process that is done.
    os._exit(0)


@pytest.mark.parametrize("kind", ["ddp", "ddp_checkpoint", "ddp_compile", "fsdp2", "fsdp2_checkpoint"])
def test_gradients_equal_those_of_one_process(kind: str) -> None:
    net, modules = hooked_net()
    _loss(net(_batch())).backward()
    expected = gradients(net)
    assert len(expected) == len(list(net.parameters()))
    assert len(expected) > len(modules)
    with tempfile.TemporaryDirectory() as folder:
        spawn(_worker, args=(folder, kind), nprocs=_WORLD)
        found = torch.load(Path(folder) / "gradients.pt", weights_only=True)
    assert set(found) == set(expected)
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-4, atol=1e-6, msg=name)
