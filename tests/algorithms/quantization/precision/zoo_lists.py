"""Bit widths of NNCF's three manual rows, under the names that NNCF 2 gave the places."""

from __future__ import annotations

Pairs = list[tuple[int, str]]


def resnet50() -> Pairs:
    """Per block: conv1, conv2, conv3, downsample; then bn3, the three calls of relu, batch norm of downsample."""
    blocks = {
        1: ["8888 88888", "888 8888", "888 8888"],
        2: ["8488 44844", "488 4888", "888 4888", "888 4888"],
        3: ["8484 44844", "448 4484", "448 4484", "444 4444", "444 4444", "444 4448"],
        4: ["8444 44444", "444 4444", "444 4444"],
    }
    weights = ["NNCFConv2d[conv1]", "NNCFConv2d[conv2]", "NNCFConv2d[conv3]", "Sequential[downsample]/NNCFConv2d[0]"]
    activations = [
        "NNCFBatchNorm2d[bn3]/batch_norm_0",
        *(f"ReLU[relu]/relu__{call}" for call in range(3)),
        "Sequential[downsample]/NNCFBatchNorm2d[1]/batch_norm_0",
    ]
    pairs = [
        (8, "ResNet/NNCFConv2d[conv1]/conv2d_0|WEIGHT"),
        (4, "ResNet/NNCFLinear[fc]/linear_0|WEIGHT"),
        (8, "/nncf_model_input_0|OUTPUT"),
        (4, "ResNet/AdaptiveAvgPool2d[avgpool]/adaptive_avg_pool2d_0|OUTPUT"),
        (8, "ResNet/ReLU[relu]/relu__0|OUTPUT"),
    ]
    for layer, rows in blocks.items():
        for block, row in enumerate(rows):
            scope = f"ResNet/Sequential[layer{layer}]/Bottleneck[{block}]"
            of_weights, of_activations = row.split()
            pairs += [(int(b), f"{scope}/{n}/conv2d_0|WEIGHT") for b, n in zip(of_weights, weights, strict=False)]
            pairs += [(int(b), f"{scope}/{n}|OUTPUT") for b, n in zip(of_activations, activations, strict=False)]
    return pairs


def mobilenet_v2() -> Pairs:
    """Per block: expansion, depthwise, projection; then batch norm, the two activations, the sum if there is one."""
    blocks = [
        *("888 888", "888 8888", "888 488", "488 4884", "488 4884", "488 488", "484 4844", "484 4844", "484 4844"),
        *("488 488", "484 4844", "444 4444", "448 448", "484 4844", "444 4444", "484 484"),
    ]
    features = "MobileNetV2/Sequential[features]"
    first = f"{features}/InvertedResidual[1]/Sequential[conv]"
    pairs = [
        (4, "MobileNetV2/Sequential[classifier]/NNCFLinear[1]/linear_0|WEIGHT"),
        (8, f"{features}/ConvBNActivation[0]/NNCFConv2d[0]/conv2d_0|WEIGHT"),
        (4, f"{features}/ConvBNActivation[18]/NNCFConv2d[0]/conv2d_0|WEIGHT"),
        (8, "/nncf_model_input_0|OUTPUT"),
        (8, f"{features}/ConvBNActivation[0]/ReLU6[2]/hardtanh_0|OUTPUT"),
        (4, f"{features}/ConvBNActivation[18]/ReLU6[2]/hardtanh_0|OUTPUT"),
        (4, "MobileNetV2/adaptive_avg_pool2d_0|OUTPUT"),
        (8, f"{first}/ConvBNActivation[0]/NNCFConv2d[0]/conv2d_0|WEIGHT"),
        (8, f"{first}/NNCFConv2d[1]/conv2d_0|WEIGHT"),
        (8, f"{first}/NNCFBatchNorm2d[2]/batch_norm_0|OUTPUT"),
        (8, f"{first}/ConvBNActivation[0]/ReLU6[2]/hardtanh_0|OUTPUT"),
    ]
    weights = ["ConvBNActivation[0]/NNCFConv2d[0]", "ConvBNActivation[1]/NNCFConv2d[0]", "NNCFConv2d[2]"]
    activations = [
        "Sequential[conv]/NNCFBatchNorm2d[3]/batch_norm_0",
        *(f"Sequential[conv]/ConvBNActivation[{index}]/ReLU6[2]/hardtanh_0" for index in range(2)),
        "__add___0",
    ]
    for block, row in enumerate(blocks, start=2):
        scope = f"{features}/InvertedResidual[{block}]"
        of_weights, of_activations = row.split()
        pairs += [
            (int(b), f"{scope}/Sequential[conv]/{n}/conv2d_0|WEIGHT") for b, n in zip(of_weights, weights, strict=True)
        ]
        pairs += [(int(b), f"{scope}/{n}|OUTPUT") for b, n in zip(of_activations, activations, strict=False)]
    return pairs


def squeezenet1_1() -> Pairs:
    """Per fire module: squeeze, the two expansions; then their activations."""
    blocks = {3: "888 888", 4: "888 888", 6: "884 888", 7: "884 888", 9: "844 444", 10: "444 444", 11: "444 444"}
    blocks[12] = "484 844"
    features = "SqueezeNet/Sequential[features]"
    pairs = [
        (8, f"{features}/NNCFConv2d[0]/conv2d_0|WEIGHT"),
        (4, "SqueezeNet/Sequential[classifier]/NNCFConv2d[1]/conv2d_0|WEIGHT"),
        (8, "/nncf_model_input_0|OUTPUT"),
        (8, f"{features}/ReLU[1]/relu__0|OUTPUT"),
        (8, "SqueezeNet/Sequential[classifier]/ReLU[2]/relu__0|OUTPUT"),
    ]
    parts = ["squeeze", "expand1x1", "expand3x3"]
    for block, row in blocks.items():
        scope = f"{features}/Fire[{block}]"
        of_weights, of_activations = row.split()
        pairs += [(int(b), f"{scope}/NNCFConv2d[{n}]/conv2d_0|WEIGHT") for b, n in zip(of_weights, parts, strict=True)]
        pairs += [
            (int(b), f"{scope}/ReLU[{n}_activation]/relu__0|OUTPUT") for b, n in zip(of_activations, parts, strict=True)
        ]
    return pairs
