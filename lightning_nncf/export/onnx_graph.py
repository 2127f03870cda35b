"""Reading and rewriting of an ONNX graph: producers, consumers, constants."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from lightning_nncf.errors import ExportError

__all__ = ["OnnxGraph", "attribute", "nested_graphs"]


def attribute(node: onnx.NodeProto, name: str, default: Any = None) -> Any:
    """Return the value of a node's attribute, bytes decoded.

    >>> attribute(helper.make_node("Gemm", ["a", "b"], ["c"], transB=1), "transB", 0)
    1
    """
    for item in node.attribute:
        if item.name == name:
            value = helper.get_attribute_value(item)
            return value.decode() if isinstance(value, bytes) else value
    return default


def nested_graphs(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """Yield the bodies of a control flow node (``If``, ``Loop``)."""
    for item in node.attribute:
        if item.type == onnx.AttributeProto.GRAPH:
            yield item.g
        yield from item.graphs


def _names_used(nodes: Iterable[onnx.NodeProto]) -> Iterator[str]:
    for node in nodes:
        yield from node.input
        for body in nested_graphs(node):
            yield from _names_used(body.node)
            yield from (output.name for output in body.output)


class OnnxGraph:
    """A model's main graph, opened for rewriting; `close` writes the changes back and drops what nothing uses.

    Args:
        model: The model, changed by `close`.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = model
        self.nodes: list[onnx.NodeProto] = list(model.graph.node)
        self.inputs = {item.name for item in model.graph.input}
        self.outputs = {output.name for output in model.graph.output}
        self._initializers = {tensor.name: tensor for tensor in model.graph.initializer}
        self._constants: dict[str, NDArray[Any] | None] = {}
        self._index()

    def _index(self) -> None:
        self._producer = {name: node for node in self.nodes for name in node.output}
        self._consumers: dict[str, list[onnx.NodeProto]] = defaultdict(list)
        self._inner = {name for node in self.nodes for body in nested_graphs(node) for name in _names_used(body.node)}
        for node in self.nodes:
            for name in dict.fromkeys(node.input):
                self._consumers[name].append(node)

    def producer(self, name: str) -> onnx.NodeProto | None:
        """Return the node that computes a tensor, None for inputs and initializers."""
        return self._producer.get(name)

    def consumers(self, name: str) -> list[onnx.NodeProto]:
        """Return the nodes of the main graph that read a tensor."""
        return list(self._consumers.get(name, ()))

    def only_consumer(self, name: str) -> onnx.NodeProto | None:
        """Return the node that reads a tensor if it is the only one and the tensor is not needed elsewhere."""
        nodes = self._consumers.get(name, [])
        free = name not in self.outputs and name not in self._inner
        return nodes[0] if free and len(nodes) == 1 else None

    def constant(self, name: str) -> NDArray[Any] | None:
        """Return the value of a tensor that depends on no input of the model, None for all others.

        Masks, casts and transposes that an exporter left between a weight and its quantizer are evaluated.
        """
        if name not in self._constants:
            self._constants[name] = self._evaluate(name)
        return self._constants[name]

    def _evaluate(self, name: str) -> NDArray[Any] | None:
        if name in self._initializers:
            return np.asarray(numpy_helper.to_array(self._initializers[name]))
        node = self._producer.get(name)
        if node is None or any(True for _ in nested_graphs(node)) or node.domain not in ("", "ai.onnx"):
            return None
        if node.op_type.startswith(("Random", "Multinomial", "Bernoulli")):
            return None
        values: dict[str, NDArray[Any]] = {}
        for source in node.input:
            value = self.constant(source) if source else None
            if source and value is None:
                return None
            if value is not None:
                values[source] = value
        graph = helper.make_graph(
            [node],
            "constant",
            [
                helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(v.dtype), v.shape)
                for n, v in values.items()
            ],
            [helper.make_value_info(name, onnx.TypeProto())],
        )
        opset = next(item.version for item in self.model.opset_import if item.domain in ("", "ai.onnx"))
        # onnx implements these from 19 on; for our types they have been the same since 13.
        version = max(opset, 19) if node.op_type in ("QuantizeLinear", "DequantizeLinear") else opset
        try:
            evaluator = ReferenceEvaluator(helper.make_model(graph, opset_imports=[helper.make_opsetid("", version)]))
            outputs: Sequence[Any] = evaluator.run(None, values)  # type: ignore[assignment]
        except (RuntimeError, NotImplementedError) as error:
            raise ExportError(
                f"a constant that {node.op_type} {node.name!r} makes cannot be computed at opset {opset}: {error}; "
                "export with another opset, such as the default"
            ) from error
        return np.asarray(outputs[0])

    def add_constant(self, name: str, value: NDArray[Any]) -> str:
        """Add an initializer with raw data and return its name, made unique where it is taken."""
        # from_array writes raw bytes; the typed lists of make_tensor take up to ten bytes per negative int8.
        unique = self.add_tensor(name, numpy_helper.from_array(np.array(value, order="C")))
        self._constants[unique] = value
        return unique

    def add_tensor(self, name: str, tensor: onnx.TensorProto) -> str:
        """Add an initializer as it is and return its name, made unique where it is taken."""
        unique, count = name, 1
        while unique in self._initializers or unique in self._producer or unique in self.inputs:
            unique, count = f"{name}.{count}", count + 1
        tensor.name = unique
        self._initializers[unique] = tensor
        return unique

    def replace(self, node: onnx.NodeProto, new: Sequence[onnx.NodeProto]) -> None:
        """Put nodes in the place of one node."""
        position = next(index for index, item in enumerate(self.nodes) if item is node)
        self.nodes[position : position + 1] = new
        self._index()

    def replace_all(self, replacements: Sequence[tuple[onnx.NodeProto, Sequence[onnx.NodeProto]]]) -> None:
        """Put nodes in the place of several nodes at once."""
        by_id = {id(node): new for node, new in replacements}
        self.nodes = [item for node in self.nodes for item in by_id.get(id(node), [node])]
        self._index()

    def close(self) -> None:
        """Write the nodes and initializers back to the model without those that nothing uses."""
        needed = set(self.outputs)
        kept = []
        for node in reversed(self.nodes):
            if any(name in needed for name in node.output):
                needed.update(_names_used([node]))
                kept.append(node)
        graph = self.model.graph
        nodes = [_copy(node) for node in reversed(kept)]
        initializers = [tensor for name, tensor in self._initializers.items() if name in needed]
        produced = {name for node in nodes for name in node.output} - self.outputs
        infos = [info for info in graph.value_info if info.name in produced]
        for field, values in ((graph.node, nodes), (graph.initializer, initializers), (graph.value_info, infos)):
            kept_values = [_copy(value) for value in values] if field is not graph.node else values
            del field[:]
            field.extend(kept_values)


def _copy(message: Any) -> Any:
    twin = type(message)()
    twin.CopyFrom(message)
    return twin
