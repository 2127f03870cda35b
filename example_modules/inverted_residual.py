"""A small network of inverted residuals, as MobileNetV2 has them, for small images."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

__all__ = ["InvertedResidual", "SmallMobileNet"]


def _convolution(in_channels: int, out_channels: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel, stride, padding=kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU6(inplace=True),
    )


class InvertedResidual(nn.Module):
    """A 1x1 convolution to many channels, a depthwise 3x3 one, and a linear 1x1 one back to few.

    Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks", CVPR 2018.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        stride: Stride of the depthwise convolution.
        expansion: Channels in between, as a multiple of those of the input.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1, expansion: int = 4) -> None:
        super().__init__()
        hidden = in_channels * expansion
        self.expand = _convolution(in_channels, hidden, 1)
        self.depthwise = _convolution(hidden, hidden, 3, stride, groups=hidden)
        self.project = nn.Sequential(nn.Conv2d(hidden, out_channels, 1, bias=False), nn.BatchNorm2d(out_channels))
        self.residual = stride == 1 and in_channels == out_channels

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, in_channels, H, W] to [N, out_channels, H / stride, W / stride]."""
        out: Tensor = self.project(self.depthwise(self.expand(x)))
        return x + out if self.residual else out


class SmallMobileNet(nn.Module):
    """Network of inverted residuals for images from 8x8 to 32x32.

    Args:
        num_classes: Number of classes.
        in_channels: Channels of the images.
        widths: Channels of each stage; every stage but the first halves height and width.
        blocks: Inverted residuals per stage.
        expansion: Channels inside a block, as a multiple of those around it.
        last_channels: Channels of the 1x1 convolution in front of the classifier.
    """

    def __init__(
        self,
        num_classes: int = 10,
        in_channels: int = 1,
        widths: Sequence[int] = (16, 24, 32),
        blocks: int = 2,
        expansion: int = 4,
        last_channels: int = 128,
    ) -> None:
        super().__init__()
        self.stem = _convolution(in_channels, widths[0], 3)
        stages, channels = [], widths[0]
        for stage, width in enumerate(widths):
            for block in range(blocks):
                stride = 2 if stage > 0 and block == 0 else 1
                stages.append(InvertedResidual(channels, width, stride, expansion))
                channels = width
        self.blocks = nn.Sequential(*stages)
        self.head = _convolution(channels, last_channels, 1)
        self.classifier = nn.Linear(last_channels, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map images [N, in_channels, H, W] to logits [N, num_classes]."""
        x = self.head(self.blocks(self.stem(x)))
        logits: Tensor = self.classifier(x.mean(dim=(2, 3)))
        return logits
