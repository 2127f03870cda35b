from __future__ import annotations

import pytest

from lightning_nncf.algorithms.quantization.placement import (
    Constraints,
    GroupSettings,
    PlacementSettings,
    place_quantizers,
)
from lightning_nncf.algorithms.quantization.placement.candidates import Candidates
from lightning_nncf.algorithms.quantization.placement.hardware import HARDWARE, hardware_table
from lightning_nncf.algorithms.quantization.setup import QuantizationSetup
from lightning_nncf.config import NNCFConfig
from lightning_nncf.errors import ConfigError, PlacementError
from tests.algorithms.quantization.placement.sketch import Sketch, activations

BYTE = "s8t a8t"  # symmetric, then asymmetric; 8 bits; per tensor
CHANNELS = "s8c s8t a8c a8t"
INT8_WEIGHTS = "s8c+ s8t+ a8c a8t"  # plus: always signed
FEW_BITS = "s4c s4t s2c s2t"

CPU = {
    "Convolution": (BYTE, INT8_WEIGHTS),
    "DepthWiseConvolution": ("s8t s8c a8t a8c", INT8_WEIGHTS),
    "ConvolutionBackpropData": (BYTE, INT8_WEIGHTS),
    "MatMul": (BYTE, INT8_WEIGHTS),
    "Embedding": ("", INT8_WEIGHTS),
    "Recurrent": ("", INT8_WEIGHTS),
    "Add": (BYTE, ""),
    "Divide": ("", ""),
    "AvgPool": (BYTE, ""),
    "ReduceMean": (BYTE, ""),
    "Interpolate": (BYTE, ""),
    "NearestInterpolate": (BYTE, ""),
    "NormalizeL2": (BYTE, ""),
    "MVN": (BYTE, ""),
    "ScaledDotProductAttention": (BYTE, ""),
    "ConvolutionActivation": (BYTE, ""),
    "Power": ("", ""),
    "ReduceSum": ("", ""),
    "ReduceL2": ("", ""),
    "Activation": ("", ""),
}
TABLES = {
    "ANY": CPU,
    "CPU": CPU,
    "CPU_SPR": CPU,
    "GPU": {
        **CPU,
        "DepthWiseConvolution": (CHANNELS, INT8_WEIGHTS),
        "Embedding": ("", ""),
        "Recurrent": ("", ""),
        "NormalizeL2": ("", ""),
        "NearestInterpolate": ("", ""),
        "ScaledDotProductAttention": ("", ""),
        "ConvolutionActivation": ("", ""),
        "Divide": (BYTE, ""),
        "Power": (BYTE, ""),
        "ReduceSum": (BYTE, ""),
    },
    "VPU": {
        "Convolution": ("a8t s8t s4t", f"s8c s8t {FEW_BITS}"),
        "DepthWiseConvolution": ("s8c a8t s8t", f"s8c s8t {FEW_BITS}"),
        "ConvolutionBackpropData": ("a8t s8t s4t", f"s8c s8t {FEW_BITS}"),
        "MatMul": ("a8t s8t s4t", f"s8c s8t {FEW_BITS}"),
        "Embedding": ("", "a8t s8t s8c"),
        "Recurrent": ("", ""),
        "Add": ("a8t s8t s4t", ""),
        "Divide": ("a8t s8t", ""),
        "AvgPool": ("s8c a8t s8t", ""),
        "ReduceMean": ("s8c", ""),
        "Interpolate": ("a8t s8t", ""),
        "NearestInterpolate": ("", ""),
        "NormalizeL2": ("", ""),
        "MVN": ("a8t s8t", ""),
        "ScaledDotProductAttention": ("", ""),
        "ConvolutionActivation": ("", ""),
        "Power": ("a8t s8t", ""),
        "ReduceSum": ("", ""),
        "ReduceL2": ("", ""),
        "Activation": ("", ""),
    },
    "NPU": {
        **CPU,
        "Convolution": (f"{BYTE} s4t", f"{INT8_WEIGHTS} {FEW_BITS}"),
        "DepthWiseConvolution": (CHANNELS, f"{INT8_WEIGHTS} {FEW_BITS}"),
        "ConvolutionBackpropData": (f"{BYTE} s4t", f"{INT8_WEIGHTS} {FEW_BITS}"),
        "MatMul": (f"{BYTE} s4t", f"{INT8_WEIGHTS} {FEW_BITS}"),
        "Recurrent": ("", "s8c+ s8t+"),
        "Add": (f"{BYTE} s4t", ""),
        "NearestInterpolate": ("", ""),
        "ScaledDotProductAttention": ("s8t", ""),
        "ConvolutionActivation": ("", ""),
        "Divide": (BYTE, ""),
        "Power": (BYTE, ""),
        "ReduceSum": (BYTE, ""),
        "ReduceL2": (BYTE, ""),
    },
    "TRIAL": {
        operator: (("s8t" if inputs else ""), ("s8t" if weights else "")) for operator, (inputs, weights) in CPU.items()
    },
}


