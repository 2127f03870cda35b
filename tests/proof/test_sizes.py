from __future__ import annotations

from pathlib import Path

import onnx
import pytest
import torch
from onnx import TensorProto, helper
from torch import Tensor, nn

from lightning_nncf.errors import ExportError
from lightning_nncf.export import ExportReport, export_onnx
from lightning_nncf.export.dynamic import open_axes
from lightning_nncf.proof import OnnxRuntimeModel, verify_onnx
from lightning_nncf.proof.sessions import SESSIONS
from lightning_nncf.proof.sizes import few, open_dimensions, other_sizes
from tests.export.networks import Residual, quick_export

_Exported = tuple[Residual, Tensor, Path, ExportReport]


def _info(name: str, *shape: int | str) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def test_open_dimensions_are_named_batch_first() -> None:
    inputs = [_info("ids", "n", "length"), _info("mask", "n", "length"), _info("table", 4, 2)]
    assert open_dimensions(inputs) == {"n": [(0, 0), (1, 0)], "length": [(0, 1), (1, 1)]}


def test_sizes_are_others_than_the_example_and_equal_where_the_name_is() -> None:
    inputs = [_info("x", "n", "length"), _info("y", "n", "length", 3), _info("table", 4)]
    tensors = [torch.randn(2, 6), torch.randn(2, 6, 3), torch.randn(4)]
    calls = {label: [tuple(tensor.shape) for tensor in others] for label, others, _ in other_sizes(tensors, inputs)}
    assert calls == {f"n {n}": [(n, 6), (n, 6, 3), (4,)] for n in (1, 3, 8)} | {
        f"length {length}": [(2, length), (2, length, 3), (4,)] for length in (1, 3, 12)
    }


def test_samples_that_come_again_are_not_the_same() -> None:
    x = torch.randn(1, 3, 4, 4)
    found = {label: others[0] for label, others, _ in other_sizes([x], [_info("x", "n", 3, 4, 4)])}
    rows = found["n 8"].flatten(1)
    assert len({tuple(row.tolist()) for row in rows}) == 8
    assert all(torch.equal(row.sort().values, x.flatten().sort().values) for row in rows)


def test_few_samples_are_kept_where_the_batch_is_open() -> None:
    kept = few([torch.zeros(9, 2), torch.zeros(9, 2)], [_info("x", "n", 2), _info("y", 9, 2)])
    assert [len(tensor) for tensor in kept] == [4, 9]


def test_runtime_that_is_wrong_beyond_the_batch_of_the_example_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, x = Residual().eval(), torch.randn(1, 3, 8, 8)
    quick_export(network, x, tmp_path / "m.onnx")
    monkeypatch.setitem(SESSIONS, "onnxruntime", "tests.proof.fake_runtimes:StaleSession")
    report = verify_onnx(
        tmp_path / "m.onnx", network, ((x,), {}), latency_runs=0, raise_on_failure=False, runtimes=["onnxruntime"]
    )
    (result,) = report.results
    assert result.difference is not None
    assert result.difference.relative_rms < 0.01
    assert {size.label: size.passed for size in result.sizes} == {"batch 3": False, "batch 8": False}
    assert "FAILED at batch 3" in report.table()


class _Sequence(nn.Module):
    def __init__(self, shortest: int = 1) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.shortest = shortest

    def forward(self, x: Tensor) -> Tensor:
        if not torch.jit.is_tracing() and x.shape[1] < self.shortest:
            raise ValueError("too short")
        return self.linear(x).relu()


def test_length_that_the_file_leaves_open_is_proven_too(tmp_path: Path) -> None:
    network, x = _Sequence(shortest=2).eval(), torch.randn(2, 6, 4)
    quick_export(network, x, tmp_path / "m.onnx", dynamic_shapes={"input": {1: "length"}})
    report = verify_onnx(tmp_path / "m.onnx", network, ((x,), {}), latency_runs=0, runtimes=["onnxruntime"])
    labels = [size.label for size in report.results[0].sizes]
    # The network itself refuses a length of 1, so that one is not asked for.
    assert labels == ["batch 1", "batch 3", "batch 8", "length 3", "length 12"]
    assert "also agrees at batch 1, batch 3" in report.table()


def test_axes_beside_the_batch_can_be_left_open(tmp_path: Path) -> None:
    network, x = _Sequence().eval(), torch.randn(2, 6, 4)
    export_onnx(network, ((x,), {}), tmp_path / "m.onnx", dynamic_shapes={"input": {1: "length"}})
    assert list(open_dimensions(onnx.load(tmp_path / "m.onnx").graph.input)) == ["batch", "length"]
    longer = torch.randn(3, 11, 4)
    torch.testing.assert_close(OnnxRuntimeModel(tmp_path / "m.onnx")(longer), network(longer))


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ({"inptu": {1: "n"}}, r"names the input 'inptu'.*did you mean 'input'"),
        ({"input": {5: "n"}}, r"axis 5 of 'input', which has the sizes \[2, 1, 4\]"),
        ({"input": {1: "n"}}, "1 long in the example"),
        ({"input": {2: "a b"}}, "use letters"),
        ({"input": {2: "n"}, "other": {0: "n"}}, "different sizes 'n': 4 and 3"),
    ],
)
def test_sizes_that_cannot_be_left_open_are_named(shapes: dict[str, dict[int, str]], message: str) -> None:
    with pytest.raises(ExportError, match=message):
        open_axes([torch.zeros(2, 1, 4), torch.zeros(3)], ["input", "other"], shapes, batch=True)
