from __future__ import annotations

import pytest
import torch
import torchvision
from torch import nn

from example_modules.inverted_residual import InvertedResidual, SmallMobileNet
from example_modules.networks import build_network, complete_arguments
from example_modules.residual import SmallResNet

FAMILIES = """alexnet convnext_tiny densenet121 efficientnet_b0 efficientnet_v2_s googlenet inception_v3 maxvit_t
    mnasnet0_5 mobilenet_v2 mobilenet_v3_small regnet_y_400mf resnet18 resnext50_32x4d shufflenet_v2_x0_5 squeezenet1_1
    swin_t swin_v2_t vgg11_bn vit_b_16 wide_resnet50_2"""


@pytest.mark.parametrize("name", FAMILIES.split())
def test_every_family_of_torchvision_is_built_by_name(name: str) -> None:
    size = 299 if name == "inception_v3" else 224
    arguments = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    network = build_network(f"torchvision:{name}", num_classes=10, **arguments).eval().to("meta")
    assert network(torch.rand(1, 3, size, size, device="meta")).shape == (1, 10)


def test_networks_of_timm_are_built_by_name() -> None:
    pytest.importorskip("timm")
    assert build_network("timm:convnext_atto", num_classes=7)(torch.rand(1, 3, 32, 32)).shape == (1, 7)


def test_unknown_networks_are_refused() -> None:
    pytest.importorskip("timm")
    with pytest.raises(ValueError, match=r"must be one of \['small_mobilenet', 'small_resnet'\]"):
        build_network("resnet", num_classes=10)
    with pytest.raises(ValueError, match="Unknown model"):
        build_network("torchvision:resnet19", num_classes=10)
    with pytest.raises(ValueError, match=r"no network 'convnext_att'; near: .*convnext_atto"):
        build_network("timm:convnext_att", num_classes=10)


def test_weights_that_do_not_exist_are_refused() -> None:
    with pytest.raises(ValueError, match="there are no pretrained ones"):
        build_network("small_resnet", num_classes=10, weights="DEFAULT")
    with pytest.raises(ValueError, match="must be 'DEFAULT' or null"):
        build_network("timm:resnet18", num_classes=10, weights="IMAGENET1K_V1")


@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_arguments_are_those_that_torchvision_chooses_for_pretrained_networks(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = torchvision.models.get_model_weights(name).IMAGENET1K_V1
    empty = torchvision.models.get_model(name, init_weights=False)
    monkeypatch.setattr(type(weights), "get_state_dict", lambda *_, **__: empty.state_dict())
    theirs = torchvision.models.get_model(name, weights=weights)
    spelt_out = complete_arguments(f"torchvision:{name}", "IMAGENET1K_V1", {})
    ours = build_network(f"torchvision:{name}", num_classes=1000, **spelt_out)
    assert (ours.transform_input, ours.aux_logits) == (theirs.transform_input, theirs.aux_logits)
    assert set(ours.state_dict()) == set(theirs.state_dict())


def test_given_arguments_win() -> None:
    assert complete_arguments("torchvision:googlenet", None, {"aux_logits": False})["aux_logits"] is False


@pytest.mark.parametrize("size", [8, 16, 32])
@pytest.mark.parametrize("make", [SmallResNet, SmallMobileNet])
def test_small_networks_take_images_from_8_to_32(make: type[nn.Module], size: int) -> None:
    network = make(num_classes=7, in_channels=3, widths=(4, 8), blocks=2)
    assert network(torch.rand(2, 3, size, size)).shape == (2, 7)


def test_stages_of_the_small_resnet_may_differ_in_blocks() -> None:
    network = SmallResNet(widths=(4, 8, 16), blocks=(3, 1, 2))
    assert [block.conv2.out_channels for block in network.blocks] == [4, 4, 4, 8, 16, 16]
    with pytest.raises(ValueError, match="`blocks` must hold a number for each of the 3 stages, got 2"):
        SmallResNet(widths=(4, 8, 16), blocks=(3, 1))


def test_inverted_residual_adds_its_input_only_where_shapes_agree() -> None:
    x = torch.rand(2, 4, 8, 8)
    block = InvertedResidual(4, 4).eval()
    nn.init.zeros_(block.project[0].weight)
    torch.testing.assert_close(block(x), x)
    assert InvertedResidual(4, 6)(x).shape == (2, 6, 8, 8)
    assert InvertedResidual(4, 4, stride=2)(x).shape == (2, 4, 4, 4)
