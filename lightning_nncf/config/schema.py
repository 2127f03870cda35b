"""JSON Schema of the configuration, for editors."""

from __future__ import annotations

from typing import Any

from lightning_nncf.config.registry import algorithm_config, algorithm_names
from lightning_nncf.config.root import SAMPLE_KEYS, NNCFConfig

__all__ = ["json_schema"]

_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_UNUSED = {"description": "Read by NNCF's sample scripts only; accepted and not used.", "deprecated": True}


def json_schema() -> dict[str, Any]:
    """Describe configurations as JSON Schema, the registered algorithms included.

    Returns:
        A schema in which every key has its description and default.

    >>> schema = json_schema()
    >>> schema["properties"]["target_device"]["default"]
    'ANY'
    """
    root = NNCFConfig.model_json_schema()
    definitions: dict[str, Any] = root.pop("$defs", {})
    algorithms: list[dict[str, str]] = []
    for name in algorithm_names():
        model = algorithm_config(name)
        schema = model.model_json_schema()
        definitions.update(schema.pop("$defs", {}))
        schema["properties"]["algorithm"] = {"const": name, "description": "Name of the algorithm."}
        schema["required"] = sorted({*schema.get("required", ()), "algorithm"})
        definitions[model.__name__] = schema
        algorithms.append({"$ref": f"#/$defs/{model.__name__}"})
    definitions.pop("AlgorithmConfig", None)
    one = {"oneOf": algorithms}
    properties: dict[str, Any] = root["properties"]
    description = properties["compression"]["description"]
    properties["compression"] = {"anyOf": [one, {"type": "array", "items": one}], "description": description}
    properties |= dict.fromkeys(sorted(SAMPLE_KEYS), _UNUSED)
    for schema in (root, *definitions.values()):
        schema["description"] = _prose(schema.get("description", ""))
    return {"$schema": _DIALECT, **root, "properties": properties, "$defs": dict(sorted(definitions.items()))}


def _prose(docstring: str) -> str:
    """Keep the first paragraph of a docstring: examples are for readers of the code."""
    return docstring.partition("\n\n")[0]
