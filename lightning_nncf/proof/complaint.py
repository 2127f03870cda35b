"""What a user reads when a file is not proven: what disagrees, where, why, and what to do."""

from __future__ import annotations

from lightning_nncf.proof.processor import saturates
from lightning_nncf.proof.table import RuntimeResult, VerificationReport

__all__ = ["complaint"]


def complaint(report: VerificationReport) -> str:
    """Write the message of a proof that failed."""
    failed = [result for result in report.results if not result.passed]
    if not failed:
        skipped = "; ".join(f"{result.runtime} {result.version} {result.skipped}" for result in report.results)
        return f"no runtime could run {report.path!r}: {skipped}"
    lines = [line for result in failed for line in _lines(result, report)]
    advice = list(dict.fromkeys(line for result in failed for line in _advice(result)))
    return "\n".join([*lines, *advice])


def _lines(result: RuntimeResult, report: VerificationReport) -> list[str]:
    name = f"{result.runtime} {result.version}"
    if result.error is not None:
        return [result.error]
    found = result.difference
    assert found is not None
    lines = []
    if not found.within(report.tolerance):
        agreement = "" if found.agreement is None else f", top-1 agreement {found.agreement:.3f}"
        lines.append(
            f"{name} disagrees with torch on {report.path!r}: relative RMS {found.relative_rms:.3g} (at most "
            f"{report.tolerance.relative_rms:g}){agreement} (at least {report.tolerance.agreement:g}), largest "
            f"difference {found.max_abs:.3g}"
        )
    lines += [f"{name} disagrees with torch on {report.path!r} at {size}" for size in result.sizes if not size.passed]
    if result.layer_check is not None:
        lines.append(f"{name}: {result.layer_check}")
    if (plain := result.float_difference) is not None:
        lines.append(
            f"{name}: the float file agrees with the network without compression (relative RMS "
            f"{plain.relative_rms:.2g}), so the quantized layers are at fault"
            if result.float_agrees
            else f"{name}: the float file disagrees too (relative RMS {plain.relative_rms:.3g}), so this runtime "
            "computes the network wrongly whatever its precision"
        )
    return lines


def _advice(result: RuntimeResult) -> list[str]:
    if result.error is not None:
        return [f"To prove and use the file in another runtime alone, leave {result.runtime} out of `verify`."]
    check = result.layer_check
    if check is not None and check.first is not None and saturates() and result.float_agrees:
        return [
            "Full-range 8-bit weights saturate on this processor, which has no VNNI or may not use it: set "
            "overflow_fix to 'enable'."
        ]
    if check is not None and check.first is not None:
        return [
            "Leave the named layer out with `ignored_scopes`, or its runtime out of `verify` if the file is for "
            "another one; `tolerance` takes a Tolerance with larger `layer_steps` where that error is acceptable."
        ]
    return [
        "Where the difference is acceptable for the task, pass a larger `tolerance`; where the file is for another "
        f"runtime, leave {result.runtime} out of `verify`."
    ]