def _written(candidates: Candidates) -> str:
    return " ".join(
        f"{config.mode[0]}{config.bits}{'c' if config.per_channel else 't'}{'+' if config.signed else ''}"
        for config in candidates
    )


@pytest.mark.parametrize("device", TABLES)
def test_rows_of_each_device(device: str) -> None:
    table = hardware_table(device)
    found = {
        operator: (
            _written(table.activations(operator, Constraints())) if table.quantizes(operator) else "",
            _written(table.weights(operator, Constraints())),
        )
        for operator in TABLES[device]
    }
    assert found == TABLES[device]


def test_every_device_that_a_configuration_may_name_has_a_table() -> None:
    for device in TABLES:
        assert NNCFConfig.load({"target_device": device}).target_device == device
    assert set(TABLES) == set(HARDWARE)


def test_unknown_device_is_named_with_its_neighbours() -> None:
    with pytest.raises(ConfigError, match=r"`target_device` .*'NPUU'.*did you mean .*'NPU'"):
        NNCFConfig.load({"target_device": "NPUU"})


@pytest.mark.parametrize(
    ("device", "half", "levels"),
    [
        ("ANY", True, (-64, 63)),
        ("CPU_SPR", False, (-127, 127)),
        ("GPU", False, (-127, 127)),
        ("NPU", False, (-127, 127)),
    ],
)
def test_only_cpus_without_matrix_units_need_the_overflow_fix(device: str, half: bool, levels: tuple[int, int]) -> None:
    net = Sketch()
    net.output(net.conv(net.input(), "a"))
    setup = place_quantizers(net.graph, PlacementSettings(target_device=device))
    (config,) = (point.config for point in setup.points if point.kind == "weight")
    assert config.half_range is half
    assert config.quant_range() == levels


def _residual(device: str) -> QuantizationSetup:
    net = Sketch()
    value = net.block(net.input(), "a")
    value = net.op("relu", net.op("add", value, net.block(value, "b")))
    net.output(net.conv(value, "c"))
    return place_quantizers(net.graph, PlacementSettings(target_device=device))


@pytest.mark.parametrize("device", ["VPU", "NPU"])
def test_both_inputs_of_a_sum_share_a_scale_where_the_device_wants_it(device: str) -> None:
    setup = _residual(device)
    groups = [{str(setup.points[index].point) for index in group} for group in setup.unified]
    assert groups == [{"a.relu/relu:0", "b.relu/relu:0"}]
    assert _residual("GPU").unified == _residual("ANY").unified == ()


def test_nearest_resizing_moves_values_on_accelerators() -> None:
    def served(device: str, mode: str) -> dict[str, tuple[str, ...]]:
        net = Sketch()
        value = net.op("interpolate", net.block(net.input(), "a"), mode=mode)
        net.output(net.conv(value, "b"))
        return activations(place_quantizers(net.graph, PlacementSettings(target_device=device)))

    assert served("GPU", "nearest") == {"/input:0": ("a/conv2d:0",), "a.relu/relu:0": ("b/conv2d:0",)}
    assert served("ANY", "nearest") == {
        "/input:0": ("a/conv2d:0",),
        "a.relu/relu:0": ("interpolate:0",),
        "interpolate:0": ("b/conv2d:0",),
    }
    assert served("GPU", "bilinear") == served("ANY", "bilinear") == served("ANY", "nearest")


def test_tables_that_are_looked_up_stay_float_on_gpus() -> None:
    def placed(device: str) -> QuantizationSetup:
        net = Sketch()
        ids = net.input((1, 8), dtype="int64")
        value = net.op("embedding", ids, "table.weight", name="table", shape=(1, 8, 4), weight_shape=(10, 4))
        net.output(net.op("linear", value, "fc.weight", name="fc", weight_shape=(6, 4)))
        return place_quantizers(net.graph, PlacementSettings(target_device=device))

    assert [str(point.point) for point in placed("GPU").points] == ["table/embedding:0", "fc/linear:0|weight1"]
    assert [str(point.point) for point in placed("NPU").points] == ["table/embedding:0|weight1", "fc/linear:0|weight1"]


@pytest.mark.parametrize(("device", "bits"), [("GPU", 4), ("NPU", 3), ("CPU_SPR", 2)])
def test_impossible_bits_say_what_the_device_allows(device: str, bits: int) -> None:
    net = Sketch()
    net.output(net.conv(net.input(), "a"))
    settings = PlacementSettings(target_device=device, weights=GroupSettings(constraints=Constraints(bits=bits)))
    pattern = (
        rf"no weight quantizer fits at 'a/conv2d:0': target device '{device}' allows 8-bit symmetric per channel, "
        rf".*asks for bits={bits}\b"
    )
    with pytest.raises(PlacementError, match=pattern):
        place_quantizers(net.graph, settings)
