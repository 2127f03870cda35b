"""Placement of quantizers: from the graph of a network to the places and formats of all quantizers.

From outside call `place_quantizers` with `PlacementSettings`; `precision` also asks `hardware` and `candidates` which
formats a device has. Nothing here runs a network, makes a quantizer or sees data.

**The algorithm** is NNCF's quantizer propagation. Every op that the hardware table of the target device quantizes
asks for a quantizer at each of its inputs, with a list of allowed formats, best first. Quantizers then move against
the data flow: through ops that only move values (ReLU, max pooling, reshape, split), and through a concatenation to
all of its inputs, where they share one scale. Where a tensor has several consumers they merge into one quantizer
with the formats common to all, unless one consumer needs full precision: then they stay at the other consumers,
still with one scale. They stop before ops that compute, at inputs of the network, inside nothing that runtimes
fuse, and step back to the last place where a module can be inserted. A quantizer that arrives at an embedding is
dropped: the quantized table serves instead. Weights get one quantizer per parameter, however many ops take it.

`operators` names what a function does, `hardware` holds the tables, `flow` the deployed part of the graph,
`composites` and `fusing` the patterns, `traits` the behaviour of each unit, `propagation` the movement, `weights`
the weights; `solver` runs them and `placed` writes the setup.

`sharing` joins the scales of ops that the user lists.

**The devices** ``ANY`` and ``CPU`` are one; ``CPU_SPR`` is the same without the overflow fix; ``GPU``, ``VPU`` (NNCF
2.0) and ``NPU`` (NNCF 2.13) have NNCF's formats; on ``TRIAL`` the user's settings are the formats.

**Where this differs from NNCF**, because what ONNX Runtime and OpenVINO execute in integers decides:

* On CPUs depthwise convolutions take activations per tensor; per channel only when asked for. NNCF prefers per channel,
  but ONNX Runtime fails on a convolution whose input has a zero point per channel.
* An elementwise op is quantized only if its result is too and both operands are activations, or if it follows a
  convolution (which ONNX Runtime computes in integers only with a quantizer behind it). Nothing adds a constant in
  integers or hands an integer sum to a softmax, and a quantized attention mask would be destroyed.
* Arithmetic is quantized between weighted ops, not around them. Before the first weight (normalization of the
  input) and after the last (decoding of boxes, losses) it keeps full precision, as do coordinates given to the
  pooling of regions, and everything computed from integers or constants alone. Pooling, means and norms are
  quantized behind the last weight when no unquantized arithmetic lies in between, as the global pooling of a
  classifier without a linear layer.
* On CPUs a convolution followed by an activation function that does more than clip (leaky ReLU, SiLU, hard swish) has
  a quantizer between the two, or ONNX Runtime would compute it in floating point. NNCF fuses them.
* On CPUs every convolution has a quantizer behind it but the last, transposed ones and those whose result the network
  returns, whoever else takes the result, or ONNX Runtime would compute it in floating point; it serves all that are
  quantized there. NNCF leaves the result alone where one consumer needs full precision:
  `quantize_after_convolutions: false`. A batch norm behind an activation function does not fuse with a convolution.
* Comparisons, logic and unfused activation functions keep full precision on every device (NNCF 2.13 agrees on the
  last); powers, sums and divisions on CPUs: none divides in integers, and a small divisor would become zero. Padding
  with another value than zero does not move quantizers.
* Transposed convolutions are convolutions on every device, as in NNCF.
* Pixel shuffle moves values, so quantizers move through it. ``roi_align`` is treated as resizing.
* A function of one tensor spelled out in several ops is one activation function or normalization, whatever the
  spelling; NNCF knows swish, h_swish and h_sigmoid. Constant batch norm, ``x * scale + bias``, fuses as batch norm
  does.
* An op that mixes several tensors without being a concatenation (``where``, ``x[i] = y``) is quantized behind.
* Quantizers held back at several consumers of one tensor share a scale.
* A tensor that the network returns stays exact unless `quantize_outputs` is set.
* Tables that are only looked up never use half of their range: nothing is accumulated. A table tied to a linear
  layer keeps ranges per channel, and its output has a quantizer of its own.
* Bags of embeddings are quantized behind the table, too: what they add up is not on the table's grid.
* Transposed convolutions with one output channel per group have ranges per group.
* Ops seen in training mode only (auxiliary classifiers) get no quantizers: they are not deployed.
* Unknown ops keep full precision, as in NNCF 2.13.

Recurrent layers have quantized weights but activations in full precision, which no hook reaches inside them; as nothing
is accumulated in integers, the weights keep their whole range. ``multi_head_attention_forward`` is seen from inside
where a sequence attends to itself; attention to another one keeps full precision.
"""

from __future__ import annotations

from lightning_nncf.algorithms.quantization.placement.settings import Constraints, GroupSettings, PlacementSettings
from lightning_nncf.algorithms.quantization.placement.solver import place_quantizers

__all__ = ["Constraints", "GroupSettings", "PlacementSettings", "place_quantizers"]
