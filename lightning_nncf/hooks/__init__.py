"""Insertion points at work in a running network: tensors are seen and replaced, and nobody else notices.

From outside import `insertion`, and for weights `weight_sites`; `effective` writes what hooks did into the weights, and
`notices` are for those who do not know of them. The other files are at work while the network runs. Nothing here knows
an algorithm: whatever maps a tensor to one of the same shape can be inserted.

**Before.** `sites` and `weight_sites` turn a point of the graph into places (`hook_site`). `insertion.insert` registers
a `Slot` (`slots`), the chain of modules at one place, as submodule ``lnncf_<name>`` of the place's holder, and enters
it in the `HookedModule` (`frames`) of the module in whose calls it acts. There are three ways to be in a call:

* by a hook before and one behind the forward, `Enter` and `Leave` (`call_hooks`): most modules;
* by a generated class (`generated`) with another forward (`layers`): batch norms and ReLUs, which are many and do so
  little that hooks would cost more;
* by a generated class besides the hooks (`owners`): modules with slots at functions that their own forward calls.

**One forward**, of a block with a convolution, of which everything has a slot:

1. *Enter* (`call_hooks`). The call begins (`calls`). Nearly all layers call no other module and hide at most one
   weight: `open_alone` notes no more than the thread, since one call at a time has the weights. For others `open_call`
   makes a `Frame`: where the call is, how often each callee and function was called in it, what it hides. Where a
   module is called from several places, `HookedModule.locate` tells by the frame of the caller which call this is.
2. *Weight* (`calls`, `shadows`). The value of the slot goes into the ``__dict__`` of the weight's holder, where Python
   finds it before the parameter. The parameter stays where it is, with its name.
3. *Input* (`call_hooks`). Slots of this call replace arguments, by their position in the order of `capture.values`. A
   convolution gets quantized data detached; the range of the data then learns through the weights
   (`ops.data_ranges`).
4. *Function* (`owners`, `modes`). The forward runs. The functions that the module itself calls go through its
   `LocalMode`, which counts them by name and applies the slots before and behind the ones that have any. While a module
   runs inside, the mode is off torch's stack, or looks at `Frame.depth` and keeps out.
5. *Leave* (`call_hooks`), also after an error. The weights come back (`calls`), a convolution is told to compute its
   quantized input again in backward instead of keeping it (`ops.rebuilding`), the slots of the outputs act, and the
   mode of the caller returns to the stack.

What is recomputed for activation checkpointing has left the forward by then: `recompute` gives it the frames and
values of its first run.

>>> import torch
>>> from torch import nn
>>> from lightning_nncf.capture.trace import trace
>>> from lightning_nncf.graph.graph import InsertionPoint
>>> from lightning_nncf.hooks.insertion import insert, sites
>>> class Say(nn.Module):
...     def __init__(self, word: str) -> None:
...         super().__init__()
...         self.word = word
...
...     def forward(self, x: torch.Tensor) -> torch.Tensor:
...         print(self.word)
...         return x + 1
>>> class Block(nn.Module):
...     def __init__(self) -> None:
...         super().__init__()
...         self.conv = nn.Conv2d(1, 1, 1)
...         self.pool = nn.AvgPool2d(1)
...
...     def forward(self, x: torch.Tensor) -> torch.Tensor:
...         return self.pool(torch.sigmoid(self.conv(x)))
>>> net, x = nn.Sequential(Block(), nn.Flatten()), torch.ones(1, 1, 1, 1)
>>> graph = trace(net, lambda: net(x))
>>> for word, kind, address, port in [
...     ("leave conv", "output", "0.conv/conv2d:0", 0),
...     ("function", "output", "0/sigmoid:0", 0),
...     ("input", "input", "0.conv/conv2d:0", 0),
...     ("weight", "weight", "0.conv/conv2d:0", 1),
... ]:
...     for site in sites(graph, net, InsertionPoint(kind=kind, address=address, port=port)):
...         insert(net, site, Say(word), algorithm="demo", priority=1)
>>> _ = net(x)
weight
input
leave conv
function

**A layer without hooks** costs nothing: inserting leaves it alone. One that is called by a module with slots at its own
functions has hooks even if it has no slot, for they take the caller's mode off the stack.

>>> type(net[1]) is nn.Flatten, len(net[1]._forward_pre_hooks), len(net[0].pool._forward_pre_hooks)
(True, 0, 1)

**Batch norm and ReLU** (`layers`). A slot at the output of either may do its work, too; one at a ReLU also that of a
batch norm before it which nothing else reads. It holds a single module then, which offers this by a method `rectified`
or `normalized`, and nobody listens to any of them. The batch norm returns what the slot made, and the ReLU, which knows
this tensor, passes it on. Where the method declines with ``None``, as for a batch norm in evaluation, or under a
compiler, each layer does its own work and the slot acts behind it. So whoever changes what a quantizer computes changes
it in these methods as well.

>>> class Clip(nn.Module):
...     def forward(self, x: torch.Tensor) -> torch.Tensor:
...         print("behind the ReLU")
...         return x.clamp(max=2)
...
...     def rectified(self, x: torch.Tensor, top: float) -> torch.Tensor:
...         print("for the ReLU, too")
...         return x.clamp(0, 2)
>>> net, x = nn.Sequential(nn.Linear(1, 1), nn.ReLU()), torch.ones(1, 1)
>>> graph = trace(net, lambda: net(x))
>>> (site,) = sites(graph, net, InsertionPoint(kind="output", address="1/relu:0", port=0))
>>> insert(net, site, Clip(), algorithm="demo", priority=1)
>>> _ = net(x)
for the ReLU, too
>>> handle = net[1].register_forward_hook(lambda module, args, result: None)
>>> _ = net(x)
behind the ReLU
"""
