"""Which tensors pass the boundary of a module's call untouched, so that a plain hook can replace them there.

An argument counts if a single op of the call itself reads it, a result if an op of the call made it and nobody in there
read it, and each only if that was so, at one position, in all calls that were recorded.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence

import torch

from lightning_nncf.capture.calls import Port, RunningCall
from lightning_nncf.graph.graph import CallFrame

__all__ = ["Boundaries"]


class Boundaries:
    """Collects what is read and returned in calls of modules."""

    def __init__(self) -> None:
        self._seen_inputs: Counter[Port] = Counter()
        self._seen_outputs: Counter[Port] = Counter()
        self._arrivals: dict[Port, Counter[int]] = defaultdict(Counter)
        self._departures: dict[Port, Counter[int]] = defaultdict(Counter)

    def read(self, tensor: torch.Tensor, port: Port, running: Iterable[RunningCall]) -> None:
        """Note that an op reads a tensor, while these calls run."""
        self._seen_inputs[port] += 1
        for call in running:
            for position in call.positions.get(id(tensor), ()):
                call.readers[position].add(port)

    def made(self, port: Port) -> None:
        """Note that an op has made a tensor."""
        self._seen_outputs[port] += 1

    def returned(
        self, call: RunningCall, results: Sequence[torch.Tensor], untouched: Callable[[torch.Tensor], Port | None]
    ) -> None:
        """Note what a call returns.

        Args:
            call: The call.
            results: The tensors that it returns.
            untouched: Tells which op of the call made a tensor, if nobody has read it since.
        """
        times = Counter(map(id, results))
        for position, tensor in enumerate(results):
            port = untouched(tensor)
            if port is not None and times[id(tensor)] == 1:
                self._departures[port][position] += 1
        passed_on = {position for tensor in results for position in call.positions.get(id(tensor), ())}
        for positions in call.positions.values():
            readers = call.readers[positions[0]]
            if len(positions) == 1 and len(readers) == 1 and positions[0] not in passed_on:
                (port,) = readers
                if port[0].rpartition("/")[0] == call.frame.path:
                    self._arrivals[port][positions[0]] += 1

    def settle(self, frames: Mapping[str, CallFrame]) -> None:
        """Write into the frames, after all runs, which tensors pass at which position.

        Args:
            frames: All calls, by their path.
        """
        for seen, found, kind in (
            (self._seen_inputs, self._arrivals, "inputs"),
            (self._seen_outputs, self._departures, "outputs"),
        ):
            for port, positions in found.items():
                if len(positions) == 1 and positions.total() == seen[port]:
                    frame = frames[port[0].rpartition("/")[0]]
                    getattr(frame, kind)[port] = next(iter(positions))
