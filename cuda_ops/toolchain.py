"""What a build needs: sources, flags, the environment of the compiler."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from pathlib import Path

import torch

__all__ = ["compiler_flags", "cuda_architectures", "cuda_home", "environment", "headers", "nvcc_flags", "sources"]

_DEFAULT_ARCHITECTURES = "8.0;9.0+PTX"
_VECTOR_FLAGS = {
    "AVX2": ("-mavx2", "-mbmi2", "-mfma", "-mf16c"),
    "AVX512": ("-mavx2", "-mbmi2", "-mfma", "-mf16c", "-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq"),
}
_MORE_OF_AVX512 = ("avx512_bf16", "avx512_vbmi")


def headers(folder: Path, device: str) -> list[Path]:
    """Return the files that the source files of a device may include.

    Args:
        folder: Where sources lie.
        device: ``"cpu"`` or ``"cuda"``.
    """
    kinds = (".h", ".cuh") if device == "cuda" else (".h",)
    return sorted(file for file in folder.iterdir() if file.suffix in kinds)


def sources(folder: Path, device: str) -> list[Path]:
    """Return the source files of the library of a device.

    Args:
        folder: Where sources lie.
        device: ``"cpu"`` or ``"cuda"``.
    """
    return sorted(folder.glob("*_cpu.cpp" if device == "cpu" else "*_cuda.cu"))


def target_version() -> str:
    """Return the oldest version of the stable ABI that the kernels may use here.

    Reusing memory needs tensors over memory with a deleter, which came with PyTorch 2.11.
    """
    major, minor = (int(part) for part in torch.__version__.split(".")[:2])
    return "0x020b000000000000" if (major, minor) >= (2, 11) else "0x020a000000000000"


def compiler_flags(device: str) -> tuple[str, ...]:
    """Return the C++ compiler's flags; for the CPU they include the vector instructions of this machine.

    Args:
        device: ``"cpu"`` or ``"cuda"``.
    """
    common = ("-O3", "-std=c++17", f"-DTORCH_TARGET_VERSION={target_version()}")
    if device == "cuda":
        return common
    # Results must not depend on which products a compiler fuses; nothing here looks at floating-point exceptions.
    strict = ("-fopenmp-simd", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math")
    on_x86 = platform.machine() in ("x86_64", "AMD64")
    capability = torch.backends.cpu.get_cpu_capability()
    vector = _VECTOR_FLAGS.get(capability, ()) if on_x86 else ()
    if capability == "AVX512" and on_x86:
        found = torch.cpu.get_capabilities()
        vector = (*vector, *(f"-m{name.replace('_', '')}" for name in _MORE_OF_AVX512 if found.get(name, False)))
    return (*common, *strict, *vector)


def nvcc_flags() -> tuple[str, ...]:
    """Return nvcc's flags: products as they stand, and both architectures compiled at a time."""
    return (
        "-O3",
        "-std=c++17",
        "-DUSE_CUDA",
        f"-DTORCH_TARGET_VERSION={target_version()}",
        "--fmad=false",
        "--expt-relaxed-constexpr",
        "--threads=2",
    )


def cuda_architectures() -> str:
    """Return the GPU architectures to build for, as ``TORCH_CUDA_ARCH_LIST`` writes them."""
    chosen = os.environ.get("TORCH_CUDA_ARCH_LIST")
    if chosen:
        return chosen
    if torch.cuda.is_available():
        major, minor = torch.cuda.get_device_capability()
        if major < 8:
            return f"{major}.{minor};{_DEFAULT_ARCHITECTURES}"
    return _DEFAULT_ARCHITECTURES


def cuda_home() -> Path | None:
    """Return the folder whose ``bin`` holds nvcc and whose ``include`` holds the headers, or None."""
    found = shutil.which("nvcc")
    candidates = [os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH")]
    candidates += [str(Path(found).resolve().parent.parent)] if found else []
    candidates += ["/usr/local/cuda"]
    for candidate in candidates:
        if candidate:
            folder = Path(candidate).resolve()
            if (folder / "bin" / "nvcc").exists() and (folder / "include" / "cuda_runtime.h").exists():
                return folder
    return None


def environment(device: str) -> dict[str, str]:
    """Return the environment in which to build.

    Args:
        device: ``"cpu"`` or ``"cuda"``.
    """
    variables = dict(os.environ)
    # A virtual environment that is used without being activated has its ninja beside its interpreter.
    variables["PATH"] = os.pathsep.join([variables.get("PATH", ""), str(Path(sys.executable).parent)])
    variables.setdefault("MAX_JOBS", str(min(8, os.cpu_count() or 1)))
    variables.pop("LIGHTNING_NNCF_OPS", None)
    if device == "cuda":
        variables["TORCH_CUDA_ARCH_LIST"] = cuda_architectures()
        home = cuda_home()
        if home is not None:
            variables["CUDA_HOME"] = str(home)
    return variables
