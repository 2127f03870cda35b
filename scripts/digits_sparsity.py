"""Accuracy of sparse and binarized networks against float on digits and hard digits, five folds, paired.

Every image is tested once. A run counts only if it reached its sparsity and its outputs are finite.

    python scripts/digits_sparsity.py --methods magnitude rb n_m --datasets digits hard
"""

from __future__ import annotations

import argparse
import copy
import logging
import statistics
import sys
import time
import warnings
from typing import Any

import torch
from pytorch_lightning import Trainer, seed_everything

from example_modules.classification import ImageClassifier
from example_modules.digits import FOLDS, DigitsDataModule
from lightning_nncf import NNCFCallback

# The first convolution and those of the shortcuts stay in floating point.
_OUTER = ["{re}^conv/", "{re}shortcut"]

# The schedule reaches its target after a quarter of the epochs and freezes the masks after half of them.
METHODS: dict[str, dict[str, Any]] = {
    "magnitude": {"algorithm": "magnitude_sparsity", "params": {"sparsity_target": 0.7}},
    "rb": {"algorithm": "rb_sparsity", "params": {"sparsity_target": 0.61}},
    "n_m": {"algorithm": "n_m_sparsity"},
    "xnor": {"algorithm": "binarization", "mode": "xnor", "ignored_scopes": _OUTER},
    "dorefa": {"algorithm": "binarization", "mode": "dorefa", "ignored_scopes": _OUTER},
}


def config_of(method: str, epochs: int) -> dict[str, Any]:
    """Return the configuration of a method for a number of epochs."""
    section = copy.deepcopy(METHODS[method])
    if method in ("magnitude", "rb"):
        section["params"] |= {"sparsity_target_epoch": epochs // 4, "sparsity_freeze_epoch": epochs // 2}
    if method in ("xnor", "dorefa"):
        section["params"] = {
            "activations_quant_start_epoch": 0,
            "weights_quant_start_epoch": epochs // 5,
            "lr_poly_drop_start_epoch": 3 * epochs // 5,
            "lr_poly_drop_duration_epochs": epochs - 3 * epochs // 5,
            "disable_wd_start_epoch": 3 * epochs // 5,
        }
    return {"compression": section}


def trainer(epochs: int, *callbacks: Any) -> Trainer:
    """Make a quiet Trainer on the CPU."""
    return Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        devices=1,
        callbacks=list(callbacks),
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


def accuracy(module: ImageClassifier, data: DigitsDataModule) -> float:
    """Return the test accuracy in percent."""
    return 100 * float(trainer(1).test(module, datamodule=data, verbose=False)[0]["test_accuracy"])


def main() -> None:
    """Train, compress, measure and print one line per fold and one per method."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--methods", nargs="+", default=["magnitude", "rb", "n_m"], choices=sorted(METHODS))
    parser.add_argument("--datasets", nargs="+", default=["digits", "hard"], choices=["digits", "hard"])
    parser.add_argument("--folds", type=int, default=FOLDS)
    parser.add_argument("--widths", nargs="+", type=int, default=[16, 32, 64])
    parser.add_argument("--float-epochs", type=int, default=30)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--optimizer", default="sgd", choices=["sgd", "adam"])
    parser.add_argument("--lr", type=float, default=0.1)
    parser.add_argument("--fine-tune-lr", type=float, default=0.05)
    parser.add_argument("--weight-decay", type=float, default=5e-4)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    torch.set_num_threads(1)
    for dataset in arguments.datasets:
        losses: dict[str, list[float]] = {method: [] for method in arguments.methods}
        for fold in range(arguments.folds):
            seed_everything(fold, verbose=False)
            data = DigitsDataModule(fold=fold, hard=dataset == "hard")
            plain = ImageClassifier(
                network_args={"widths": arguments.widths},
                optimizer=arguments.optimizer,
                lr=arguments.lr,
                fine_tune_lr=arguments.fine_tune_lr,
                weight_decay=arguments.weight_decay,
            )
            trainer(arguments.float_epochs).fit(plain, datamodule=data)
            tuned = copy.deepcopy(plain)
            # The float network is trained on for as long as the compressed one, so that the pair differs in one thing.
            trainer(arguments.epochs).fit(tuned, datamodule=data)
            reference = accuracy(tuned, data)
            for method in arguments.methods:
                start = time.perf_counter()
                module = copy.deepcopy(plain)
                callback = NNCFCallback(config_of(method, arguments.epochs), export_path=None)
                trainer(arguments.epochs, callback).fit(module, datamodule=data)
                assert callback.compressed is not None
                reached = callback.compressed.statistics()
                result = accuracy(module, data)
                losses[method].append(reference - result)
                level = reached.get("sparsity_level", reached.get("binarized_macs", float("nan")))
                sys.stdout.write(
                    f"{dataset} fold {fold} {method}: float {reference:.2f} compressed {result:.2f} "
                    f"level {level:.4f} stage {callback.compressed.stage.name} {time.perf_counter() - start:.0f}s\n"
                )
                sys.stdout.flush()
        for method, values in losses.items():
            error = statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else float("nan")
            sys.stdout.write(f"{dataset} {method}: loses {statistics.mean(values):.2f} +- {error:.2f} points\n")


if __name__ == "__main__":
    main()
