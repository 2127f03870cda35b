"""Keys of staged training, as NNCF spells them."""

from __future__ import annotations

from pydantic import Field

from lightning_nncf.config.base import StrictModel

__all__ = ["StagedConfig"]


class StagedConfig(StrictModel):
    """Staged training: activations and weights are compressed from different epochs on."""

    batch_multiplier: int = Field(1, ge=1)
    """Batches whose gradients are accumulated before each optimizer step."""

    activations_quant_start_epoch: int = Field(1, ge=0)
    """First epoch with compressed activations."""

    weights_quant_start_epoch: int = Field(1, ge=0)
    """First epoch with compressed weights."""

    lr_poly_drop_start_epoch: int | None = Field(None, ge=0)
    """Epoch from which the learning rate drops."""

    lr_poly_drop_duration_epochs: int = Field(30, ge=0)
    """Epochs over which the learning rate drops to zero."""

    disable_wd_start_epoch: int | None = Field(None, ge=0)
    """Epoch from which there is no weight decay."""

    base_lr: float | None = Field(None, gt=0)
    """Learning rate to start from; absent means the optimizer's own."""

    base_wd: float | None = Field(None, ge=0)
    """Weight decay to start from; absent means the optimizer's own."""
