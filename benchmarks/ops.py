"""What the operators cost on the CPU, against the speed of memory and against the other ways to do the same.

    python benchmarks/ops.py [--threads 1] [--rounds 15] [--compile] [--large] [--only 512x512] [--types bfloat16]
                             [--processes 5] [--label xeon]

For every operator, type, shape and layout: forward over a plain copy and backward over an addition of two tensors to a
third, both into memory that is there already; forward and backward together through autograd, and how many times
longer the eager formula, ``torch.fake_quantize_*`` (no gradient of the range), ``torch._fake_quantize_learnable_*`` and
with ``--compile`` the compiled formula take for it. Everything alternates in one process. What counts is the least
time, which other work on the machine disturbs least: processor time with one thread, wall time with more.

Every call is made twice, and caches are emptied between the two, so that all of them find their tensors in memory, as
in a training step, and in the same state. Shapes that fit into the caches are measured there: each call is the mean of
several in a row; how much of a forward its call alone is, with a result and the grids of all channels, is shown by one
of a single value of each channel. Rows go into ``ops_<threads>_<label>.json`` and ``.md`` of the results, where they
replace those of the same name, so that a table can be measured in parts; every machine has a label of its own. Where a
process has its memory moves results by a tenth: with ``--processes`` every number is the median of several.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.machine import labelled, machine, read_results, write_results
from lightning_nncf import ops
from lightning_nncf.ops import binarization, masking, normalized, rectified, reference

SHAPES: list[tuple[tuple[int, ...], tuple[int, ...]]] = [
    ((64, 64, 56, 56), (1, -1)),
    ((16, 512, 7, 7), (1, -1)),
    ((512, 512, 3, 3), (0,)),
    ((2, 96, 112, 112), (1,)),
]
LARGE = ((128, 96, 112, 112), (1,))
IN_CACHE = "16x512x7x7"
BARS = {"64x64x56x56": (1.15, 1.3), "512x512x3x3": (1.15, 1.3), IN_CACHE: (2.0, 3.0)}
"""What forward over copy and backward over addition may be at most, in float32 and bfloat16."""
SLOWER, LARGER = 0.95, 3.0
"""How many times longer any other way takes at least, and the eager ones on `FAR` shapes."""
FAR = ("64x64x56x56", "128x96x112x112")
ROW = ("type", "shape", "layout", "axis")
OTHER_ROW = ("operator", "shape")
Call = Callable[[], Any]


class EagerSymmetric(torch.autograd.Function):
    """The formula, operator by operator."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, *settings: int) -> Tensor:
        """Quantize."""
        ctx.save_for_backward(x, scale)
        ctx.settings = settings
        return reference.fake_quantize_symmetric(x, scale, *settings)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor | None, ...]:
        """Differentiate."""
        x, scale = ctx.saved_tensors
        return (*reference.fake_quantize_symmetric_backward(grads[0], x, scale, *ctx.settings), None, None, None)


class Clock:
    """Times calls in turn.

    Args:
        rounds: How many times each.
        threads: Threads that the calls use.
        repeats: Calls in a row, whose mean is one time; with one, caches are emptied before.
    """

    def __init__(self, rounds: int, threads: int, repeats: int) -> None:
        self.rounds = rounds
        self.repeats = repeats
        self.now = time.thread_time if threads == 1 else time.perf_counter
        self.room = torch.zeros(1 << 24)  # 64 MiB

    def least(self, calls: dict[str, Call]) -> dict[str, float]:
        """Return the least time of each call in milliseconds."""
        taken: dict[str, list[float]] = {name: [] for name in calls}
        for call in calls.values():
            call()
        for _ in range(self.rounds):
            for name, call in calls.items():
                call()
                if self.repeats == 1:
                    self.room.add_(1)
                start = self.now()
                for _ in range(self.repeats):
                    call()
                taken[name].append((self.now() - start) / self.repeats)
        return {name: 1e3 * min(values) for name, values in taken.items()}


def kernel(name: str) -> Callable[..., Any]:
    """Return the kernel of an operator, as the backward and the forward of autograd call it."""
    operator: Callable[..., Any] = getattr(torch.ops.lightning_nncf, name).default._op
    if name.endswith("_forward") or "rectified" in name or "normalized" in name:
        return operator  # autograd passes it by

    def call(*arguments: Any) -> Any:
        with torch._C._AutoDispatchBelowAutograd():
            return operator(*arguments)

    return call


