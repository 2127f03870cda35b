"""Checking a model and writing it without ever leaving half a file."""

from __future__ import annotations

import os
import tempfile
import zlib
from pathlib import Path

import onnx

from lightning_nncf.errors import ExportError
from lightning_nncf.files import replacing

__all__ = [
    "check_model",
    "check_writable",
    "deflated_size",
    "lower_ir_version",
    "read_graph",
    "read_model",
    "write_model",
]

_LARGEST = 2**31 - 1
_LONGEST_NAME = 240


def check_writable(path: str | os.PathLike[str]) -> Path:
    """Make sure that a file can be written, before any work is done; parent directories are created.

    Args:
        path: Where the model goes.

    Returns:
        The path.

    Raises:
        ExportError: If it is a directory, or its directory cannot be written.
    """
    target = Path(path)
    if target.is_dir():
        raise ExportError(
            f"{str(target)!r} is a directory; give the path of a file, such as {str(target / 'model.onnx')!r}"
        )
    if len(os.fsencode(target.name)) > _LONGEST_NAME:
        raise ExportError(
            f"the name {target.name[:20] + '...'!r} takes {len(os.fsencode(target.name))} bytes; use at most "
            f"{_LONGEST_NAME}, which leaves room for the reports beside the file"
        )
    real = Path(os.path.realpath(target))
    if real.is_symlink():
        raise ExportError(f"{str(target)!r} is a link that leads to itself; remove it or give another path")
    try:
        real.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=real.parent):
            pass
    except OSError as error:
        raise ExportError(
            f"cannot write {str(target)!r}: {error.strerror or error}; give a path in a directory that can be written"
        ) from error
    return target


def check_model(model: onnx.ModelProto) -> None:
    """Run ONNX's full checker, shape inference included.

    Raises:
        ExportError: If the checker refuses the model.
    """
    if model.ByteSize() > _LARGEST:
        raise ExportError(f"the model takes {model.ByteSize() / 2**30:.1f} GiB; one ONNX file holds at most 2 GiB")
    try:
        onnx.checker.check_model(model, full_check=True)
    except Exception as error:
        raise ExportError(f"the exported model is not valid ONNX: {error}") from error


def lower_ir_version(model: onnx.ModelProto) -> None:
    """Declare the oldest file format that holds a model, in place, so that old runtimes read it.

    Exporters declare that of the newest opset. Opset 20 fits into version 9, which ONNX Runtime reads from 1.17 on; the
    4-bit integers of opset 21 need version 10 (1.18). Later opsets bring no type that we write.
    """
    opset = next(item.version for item in model.opset_import if item.domain in ("", "ai.onnx"))
    model.ir_version = min(model.ir_version, 9 if opset <= 20 else 10)


def write_model(model: onnx.ModelProto, path: Path) -> int:
    """Write a model to a temporary file beside its place, then move it there.

    Returns:
        Size of the file in bytes.

    Raises:
        ExportError: If the file cannot be written; what was there before stays.
    """
    try:
        with replacing(path) as temporary:
            temporary.write_bytes(model.SerializeToString())
    except OSError as error:
        raise ExportError(f"cannot write {str(path)!r}: {error.strerror or error}") from error
    return path.stat().st_size


def deflated_size(path: Path) -> int:
    """Return how many bytes a file takes once it is deflated, as in a zip archive.

    Zeros and integers of few values take the same place in a file as others, but not on the way to a device.
    """
    compressor, size = zlib.compressobj(level=1), 0
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            size += len(compressor.compress(chunk))
    return size + len(compressor.flush())


def read_model(path: str | os.PathLike[str]) -> onnx.ModelProto:
    """Read a model.

    Raises:
        ExportError: If there is no such file, or it holds no ONNX model.
    """
    return _load(path, weights=True)


def read_graph(path: str | os.PathLike[str]) -> onnx.ModelProto:
    """Read a model without the weights that lie in files of their own, as beyond 2 GB all do.

    Raises:
        ExportError: If there is no such file, or it holds no ONNX model.
    """
    return _load(path, weights=False)


def _load(path: str | os.PathLike[str], *, weights: bool) -> onnx.ModelProto:
    try:
        model: onnx.ModelProto = onnx.load(Path(path), load_external_data=weights)
    except onnx.checker.ValidationError as error:
        raise ExportError(f"a file that holds weights of {str(path)!r} cannot be read: {error}") from error
    except (OSError, ValueError) as error:
        raise ExportError(f"cannot read {str(path)!r} as an ONNX model: {error}") from error
    except Exception as error:
        if type(error).__name__ != "DecodeError":
            raise
        raise ExportError(f"{str(path)!r} is not an ONNX model: {error}") from error
    return model
