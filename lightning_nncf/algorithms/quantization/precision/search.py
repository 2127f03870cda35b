"""Prepares and runs the choice of bit widths that a configuration asks for."""

from __future__ import annotations

from torch import nn

from lightning_nncf.algorithms.quantization.initialization.initializer_config import PrecisionConfig
from lightning_nncf.algorithms.quantization.initialization.range_init import bypassed, initialize_weight_ranges
from lightning_nncf.algorithms.quantization.inserted import InsertedQuantizers
from lightning_nncf.algorithms.quantization.placement import PlacementSettings
from lightning_nncf.algorithms.quantization.precision.autoq import agent_player, search_by_agent
from lightning_nncf.algorithms.quantization.precision.formats import allowed_formats
from lightning_nncf.algorithms.quantization.precision.hawq import search_by_traces
from lightning_nncf.algorithms.quantization.precision.manual import assign_bits
from lightning_nncf.algorithms.quantization.precision.naming import PointNames
from lightning_nncf.algorithms.quantization.precision.space import SearchSpace, changed, search_space
from lightning_nncf.algorithms.quantization.precision.task import SearchTask
from lightning_nncf.algorithms.quantization.quantizers import Quantizer
from lightning_nncf.algorithms.quantization.setup import QuantizationSetup
from lightning_nncf.calibration import CalibrationData
from lightning_nncf.graph.graph import NetworkGraph

__all__ = ["prepare_precision", "search_precision"]


def prepare_precision(
    config: PrecisionConfig,
    network: nn.Module,
    graph: NetworkGraph,
    settings: PlacementSettings,
    setup: QuantizationSetup,
) -> tuple[QuantizationSetup, SearchSpace | None]:
    """Set the bit widths that are written down, or find out what a search with data may choose from.

    Raises:
        ConfigError: The list names no quantizer or impossible bits, or the search has nothing to choose.
    """
    formats = allowed_formats(graph, settings, setup)
    if config.type == "manual":
        names = PointNames(network, graph, setup)
        return assign_bits(setup, names, formats, config.bitwidth_per_scope), None
    if config.type == "autoq":
        agent_player()
    return setup, search_space(graph, setup, formats, config, settings.target_device)


def search_precision(
    space: SearchSpace,
    inserted: InsertedQuantizers,
    data: CalibrationData,
    config: PrecisionConfig,
    adaptation_samples: int,
) -> None:
    """Search for bit widths and give them to the quantizers, with the ranges of weights that fit their bits.

    Args:
        space: What may be chosen.
        inserted: The quantizers, with their ranges.
        data: The data.
        config: Settings.
        adaptation_samples: Samples for batch norm to adapt to before the network is judged.
    """
    points, quantizers = inserted.setup.points, inserted.quantizers
    weights = {
        index: places[0].parameter_of(inserted.network)
        for index, (point, places) in enumerate(zip(points, inserted.sites, strict=True))
        if point.kind == "weight"
    }
    tasks = inserted.range_tasks("weight")
    by_quantizer = {id(task.quantizer): task for task in tasks}

    def fit(quantizer: Quantizer) -> None:
        initialize_weight_ranges([by_quantizer[id(quantizer)]])

    task = SearchTask(
        space=space,
        points=points,
        quantizers=quantizers,
        weights=weights,
        fit=fit,
        network=inserted.network,
        data=data,
        config=config,
        adaptation_samples=adaptation_samples,
    )
    with bypassed(quantizers):
        bits = search_by_traces(task) if config.type == "hawq" else search_by_agent(task)
    for index, quantizer in enumerate(quantizers):
        quantizer.config = changed(quantizer.config, space.format(index, bits[index]))
    initialize_weight_ranges(tasks)