def both_ways(function: Callable[..., Tensor], inputs: tuple[Tensor, ...], grad: Tensor) -> Call:
    """Return a call of a function and of its gradients."""
    leaves = tuple(each for each in inputs if each.requires_grad)
    return lambda: torch.autograd.grad(function(*inputs), leaves, grad)


def fake_quantize_row(x: Tensor, grad: Tensor, axis: int, clock: Clock, compiles: bool) -> dict[str, Any]:
    """Measure fake quantization of one tensor."""
    shape = [size if dim == axis else 1 for dim, size in enumerate(x.shape)] if axis >= 0 else [1]
    scale = torch.rand(shape) * 3 + 2
    low, width = -scale, 2 * scale
    room = torch.empty_like(x)
    symmetric, symmetric_backward, asymmetric, asymmetric_backward = (
        kernel(f"fake_quantize_{which}_{way}")
        for which in ("symmetric", "asymmetric")
        for way in ("forward", "backward")
    )
    calls: dict[str, Call] = {
        "copy": lambda: room.copy_(x),
        "add": lambda: torch.add(grad, x, out=room),
        "symmetric forward": lambda: symmetric(x, scale, -128, 127, axis),
        "symmetric backward": lambda: symmetric_backward(grad, x, scale, -128, 127, axis),
        "asymmetric forward": lambda: asymmetric(x, low, width, 256, axis),
        "asymmetric backward": lambda: asymmetric_backward(grad, x, low, width, 256, axis),
    }
    if clock.repeats > 1:
        few = x[:1, :, :1, :1].contiguous()
        calls["call"] = lambda: symmetric(few, scale, -128, 127, axis)
    leaf, scale_leaf = x.detach().requires_grad_(), scale.clone().requires_grad_()
    inputs = (leaf, scale_leaf)
    calls["both"] = both_ways(lambda a, b: ops.fake_quantize_symmetric(a, b, -128, 127, axis), inputs, grad)
    calls["eager"] = both_ways(lambda a, b: EagerSymmetric.apply(a, b, -128, 127, axis), inputs, grad)
    if x.dtype == torch.float32:
        step = (scale / 127).flatten()
        zero_point = torch.zeros(step.shape, dtype=torch.int32)
        steps, zero_points = step.clone().requires_grad_(), zero_point.float().requires_grad_()
        if axis >= 0:
            calls["torch"] = both_ways(
                lambda a: torch.fake_quantize_per_channel_affine(a, step, zero_point, axis, -128, 127), (leaf,), grad
            )
            calls["learnable"] = both_ways(
                lambda a, b, c: torch._fake_quantize_learnable_per_channel_affine(a, b, c, axis, -128, 127, 1.0),
                (leaf, steps, zero_points),
                grad,
            )
        else:
            calls["torch"] = both_ways(
                lambda a: torch.fake_quantize_per_tensor_affine(a, step, zero_point, -128, 127), (leaf,), grad
            )
            calls["learnable"] = both_ways(
                lambda a, b, c: torch._fake_quantize_learnable_per_tensor_affine(a, b, c, -128, 127, 1.0),
                (leaf, steps, zero_points),
                grad,
            )
    if compiles:
        torch.compiler.reset()
        compiled = torch.compile(lambda a, b: ops.fake_quantize_symmetric(a, b, -128, 127, axis), fullgraph=True)
        calls["compiled"] = both_ways(compiled, inputs, grad)
    ms = clock.least(calls)
    row = {
        "symmetric forward / copy": ms["symmetric forward"] / ms["copy"],
        "symmetric backward / add": ms["symmetric backward"] / ms["add"],
        "asymmetric forward / copy": ms["asymmetric forward"] / ms["copy"],
        "asymmetric backward / add": ms["asymmetric backward"] / ms["add"],
        "both ways ms": ms["both"],
    }
    if "call" in ms:
        row["call / copy"] = ms["call"] / ms["copy"]
    row |= {
        f"{other} x": ms[other] / ms["both"] for other in ("eager", "torch", "learnable", "compiled") if other in ms
    }
    return {name: round(value, 3 if name.endswith("ms") else 2) for name, value in row.items()}


