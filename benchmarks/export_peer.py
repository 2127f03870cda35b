"""ResNet-50 quantized by ONNX Runtime's own tool beside ours: what this processor's INT8 arithmetic allows at most.

Run ``python -m benchmarks.export_peer``; the result goes to ``benchmarks/results/export_peer.json``.
"""

from __future__ import annotations

import copy
import tempfile
from pathlib import Path
from typing import Any

import torch
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process
from torchvision.models import resnet50

from benchmarks.machine import write_results
from lightning_nncf import compress, export_onnx
from lightning_nncf.proof import OnnxRuntimeModel, OpenVINOModel
from lightning_nncf.proof.latency import interleaved_medians

THREADS = 2


class Samples(CalibrationDataReader):
    """A few random images."""

    def __init__(self, name: str, x: torch.Tensor) -> None:
        self.batches = iter([{name: x.numpy()}] * 2)

    def get_next(self) -> dict[str, Any] | None:
        return next(self.batches, None)


def main() -> None:
    torch.manual_seed(0)
    torch.set_num_threads(THREADS)
    x = torch.rand(1, 3, 224, 224)
    network = resnet50().eval()
    with tempfile.TemporaryDirectory() as folder:
        float_path, peer_path, our_path = (Path(folder) / f"{name}.onnx" for name in ("float", "peer", "ours"))
        export_onnx(copy.deepcopy(network), ((x,), {}), float_path)
        prepared = Path(folder) / "prepared.onnx"
        quant_pre_process(float_path, prepared)
        quantize_static(
            prepared,
            peer_path,
            Samples("input", x),
            quant_format=QuantFormat.QDQ,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            per_channel=True,
            reduce_range=True,
        )
        compress(network, {"compression": {"algorithm": "quantization"}}, [x])
        export_onnx(network, ((x,), {}), our_path)
        paths = {"float": float_path, "peer": peer_path, "ours": our_path}
        result: dict[str, Any] = {}
        for name, runtime in (("onnxruntime", OnnxRuntimeModel), ("openvino", OpenVINOModel)):
            models = {key: runtime(path, threads=THREADS) for key, path in paths.items()}
            times = interleaved_medians({key: model.runner([x]) for key, model in models.items()}, 30)
            result[name] = {
                "speedup_peer": round(times["float"] / times["peer"], 2),
                "speedup_ours": round(times["float"] / times["ours"], 2),
            }
    write_results("export_peer", result)


if __name__ == "__main__":
    main()
