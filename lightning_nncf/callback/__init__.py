"""The Lightning callback: hooks in, calls out, no maths."""

from lightning_nncf.callback.callback import NNCFCallback

__all__ = ["NNCFCallback"]