def missed(row: dict[str, Any]) -> str:
    """Name the bars that a row of fake quantization does not hold."""
    found = []
    bars = (
        BARS.get(row["shape"]) if row["type"] != "float16" and (row["shape"] != IN_CACHE or row["axis"] >= 0) else None
    )
    for which in ("symmetric", "asymmetric"):
        if bars and row[f"{which} forward / copy"] > bars[0]:
            found.append(f"{which} forward")
        if bars and row[f"{which} backward / add"] > bars[1]:
            found.append(f"{which} backward")
    for other in ("eager", "torch", "learnable", "compiled"):
        least = LARGER if row["shape"] in FAR and other != "compiled" else SLOWER
        if row.get(f"{other} x", least) < least:
            found.append(other)
    return ", ".join(found) or "none"


def other_rows(x: Tensor, grad: Tensor, clock: Clock) -> dict[str, dict[str, Any]]:
    """Measure binarization, masking, and quantizers that do what lies before them, for one tensor.

    The backward of weight binarization costs nothing.
    """
    room = torch.empty_like(x)
    scale, threshold, seed = torch.tensor([1.0]), torch.full((1, x.shape[1], 1, 1), 0.5), torch.tensor([1])
    logits = torch.randn(x.shape)
    settings = (scale, threshold, 1)
    calls: dict[str, Call] = {
        "copy": lambda: room.copy_(x),
        "add": lambda: torch.add(grad, x, out=room),
        "xnor": lambda: kernel("binarize_weights")(x, True),
        "xnor eager": lambda: binarization.reference_weights(x, True),
        "dorefa": lambda: kernel("binarize_weights")(x, False),
        "dorefa eager": lambda: binarization.reference_weights(x, False),
        "activations": lambda: kernel("binarize_activations")(x, *settings),
        "activations eager": lambda: binarization.reference_activations(x, *settings),
        "activations back": lambda: kernel("binarize_activations_backward")(grad, x, *settings),
        "activations back eager": lambda: binarization.reference_activations_backward(grad, x, *settings),
        "mask": lambda: kernel("sample_and_mask")(x, logits, seed),
        "mask eager": lambda: masking.reference_masked(x, logits, seed),
        "mask back": lambda: kernel("sample_and_mask_backward")(grad, x, logits, seed),
        "mask back eager": lambda: masking.reference_masked_backward(grad, x, logits, seed),
    }
    calls |= {
        "with relu": lambda: kernel("fake_quantize_rectified")(x, scale, 255, math.inf),
        "with relu eager": lambda: reference.fake_quantize_symmetric(x.relu(), scale, 0, 255, -1),
        "with relu back": lambda: kernel("fake_quantize_rectified_backward")(grad, x, scale, 255, math.inf),
        "with relu back eager": lambda: rectified._backward(grad, x, scale, 255, math.inf),
    }
    weight, bias = torch.rand(x.shape[1]), torch.randn(x.shape[1])
    statistics = torch.zeros_like(bias), torch.ones_like(bias)
    relu = (0, 255, True, math.inf)
    before = (x, weight, bias, *statistics, torch.tensor(0), scale, 0.1, 1e-5, *relu)
    learned = kernel("fake_quantize_normalized")(*before)[1:]
    after = (grad, x, weight, bias, *learned, scale, *relu)

    def one_by_one() -> Tensor:
        y = nn.functional.batch_norm(x, *statistics, weight, bias, True, 0.1, 1e-5)
        return reference.fake_quantize_symmetric(y.relu(), scale, 0, 255, -1)

    calls |= {
        "with batch norm and relu": lambda: kernel("fake_quantize_normalized")(*before),
        "with batch norm and relu eager": one_by_one,
        "with batch norm and relu back": lambda: kernel("fake_quantize_normalized_backward")(*after),
        "with batch norm and relu back eager": lambda: normalized._backward(*after),
    }
    ms = clock.least(calls)
    rows = {}
    for name in ("xnor", "dorefa", "activations", "mask", "with relu", "with batch norm and relu"):
        row = {"forward / copy": ms[name] / ms["copy"], "eager forward x": ms[f"{name} eager"] / ms[name]}
        if f"{name} back" in ms:
            row["backward / add"] = ms[f"{name} back"] / ms["add"]
            row["eager backward x"] = ms[f"{name} back eager"] / ms[f"{name} back"]
        rows[name] = {key: round(value, 2) for key, value in row.items()}
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """Write rows as Markdown."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    lines = [" | ".join(columns), " | ".join("---" for _ in columns)]
    lines += [" | ".join(str(row.get(column, "-")) for column in columns) for row in rows]
    return "\n".join(f"| {line} |" for line in lines) + "\n"


def merged(old: list[dict[str, Any]], new: list[dict[str, Any]], names: tuple[str, ...]) -> list[dict[str, Any]]:
    """Put new rows into the places of old ones of the same name, which keep the columns that the new ones lack."""
    rows = {tuple(row[name] for name in names): row for row in old}
    for row in new:
        key = tuple(row[name] for name in names)
        rows[key] = rows.get(key, {}) | row
    return list(rows.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--only", default="", help="shapes whose name holds this")
    parser.add_argument("--types", nargs="+", default=["float32", "bfloat16", "float16"])
    parser.add_argument("--compile", action="store_true", help="also the compiled formula, which takes long to compile")
    parser.add_argument("--large", action="store_true", help="also NNCF's largest shape, which needs 8 GB")
    parser.add_argument("--label", help="of this machine, which results are named after")
    parser.add_argument("--dry", action="store_true", help="write no file")
    parser.add_argument("--processes", type=int, default=1, help="whose medians count")
    parser.add_argument("--print", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    description = ops.describe("cpu")
    if options.processes > 1:
        runs = [_output_of(*sys.argv[1:], "--processes", "1", "--print") for _ in range(options.processes)]
        rows, others = (medians([run[part] for run in runs]) for part in (0, 1))
    else:
        rows, others = measured(options)
    if options.print:
        sys.stdout.write(f"{json.dumps([rows, others])}\n")
    elif not options.dry:
        write(labelled(f"ops_{options.threads}", options.label), description, rows, others)


def _output_of(*arguments: str) -> Any:
    """Run this file in a process of its own."""
    output = subprocess.run(
        [sys.executable, __file__, *arguments], check=True, stdout=subprocess.PIPE, text=True
    ).stdout
    return json.loads(output.splitlines()[-1])


def medians(runs: list[list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Return the median of every number in the rows of several runs."""
    return [
        {
            key: value if isinstance(value, (str, int)) else round(statistics.median(row[key] for row in rows), 3)
            for key, value in rows[0].items()
        }
        for rows in zip(*runs, strict=True)
    ]


