"""A small residual network for small images."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional

__all__ = ["ResidualBlock", "SmallResNet"]


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with batch normalization, and a shortcut around them.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        stride: Stride of the first convolution.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_channels != out_channels:
            self.shortcut = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1, stride, bias=False), nn.BatchNorm2d(out_channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, in_channels, H, W] to [N, out_channels, H / stride, W / stride]."""
        out = functional.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out)) + self.shortcut(x)
        return functional.relu(out)


class SmallResNet(nn.Module):
    """Residual network for images from 8x8 to 32x32.

    Args:
        num_classes: Number of classes.
        in_channels: Channels of the images.
        widths: Channels of each stage; every stage but the first halves height and width.
        blocks: Residual blocks per stage, one number for all stages or one for each.

    Raises:
        ValueError: ``blocks`` has another length than ``widths``.
    """

    def __init__(
        self,
        num_classes: int = 10,
        in_channels: int = 1,
        widths: Sequence[int] = (16, 32, 64),
        blocks: int | Sequence[int] = 1,
    ) -> None:
        super().__init__()
        counts = [blocks] * len(widths) if isinstance(blocks, int) else list(blocks)
        if len(counts) != len(widths):
            raise ValueError(f"`blocks` must hold a number for each of the {len(widths)} stages, got {len(counts)}")
        self.conv = nn.Conv2d(in_channels, widths[0], 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(widths[0])
        stages, channels = [], widths[0]
        for stage, (width, count) in enumerate(zip(widths, counts, strict=True)):
            for block in range(count):
                stages.append(ResidualBlock(channels, width, stride=2 if stage > 0 and block == 0 else 1))
                channels = width
        self.blocks = nn.Sequential(*stages)
        self.fc = nn.Linear(channels, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map images [N, in_channels, H, W] to logits [N, num_classes]."""
        x = self.blocks(functional.relu(self.bn(self.conv(x))))
        logits: Tensor = self.fc(x.mean(dim=(2, 3)))
        return logits
