"""C++ and CUDA kernels for the operators ``torch.ops.lightning_nncf.*``, built with ninja on first use.

The package knows PyTorch only. Whoever defines the operators calls `load` before the first call on a device; whatever
goes wrong, the operators keep the implementation they were defined with.
"""

from __future__ import annotations

from cuda_ops.building import DEVICES, BuildError, build, library_path
from cuda_ops.loading import backend, describe, load

__all__ = ["DEVICES", "BuildError", "backend", "build", "describe", "library_path", "load"]