def measured(options: argparse.Namespace) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Measure in this process."""
    torch.manual_seed(0)
    rows: list[dict[str, Any]] = []
    others: list[dict[str, Any]] = []
    for shape, axes in [*SHAPES, *([LARGE] if options.large else [])]:
        name = "x".join(map(str, shape))
        if options.only not in name:
            continue
        clock = Clock(options.rounds, options.threads, 20 if name == IN_CACHE else 1)
        for dtype in (getattr(torch, each) for each in options.types):
            for layout in (torch.contiguous_format, torch.channels_last):
                x, grad = (torch.randn(shape).to(dtype).contiguous(memory_format=layout) for _ in range(2))
                what = {"type": str(dtype)[6:], "shape": name, "layout": str(layout)[6:].removesuffix("_format")}
                for axis in axes:
                    row = what | {"axis": axis} | fake_quantize_row(x, grad, axis, clock, options.compile)
                    rows.append(row | {"missed": missed(row)})
                    sys.stderr.write(f"{rows[-1]}\n")
                if dtype == torch.float32 and layout == torch.contiguous_format and (shape, axes) != LARGE:
                    for operator, values in other_rows(x, grad, clock).items():
                        others.append({"operator": operator, "shape": name} | values)
                        sys.stderr.write(f"{others[-1]}\n")
    return rows, others


def write(name: str, description: str, rows: list[dict[str, Any]], others: list[dict[str, Any]]) -> None:
    """Write rows among those that are there already."""
    old = read_results(name) or {}
    rows = merged(old.get("fake quantization", []), rows, ROW)
    rows = [row | {"missed": missed(row)} for row in rows]
    others = merged(old.get("others", []), others, OTHER_ROW)
    write_results(name, {"operators": description, "fake quantization": rows, "others": others})
    where = machine()
    heading = f"{where['processor']}, {where['threads']} thread(s), torch {where['versions']['torch']}; {description}"
    text = f"# Operators\n\n{heading}. How it is measured: `benchmarks/ops.py`.\n\n{table(rows)}\n{table(others)}"
    (Path(__file__).parent / "results" / f"{name}.md").write_text(text)


if __name__ == "__main__":
    main()
