from __future__ import annotations

from typing import Any

from lightning_nncf.config import NNCFConfig, json_schema
from lightning_nncf.config.base import StrictModel


def _objects(schema: dict[str, Any]) -> list[dict[str, Any]]:
    return [schema, *schema["$defs"].values()]


def test_every_key_is_described() -> None:
    for schema in _objects(json_schema()):
        for key, entry in schema["properties"].items():
            assert entry.get("description"), (schema.get("title"), key)


def test_unknown_keys_are_refused_everywhere() -> None:
    assert all(schema["additionalProperties"] is False for schema in _objects(json_schema()))


def test_references_resolve() -> None:
    schema = json_schema()

    def references(value: object) -> list[str]:
        if isinstance(value, dict):
            own = [value["$ref"]] if isinstance(value.get("$ref"), str) else []
            return own + [each for inner in value.values() for each in references(inner)]
        return [each for inner in value for each in references(inner)] if isinstance(value, list) else []

    assert {each.removeprefix("#/$defs/") for each in references(schema)} <= set(schema["$defs"])


def test_defaults_of_nncf_are_in_the_schema() -> None:
    definitions = json_schema()["$defs"]
    assert definitions["RangeConfig"]["properties"]["type"]["default"] == "mixed_min_max"
    assert definitions["RangeConfig"]["properties"]["num_init_samples"]["default"] == 256
    assert definitions["BatchNormAdaptationConfig"]["properties"]["num_bn_adaptation_samples"]["default"] == 2000
    assert definitions["QuantizationConfig"]["properties"]["overflow_fix"]["default"] == "enable"
    assert definitions["QuantizationConfig"]["required"] == ["algorithm"]


def test_schema_has_all_keys_of_the_models() -> None:
    schema = json_schema()
    assert set(NNCFConfig.model_fields) <= set(schema["properties"])
    assert {"epochs", "model", "optimizer"} <= set(schema["properties"])
    models = {cls.__name__: cls for cls in StrictModel.__subclasses__()}
    for name, definition in schema["$defs"].items():
        if name in models:
            assert set(models[name].model_fields) <= set(definition["properties"])


def test_deprecated_spellings_are_in_the_schema_as_such() -> None:
    schema = json_schema()
    assert schema["properties"]["hw_config_type"]["deprecated"] is True
    section = schema["$defs"]["QuantizationConfig"]["properties"]
    assert section["disable_saturation_fix"]["description"] == "Deprecated: write `overflow_fix: disable`."
    assert schema["$defs"]["ActivationsConfig"]["properties"]["linked_quantizer_scopes"]["deprecated"] is True
