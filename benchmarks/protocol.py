"""The accuracy protocol: compressed against float on digits, five folds, paired in each.

Every image is tested once. The float network is trained on for as many epochs as the compressed one, from the same
weights, so that a pair differs in one thing. A run counts only if it reached its compression and its outputs are
finite.
"""

from __future__ import annotations

import argparse
import copy
import hashlib
import json
import logging
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from pytorch_lightning import Trainer, seed_everything

from example_modules.classification import ImageClassifier
from example_modules.digits import FOLDS, DigitsDataModule
from lightning_nncf import NNCFCallback
from lightning_nncf.core.stage import CompressionStage

__all__ = ["Dataset", "Method", "Recipe", "Run", "add_arguments", "run_protocol", "run_with_arguments", "summarize"]

Dataset = Literal["digits", "hard"]
Split = Literal["test", "val"]


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How networks are trained.

    Args:
        float_epochs: Epochs of the float network that everything starts from.
        epochs: Further epochs, of the float and of the compressed network alike.
        module: Arguments of `ImageClassifier`.
        batch_size: Images per batch.
    """

    float_epochs: int = 30
    epochs: int = 30
    module: Mapping[str, Any] = field(default_factory=lambda: {"lr": 0.1, "fine_tune_lr": 0.02})
    batch_size: int = 64


@dataclass(frozen=True, kw_only=True)
class Method:
    """One way to compress.

    Args:
        config: NNCF configuration.
        fine_tune_lr: Learning rate of the compressed network's epochs; default: the recipe's, as the float control.
        reached: Tells from the statistics at the end whether the compression reached its target; default: the stage is
            fully compressed.
        callbacks: Makes further callbacks for the Trainer of the compressed network.
    """

    config: Mapping[str, Any]
    fine_tune_lr: float | None = None
    reached: Callable[[Mapping[str, float]], bool] | None = None
    callbacks: Callable[[], Sequence[Any]] = tuple


@dataclass(frozen=True, kw_only=True)
class Run:
    """One compressed network and its float twin; accuracies in percent, `loss` in points."""

    dataset: Dataset
    seed: int
    fold: int
    method: str
    float_accuracy: float
    accuracy: float
    reached: bool
    statistics: Mapping[str, float]
    seconds: float

    @property
    def loss(self) -> float:
        """Points of accuracy that compression cost."""
        return self.float_accuracy - self.accuracy


def run_protocol(
    methods: Mapping[str, Method | Mapping[str, Any]],
    dataset: Dataset,
    *,
    recipe: Recipe | None = None,
    folds: Sequence[int] = tuple(range(FOLDS)),
    seeds: Sequence[int] = (0,),
    split: Split = "test",
    cache: Path | None = None,
    report: Callable[[Run], None] | None = None,
) -> list[Run]:
    """Train, compress and measure.

    Args:
        methods: Methods, or their NNCF configurations, by name.
        dataset: Which images.
        recipe: How networks are trained; default: `Recipe()`.
        folds: Folds to test on.
        seeds: Seeds of weights and of the order of images; every fold is run with each.
        split: Measure on the fold under test, or on the validation images, on which recipes are chosen.
        cache: Folder that keeps float networks for the next call with the same recipe.
        report: Called with every run as soon as it is done.

    Returns:
        One run per seed, fold and method, in this order.
    """
    recipe = recipe or Recipe()
    known = {name: one if isinstance(one, Method) else Method(config=one) for name, one in methods.items()}
    runs = []
    for seed in seeds:
        for fold in folds:
            data = DigitsDataModule(fold=fold, hard=dataset == "hard", batch_size=recipe.batch_size, seed=seed)
            plain, tuned = _float_networks(recipe, data, dataset, seed, cache)
            reference = _accuracy(tuned, data, split)
            for name, method in known.items():
                run = _compressed_run(method, plain, data, recipe, split, seed)
                runs.append(Run(dataset=dataset, seed=seed, fold=fold, method=name, float_accuracy=reference, **run))
                if report is not None:
                    report(runs[-1])
    return runs


def summarize(runs: Iterable[Run]) -> dict[str, dict[str, Any]]:
    """Return per method mean accuracies, the mean loss and its standard error over folds.

    Seeds are averaged in each fold first: runs on the same images are not independent. A method of which a run did not
    reach its compression, or gave values that are not finite, has no accuracy.

    >>> common = {"dataset": "digits", "seed": 0, "method": "m", "reached": True, "statistics": {}, "seconds": 1.0}
    >>> runs = [Run(fold=fold, float_accuracy=99.0, accuracy=99.0 - fold, **common) for fold in (0, 1, 2)]
    >>> summarize(runs)["m"]["loss"], round(summarize(runs)["m"]["standard_error"], 4)
    (1.0, 0.5774)
    """
    grouped: dict[str, list[Run]] = {}
    for run in runs:
        grouped.setdefault(run.method, []).append(run)
    found: dict[str, dict[str, Any]] = {}
    for method, mine in grouped.items():
        missed = [f"fold {run.fold} seed {run.seed}" for run in mine if not run.reached]
        if missed:
            found[method] = {"accuracy": None, "not_reached": missed}
            continue
        losses = [statistics.mean(run.loss for run in mine if run.fold == fold) for fold in {run.fold for run in mine}]
        found[method] = {
            "float_accuracy": statistics.mean(run.float_accuracy for run in mine),
            "accuracy": statistics.mean(run.accuracy for run in mine),
            "loss": statistics.mean(losses),
            "standard_error": statistics.stdev(losses) / len(losses) ** 0.5 if len(losses) > 1 else None,
            "runs": len(mine),
        }
    return found


def add_arguments(parser: argparse.ArgumentParser, *, epochs: int = 30, fine_tune_lr: float = 0.02) -> None:
    """Add the options that all scripts of this protocol share.

    Args:
        parser: The parser.
        epochs: Default of the number of further epochs.
        fine_tune_lr: Default of the learning rate in them.
    """
    parser.add_argument("--datasets", nargs="+", default=["digits", "hard"], choices=["digits", "hard"])
    parser.add_argument("--folds", nargs="+", type=int, default=list(range(FOLDS)))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--split", default="test", choices=["test", "val"], help="`val` to choose a recipe")
    parser.add_argument("--float-epochs", type=int, default=30)
    parser.add_argument("--epochs", type=int, default=epochs)
    parser.add_argument("--network", help="of the digits example; default: small_resnet")
    parser.add_argument("--widths", nargs="+", type=int, default=[16, 32, 64])
    parser.add_argument("--optimizer", default="sgd", choices=["sgd", "adam", "adamw"])
    parser.add_argument("--lr", type=float, default=0.1)
    parser.add_argument("--fine-tune-lr", type=float, default=fine_tune_lr)
    parser.add_argument("--weight-decay", type=float, default=5e-4)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--cache", type=Path, help="folder that keeps float networks")


def run_with_arguments(
    methods: Mapping[str, Method | Mapping[str, Any]], arguments: argparse.Namespace
) -> dict[str, Any]:
    """Run the protocol as the options of `add_arguments` say, print every run, and return all of it as plain values."""
    warnings.simplefilter("ignore")
    for name in ("pytorch_lightning", "lightning_nncf", "lightning.pytorch"):
        logging.getLogger(name).setLevel(logging.ERROR)
    torch.set_num_threads(1)
    recipe = Recipe(
        float_epochs=arguments.float_epochs,
        epochs=arguments.epochs,
        batch_size=arguments.batch_size,
        module={
            **({} if arguments.network is None else {"network": arguments.network}),
            "network_args": {"widths": arguments.widths},
            "optimizer": arguments.optimizer,
            "lr": arguments.lr,
            "fine_tune_lr": arguments.fine_tune_lr,
            "weight_decay": arguments.weight_decay,
        },
    )
    found: dict[str, Any] = {"recipe": asdict(recipe), "split": arguments.split, "seeds": arguments.seeds}
    for dataset in arguments.datasets:
        runs = run_protocol(
            methods,
            dataset,
            recipe=recipe,
            folds=arguments.folds,
            seeds=arguments.seeds,
            split=arguments.split,
            cache=arguments.cache,
            report=_print,
        )
        found[dataset] = {"summary": summarize(runs), "runs": [asdict(run) for run in runs]}
        for method, summary in found[dataset]["summary"].items():
            sys.stdout.write(f"{dataset} {method}: {summary}\n")
    return found


def _print(run: Run) -> None:
    sys.stdout.write(
        f"{run.dataset} seed {run.seed} fold {run.fold} {run.method}: float {run.float_accuracy:.2f} "
        f"compressed {run.accuracy:.2f} reached {run.reached} {run.seconds:.0f}s\n"
    )
    sys.stdout.flush()


def _float_networks(
    recipe: Recipe, data: DigitsDataModule, dataset: Dataset, seed: int, cache: Path | None
) -> tuple[ImageClassifier, ImageClassifier]:
    """Return the trained float network, and the same one trained on."""
    key = json.dumps([asdict(recipe), dataset, data.fold, seed, torch.__version__], sort_keys=True)
    file = None if cache is None else cache / f"{hashlib.sha256(key.encode()).hexdigest()[:16]}.pt"
    seed_everything(seed, verbose=False)
    plain = ImageClassifier(**recipe.module)
    tuned = copy.deepcopy(plain)
    if file is not None and file.exists():
        for network, state in zip((plain, tuned), torch.load(file, weights_only=True), strict=True):
            network.load_state_dict(state)
            network.fits_done = 1
        return plain, tuned
    _trainer(recipe.float_epochs).fit(plain, datamodule=data)
    tuned = copy.deepcopy(plain)
    seed_everything(seed, verbose=False)
    _trainer(recipe.epochs).fit(tuned, datamodule=data)
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        temporary = file.with_suffix(f".{time.monotonic_ns()}")
        torch.save([plain.state_dict(), tuned.state_dict()], temporary)
        temporary.replace(file)
    return plain, tuned


def _compressed_run(
    method: Method, plain: ImageClassifier, data: DigitsDataModule, recipe: Recipe, split: Split, seed: int
) -> dict[str, Any]:
    """Compress a copy of a float network, train it and measure it."""
    start = time.perf_counter()
    module = copy.deepcopy(plain)
    if method.fine_tune_lr is not None:
        module.fine_tune_lr = method.fine_tune_lr
    callback = NNCFCallback(copy.deepcopy(dict(method.config)), export_path=None)
    seed_everything(seed, verbose=False)
    _trainer(recipe.epochs, callback, *method.callbacks()).fit(module, datamodule=data)
    compressed = callback.compressed
    assert compressed is not None
    found = compressed.statistics()
    if method.reached is not None:
        reached = method.reached(found)
    else:
        reached = compressed.stage is CompressionStage.FULLY_COMPRESSED
    return {
        "accuracy": _accuracy(module, data, split),
        "reached": reached and _finite(module, data),
        "statistics": found,
        "seconds": time.perf_counter() - start,
    }


def _accuracy(module: ImageClassifier, data: DigitsDataModule, split: Split) -> float:
    """Return an accuracy in percent."""
    trainer = _trainer(1)
    measure = trainer.test if split == "test" else trainer.validate
    return 100 * float(measure(module, datamodule=data, verbose=False)[0][f"{split}_accuracy"])


@torch.no_grad()
def _finite(module: ImageClassifier, data: DigitsDataModule) -> bool:
    """Tell whether parameters and outputs for the fold under test are finite: an argmax of NaN still is a class."""
    module.eval()
    if not all(bool(torch.isfinite(parameter).all()) for parameter in module.parameters()):
        return False
    return all(bool(torch.isfinite(module(images)).all()) for images, _ in data.test_dataloader())


def _trainer(epochs: int, *callbacks: Any) -> Trainer:
    """Make a quiet Trainer on the CPU that looks at validation images only when told to `validate`."""
    return Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        devices=1,
        callbacks=list(callbacks),
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        check_val_every_n_epoch=epochs + 1,
    )
