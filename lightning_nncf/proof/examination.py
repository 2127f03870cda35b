"""One runtime and one file: what it makes of every call, layer and second, and the verdict on that."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import onnx
from numpy.typing import NDArray

from lightning_nncf.errors import ExportError
from lightning_nncf.proof.arrays import graph_inputs, to_arrays
from lightning_nncf.proof.compare import Difference, Tolerance
from lightning_nncf.proof.fallbacks import QuantizedLayer, float_layers
from lightning_nncf.proof.int8_layers import Int8Layers, RuntimeLayer
from lightning_nncf.proof.layer_check import LayerCheck, Watch, check_layers
from lightning_nncf.proof.process import RuntimeEndedError, RuntimeProcess
from lightning_nncf.proof.runtimes import runtime_version
from lightning_nncf.proof.sessions import SESSIONS
from lightning_nncf.proof.table import RuntimeResult, SizeResult
from lightning_nncf.proof.torch_side import Case, TorchSide

__all__ = ["Examination", "runtime_process", "warnings_of"]

_SLOWER = 1.05
"""Times of two files that are nearer than this are the same."""
_CALL = 2e-5
"""Seconds by which calls of the smallest networks differ for no reason of theirs."""
_CHAOS = 3.0
"""How much more than by float noise outputs may move that only amplify it."""
_NAMED = 5
_TELLING = re.compile(r"unsupported|not supported|not implemented|no conversion", re.IGNORECASE)
_WRAPPING = ("Exception from ", "Check ", "FrontEnd API", "Model wasn't", "While validating", "-- ", "Summary")


def runtime_process(runtime: str, timeout: float) -> RuntimeProcess:
    """Start a runtime in a process of its own."""
    return RuntimeProcess(runtime, runtime_version(runtime), SESSIONS[runtime], timeout=timeout)


@dataclass(frozen=True, kw_only=True)
class Examination:
    """The question put to every runtime.

    Args:
        path: The file.
        model: The same, read.
        side: What PyTorch says.
        quantized: Layers that are to run on integers.
        watch: Copy of the file that shows its layers, if it has quantized activations.
        reference: Export of the float network, if there is one.
        tolerance: What differences are tolerated.
        latency_runs: Timed calls, 0 for none.
        threads: Threads of the runtime.
        timeout: Seconds that a runtime may take for one request.
    """

    path: Path
    model: onnx.ModelProto
    side: TorchSide
    quantized: Sequence[QuantizedLayer]
    watch: Watch | None
    reference: Path | None
    tolerance: Tolerance
    latency_runs: int
    threads: int | None
    timeout: float

    def run(self, runtime: str) -> RuntimeResult:
        """Examine the file in a runtime."""
        plain = RuntimeResult(runtime=runtime, version=runtime_version(runtime))
        try:
            with runtime_process(runtime, self.timeout) as process:
                return self._examine(process, plain)
        except ExportError as error:
            if self._float_fails(runtime):
                reason = str(error).partition(": ")[2] or str(error)
                return replace(plain, skipped=f"cannot run the float file either: {first_line(reason)}")
            return replace(plain, error=str(error), passed=False)

    def _float_fails(self, runtime: str) -> bool:
        """Whether the runtime cannot even load and run the float file."""
        if self.reference is None:
            return False
        try:
            with runtime_process(runtime, self.timeout) as process:
                process.load("reference", self.reference, threads=self.threads)
                process.run("reference", self._arrays(self.side.cases[0]))
        except ExportError:
            return True
        return False

    def _examine(self, process: RuntimeProcess, result: RuntimeResult) -> RuntimeResult:
        example, *others = self.side.cases
        process.load("file", self.path, threads=self.threads, inspect=True)
        difference = self.side.compare(process.run("file", self._arrays(example)), example)
        sizes = [self._at_size(process, case) for case in others]
        layers = process.layers("file")
        seconds = self._seconds(process, example)
        result = replace(
            result,
            difference=difference,
            layers=Int8Layers.of(layers),
            latency=seconds.get("file"),
            reference_latency=seconds.get("reference"),
            warnings=warnings_of(self.quantized, layers, result.runtime, seconds),
        )
        try:
            return self._judge(process, result, sizes)
        except RuntimeEndedError as error:
            # Only the copy that shows its layers did that; the file itself has run, and its outputs are known.
            agreed = difference.within(self.tolerance) and all(size.passed for size in sizes)
            note = f"its layers could not be compared one by one: {error}"
            return replace(result, sizes=tuple(sizes), notes=(*result.notes, note), passed=agreed)

    def _at_size(self, process: RuntimeProcess, case: Case) -> SizeResult:
        try:
            outputs = process.run("file", self._arrays(case))
        except RuntimeEndedError:
            raise
        except ExportError as error:
            return SizeResult(label=case.label, error=str(error), passed=False)
        difference = self.side.compare(outputs, case)
        return SizeResult(label=case.label, difference=difference, passed=difference.within(self.tolerance))

    def _judge(self, process: RuntimeProcess, result: RuntimeResult, sizes: Sequence[SizeResult]) -> RuntimeResult:
        """Compare layer by layer, always on a few samples, and where outputs differ at a size at that size."""
        assert result.difference is not None
        assert result.layers is not None
        check = self._check(process, self.side.small, result.layers)
        notes = list(result.notes)
        agrees, excused = result.difference.within(self.tolerance), False
        if not agrees:
            excused = self._excuses(check, self.side.cases[0], result.difference.relative_rms, notes)
        judged, by_layer = [], excused
        for size, case in zip(sizes, self.side.cases[1:], strict=True):
            if not size.passed and size.difference is not None:
                at_size = self._check(process, case, result.layers)
                passed = self._excuses(at_size, case, size.difference.relative_rms, notes)
                by_layer = by_layer or passed
                check = check if passed or at_size is None else at_size
                judged.append(replace(size, passed=passed))
            else:
                judged.append(size)
        if check is not None and check.amplifies(self.tolerance):
            notes.append(
                f"on the same integers the outputs differ by {check.output:.2g}, and in torch by {check.disturbed:.2g} "
                "from themselves when values change in the last bits: equal scores in any order, as untrained networks "
                "give them"
            )
        broken = check is not None and check.broken(self.tolerance)
        if broken and check is not None and not check.same_layers and agrees:
            notes.append(f"not sure, since the runtime used other kernels while it was watched: {check}")
            broken = False
        result = replace(
            result,
            sizes=tuple(judged),
            layer_check=check,
            by_layer=by_layer,
            notes=tuple(dict.fromkeys(notes)),
            passed=(agrees or excused) and not broken and all(size.passed for size in judged),
        )
        return result if result.passed else replace(result, float_difference=self._float_difference(process))

    def _check(self, process: RuntimeProcess, case: Case, expected: Int8Layers) -> LayerCheck | None:
        """Compare the layers in one call; none if the runtime cannot show them."""
        if self.watch is None:
            return None
        try:
            if not process.has("watched"):
                process.load("watched", self.watch.path, threads=self.threads, inspect=True)
            values = process.run("watched", self._arrays(case))
            same = Int8Layers.of(process.layers("watched")) == expected
        except RuntimeEndedError:
            raise
        except ExportError:
            # A runtime that cannot show its layers must not hide that the outputs differ.
            return None
        return check_layers(
            self.watch,
            values,
            self.side.exported,
            case.tensors,
            self.tolerance,
            same_layers=same,
            detections=self.side.detections,
        )

    def _excuses(self, check: LayerCheck | None, case: Case, difference: float, notes: list[str]) -> bool:
        """Whether outputs beyond the tolerance are no fault of the file: the network itself amplifies single steps."""
        if check is None or check.broken(self.tolerance):
            return False
        moved = self.side.sensitivity(case).relative_rms
        chaotic = difference <= _CHAOS * moved
        if chaotic:
            notes.append(
                f"the outputs differ by {difference:.2g}, but the network moves them by {moved:.2g} itself when its "
                "values change as by another order of additions: untrained networks do, a trained one should not"
            )
        elif check.passed:
            notes.append(
                f"the outputs differ by {difference:.2g} though all layers agree: single steps of rounding add up on "
                "the way; a float-level disturbance in torch moves the outputs by "
                f"{moved:.2g}"
            )
        return chaotic or check.passed

    def _float_difference(self, process: RuntimeProcess) -> Difference | None:
        if self.reference is None:
            return None
        try:
            process.load("reference", self.reference, threads=self.threads)
            return self.side.plain_difference(process.run("reference", self._arrays(self.side.small)))
        except ExportError:
            return None

    def _seconds(self, process: RuntimeProcess, case: Case) -> Mapping[str, float]:
        if self.latency_runs <= 0:
            return {}
        models = ["file"]
        if self.reference is not None:
            try:
                process.load("reference", self.reference, threads=self.threads)
                models.append("reference")
            except RuntimeEndedError:
                raise
            except ExportError:
                # A float file that this runtime cannot load is no reason to refuse one that it can.
                pass
        return process.time(models, self._arrays(case), self.latency_runs)

    def _arrays(self, case: Case) -> list[NDArray[Any]]:
        return to_arrays(case.tensors, graph_inputs(self.model))


def warnings_of(
    quantized: Sequence[QuantizedLayer], layers: Sequence[RuntimeLayer], runtime: str, seconds: Mapping[str, float]
) -> tuple[str, ...]:
    """Say which quantized layers run in float, and whether the file is slower than the float file.

    Args:
        quantized: Layers that are to run on integers.
        layers: What the runtime made of the file.
        runtime: Package of the runtime.
        seconds: Times of ``file`` and ``reference``, as far as they were taken.
    """
    found = []
    fallen = float_layers(quantized, layers, runtime)
    if fallen:
        named = ", ".join(f"{name!r} ({reason})" for name, reason in fallen[:_NAMED])
        more = f" and {len(fallen) - _NAMED} more" if len(fallen) > _NAMED else ""
        found.append(f"{len(fallen)} of {len(quantized)} quantized layers run in float: {named}{more}")
    file, reference = seconds.get("file"), seconds.get("reference")
    if file is not None and reference is not None and file > _SLOWER * reference and file > reference + _CALL:
        why = (
            "layers that run in float pay for the quantizers around them"
            if fallen
            else "all quantized layers run on integers, but the network is too small to gain, or does little in them"
        )
        found.append(f"the file takes {1e3 * file:.3g} ms, the float file {1e3 * reference:.3g} ms: {why}")
    return tuple(found)


def first_line(text: str) -> str:
    r"""Return the line of a runtime's message that says most, shortened.

    >>> first_line("Exception from core.cpp:132:\nWhile validating node:\nUnsupported padding mode: [wrap]")
    'Unsupported padding mode: [wrap]'
    """
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    telling = [line for line in lines if _TELLING.search(line)]
    own = [line for line in lines if not line.startswith(_WRAPPING)]
    line = [*telling, *own, *lines, "no reason given"][0]
    return line if len(line) <= 200 else f"{line[:200]}..."
