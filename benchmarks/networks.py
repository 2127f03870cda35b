"""Quantize, export and run many architectures, untrained: how much of each really runs in integers.

Run ``python -m benchmarks.networks [NAME ...]``; the result goes to ``benchmarks/results/networks.json``.
"""

from __future__ import annotations

import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import Tensor, nn

from benchmarks.machine import read_results, write_results
from lightning_nncf import compress, export_onnx
from lightning_nncf.errors import ExportError
from lightning_nncf.proof import OnnxRuntimeModel, OpenVINOModel
from lightning_nncf.proof.int8_layers import count_int8_layers

CONFIG = {
    "compression": {
        "algorithm": "quantization",
        "initializer": {"range": {"num_init_samples": 2}, "batchnorm_adaptation": {"num_bn_adaptation_samples": 0}},
    }
}
Case = Callable[[], tuple[nn.Module, Any]]


def classifier(name: str, size: int = 64) -> Case:
    def make() -> tuple[nn.Module, Any]:
        return torchvision.models.get_model(name, weights=None), torch.rand(2, 3, size, size)

    return make


def detector(name: str) -> Case:
    def make() -> tuple[nn.Module, Any]:
        network = torchvision.models.get_model(name, weights=None, weights_backbone=None, num_classes=5)
        return network, ([torch.rand(3, 320, 320)],)

    return make


def transformer(kind: str) -> Case:
    def make() -> tuple[nn.Module, Any]:
        import transformers

        size = {"vocab_size": 100, "use_cache": False}
        tokens = torch.randint(0, 100, (2, 16))
        if kind == "gpt2":
            config = transformers.GPT2Config(n_layer=2, n_head=4, n_embd=64, n_positions=64, **size)
            return transformers.GPT2LMHeadModel(config), {"input_ids": tokens}
        config = transformers.BertConfig(
            hidden_size=64, num_hidden_layers=2, num_attention_heads=4, intermediate_size=128, **size
        )
        return transformers.BertForSequenceClassification(config), {"input_ids": tokens}

    return make


CASES: dict[str, Case] = {
    **{name: classifier(name) for name in ("resnet18", "resnet50", "mobilenet_v2", "squeezenet1_1", "densenet121")},
    **{name: classifier(name) for name in ("mobilenet_v3_small", "shufflenet_v2_x0_5", "efficientnet_b0")},
    "googlenet": classifier("googlenet"),
    "inception_v3": classifier("inception_v3", 299),
    "convnext_tiny": classifier("convnext_tiny"),
    "vit_b_16": classifier("vit_b_16", 224),
    "bert": transformer("bert"),
    "gpt2": transformer("gpt2"),
    "ssd300_vgg16": detector("ssd300_vgg16"),
    "retinanet_resnet50_fpn": detector("retinanet_resnet50_fpn"),
    "maskrcnn_resnet50_fpn": detector("maskrcnn_resnet50_fpn"),
}


def measure(make: Case) -> dict[str, Any]:
    torch.manual_seed(0)
    network, inputs = make()
    network.eval()
    call: tuple[tuple[Any, ...], dict[str, Any]]
    call = ((), inputs) if isinstance(inputs, dict) else (inputs if isinstance(inputs, tuple) else (inputs,), {})
    started = time.perf_counter()
    compressed = compress(network, CONFIG, [call], forward=lambda item: network(*item[0], **item[1]))
    setup = compressed.structure()["algorithms"]["quantization"]["setup"]["points"]
    kinds = [point["kind"] for point in setup]
    result: dict[str, Any] = {"weights": kinds.count("weight"), "activations": kinds.count("activation")}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        report = export_onnx(network, call, path)
        result |= {"exporter": report.exporter, "batch_norms_left": len(report.batch_norms_left)}
        for name, runtime in (("onnxruntime", OnnxRuntimeModel), ("openvino", OpenVINOModel)):
            result[name] = _run(runtime, path, call)
    return result | {"seconds": round(time.perf_counter() - started, 1)}


def _run(runtime: Any, path: Path, call: tuple[tuple[Any, ...], dict[str, Any]]) -> dict[str, Any]:
    try:
        model = runtime(path)
        outputs = model(*call[0], **call[1])
    except ExportError as error:
        return {"runs": False, "error": str(error)[-200:]}
    layers = count_int8_layers(model)
    return {
        "runs": bool(_tensors(outputs)),
        "convolutions": f"{layers.convolutions}/{layers.all_convolutions}",
        "matmuls": f"{layers.matmuls}/{layers.all_matmuls}",
    }


def _tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    items = value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else ()
    return [tensor for item in items for tensor in _tensors(item)]


def main() -> None:
    warnings.filterwarnings("ignore")
    results = read_results("networks") or {}
    for name in sys.argv[1:] or CASES:
        try:
            results[name] = measure(CASES[name])
        except Exception as error:
            results[name] = {"error": f"{type(error).__name__}: {str(error)[:300]}"}
        sys.stderr.write(f"{name}: {results[name]}\n")
    write_results("networks", results)


if __name__ == "__main__":
    main()
