from __future__ import annotations

import torch
from torchmetrics import MetricCollection

from lightning_nncf.statistics.quantization import BitsHistogram, CompressedSize, LearnedRange, QuantizedShare


def test_collection_takes_its_arguments_by_name_and_gives_flat_numbers() -> None:
    metrics = MetricCollection(
        {"bits": BitsHistogram(), "share": QuantizedShare(), "size": CompressedSize(), "range": LearnedRange()}
    )
    metrics.update(
        weight_bits=torch.tensor([8, 4]),
        activation_bits=torch.tensor([8]),
        parameter_bits=torch.tensor([8, 4, 32]),
        parameter_counts=torch.tensor([100, 200, 50]),
        range_widths=torch.tensor([1.0, 5.0]),
    )
    values = {name: float(value) for name, value in metrics.compute().items()}
    assert values["weight_bits_4"] == 1
    assert values["weight_bits_8"] == 1
    assert values["activation_bits_8"] == 1
    assert values["share"] == torch.tensor(300 / 350)
    assert values["size_mb"] * 1e6 == torch.tensor(100 + 100 + 200.0)
    assert values["size_reduction"] == 3.5
    assert (values["range_mean"], values["range_max"]) == (3.0, 5.0)


def test_network_without_activation_quantizers_has_ranges_of_zero() -> None:
    metric = LearnedRange()
    metric.update(range_widths=torch.zeros(0))
    assert {name: float(value) for name, value in metric.compute().items()} == {"range_mean": 0.0, "range_max": 0.0}
