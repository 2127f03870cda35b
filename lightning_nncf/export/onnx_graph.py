"""Reading and rewriting of an ONNX graph: producers, consumers, constants."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from lightning_nncf.errors import ExportError

__all__ = ["OnnxGraph", "attribute", "nested_graphs", "rewired"]


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


def rewired(
    node: onnx.NodeProto,
    *,
    inputs: Mapping[int, str] | None = None,
    outputs: Mapping[int, str] | None = None,
    attributes: Iterable[onnx.AttributeProto] | None = None,
) -> onnx.NodeProto:
    """Return a copy of a node that reads and writes other tensors; the node itself stays as it is.

    Args:
        node: The node.
        inputs: Port to the tensor that is read there instead; the port behind the last one adds an input.
        outputs: Port to the tensor that is written there instead.
        attributes: What takes the place of all attributes, if given.

    >>> layer = helper.make_node("Conv", ["x", "w"], ["y"])
    >>> list(rewired(layer, inputs={1: "folded", 2: "bias"}).input), list(layer.input)
    (['x', 'folded', 'bias'], ['x', 'w'])
    """
    copied: onnx.NodeProto = _copy(node)
    for names, changes in ((copied.input, inputs), (copied.output, outputs)):
        for port, name in sorted((changes or {}).items()):
            if port == len(names):
                names.append(name)
            else:
                names[port] = name
    if attributes is not None:
        kept = list(attributes)
        del copied.attribute[:]
        copied.attribute.extend(kept)
    return copied


def _names_used(nodes: Iterable[onnx.NodeProto]) -> Iterator[str]:
    for node in nodes:
        yield from node.input
        for body in nested_graphs(node):
            yield from _names_used(body.node)
            yield from (output.name for output in body.output)


class OnnxGraph:
    """A model's main graph, opened for rewriting.

    What a rewriting leaves without a reader stays until `sweep`, and counts as a consumer of what it reads until then.

    Args:
        model: The model; its graph is changed by `close`.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = model
        self.nodes: list[onnx.NodeProto] = list(model.graph.node)
        self.inputs = {item.name for item in model.graph.input}
        self.outputs = {output.name for output in model.graph.output}
        self._initializers = {tensor.name: tensor for tensor in model.graph.initializer}
        self._infos: list[onnx.ValueInfoProto] = list(model.graph.value_info)
        self._constants: dict[str, NDArray[Any] | None] = {}
        self._index()

    @property
    def opset(self) -> int:
        """Version of the standard operator set."""
        return int(next(item.version for item in self.model.opset_import if item.domain in ("", "ai.onnx")))

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
        return nodes[0] if len(nodes) == 1 and not self.is_read_elsewhere(name) else None

    def is_read_elsewhere(self, name: str) -> bool:
        """Whether a tensor is an output, or is read inside a loop or a branch."""
        return name in self.outputs or name in self._inner

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
        # onnx implements these from 19 on; for our types they have been the same since 13.
        quantizing = node.op_type in ("QuantizeLinear", "DequantizeLinear")
        version = max(self.opset, 19) if quantizing else self.opset
        try:
            evaluator = ReferenceEvaluator(helper.make_model(graph, opset_imports=[helper.make_opsetid("", version)]))
            outputs: Sequence[Any] = evaluator.run(None, values)  # type: ignore[assignment]
        except (RuntimeError, NotImplementedError) as error:
            raise ExportError(
                f"a constant that {node.op_type} {node.name!r} makes cannot be computed at opset {self.opset}: "
                f"{error}; export with another opset, such as the default"
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
        self._constants.pop(unique, None)
        return unique

    def replace(self, node: onnx.NodeProto, new: Sequence[onnx.NodeProto]) -> None:
        """Put nodes in the place of one node."""
        self.replace_all([(node, new)])

    def replace_all(self, replacements: Sequence[tuple[onnx.NodeProto, Sequence[onnx.NodeProto]]]) -> None:
        """Put nodes in the place of several nodes at once."""
        if not replacements:
            return
        by_id = {id(node): new for node, new in replacements}
        self.nodes = [item for node in self.nodes for item in by_id.get(id(node), [node])]
        self._index()
        self._forget(name for old, new in replacements for node in (old, *new) for name in node.output)

    def _forget(self, names: Iterable[str]) -> None:
        """Drop the values of tensors that are computed in another way now, and of all that were computed from them."""
        # What was computed from a tensor was computed after it, so a tensor without an entry has none behind it.
        open_names = [name for name in names if name in self._constants]
        while open_names:
            name = open_names.pop()
            if name in self._constants:
                del self._constants[name]
                open_names += [result for node in self._consumers.get(name, ()) for result in node.output]

    def sweep(self) -> None:
        """Drop nodes, initializers and notes of types that nothing uses any more."""
        needed = set(self.outputs)
        kept = []
        for node in reversed(self.nodes):
            if any(name in needed for name in node.output):
                needed.update(_names_used([node]))
                kept.append(node)
        if len(kept) < len(self.nodes):
            self.nodes = kept[::-1]
            self._index()
        self._initializers = {name: tensor for name, tensor in self._initializers.items() if name in needed}
        self._constants = {name: value for name, value in self._constants.items() if name in needed}
        self._infos = [info for info in self._infos if info.name in self._producer and info.name not in self.outputs]

    def shapes(self, *, inferred: bool = False) -> dict[str, onnx.TypeProto.Tensor]:
        """Return the types of tensors, which hold their shapes.

        Args:
            inferred: Also those that nobody noted but that follow from the ops; takes a copy of the model.
        """
        graph = self.model.graph
        infos = [*self._infos, *graph.input, *graph.output]
        if inferred:
            model = onnx.ModelProto(
                ir_version=self.model.ir_version,
                opset_import=self.model.opset_import,
                functions=self.model.functions,
                graph=onnx.GraphProto(
                    name=graph.name,
                    node=self.nodes,
                    initializer=self._initializers.values(),
                    input=graph.input,
                    output=graph.output,
                    value_info=self._infos,
                ),
            )
            found = onnx.shape_inference.infer_shapes(model).graph
            infos = [*found.value_info, *found.input, *found.output]
        return {info.name: info.type.tensor_type for info in infos}

    def close(self) -> None:
        """Sweep, and write nodes, initializers and notes of types back to the model."""
        self.sweep()
        graph = self.model.graph
        for field, values in (
            (graph.node, self.nodes),
            (graph.initializer, self._initializers.values()),
            (graph.value_info, self._infos),
        ):
            # What is deleted from a field is gone, so that what stays is copied before.
            copies = [_copy(value) for value in values]
            del field[:]
            field.extend(copies)


def _copy(message: Any) -> Any:
    twin = type(message)()
    twin.CopyFrom(message)
    return twin
