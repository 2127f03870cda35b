"""Networks that read one parameter in several ways, each with the input that shows it."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

IDS = torch.tensor([[1, 2, 3, 0], [5, 4, 7, 2]])


class Table(nn.Module):
    """A table that is looked up, and read once more as `how` says; sizes 8 and 8 hide a wrong axis from shapes."""

    def __init__(self, how: Callable[[Tensor, Tensor], Tensor], width: int = 8) -> None:
        super().__init__()
        self.emb = nn.Embedding(8, width)
        self.layer = nn.Linear(width, width)
        self.how = how

    def forward(self, ids: Tensor) -> Tensor:
        return self.how(torch.relu(self.layer(self.emb(ids))), self.emb.weight)


class Codebook(nn.Module):
    """The entries of a codebook are measured, chosen and looked up."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 4)
        self.codebook = nn.Embedding(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.layer(x)
        near = torch.cdist(hidden, self.codebook.weight)
        return self.codebook(near.argmin(-1)) * near.softmax(-1).amax(-1, keepdim=True)


class Attends(nn.Module):
    """A linear layer whose weight takes the weighted sum behind it: channels along both axes."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x).softmax(-1) @ self.layer.weight


class Given(nn.Module):
    """Multiplies with what it is given."""

    def forward(self, x: Tensor, weight: Tensor) -> Tensor:
        return F.linear(x, weight)


class Passes(nn.Module):
    """The parameter is an argument of the module that multiplies with it."""

    def __init__(self) -> None:
        super().__init__()
        self.emb = nn.Embedding(8, 4)
        self.head = Given()

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.emb(ids), self.emb.weight)


class Below(nn.Module):
    """A child that reads a parameter of the module above it."""

    def __init__(self, above: nn.Module) -> None:
        super().__init__()
        self.above = [above]

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.above[0].table)


class Above(nn.Module):
    """The owner of a parameter and its child read it."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(8, 4))
        self.below = Below(self)

    def forward(self, ids: Tensor) -> Tensor:
        return self.below(F.embedding(ids, self.table)) + F.embedding(ids, self.table).sum()


class TiedAndRead(nn.Module):
    """A parameter with two names, read by both and by the network itself."""

    def __init__(self) -> None:
        super().__init__()
        self.emb = nn.Embedding(8, 8)
        self.head = nn.Linear(8, 8, bias=False)
        self.head.weight = self.emb.weight

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.emb(ids)) + F.linear(self.emb(ids), self.head.weight.t())


NETWORKS: dict[str, tuple[Callable[[], nn.Module], str, Tensor]] = {
    "linear": (lambda: Table(F.linear), "emb.weight", IDS),
    "t": (lambda: Table(lambda h, w: h @ w.t()), "emb.weight", IDS),
    "T": (lambda: Table(lambda h, w: h @ w.T), "emb.weight", IDS),
    "mT": (lambda: Table(lambda h, w: h @ w.mT), "emb.weight", IDS),
    "permute": (lambda: Table(lambda h, w: h @ w.permute(1, 0)), "emb.weight", IDS),
    "transpose": (lambda: Table(lambda h, w: torch.matmul(h, w.transpose(0, 1))), "emb.weight", IDS),
    "as it is": (lambda: Table(lambda h, w: h @ w), "emb.weight", IDS),
    "reshape": (lambda: Table(lambda h, w: h @ w.reshape(1, 8, 8).mT), "emb.weight", IDS),
    "slice": (lambda: Table(lambda h, w: h @ w[:5].t()), "emb.weight", IDS),
    "expand": (lambda: Table(lambda h, w: torch.bmm(h, w.t().unsqueeze(0).expand(2, -1, -1))), "emb.weight", IDS),
    "codebook": (Codebook, "codebook.weight", torch.linspace(-2, 2, 30).reshape(5, 6)),
    "attends": (Attends, "layer.weight", torch.linspace(-2, 2, 30).reshape(5, 6)),
    "argument": (Passes, "emb.weight", IDS),
    "child": (Above, "table", IDS),
    "tied": (TiedAndRead, "emb.weight", IDS),
}
