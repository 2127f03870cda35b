"""Captures the graph of a network by running it once in each mode."""

from __future__ import annotations

import contextlib
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.module import register_module_forward_pre_hook
from torch.nn.parameter import is_lazy

from lightning_nncf.capture.preserve import MetricStates, preserved
from lightning_nncf.capture.recorder import Recorder
from lightning_nncf.errors import CaptureError
from lightning_nncf.graph.graph import NetworkGraph

__all__ = ["trace"]


def trace(network: nn.Module, run: Callable[[], object], *, modes: Sequence[str] = ("train", "eval")) -> NetworkGraph:
    """Run a network and return the graph of the operations it called on tensors.

    The graph is the union over the modes and over all calls of the network within a run. Training flags,
    buffers, metrics, parameters that the network writes and torch's random number generators are as before afterwards;
    no gradients are computed.

    Args:
        network: Network to capture, on any device.
        run: Does whatever ends up calling the network, as in ``lambda: network(x)`` or a training step. When it never
            calls the network itself (a LightningModule whose step uses its children), everything it does is recorded.
        modes: Which of ``train`` and ``eval`` to run, in this order.

    Returns:
        The graph.

    Raises:
        CaptureError: The network fails in every mode, is wrapped in ``nn.DataParallel``, or has parameters of unknown
            size.

    >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU())
    >>> graph = trace(net, lambda: net(torch.zeros(1, 3, 8, 8)))
    >>> [op.address for op in graph.ops()]
    ['/input:0', '0/conv2d:0', '1/relu:0', '/output:0']
    >>> graph["0/conv2d:0"].parameters
    {1: '0.weight', 2: '0.bias'}
    """
    for path, module in network.named_modules():
        if isinstance(module, nn.DataParallel):
            raise CaptureError(
                f"module {path!r} is wrapped in nn.DataParallel, whose replicas cannot carry compression; "
                "use DistributedDataParallel (Trainer(strategy='ddp')) and pass the bare network"
            )
    lazy = [name for name, tensor in _tensors(network) if is_lazy(tensor)]
    if lazy:
        raise CaptureError(
            f"the size of {len(lazy)} parameters and buffers is unknown until the network runs for the first time, as "
            f"that of {lazy[0]!r}: run one batch through it before it is compressed, in the LightningModule's "
            "`__init__`, `setup` or `configure_model`, or give its layers their sizes (`nn.Linear` for `nn.LazyLinear`)"
        )
    graph = NetworkGraph()
    recorder = Recorder(network, graph)
    _run_modes(network, run, modes, recorder)
    if not recorder.root_calls:
        graph = NetworkGraph()
        recorder = Recorder(network, graph, virtual_root=True)
        _run_modes(network, run, modes, recorder)
    recorder.finish()
    unreached = graph.unreached_parameters(network)
    if unreached:
        warnings.warn(
            f"{len(unreached)} parameter(s) were reached by no traced operation and will not be compressed: "
            + ", ".join(unreached[:20])
            + (", ..." if len(unreached) > 20 else ""),
            stacklevel=2,
        )
    return graph


def _tensors(network: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    yield from network.named_parameters()
    yield from network.named_buffers()


def _run_modes(network: nn.Module, run: Callable[[], object], modes: Sequence[str], recorder: Recorder) -> None:
    failures: dict[str, Exception] = {}
    with preserved(network) as metrics, _hooked(network, recorder, metrics):
        for mode in modes:
            network.train(mode == "train")
            try:
                _run_once(run, recorder, mode)
            except ValueError as error:
                # A batch of one image is too small for norms to train on, not for a trace.
                norms = [module for module in network.modules() if isinstance(module, _NormBase) and module.training]
                for module in norms:
                    module.eval()
                try:
                    if not norms:
                        raise
                    _run_once(run, recorder, mode)
                except Exception:
                    failures[mode] = error
            except Exception as error:
                failures[mode] = error
    if len(failures) == len(modes):
        mode, failure = next(iter(failures.items()))
        raise CaptureError(
            f"the network failed while being captured in {mode} mode: {type(failure).__name__}: {failure}"
        ) from failure
    for mode, failure in failures.items():
        warnings.warn(
            f"the network failed in {mode} mode and was captured without it: {type(failure).__name__}: {failure}",
            stacklevel=3,
        )


def _run_once(run: Callable[[], object], recorder: Recorder, mode: str) -> None:
    recorder.start(mode)
    try:
        with torch.no_grad(), _eager(), recorder:
            run()
    finally:
        recorder.writes.undo()


def _eager() -> contextlib.AbstractContextManager[object]:
    """Run compiled parts uncompiled, which would hide their operations."""
    # Nothing is compiled before the compiler, slow to import, is imported.
    if "torch._dynamo" not in sys.modules:
        return contextlib.nullcontext()
    stance: contextlib.AbstractContextManager[object] = torch.compiler.set_stance("force_eager")
    return stance


@contextlib.contextmanager
def _hooked(network: nn.Module, recorder: Recorder, metrics: MetricStates) -> Iterator[None]:
    def note(module: nn.Module, args: object) -> None:
        metrics.note(module)

    handles = [register_module_forward_pre_hook(note)]
    try:
        for module in network.modules():
            if not isinstance(module, torch.jit.ScriptModule):
                handles.append(module.register_forward_pre_hook(recorder.enter, prepend=True, with_kwargs=True))
                handles.append(module.register_forward_pre_hook(recorder.begin))
                handles.append(module.register_forward_hook(recorder.end, prepend=True))
                handles.append(module.register_forward_hook(recorder.leave, with_kwargs=True, always_call=True))
        yield
    finally:
        for handle in handles:
            handle.remove()
