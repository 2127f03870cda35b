"""Networks by name: torchvision's, timm's, and small ones of our own."""

from __future__ import annotations

from typing import Any

from torch import nn
from torchvision.models import get_model

from example_modules.inverted_residual import SmallMobileNet
from example_modules.residual import SmallResNet

__all__ = ["build_network", "complete_arguments", "usual_auxiliary_weight"]

_OWN: dict[str, type[nn.Module]] = {"small_resnet": SmallResNet, "small_mobilenet": SmallMobileNet}
_TORCHVISION = "torchvision:"
_TIMM = "timm:"
# Szegedy et al. give the two heads of GoogLeNet 0.3 each, and torchvision's Inception V3 was trained with 0.4.
_AUXILIARY_WEIGHTS = {"torchvision:googlenet": 0.3, "torchvision:inception_v3": 0.4}
_OTHER_AUXILIARY_WEIGHT = 0.4


def build_network(name: str, num_classes: int, weights: str | None = None, **arguments: Any) -> nn.Module:
    """Build a network by name.

    Args:
        name: ``small_resnet``, ``small_mobilenet``, ``torchvision:`` or ``timm:`` and a name such as
            ``torchvision:resnet18`` or ``timm:convnext_atto``.
        num_classes: Number of classes.
        weights: Pretrained weights to download: a name such as ``IMAGENET1K_V1`` for torchvision, ``DEFAULT`` for timm.
        **arguments: Further arguments of the network.

    Raises:
        ValueError: If there is no such network, or no such weights.

    >>> type(build_network("torchvision:squeezenet1_1", num_classes=10)).__name__
    'SqueezeNet'
    """
    if name.startswith(_TORCHVISION):
        arguments = complete_arguments(name, weights, arguments)
        network: nn.Module = get_model(
            name.removeprefix(_TORCHVISION), num_classes=num_classes, weights=weights, **arguments
        )
        return network
    if weights not in (None, "DEFAULT") or (weights and not name.startswith(_TIMM)):
        known = "'DEFAULT' or null" if name.startswith(_TIMM) else "null: there are no pretrained ones"
        raise ValueError(f"`weights` of {name!r} must be {known}, got {weights!r}")
    if name.startswith(_TIMM):
        return _build_timm(name.removeprefix(_TIMM), num_classes, weights is not None, arguments)
    if name not in _OWN:
        raise ValueError(
            f"`network` must be one of {sorted(_OWN)} or start with {_TORCHVISION!r} or {_TIMM!r}, got {name!r}"
        )
    return _OWN[name](num_classes=num_classes, **arguments)


def complete_arguments(name: str, weights: str | None, arguments: dict[str, Any]) -> dict[str, Any]:
    """Spell out the arguments that torchvision would choose by whether there are weights.

    A network that is rebuilt from a checkpoint, and so without weights, is then the same.

    >>> complete_arguments("torchvision:googlenet", "DEFAULT", {})
    {'transform_input': True, 'aux_logits': False, 'init_weights': False}
    """
    if name not in _AUXILIARY_WEIGHTS:
        return dict(arguments)
    pretrained = weights is not None
    chosen = {
        "transform_input": pretrained,
        "aux_logits": name == "torchvision:inception_v3" or not pretrained,
        "init_weights": not pretrained,
    }
    return {**chosen, **arguments}


def usual_auxiliary_weight(name: str) -> float:
    """Return the usual weight of the losses of a network's auxiliary heads.

    >>> usual_auxiliary_weight("torchvision:googlenet"), usual_auxiliary_weight("torchvision:inception_v3")
    (0.3, 0.4)
    """
    return _AUXILIARY_WEIGHTS.get(name, _OTHER_AUXILIARY_WEIGHT)


def _build_timm(name: str, num_classes: int, pretrained: bool, arguments: dict[str, Any]) -> nn.Module:
    try:
        import timm
    except ImportError as error:
        raise ValueError(f"`network: {_TIMM}{name}` needs timm; install it with `pip install timm`") from error
    if not timm.is_model(name):
        near = timm.list_models(f"*{name}*")[:5]
        raise ValueError(f"timm has no network {name!r}" + (f"; near: {', '.join(near)}" if near else ""))
    network: nn.Module = timm.create_model(name, pretrained=pretrained, num_classes=num_classes, **arguments)
    return network
