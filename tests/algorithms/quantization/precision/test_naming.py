from __future__ import annotations

import pytest
import torch

from lightning_nncf.algorithms.quantization.precision.naming import PointNames
from lightning_nncf.errors import ScopeError
from tests.algorithms.quantization.precision.networks import Mixed, placed


@pytest.fixture(scope="module")
def names() -> PointNames:
    return placed(Mixed(), torch.zeros(2, 1, 8, 8))[3]


# Points of `Mixed` along the data flow: 0 input, 1 stem's weight, 2 its activation (before pooling), 3 and 5 weights of
# the branches, 4 and 6 their activations, which are concatenated, 7 weight and 8 output of `join`, 9 the sum, 10 the
# mean, 11 the weight of `head`.
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("stem/conv2d:0|weight1", (1,)),
        ("relu@1/relu:0", (4,)),
        ("/input:0", (0,)),
        ("left|WEIGHT", (3,)),
        ("relu|OUTPUT", (2, 4, 6)),
        ("{re}^(left|right)/|WEIGHT", (3, 5)),
        ("join", (7, 8)),
        ("join/conv2d:0|OUTPUT", (8,)),
        ("join/conv2d:0|weight", (7,)),
    ],
)
def test_own_names(names: PointNames, name: str, expected: tuple[int, ...]) -> None:
    assert names.find(name) == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Mixed/NNCFConv2d[stem]/conv2d_0|WEIGHT", (1,)),
        ("Mixed/ReLU[relu]/relu_2|OUTPUT", (6,)),
        ("Mixed/ReLU[relu]/relu__1|OUTPUT", (4,)),
        ("Mixed/__add___0|OUTPUT", (9,)),
        ("/nncf_model_input_0|OUTPUT", (0,)),
        ("Mixed/mean_0|OUTPUT", (10,)),
    ],
)
def test_names_of_nncf_2(names: PointNames, name: str, expected: tuple[int, ...]) -> None:
    assert names.find(name) == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("TargetType.OPERATION_WITH_WEIGHTS Mixed/NNCFConv2d[left]/conv2d_0", (3,)),
        ("TargetType.OPERATOR_POST_HOOK /nncf_model_input_0", (0,)),
        ("TargetType.OPERATOR_PRE_HOOK 1 Mixed/__add___0", (2,)),
        ("InsertionType.NNCF_MODULE_PRE_OP Mixed/NNCFConv2d[left]", (3,)),
        ("InsertionType.OPERATOR_POST_HOOK Mixed/ReLU[relu]/RELU_1", (4,)),
        ("Mixed/NNCFConv2d[left]module_weight", (3,)),
        ("Mixed/NNCFConv2d[left]module_input", (2,)),
    ],
)
def test_names_of_earlier_versions(names: PointNames, name: str, expected: tuple[int, ...]) -> None:
    assert names.find(name) == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("/max_pool2d:0|OUTPUT", (2,)),
        ("left/conv2d:0|INPUT0", (2,)),
        ("/add:0|INPUT0", (8,)),
        ("/add:0|INPUT1", (2,)),
        ("/cat:0|OUTPUT", (4, 6)),
        ("stem/conv2d:0|OUTPUT", (2,)),
        ("join/conv2d:0|INPUT", (4, 6)),
    ],
)
def test_a_place_means_the_quantizer_across_ops_that_only_move_values(
    names: PointNames, name: str, expected: tuple[int, ...]
) -> None:
    assert names.find(name) == expected


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("stm/conv2d:0|WEIGHT", "'stm/conv2d:0' matches nothing in the network; did you mean 'stem/conv2d:0'"),
        ("Mixed/NNCFConv2d[lft]/conv2d_0|WEIGHT", "means 'lft/conv2d:0' here, which is not in the network; did you"),
        ("head/linear:0|OUTPUT", "has no quantizer of its output; did you mean 'head/linear:0|weight1'"),
        ("relu/relu:0|WEIGHT", "has no quantizer of its weight"),
        ("TargetType.OPERATOR_POST_HOK /nncf_model_input_0", "did you mean 'OPERATOR_POST_HOOK'"),
    ],
)
def test_a_name_that_means_nothing_is_an_error_with_the_nearest_names(
    names: PointNames, name: str, message: str
) -> None:
    with pytest.raises(ScopeError) as caught:
        names.find(name)
    assert message in str(caught.value)
