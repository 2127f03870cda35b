from __future__ import annotations

import pytest

from lightning_nncf.errors import ConfigError, ScopeError
from lightning_nncf.graph.scopes import ScopeMatcher, module_path, scope_filter

ADDRESSES = [
    "/input:0",
    "/mul:0",
    "/mul:1",
    "conv1/conv2d:0",
    "bn1/batch_norm:0",
    "relu/relu:0",
    "layer1.0.conv1/conv2d:0",
    "layer1.0.relu/relu:0",
    "layer1.0.conv2/conv2d:0",
    "layer1.0/add_:0",
    "layer1.0.relu@1/relu:0",
    "layer1.1.conv1/conv2d:0",
    "layer10.0.conv1/conv2d:0",
    "fc/linear:0",
    "/output:0",
]
TYPES = {
    "": "ResNet",
    "conv1": "Conv2d",
    "bn1": "BatchNorm2d",
    "relu": "ReLU",
    "layer1": "Sequential",
    "layer1.0": "BasicBlock",
    "layer1.0.conv1": "Conv2d",
    "layer1.0.conv2": "Conv2d",
    "layer1.0.relu": "ReLU",
    "layer1.1": "BasicBlock",
    "layer1.1.conv1": "Conv2d",
    "layer10": "Sequential",
    "layer10.0": "BasicBlock",
    "layer10.0.conv1": "Conv2d",
    "fc": "Linear",
}


def _matched(*patterns: str, types: dict[str, str] | None = None) -> list[str]:
    matcher = ScopeMatcher(patterns, ADDRESSES, module_types=types)
    return [address for address in ADDRESSES if matcher(address)]


@pytest.mark.parametrize(
    ("address", "path"),
    [
        ("layer1.0.relu@1/relu:0", "layer1.0.relu"),
        ("head@2.conv@1/conv2d:3", "head.conv"),
        ("/input:0", ""),
        ("decoder@1>encoder.embed@2/embedding:0", "encoder.embed"),
        ("conv1/conv2d:0", "conv1"),
    ],
)
def test_module_path_drops_call_indices(address: str, path: str) -> None:
    assert module_path(address) == path


def test_exact_address_selects_one_op() -> None:
    assert _matched("layer1.0/add_:0") == ["layer1.0/add_:0"]


def test_module_path_selects_what_is_below_and_not_what_only_starts_alike() -> None:
    assert _matched("layer1") == [address for address in ADDRESSES if address.startswith("layer1.")]
    assert _matched("layer1.0.conv1") == ["layer1.0.conv1/conv2d:0"]


def test_module_path_selects_all_calls_and_an_indexed_path_one() -> None:
    assert _matched("layer1.0.relu") == ["layer1.0.relu/relu:0", "layer1.0.relu@1/relu:0"]
    assert _matched("layer1.0.relu@1") == ["layer1.0.relu@1/relu:0"]


def test_regular_expression_is_searched_anywhere() -> None:
    assert _matched(r"{re}conv\d/") == [address for address in ADDRESSES if "conv1/" in address or "conv2/" in address]
    assert _matched(r"{re}^layer1\..*linear|fc/") == ["fc/linear:0"]


def test_several_scopes_add_up() -> None:
    assert _matched("fc", "/mul:1") == ["/mul:1", "fc/linear:0"]


@pytest.mark.parametrize(
    ("scope", "address"),
    [
        ("ResNet/Sequential[layer1]/BasicBlock[0]/NNCFConv2d[conv1]/conv2d_0", "layer1.0.conv1/conv2d:0"),
        ("ResNet/Sequential[layer1]/BasicBlock[0]/Conv2d[conv2]/conv2d_0", "layer1.0.conv2/conv2d:0"),
        ("ResNet/Sequential[layer1]/BasicBlock[0]/ReLU[relu]/relu_0", "layer1.0.relu/relu:0"),
        ("ResNet/Sequential[layer1]/BasicBlock[0]/ReLU[relu]/relu_1", "layer1.0.relu@1/relu:0"),
        ("ResNet/Sequential[layer1]/BasicBlock[0]/ReLU[relu]/RELU_1", "layer1.0.relu@1/relu:0"),
        ("ResNet/Sequential[layer1]/BasicBlock[0]/__iadd___0", "layer1.0/add_:0"),
        ("ResNet/Sequential[layer1]/BasicBlock[0]/__add___0", "layer1.0/add_:0"),
        ("ResNet/__rmul___1", "/mul:1"),
        ("ResNet/__mul___1", "/mul:1"),
        ("ResNet/NNCFLinear[fc]/linear_0", "fc/linear:0"),
        ("ResNet/NNCFLinear[fc]", "fc/linear:0"),
        ("/nncf_model_input_0", "/input:0"),
        ("/nncf_model_output_0", "/output:0"),
    ],
)
def test_names_of_nncf_are_translated(scope: str, address: str) -> None:
    assert _matched(scope) == [address]


