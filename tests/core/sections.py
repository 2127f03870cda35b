"""Sections of configurations for every algorithm and their combinations, whose schedules end within four epochs."""

from __future__ import annotations

from typing import Any

INITIALIZER = {"range": {"num_init_samples": 16}, "batchnorm_adaptation": {"num_bn_adaptation_samples": 16}}


def quantization(**more: Any) -> dict[str, Any]:
    return {"algorithm": "quantization", **more, "initializer": {**INITIALIZER, **more.get("initializer", {})}}


def masks(algorithm: str, **more: Any) -> dict[str, Any]:
    params = {"sparsity_target": 0.5, "sparsity_target_epoch": 1, "sparsity_freeze_epoch": 3}
    return {"algorithm": algorithm, "params": params, **more}


INT8 = quantization()
MAGNITUDE, RB = masks("magnitude_sparsity"), masks("rb_sparsity")
MOVEMENT = {
    "algorithm": "movement_sparsity",
    "params": {
        "warmup_start_epoch": 0,
        "warmup_end_epoch": 2,
        "importance_regularization_factor": 1.0,
        "enable_structured_masking": False,
    },
}
PRUNING = {
    "algorithm": "filter_pruning",
    "params": {"schedule": "baseline", "pruning_target": 0.5, "prune_first_conv": True},
}
SHRUNK = {**PRUNING, "params": {**PRUNING["params"], "shrink_at": 1}}  # type: ignore[dict-item]


def binarization(mode: str) -> dict[str, Any]:
    return {
        "algorithm": "binarization",
        "mode": mode,
        "params": {"activations_quant_start_epoch": 0, "weights_quant_start_epoch": 1},
    }


ALGORITHMS: dict[str, list[dict[str, Any]]] = {
    "int8": [INT8],
    "mixed_precision": [quantization(initializer={"precision": {"bitwidth_per_scope": [[4, "3"], [2, "{re}linear"]]}})],
    "staged": [quantization(params={"activations_quant_start_epoch": 1, "weights_quant_start_epoch": 1})],
    "magnitude": [MAGNITUDE],
    "rb": [RB],
    "const": [{"algorithm": "const_sparsity"}],
    "n_m": [{"algorithm": "n_m_sparsity"}],
    "movement": [MOVEMENT],
    "xnor": [binarization("xnor")],
    "dorefa": [binarization("dorefa")],
    "pruning": [PRUNING],
    "pruning_shrunk": [SHRUNK],
}
COMBINATIONS: dict[str, list[dict[str, Any]]] = {
    "asymmetric": [quantization(weights={"mode": "asymmetric", "per_channel": True}, preset="mixed")],
    "logarithmic": [quantization(weights={"logarithm_scale": True})],
    "magnitude_int8": [MAGNITUDE, INT8],
    "rb_int8": [RB, INT8],
    "n_m_int8": [{"algorithm": "n_m_sparsity"}, INT8],
    "movement_int8": [MOVEMENT, INT8],
    "magnitude_xnor": [MAGNITUDE, binarization("xnor")],
    "pruning_int8": [PRUNING, INT8],
    "shrunk_magnitude_int8": [SHRUNK, MAGNITUDE, INT8],
    "shrunk_rb_dorefa": [SHRUNK, RB, binarization("dorefa")],
}
TRIAL = {"mixed_precision"}
"""Sections whose formats no real device has."""


def config_of(name: str) -> dict[str, Any]:
    device = {"target_device": "TRIAL"} if name in TRIAL else {}
    return {**device, "compression": {**ALGORITHMS, **COMBINATIONS}[name]}
