from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import EMAWeightAveraging, StochasticWeightAveraging, WeightAveraging
from torch import Tensor
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel

from lightning_nncf import NNCFCallback, load_from_checkpoint
from lightning_nncf.errors import ConfigError
from lightning_nncf.hooks.insertion import inserted
from tests.callback.modules import Classifier, config, loader, trainer

DECAY = 0.8
EPOCHS = 4
BN = {"batchnorm_adaptation": {"num_bn_adaptation_samples": 8}}
INT8 = config()["compression"]


def sparsity(algorithm: str, **params: Any) -> dict[str, Any]:
    schedule = {"schedule": "polynomial", "sparsity_target": 0.5, "sparsity_target_epoch": 2}
    return {"algorithm": algorithm, "params": {**schedule, "sparsity_freeze_epoch": 9, **params}}


def pruning(**params: Any) -> dict[str, Any]:
    schedule = {"schedule": "exponential", "pruning_target": 0.5, "pruning_steps": 2, "num_init_steps": 0}
    params = {**schedule, "grouping": "full", "all_weights": True, **params}
    return {"algorithm": "filter_pruning", "initializer": BN, "pruning_init": 0.0, "params": params}


COMPRESSIONS: dict[str, Any] = {
    "int8": [INT8],
    "magnitude+int8": [sparsity("magnitude_sparsity"), INT8],
    "rb": [sparsity("rb_sparsity")],
    "n:m": [{"algorithm": "n_m_sparsity"}],
    "const": [{"algorithm": "const_sparsity"}],
    "movement": [
        {
            "algorithm": "movement_sparsity",
            "params": {
                "warmup_start_epoch": 1,
                "warmup_end_epoch": 3,
                "importance_regularization_factor": 0.1,
                "enable_structured_masking": False,
            },
        }
    ],
    "binary": [
        {
            "algorithm": "binarization",
            "params": {"activations_quant_start_epoch": 1, "weights_quant_start_epoch": 2},
            "ignored_scopes": ["{re}stem.*"],
        }
    ],
    "staged": [{**INT8, "params": {"activations_quant_start_epoch": 1, "weights_quant_start_epoch": 2}}],
    "pruning": [pruning()],
    "pruning+int8 shrunk": [pruning(shrink_at=2), INT8],
}


class Ema(EMAWeightAveraging):
    """What a user derives from Lightning's class."""

    def __init__(self) -> None:
        super().__init__(decay=DECAY)


def ema() -> pl.Callback:
    return EMAWeightAveraging(decay=DECAY)


def swa() -> pl.Callback:
    return StochasticWeightAveraging(0.01, swa_epoch_start=2, annealing_epochs=1)


AVERAGES: dict[str, Callable[[], Any]] = {
    "ema": ema,
    "subclass": Ema,
    "mean": WeightAveraging,
    "mean without buffers": lambda: WeightAveraging(use_buffers=False),
    "swa": swa,
}


class Recorder(pl.Callback):
    """Averages the parameters and masks itself, exponentially and by whole dictionaries."""

    def __init__(self) -> None:
        self.ema: dict[str, Tensor] = {}
        self.last: dict[str, Tensor] = {}

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if trainer.current_epoch == EPOCHS:
            return  # the one that SWA adds
        for name, parameter in pl_module.named_parameters():
            value = parameter.detach().clone()
            known = self.ema.get(name)
            same = known is not None and known.shape == value.shape
            self.ema[name] = DECAY * known + (1 - DECAY) * value if same and known is not None else value
        self.last = {name: value.detach().clone() for name, value in pl_module.state_dict().items()}


def fit(tmp_path: Path, compression: Any, *callbacks: Any, first: bool = True, **kwargs: Any) -> Any:
    torch.manual_seed(0)
    module = Classifier()
    nncf = NNCFCallback({"compression": compression}, verify=False, export_path=kwargs.pop("export_path", None))
    order = (nncf, *callbacks) if first else (*callbacks, nncf)
    settings = {"max_epochs": EPOCHS, **kwargs}
    ckpt_path = settings.pop("ckpt_path", None)
    run = trainer(tmp_path, *order, **settings)
    run.fit(module, loader(), loader(), ckpt_path=ckpt_path)
    assert nncf.compressed is not None
    return module, nncf, run


@pytest.mark.parametrize(
    ("compression", "average"),
    [
        *((name, "mean") for name in COMPRESSIONS),
        *((name, "swa") for name in ("magnitude+int8", "movement", "staged", "pruning")),
        *(("magnitude+int8", name) for name in ("ema", "subclass", "mean without buffers")),
    ],
)
def test_average_keeps_masks_binary_and_level_as_scheduled(tmp_path: Path, compression: str, average: str) -> None:
    recorder = Recorder()
    module, nncf, _ = fit(tmp_path, COMPRESSIONS[compression], AVERAGES[average](), recorder)
    state = module.state_dict()
    assert all(value.isfinite().all() or name.endswith("threshold") for name, value in state.items())
    decisive = [name for name in state if name.rpartition(".")[2] in ("mask", "logits", "scores", "threshold")]
    assert all(torch.equal(state[name], recorder.last[name]) for name in decisive)
    assert nncf.compressed.stage.name == "FULLY_COMPRESSED" or "movement" in compression
    assert not torch.equal(state["net.head.bias"], recorder.last["net.head.bias"])