def test_regular_expression_on_names_of_nncf_needs_the_class_names() -> None:
    scope = r"{re}BasicBlock\[0\]/(NNCF)?Conv2d\[conv1\]"
    assert _matched(scope, types=TYPES) == ["layer1.0.conv1/conv2d:0", "layer10.0.conv1/conv2d:0"]
    assert _matched(r"{re}ResNet/NNCFConv2d\[conv1\]/conv2d_0", types=TYPES) == ["conv1/conv2d:0"]
    assert _matched(r"{re}BasicBlock\[0\]/__iadd___0", types=TYPES) == ["layer1.0/add_:0"]
    assert _matched(r"{re}ReLU\[relu\]/relu_1", types=TYPES) == ["layer1.0.relu@1/relu:0"]
    with pytest.raises(ScopeError, match="matches nothing"):
        _matched(scope)


@pytest.mark.parametrize(
    ("scope", "parts"),
    [
        ("layer1.0.conv3", ["'layer1.0.conv3' matches nothing", "did you mean 'layer1.0.conv"]),
        ("layer1.0.conv1/conv2d:1", ["did you mean", "layer1.0.conv1/conv2d:0"]),
        ("{re}nothing$", ["matches nothing", "'/input:0'"]),
        (r"{re}layer1\.1\.relu", ["such as 'layer1.0.relu/relu:0', 'layer1.0.relu@1/relu:0'"]),
        ("{re}(", ["'{re}(' is not a valid regular expression"]),
        ("ResNet/Sequential[layer2]/Conv2d[conv1]/conv2d_0", ["means 'layer2.conv1/conv2d:0' here"]),
        ("ResNet/Sequential[layer1]/BasicBlock[0]/ReLU[relu]/relu_2", ["'layer1.0.relu/relu:2'", "layer1.0.relu"]),
        ("ResNet/Linear[fcc]", ["means 'fcc' here", "did you mean 'fc'"]),
        ("", ["matches nothing"]),
    ],
)
def test_unmatched_scope_is_an_error_naming_what_is_near(scope: str, parts: list[str]) -> None:
    with pytest.raises(ScopeError) as caught:
        ScopeMatcher([scope], ADDRESSES)
    assert isinstance(caught.value, ConfigError)
    for part in parts:
        assert part in str(caught.value)


def test_all_unmatched_scopes_are_named_at_once() -> None:
    with pytest.raises(ScopeError) as caught:
        ScopeMatcher(["one", "fc", "two"], ADDRESSES)
    assert "'one'" in str(caught.value)
    assert "'two'" in str(caught.value)
    assert "'fc'" not in str(caught.value).split("known", maxsplit=1)[0].replace("did you mean 'fc'", "")


def test_ambiguous_name_of_nncf_says_what_to_write() -> None:
    with pytest.raises(ScopeError, match=r"write one of 'a/relu:0', 'a/relu_:0'"):
        ScopeMatcher(["Net/Block[a]/RELU_0"], ["a/relu:0", "a/relu_:0"])


def test_unmatched_scope_is_silent_without_validation_and_still_reported() -> None:
    matcher = ScopeMatcher(["one", "fc"], ADDRESSES, validate=False)
    assert matcher.unmatched == ("one",)
    assert matcher.matched == {"fc/linear:0"}


def test_no_scopes_select_nothing() -> None:
    assert not ScopeMatcher([], ADDRESSES).matched


def test_filter_targets_then_ignores() -> None:
    inside = scope_filter(ADDRESSES, ignored=["layer1.1"], target=["layer1", "fc"])
    assert [address for address in ADDRESSES if inside(address)] == [
        *(address for address in ADDRESSES if address.startswith("layer1.0")),
        "fc/linear:0",
    ]


def test_filter_without_target_takes_all_but_the_ignored() -> None:
    inside = scope_filter(ADDRESSES, ignored=["layer1", "layer10", "/mul:0"])
    assert [address for address in ADDRESSES if inside(address)] == [
        "/input:0", "/mul:1", "conv1/conv2d:0", "bn1/batch_norm:0", "relu/relu:0", "fc/linear:0", "/output:0"
    ]  # fmt: skip


def test_empty_target_takes_nothing() -> None:
    assert not any(map(scope_filter(ADDRESSES, target=[]), ADDRESSES))
