"""The root of a configuration: NNCF's JSON as a frozen model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import BeforeValidator, Field, PrivateAttr, SerializeAsAny, model_validator
from typing_extensions import Self

from lightning_nncf.config.accuracy import AccuracyAwareConfig
from lightning_nncf.config.algorithm import AlgorithmConfig
from lightning_nncf.config.base import Scopes, StrictModel, as_tuple
from lightning_nncf.config.problems import ConfigProblemsError, Problem, show
from lightning_nncf.config.reading import parse_json, read_file
from lightning_nncf.config.registry import algorithm_config
from lightning_nncf.errors import ConfigError

__all__ = ["SAMPLE_KEYS", "InputInfo", "NNCFConfig", "TargetDevice"]

TargetDevice = Literal["ANY", "CPU", "CPU_SPR", "GPU", "VPU", "NPU", "TRIAL"]

_SAMPLE_KEYS = """
    augmentations basenet batch_size batch_size_init batch_size_val batchnorm checkpoint_save_dir cpu_only
    cudnn_deterministic dataset dataset_dir disable_shape_matching dist_backend dist_url epochs export_via_onnx
    freeze_gpu_id gpu_id hyperparameter_search iter_size log_dir max_iter metrics_dump mode model model_params multi_gpu
    multiprocessing_distributed name num_classes optimizer preprocessing pretrained print_freq print_step rank resume
    resuming_checkpoint_path save_freq scopes_without_shape_matching seed ssd_params start_epoch start_iter
    test_every_n_epochs test_interval to_onnx weighing weights workers world_size
    """
SAMPLE_KEYS = frozenset(_SAMPLE_KEYS.split())
"""Root keys that only NNCF's sample scripts read, or that mean nothing here: accepted, and reported as unused."""

Section = TypeVar("Section", bound=AlgorithmConfig)

_UNAVAILABLE = ("bootstrapNAS",)
_MISSING = object()


class InputInfo(StrictModel):
    """One input of the network, used to make an example when neither the module nor the data gives one."""

    sample_size: Annotated[tuple[int, ...], BeforeValidator(as_tuple, json_schema_input_type=list[int])]
    """Shape of the tensor, batch dimension included."""

    type: Literal["float", "long"] = "float"
    """Element type of the tensor."""

    filler: Literal["ones", "zeros", "random"] = "ones"
    """What to fill it with."""

    keyword: str | None = None
    """Name of the forward argument; absent means the next positional one."""

    @model_validator(mode="after")
    def _check_sizes(self) -> Self:
        if not self.sample_size or min(self.sample_size) < 1:
            raise ConfigProblemsError(
                [Problem(("sample_size",), f"must hold sizes of at least 1, got {list(self.sample_size)}")]
            )
        return self


def _read_algorithm(value: object) -> object:
    if isinstance(value, AlgorithmConfig) or not isinstance(value, Mapping):
        return value
    name = value.get("algorithm", _MISSING)
    if not isinstance(name, str):
        text = "is required but absent" if name is _MISSING else f"must be a string, got {show(name)}"
        raise ConfigProblemsError([Problem(("algorithm",), text)])
    try:
        model = algorithm_config(name)
    except ConfigError as error:
        raise ConfigProblemsError([Problem(("algorithm",), str(error))]) from None
    return model.load(value)