@pytest.mark.parametrize("first", [True, False], ids=["nncf first", "nncf last"])
@pytest.mark.parametrize("compression", ["int8", "magnitude+int8", "rb", "binary", "pruning+int8 shrunk"])
def test_trained_network_is_the_exponential_average(tmp_path: Path, compression: str, first: bool) -> None:
    recorder = Recorder()
    module, _, _ = fit(tmp_path, COMPRESSIONS[compression], recorder, ema(), first=first)
    averaged = {name: value for name, value in module.named_parameters() if "logits" not in name}
    begins_later = ("lnncf_in.binarization", "lnncf_out.binarization") if compression == "binary" else ()
    for name, value in averaged.items():
        if compression.startswith("pruning") and name != "net.head.bias":
            continue  # other sizes than the record
        if not any(part in name for part in begins_later):
            torch.testing.assert_close(value.detach(), recorder.ema[name], msg=name)


def test_range_that_begins_later_is_averaged_from_there(tmp_path: Path) -> None:
    ranges: list[dict[str, Tensor]] = []

    class Ranges(pl.Callback):
        def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
            ranges.append({n: p.detach().clone() for n, p in pl_module.named_parameters() if n.endswith(".scale")})

    module, _, _ = fit(tmp_path, COMPRESSIONS["staged"], Ranges(), ema())
    for name, scale in module.named_parameters():
        if name.endswith(".scale"):
            begin = 8 if "lnncf_weight" in name else 4
            expected = ranges[begin][name]
            for step in ranges[begin + 1 :]:
                expected = DECAY * expected + (1 - DECAY) * step[name]
            torch.testing.assert_close(scale.detach(), expected, msg=name)


@pytest.mark.parametrize("average", ["ema", "swa"])
@pytest.mark.parametrize("compression", ["int8", "magnitude+int8", "rb", "pruning+int8 shrunk"])
def test_exported_network_is_the_averaged_one(tmp_path: Path, compression: str, average: str) -> None:
    onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    module, _, _ = fit(tmp_path, COMPRESSIONS[compression], AVERAGES[average](), export_path="model.onnx")
    x = torch.randn(64, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    (found,) = onnxruntime.InferenceSession(tmp_path / "model.onnx").run(None, {"input": x.numpy()})
    module.eval()
    step = 2 * module(x).abs().max() / 255
    assert (module(x) - torch.from_numpy(found)).abs().max() < 2 * step
    if "pruning" in compression:
        assert module.net.stem.weight.shape[0] < 4


def test_statistics_of_the_added_epoch_belong_to_the_average(tmp_path: Path) -> None:
    module, nncf, run = fit(tmp_path, COMPRESSIONS["rb"], swa())
    module.train()
    for _, _, mask in inserted(module):
        mask.eval()
    outputs = []
    handle = module.net.stem.register_forward_hook(lambda _module, _args, output: outputs.append(output))
    for batch in loader():
        module(batch[0])
    handle.remove()
    expected = torch.stack([output.mean((0, 2, 3)) for output in outputs]).mean(0)
    reference, _, _ = fit(tmp_path, COMPRESSIONS["rb"], swa())
    torch.testing.assert_close(reference.net.norm.running_mean, expected.detach())
    assert run.max_epochs == 4
    assert nncf.compressed.algorithms[0].scheduler.current_epoch == 3


def test_validation_sees_the_average_and_training_goes_on_without_it(tmp_path: Path) -> None:
    seen: list[Tensor] = []

    class Spy(pl.Callback):
        def on_validation_batch_start(self, trainer: Any, pl_module: Any, *_: Any) -> None:
            if not trainer.sanity_checking:
                seen.append(pl_module.net.head.bias.detach().clone())

    recorder = Recorder()
    fit(tmp_path, COMPRESSIONS["magnitude+int8"], recorder, ema(), Spy(), max_epochs=1)
    torch.testing.assert_close(seen[0], recorder.ema["net.head.bias"])


def test_sanity_check_validates_calibrated_ranges(tmp_path: Path) -> None:
    scales: list[float] = []

    class Spy(pl.Callback):
        def on_validation_batch_start(self, trainer: Any, pl_module: Any, *_: Any) -> None:
            if trainer.sanity_checking:
                scales.extend(float(p.max()) for n, p in pl_module.named_parameters() if n.endswith("input_low"))
                scales.extend(float(p.max()) for n, p in pl_module.named_parameters() if n.endswith("scale"))

    fit(tmp_path, COMPRESSIONS["int8"], ema(), Spy(), max_epochs=1)
    assert scales
    assert 1.0 not in scales


@pytest.mark.parametrize("average", ["ema", "swa"])
@pytest.mark.parametrize("compression", ["magnitude+int8", "rb", "staged", "pruning+int8 shrunk"])
def test_resumed_average_equals_one_that_was_not_stopped(tmp_path: Path, compression: str, average: str) -> None:
    class Saver(pl.Callback):
        def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
            if trainer.current_epoch == 2:
                trainer.save_checkpoint(tmp_path / "middle.ckpt")

    whole, _, _ = fit(tmp_path, COMPRESSIONS[compression], AVERAGES[average](), Saver())
    path = tmp_path / "middle.ckpt"
    resumed, _, _ = fit(tmp_path, COMPRESSIONS[compression], AVERAGES[average](), ckpt_path=path)
    expected, found = whole.state_dict(), resumed.state_dict()
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)


