"""The passes of each export format, in the order in which they run.

The comment above an entry says why it stands before the next, and which later one needs it where the two commute.
``tests/export/passes/test_order.py`` holds both kinds to their word: a swap that matters fails a test that shows what
goes wrong, one that does not leaves the file as it is, and a new neighbour without either fails, too.
"""

from __future__ import annotations

from collections.abc import Mapping

from lightning_nncf.export.lowering import labels_in, lower
from lightning_nncf.export.passes.batch_norm import fold_batch_norms
from lightning_nncf.export.passes.bias import quantize_biases
from lightning_nncf.export.passes.bias_room import make_room_for_biases
from lightning_nncf.export.passes.clips import merge_clips
from lightning_nncf.export.passes.factors import fold_factors
from lightning_nncf.export.passes.findings import Pass
from lightning_nncf.export.passes.hoisting import hoist_quantizers
from lightning_nncf.export.passes.movement import repeat_quantizers
from lightning_nncf.export.passes.pooling import rewrite_average_pools
from lightning_nncf.export.passes.reductions import rewrite_reductions
from lightning_nncf.export.passes.sequences import end_sequences
from lightning_nncf.export.passes.shapes import hide_dimensions
from lightning_nncf.export.passes.signed_activations import sign_activations
from lightning_nncf.export.passes.signs import shield_negative_factors
from lightning_nncf.export.passes.storage import float_weights, store_weights
from lightning_nncf.export.passes.transpose import fold_transposes
from lightning_nncf.export.passes.widening import widen_weights
from lightning_nncf.export.passes.zero_points import own_zero_points, several_zero_points, spread_zero_points

__all__ = ["PASSES"]

_QDQ = (
    # Commutes; before `lower`, which takes away the markers that it reads.
    Pass(function=labels_in, writes="labels"),
    # Commutes: it writes behind recurrent layers, whose results a marker may take all the same.
    Pass(function=end_sequences),
    # Before all that look for a DequantizeLinear, which markers become.
    Pass(function=lower, reads=("quantizers", "writer"), writes="lowered"),
    # A batch norm is folded into the DequantizeLinear right before its layer; behind a Transpose it would stay.
    Pass(function=fold_transposes),
    # Commutes: one is about weights, the other about activations. Before `quantize_biases`, as it makes biases, and
    # before `hoist_quantizers`, which looks at what takes the result of a convolution.
    Pass(function=fold_batch_norms, writes="batch_norms"),
    # A convolution gets a quantizer behind it only if it takes integers, which it may do now. Before `fold_factors`,
    # which looks right before a factor, `sign_activations`, which takes what is repeated for the input of a layer, and
    # `own_zero_points`, as it reads zero points of others.
    Pass(function=repeat_quantizers),
    # Commutes: one is about convolutions, the other about products of activations.
    Pass(function=hoist_quantizers),
    # Commutes: it passes over quantizers that clip.
    Pass(function=fold_factors),
    # Commutes: it passes over a clip that a pool reads.
    Pass(function=merge_clips),
    # Commutes: neither looks through what the other is about. Before `own_zero_points`, as it adds readers of one.
    Pass(function=rewrite_average_pools),
    # Commutes: what it puts before a reduction is before no product of activations.
    Pass(function=rewrite_reductions),
    # Commutes: one is about activations, the other about weights.
    Pass(function=sign_activations),
    # Widened first, a weight of 4 bits would be taken for one of 8: its bias would get the room of these, under a name
    # without a factor, so that it would be stored in 8 bits.
    Pass(function=make_room_for_biases),
    # An integer bias is in steps of the input's scale times the weight's, and this divides the latter.
    Pass(function=widen_weights, reads=("lowered.weights",), writes="factors"),
    # Commutes, as packing changes no scale; this way round it finds integers where they would have to be computed.
    Pass(function=quantize_biases),
    # A weight of 4 bits may get a zero point only here: one for the whole weight, which OpenVINO misreads.
    Pass(function=store_weights, reads=("lowered.weights", "factors"), writes="weights"),
    # Commutes: one is about weights, the other about activations.
    Pass(function=spread_zero_points),
    # Commutes: one is about zero points, the other about factors.
    Pass(function=own_zero_points),
    # Commutes: the other one is about shapes. Behind the rest, which may fold a factor away.
    Pass(function=shield_negative_factors),
    # Commutes: the other one only looks. Behind the rest, as shape inference knows less of a negated dimension.
    Pass(function=hide_dimensions),
    # The last, because it tells what stands in the file.
    Pass(function=several_zero_points, writes="several_zero_points"),
)

_OPENVINO_FQ = (
    # Commutes; before `lower`, which takes away the markers that it reads.
    Pass(function=labels_in, writes="labels"),
    # Commutes: it writes behind recurrent layers, whose results a marker may take all the same.
    Pass(function=end_sequences),
    # A pool is written anew behind a FakeQuantize, which markers become; without one it would count its own padding.
    Pass(function=lower, reads=("quantizers", "writer"), writes="lowered"),
    # Commutes: neither looks through what the other is about.
    Pass(function=rewrite_average_pools),
    # Commutes: neither looks through what the other writes.
    Pass(function=rewrite_reductions),
    # Commutes: the other one is about shapes.
    Pass(function=shield_negative_factors),
    # Commutes: the other one only looks.
    Pass(function=hide_dimensions),
    # The last, because it tells what stands in the file.
    Pass(function=float_weights, reads=("lowered.weights",), writes="weights"),
)

PASSES: Mapping[str, tuple[Pass, ...]] = {"qdq": _QDQ, "openvino_fq": _OPENVINO_FQ}
"""Export format to its passes."""