class NNCFConfig(StrictModel):
    """Everything that decides how a network is compressed; keys and defaults are those of NNCF's JSON.

    >>> config = NNCFConfig.load({"epochs": 3, "compression": {"algorithm": "quantization"}})
    >>> config.compression[0].algorithm, config.unused_keys
    ('quantization', ('epochs',))
    """

    input_info: Annotated[
        tuple[InputInfo, ...] | None,
        BeforeValidator(as_tuple, json_schema_input_type=InputInfo | list[InputInfo] | None),
    ] = None
    """Inputs of the network, when they should not be taken from the module's example or the data."""

    compression: Annotated[
        tuple[Annotated[SerializeAsAny[AlgorithmConfig], BeforeValidator(_read_algorithm)], ...],
        BeforeValidator(as_tuple),
    ] = ()
    """The algorithms to apply, one object or a list; each algorithm at most once."""

    target_device: TargetDevice = "ANY"
    """Hardware that will run the model. `ANY` is `CPU`; `CPU_SPR` has matrix units; `VPU` and `NPU` also take 4 and 2
    bits; `TRIAL` puts no hardware constraint on quantizers."""

    compression_lr_multiplier: float | None = Field(None, ge=0)
    """Factor on the gradients of every parameter that compression adds."""

    ignored_scopes: Scopes = ()
    """Where no algorithm applies: addresses, module paths, or `{re}` and a regular expression, relative to the network
    (`layer1` and not `model.layer1` where `model` is the network)."""

    target_scopes: Scopes | None = None
    """Where the algorithms apply, and nowhere else, relative to the network; absent means everywhere."""

    accuracy_aware_training: AccuracyAwareConfig | None = None
    """Training that ends once the compressed network is as good as it has to be."""

    deprecated_keys: ClassVar[Mapping[str, str]] = {"hw_config_type": "write `target_device`"}

    unused_key_names: ClassVar[frozenset[str]] = SAMPLE_KEYS

    _unused_keys: tuple[str, ...] = PrivateAttr(())

    def __init__(self, /, **values: Any) -> None:
        super().__init__(**{key: value for key, value in values.items() if key not in SAMPLE_KEYS})
        self._unused_keys = tuple(key for key in values if key in SAMPLE_KEYS)

    @classmethod
    def load(cls, source: str | Path | Mapping[str, Any] | Self) -> Self:
        """Read a configuration.

        Args:
            source: Path of a JSON or YAML file, JSON text that starts with a brace, the same keys as a mapping,
                or a configuration, which is passed on.

        Raises:
            ConfigError: If it cannot be read, or holds an unknown key or a wrong value.
        """
        if isinstance(source, str) and source.lstrip().startswith("{"):
            return super().load(parse_json(source))
        if not isinstance(source, (str, Path)):
            return super().load(source)
        values = read_file(Path(source).expanduser())
        try:
            return super().load(values)
        except ConfigProblemsError as error:
            raise ConfigProblemsError(error.problems, values, str(source)) from None

    @classmethod
    def upgrade(cls, values: dict[str, Any]) -> dict[str, Any]:
        """Read the device names of earlier versions, and refuse sections that this version cannot honour."""
        refused = [key for key in _UNAVAILABLE if values.get(key) is not None]
        if refused:
            raise ConfigProblemsError(
                [Problem((key,), "is a section of NNCF that is not available in this version") for key in refused],
                values,
            )
        if "hw_config_type" in values:
            old = values.pop("hw_config_type")
            values.setdefault("target_device", old.upper() if isinstance(old, str) else old)
        return values

    @property
    def unused_keys(self) -> tuple[str, ...]:
        """Root keys that were given but that only NNCF's sample scripts read."""
        return self._unused_keys

    def section(self, kind: type[Section]) -> Section | None:
        """Return the section of one algorithm by its class, or None when it is not asked for."""
        return next((each for each in self.compression if isinstance(each, kind)), None)

    @model_validator(mode="after")
    def _check(self) -> Self:
        problems = list(_duplicates(self.compression))
        for section in self.compression:
            problems += (problem for problem in section.problems_in(self) if problem not in problems)
        if problems:
            raise ConfigProblemsError(problems)
        return self


def _duplicates(compression: Iterable[AlgorithmConfig]) -> Iterable[Problem]:
    seen: dict[str, int] = {}
    for index, section in enumerate(compression):
        first = seen.setdefault(section.algorithm, index)
        if first != index:
            text = f"repeats {section.algorithm!r} of `compression[{first}]`; each algorithm is given at most once"
            yield Problem(("compression", index, "algorithm"), text)