@pytest.mark.parametrize("compression", ["magnitude+int8", "pruning", "pruning+int8 shrunk"])
def test_checkpoint_holds_the_average(tmp_path: Path, compression: str) -> None:
    class Saver(pl.Callback):
        def on_train_end(self, trainer: Any, pl_module: Any) -> None:
            trainer.save_checkpoint(tmp_path / "end.ckpt")

    module, _, _ = fit(tmp_path, COMPRESSIONS[compression], Saver(), ema())
    loaded = load_from_checkpoint(Classifier, tmp_path / "end.ckpt")
    assert all(torch.equal(value, loaded.state_dict()[name]) for name, value in module.state_dict().items())


def test_second_fit_with_the_same_callbacks_averages_again(tmp_path: Path) -> None:
    module, nncf, _ = fit(tmp_path, COMPRESSIONS["magnitude+int8"], ema(), max_epochs=1)
    recorder = Recorder()
    trainer(tmp_path, nncf, recorder, ema(), max_epochs=1).fit(module, loader(), loader())
    torch.testing.assert_close(module.net.head.weight.detach(), recorder.ema["net.head.weight"])


def test_losses_are_added_in_a_second_fit_too(tmp_path: Path) -> None:
    module, nncf, _ = fit(tmp_path, COMPRESSIONS["rb"], max_epochs=1)
    losses: list[Any] = []

    class Spy(pl.Callback):
        def on_train_batch_start(self, trainer: Any, pl_module: Any, *_: Any) -> None:
            losses.append(type(vars(pl_module).get("training_step")).__name__)

    trainer(tmp_path, nncf, Spy(), max_epochs=1).fit(module, loader())
    assert set(losses) == {"AddLoss"}


def test_copied_module_is_free_of_the_callback(tmp_path: Path) -> None:
    copies: list[Any] = []

    class Copier(pl.Callback):
        def on_train_start(self, trainer: Any, pl_module: Any) -> None:
            copies.append(copy.deepcopy(pl_module))

    fit(tmp_path, COMPRESSIONS["int8"], Copier(), max_epochs=1)
    checkpoint: dict[str, Any] = {}
    copies[0].on_save_checkpoint(checkpoint)
    assert checkpoint == {}
    assert copies[0].training_step.__self__ is copies[0]


def test_hooks_of_averaging_callbacks_are_given_back(tmp_path: Path) -> None:
    callbacks = [ema(), swa()]
    for callback in callbacks:
        fit(tmp_path, COMPRESSIONS["int8"], callback, max_epochs=2)
        assert not any(
            callable(value) and name.startswith(("on_", "update", "state")) for name, value in vars(callback).items()
        )


def test_average_of_something_else_is_refused(tmp_path: Path) -> None:
    class Other(EMAWeightAveraging):
        def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
            self._average_model = AveragedModel(Classifier())

    with pytest.raises(ConfigError, match=r"Other averages another module .*lnncf"):
        fit(tmp_path, COMPRESSIONS["int8"], Other(decay=DECAY), num_sanity_val_steps=0)


def test_averaging_callback_of_the_other_package_works(tmp_path: Path) -> None:
    other: Any = pytest.importorskip("lightning.pytorch", reason="the package `lightning` is not installed")
    from lightning.pytorch.callbacks import EMAWeightAveraging as OtherEMA

    class Module(other.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = Classifier().net

        def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
            return F.cross_entropy(self.net(batch[0]), batch[1])

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=0.01)

    module, nncf = Module(), NNCFCallback({"compression": COMPRESSIONS["magnitude+int8"]}, export_path=None)
    before = module.net.head.weight.detach().clone()
    run = other.Trainer(
        max_epochs=2,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        default_root_dir=tmp_path,
        callbacks=[OtherEMA(decay=DECAY), nncf],
    )
    run.fit(module, loader())
    assert not torch.equal(module.net.head.weight, before)
