"""One row from training to a proven file, and what is worth writing down of it."""

from __future__ import annotations

import datetime
import os
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml
from pytorch_lightning import Trainer

from benchmarks.machine import machine
from lightning_nncf import NNCFCallback
from lightning_nncf.algorithms.sparsity.base import MaskedSparsity
from lightning_nncf.cli import NNCFCLI
from lightning_nncf.core.checkpoint import load_from_checkpoint, open_checkpoint
from lightning_nncf.core.compressed import CompressedNetwork
from lightning_nncf.core.stage import CompressionStage
from lightning_nncf.proof import Proof, export_and_verify
from lightning_nncf.proof.proof import SAMPLES
from scripts.zoo.rows import CONFIGS, ZooRow
from scripts.zoo.smoke import randomize, smoke_overrides, write_images

__all__ = ["describe", "problems_of", "reproduce"]

_POINTS = 0.3
"""Percentage points by which FLOPs and parameters left may differ from the published ones."""


def reproduce(
    row: ZooRow, data: Path | None, output: Path, *, smoke: bool, options: Iterable[str] = ()
) -> dict[str, Any]:
    """Train, evaluate a checkpoint, export it and prove the file.

    Args:
        row: The row.
        data: Folder of ImageNet; of no use for a smoke run.
        output: Folder for checkpoints and files; those of the row go into a folder of its name.
        smoke: Run two short epochs on tiny data instead.
        options: Further arguments of LightningCLI, as in ``--trainer.devices=2``; paths start at the repository's root.

    Returns:
        The line of results; ``problems`` says where the row is not what the table says.
    """
    started = (time.perf_counter(), time.process_time())
    folder = output.resolve() / row.name
    folder.mkdir(parents=True, exist_ok=True)
    arguments = [f"--config={file}" for file in row.files]
    if smoke:
        images = folder.parent / "imagenet"
        write_images(images)
        overrides = folder / "smoke.yaml"
        overrides.write_text(yaml.safe_dump(smoke_overrides(row.settings(), images), sort_keys=False))
        arguments.append(f"--config={overrides}")
    else:
        assert data is not None
        arguments.append(f"--data.init_args.data_dir={data.resolve()}")
    arguments += [f"--trainer.default_root_dir={folder}", *options]
    # Paths in the rows' files start at the root of the repository.
    with _working_directory(CONFIGS.parents[1]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*args parameter is intended.*")
        cli = NNCFCLI(args=arguments, run=False, save_config_callback=None)
    if smoke:
        cli.datamodule.setup("fit")
        randomize(cli.model.network, next(iter(cli.datamodule.val_dataloader()))[0])
    callbacks: list[Any] = cli.trainer.callbacks  # type: ignore[attr-defined]
    callback = next((each for each in callbacks if isinstance(each, NNCFCallback)), None)
    if callback is not None:
        # The checkpoint is exported below, as somebody would who has only that.
        callback.export_path = None
    cli.trainer.fit(cli.model, datamodule=cli.datamodule)
    checkpoint = cli.trainer.checkpoint_callback.best_model_path  # type: ignore[union-attr]
    accuracies = _evaluate(cli, checkpoint, compressed=callback is not None)
    record = {
        "row": row.name,
        "smoke": smoke,
        "date": datetime.date.today().isoformat(),
        "epochs": cli.trainer.current_epoch,
        "accuracy": None if smoke else accuracies,
        "problems": [],
        "machine": machine(),
    }
    if callback is not None:
        compressed = open_checkpoint(checkpoint)
        batch = next(iter(cli.datamodule.test_dataloader()))[0][:SAMPLES]
        proof = export_and_verify(compressed, folder / f"{row.name}.onnx", inputs=((batch,), {}))
        record |= describe(compressed, proof)
        record["problems"] = problems_of(row, compressed, record)
    wall, work = time.perf_counter() - started[0], time.process_time() - started[1]
    return record | {"seconds": round(wall, 1), "cpu_seconds": round(work, 1)}


def describe(compressed: CompressedNetwork, proof: Proof) -> dict[str, Any]:
    """Return what was reached and proven as plain values."""
    found = compressed.statistics()
    bits = {
        kind: {name.rpartition("_")[2]: int(value) for name, value in found.items() if name.startswith(f"{kind}_bits_")}
        for kind in ("weight", "activation")
    }
    record: dict[str, Any] = {
        "algorithms": [algorithm.name for algorithm in compressed.algorithms],
        "stage": compressed.stage.name,
        "bits": bits if any(bits.values()) else None,
        "sparsity": next((each.sparsity() for each in compressed.algorithms if isinstance(each, MaskedSparsity)), None),
        "flops_left": found.get("flops_ratio"),
        "parameters_left": found.get("parameter_ratio"),
        "binarized_macs": found.get("binarized_macs"),
        "bytes": proof.export.size,
    }
    if proof.verification is not None:
        record["float_bytes"] = proof.verification.reference_size
        record["proof"] = {
            result.runtime: {
                "version": result.version,
                "passed": result.passed,
                "skipped": result.skipped,
                "difference": None if result.difference is None else asdict(result.difference),
                "layer_check": None if result.layer_check is None else str(result.layer_check),
                "convolutions": None if result.layers is None else asdict(result.layers),
            }
            for result in proof.verification.results
        }
    return record


def problems_of(row: ZooRow, compressed: CompressedNetwork, record: Mapping[str, Any]) -> list[str]:
    """Compare what was reached with the table.

    A row must be fully compressed, run all convolutions in INT8 where it says so, have NNCF's quantizers and bits, be
    sparse to the weight, and leave as many FLOPs and parameters.
    """
    problems = []
    if compressed.stage is not CompressionStage.FULLY_COMPRESSED:
        problems.append(f"the stage is {compressed.stage.name}")
    if row.int8:
        for runtime, result in record["proof"].items():
            layers = result["convolutions"]
            if layers is not None and layers["convolutions"] != layers["all_convolutions"]:
                problems.append(f"{runtime} runs {layers['convolutions']} of {layers['all_convolutions']} in INT8")
    if row.quantizers is not None and record["bits"] is not None:
        counts = [sum(kind.values()) for kind in record["bits"].values()]
        if sum(counts) != row.quantizers:
            problems.append(f"there are {sum(counts)} quantizers instead of {row.quantizers}")
        eight = sum(kind.get("8", 0) for kind in record["bits"].values())
        expected = row.quantizers if row.eight_bits is None else row.eight_bits
        if eight != expected:
            problems.append(f"{eight} quantizers have 8 bits instead of {expected}")
    if row.sparsity is not None:
        weights = sum(m.mask.numel() for a in compressed.algorithms if isinstance(a, MaskedSparsity) for m in a.masks)
        if abs(record["sparsity"] - row.sparsity) * weights > 1:
            problems.append(f"the sparsity is {record['sparsity']} instead of {row.sparsity}")
    for key, published in (("flops_left", row.flops_left), ("parameters_left", row.parameters_left)):
        if published is not None and abs(100 * record[key] - published) > _POINTS:
            problems.append(f"{key} is {100 * record[key]:.2f} % instead of {published:.2f} %")
    return problems


def _evaluate(cli: NNCFCLI, checkpoint: str, *, compressed: bool) -> dict[str, float]:
    """Test a module that was made from the checkpoint alone."""
    kind = type(cli.model)
    if compressed:
        module: Any = load_from_checkpoint(kind, checkpoint)
    else:
        module = kind.load_from_checkpoint(checkpoint, map_location="cpu", weights_only=True)
    trainer = Trainer(accelerator="auto", devices=1, logger=False, enable_progress_bar=False)
    (results,) = trainer.test(module, datamodule=cli.datamodule, verbose=False)
    return {name: float(value) for name, value in results.items()}


@contextmanager
def _working_directory(folder: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)
