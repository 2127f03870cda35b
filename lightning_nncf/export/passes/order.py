"""The passes of each export format, in the order in which they run.

The comment above an entry says what would go wrong if the next one ran before it, or that nothing would. Every
sentence of that kind has a test: a swap that matters fails it, one that does not leaves the file as it is.
"""

from __future__ import annotations

from collections.abc import Mapping

from lightning_nncf.export.lowering import labels_in, lower
from lightning_nncf.export.passes.batch_norm import fold_batch_norms
from lightning_nncf.export.passes.bias import quantize_biases
from lightning_nncf.export.passes.bias_room import make_room_for_biases
from lightning_nncf.export.passes.clips import merge_clips
from lightning_nncf.export.passes.findings import Pass
from lightning_nncf.export.passes.movement import repeat_quantizers
from lightning_nncf.export.passes.pooling import rewrite_average_pools
from lightning_nncf.export.passes.reductions import rewrite_reductions
from lightning_nncf.export.passes.sequences import end_sequences
from lightning_nncf.export.passes.signed_activations import sign_activations
from lightning_nncf.export.passes.storage import float_weights, store_weights
from lightning_nncf.export.passes.transpose import fold_transposes
from lightning_nncf.export.passes.widening import widen_weights
from lightning_nncf.export.passes.zero_points import own_zero_points, several_zero_points, spread_zero_points

__all__ = ["PASSES"]

_QDQ = (
    # Commutes with the next; before `lower`, which takes the markers away.
    Pass(function=labels_in, writes="labels"),
    # Commutes with all: what it adds lies behind a recurrent layer and holds no quantizer.
    Pass(function=end_sequences),
    # All that follow look for the DequantizeLinear that markers become.
    Pass(function=lower, reads=("quantizers", "writer"), writes="lowered"),
    # Batch norms are folded into a DequantizeLinear right before the layer; a Transpose between hides it.
    Pass(function=fold_transposes),
    # Commutes with the next four, which look at activations; before the passes over biases, which it makes.
    Pass(function=fold_batch_norms, writes="batch_norms"),
    # Commutes with the next: what it adds has no clip. Before `sign_activations`, which looks for its quantizers.
    Pass(function=repeat_quantizers),
    # Commutes with the next: a clip before a pool is not before a quantizer.
    Pass(function=merge_clips),
    # Commutes with the next: neither looks through what the other writes.
    Pass(function=rewrite_average_pools),
    # Commutes with the next: neither a reduction nor its quantizer is an input of a product that is signed.
    Pass(function=rewrite_reductions),
    # Commutes with the next: room is for weights, signs are for activations.
    Pass(function=sign_activations),
    # Weights are rounded to wider steps as they are in training; widened before, they would seem to be of 8 bits, be
    # given the room of these, and be stored so.
    Pass(function=make_room_for_biases),
    # Biases are integers in steps of the weight, which these make finer.
    Pass(function=widen_weights, reads=("lowered.weights",), writes="factors"),
    # Commutes with the next, which changes no step; before it, because it then reads integers as they are.
    Pass(function=quantize_biases),
    # A weight in 4 bits may get its one zero point here.
    Pass(function=store_weights, reads=("lowered.weights", "factors"), writes="weights"),
    # Commutes with the next: one is for weights, the other for activations.
    Pass(function=spread_zero_points),
    # Commutes with the next, which only looks.
    Pass(function=own_zero_points),
    # Looks at what stands in the file, so it is the last.
    Pass(function=several_zero_points, writes="several_zero_points"),
)

_OPENVINO_FQ = (
    # As in the other format.
    Pass(function=labels_in, writes="labels"),
    # As in the other format.
    Pass(function=end_sequences),
    # Pools and reductions are written anew beside a FakeQuantize only.
    Pass(function=lower, reads=("quantizers", "writer"), writes="lowered"),
    # As in the other format.
    Pass(function=rewrite_average_pools),
    # Commutes with the next, which only looks.
    Pass(function=rewrite_reductions),
    # Looks at what stands in the file, so it is the last.
    Pass(function=float_weights, reads=("lowered.weights",), writes="weights"),
)

PASSES: Mapping[str, tuple[Pass, ...]] = {"qdq": _QDQ, "openvino_fq": _OPENVINO_FQ}
"""Export format to its passes."""
