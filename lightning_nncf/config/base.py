"""Base of all configuration models and the field types they share."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, GetJsonSchemaHandler, ValidationError
from pydantic_core import CoreSchema
from typing_extensions import Self

from lightning_nncf.config.problems import ConfigProblemsError, collect
from lightning_nncf.errors import ConfigError

__all__ = ["Scopes", "StrictModel", "as_tuple", "deprecated"]


def as_tuple(value: object) -> object:
    """Wrap what is not a list already, so that one item and a list of items read the same.

    >>> as_tuple("conv1"), as_tuple(["a", "b"])
    (('conv1',), ('a', 'b'))
    """
    if isinstance(value, (list, tuple)):
        return tuple(value)
    return value if value is None else (value,)


Scopes = Annotated[tuple[str, ...], BeforeValidator(as_tuple, json_schema_input_type=str | list[str])]
"""One scope or a list of them: an address, a module path, or ``{re}`` and a regular expression."""


class StrictModel(BaseModel):
    """A frozen configuration that refuses unknown keys and values of another type.

    Errors are `ConfigError`, whichever way the model is built.

    >>> class Range(StrictModel):
    ...     samples: int = 256
    >>> Range(sample=1)
    Traceback (most recent call last):
    ...
    lightning_nncf.config.problems.ConfigProblemsError: `sample` is not a known key; did you mean 'samples'?
    """

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
        revalidate_instances="never",
    )

    deprecated_keys: ClassVar[Mapping[str, str]] = {}
    """Keys of earlier NNCF versions and what to do about them; `upgrade` translates them."""

    unused_key_names: ClassVar[frozenset[str]] = frozenset()
    """Keys that are accepted without meaning anything."""

    def __init__(self, /, **values: Any) -> None:
        for key in self.deprecated_keys.keys() & values.keys():
            deprecated(key, self.deprecated_keys[key])
        try:
            super().__init__(**self.upgrade(values))
        except ValidationError as error:
            raise ConfigProblemsError(collect(error, type(self).model_fields, self.unused_key_names), values) from None

    @classmethod
    def upgrade(cls, values: dict[str, Any]) -> dict[str, Any]:
        """Translate spellings of earlier NNCF versions; may change the dict, but nothing inside it."""
        return values

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """Add the deprecated keys, so that an editor accepts what `load` accepts."""
        described = handler.resolve_ref_schema(handler(schema))
        for key, advice in cls.deprecated_keys.items():
            described["properties"][key] = {"deprecated": True, "description": f"Deprecated: {advice}."}
        return described

    @classmethod
    def load(cls, source: Mapping[str, Any] | Self) -> Self:
        """Build the model from plain values, or pass an instance on.

        Raises:
            ConfigError: If a key is unknown, missing or has a wrong value.
        """
        if isinstance(source, cls):
            return source
        if not isinstance(source, Mapping):
            raise ConfigError(f"{cls.__name__} is read from a mapping, got {type(source).__name__}")
        return cls(**_with_text_keys(source))

    def to_dict(self) -> dict[str, Any]:
        """Return all settings, defaults included, as plain JSON values that `load` reads back."""
        return self.model_dump(mode="json")


def deprecated(old: str, new: str) -> None:
    """Warn once per place about a spelling of an earlier NNCF version."""
    warnings.warn(f"`{old}` is deprecated: {new}", FutureWarning, stacklevel=2)


def _with_text_keys(source: Mapping[Any, Any]) -> dict[str, Any]:
    wrong = [key for key in source if not isinstance(key, str)]
    if wrong:
        raise ConfigError(f"keys of a configuration must be strings, got {wrong[0]!r} ({type(wrong[0]).__name__})")
    return dict(source)
