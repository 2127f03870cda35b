"""Small networks, one per way in which channels depend on each other."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

IMAGE = (2, 3, 8, 8)
TOKENS = (2, 5, 8)


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.body = nn.Conv2d(8, 8, 3, padding=1)
        self.inner = nn.Conv2d(8, 8, 1)
        self.head = nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm(self.stem(x)))
        x = x + self.inner(F.relu(self.body(x)))
        return self.head(F.adaptive_avg_pool2d(x, 1).flatten(1))


class Concat(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 4, 1)
        self.b = nn.Conv2d(3, 6, 1)
        self.norm = nn.BatchNorm2d(10)
        self.c = nn.Conv2d(10, 10, 1)
        self.head = nn.Conv2d(10, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.cat([self.a(x), self.b(x)], dim=1)
        return self.head(F.relu(self.norm(y)) + self.c(y))


class Depthwise(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 4, 1)
        self.depth = nn.Conv2d(4, 8, 3, groups=4)
        self.head = nn.Conv2d(8, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.depth(F.relu(self.a(x)))))


class Grouped(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 8, 1)
        self.grouped = nn.Conv2d(8, 12, 3, groups=4)
        self.head = nn.Conv2d(12, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.grouped(F.relu(self.a(x)))))


class Shared(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 1)
        self.twice = nn.Conv2d(8, 8, 1)
        self.head = nn.Conv2d(8, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.twice(F.relu(self.twice(F.relu(self.stem(x)))))))


class Chunk(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 8, 1)
        self.b = nn.Conv2d(4, 4, 1)
        self.head = nn.Conv2d(4, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        left, right = self.a(x).chunk(2, dim=1)
        return self.head(left * torch.sigmoid(self.b(right)))


class Split(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 8, 1)
        self.head = nn.Conv2d(4, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.a(x)
        left, right = torch.split(y, y.shape[1] // 2, dim=1)
        return self.head(F.relu(left)) + self.head(F.relu(right))


class Flatten(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 4, 3, stride=2, padding=1)
        self.head = nn.Linear(4 * 16, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.a(x)).flatten(1))


class Group(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 12, 1)
        self.norm = nn.GroupNorm(4, 12)
        self.head = nn.Conv2d(12, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.norm(self.a(x))))


class Transposed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 4, 1)
        self.up = nn.ConvTranspose2d(4, 6, 2, stride=2)
        self.norm = nn.BatchNorm2d(6)
        self.head = nn.Conv2d(6, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.norm(self.up(F.relu(self.a(x))))))


class Shuffle(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 8, 1)
        self.b = nn.Conv2d(8, 4, 1)
        self.c = nn.Conv2d(2, 4, 1)
        self.head = nn.Conv2d(4, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.a(x)
        batch, channels, height, width = y.shape
        y = y.view(batch, 2, channels // 2, height, width).transpose(1, 2).reshape(batch, channels, height, width)
        return self.head(self.c(F.pixel_shuffle(F.relu(self.b(F.relu(y))).repeat(1, 2, 1, 1), 2)))


class SqueezeExcite(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 8, 1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.reduce = nn.Conv2d(8, 4, 1)
        self.expand = nn.Conv2d(4, 8, 1)
        self.scale = nn.Parameter(torch.rand(8, 1, 1) + 0.5)
        self.head = nn.Conv2d(8, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.silu(self.norm(self.a(x)))
        gate = torch.sigmoid(self.expand(F.relu(self.reduce(x.mean((2, 3), keepdim=True)))))
        return self.head(x * gate * self.scale)


class Transformer(nn.Module):
    """One layer with heads that are split by attributes, and an MLP."""

    def __init__(self) -> None:
        super().__init__()
        self.num_heads, self.attn_dim = 4, 8
        self.norm1 = nn.LayerNorm(8)
        self.qkv = nn.Linear(8, 24)
        self.proj = nn.Linear(8, 8)
        self.norm2 = nn.LayerNorm(8)
        self.up = nn.Linear(8, 16)
        self.down = nn.Linear(16, 8)

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, _ = x.shape
        q, k, v = self.qkv(self.norm1(x)).reshape(batch, tokens, 3, self.num_heads, 2).permute(2, 0, 3, 1, 4).unbind(0)
        y = (q @ k.transpose(-2, -1) * 2**-0.5).softmax(-1) @ v
        x = x + self.proj(y.transpose(1, 2).reshape(batch, tokens, self.attn_dim))
        return x + self.down(F.gelu(self.up(self.norm2(x))))


class Gated(nn.Module):
    """A gated linear unit."""

    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Linear(8, 12)
        self.down = nn.Linear(6, 8)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(F.glu(self.up(x), dim=-1))


class UNet(nn.Module):
    """Two levels down and up, skip connections cut to size and concatenated."""

    def __init__(self) -> None:
        super().__init__()
        self.down1 = self._block(3, 8)
        self.down2 = self._block(8, 16)
        self.bottom = self._block(16, 32)
        self.up2 = nn.ConvTranspose2d(32, 16, 2, stride=2)
        self.out2 = self._block(32, 16)
        self.up1 = nn.ConvTranspose2d(16, 8, 2, stride=2)
        self.out1 = self._block(16, 8)
        self.last = nn.Conv2d(8, 2, 1)

    @staticmethod
    def _block(before: int, after: int) -> nn.Module:
        return nn.Sequential(nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        first = self.down1(x)
        second = self.down2(F.max_pool2d(first, 2))
        x = self.up2(self.bottom(F.max_pool2d(second, 2)))
        x = self.out2(torch.cat([x, second[:, :, : x.shape[2], : x.shape[3]]], dim=1))
        x = self.up1(x)
        return self.last(self.out1(torch.cat([x, first[:, :, : x.shape[2], : x.shape[3]]], dim=1)))


EXAMPLES: dict[type[nn.Module], tuple[int, ...]] = {
    Residual: IMAGE,
    Concat: IMAGE,
    Depthwise: IMAGE,
    Grouped: IMAGE,
    Shared: IMAGE,
    Chunk: IMAGE,
    Split: IMAGE,
    Flatten: IMAGE,
    Group: IMAGE,
    Transposed: IMAGE,
    Shuffle: IMAGE,
    SqueezeExcite: IMAGE,
    Transformer: TOKENS,
    Gated: TOKENS,
    UNet: IMAGE,
}
