"""Insertion, removal and everyday life of a hooked network."""

from __future__ import annotations

import copy
import gc
import inspect
import io
import pickle
import threading
import warnings
import weakref

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lightning_nncf.capture.trace import trace
from lightning_nncf.errors import HookError
from lightning_nncf.graph.graph import InsertionPoint
from lightning_nncf.hooks.insertion import HookSite, insert, inserted, sites, strip
from tests.capture.networks import NET_POINTS, Affine, Block, Net, gradients, hooked_net, put, reference


def _x(seed: int = 1) -> torch.Tensor:
    return torch.rand(2, 3, 6, 6, generator=torch.Generator().manual_seed(seed))


def _by_hand(net: Net, modules: list[Affine], x: torch.Tensor) -> torch.Tensor:
    plain = copy.deepcopy(net)
    strip(plain)
    for (_, parameter), (_, original) in zip(plain.named_parameters(), _own(net), strict=True):
        parameter.data = original.data
    return reference(plain, x, lambda i, t: t * modules[i].factor + modules[i].shift)


def _own(net: nn.Module) -> list[tuple[str, nn.Parameter]]:
    return [(name, parameter) for name, parameter in net.named_parameters() if "lnncf_" not in name]


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_every_kind_of_site_computes_what_is_written_by_hand(training: bool) -> None:
    net, modules = hooked_net()
    net.train(training)
    torch.testing.assert_close(net(_x())["logits"], _by_hand(net, modules, _x()), rtol=1e-6, atol=1e-6)


def test_gradients_equal_those_of_the_computation_by_hand() -> None:
    net, modules = hooked_net()
    net(_x())["logits"].square().sum().backward()
    found = gradients(net)
    reference_net = copy.deepcopy(net)
    strip(reference_net)
    factors = [nn.Parameter(module.factor.detach().clone()) for module in modules]
    for parameter in reference_net.parameters():
        parameter.grad = None
    out = reference(reference_net, _x(), lambda i, t: t * factors[i] + 0.05)
    out.square().sum().backward()
    for name, parameter in reference_net.named_parameters():
        torch.testing.assert_close(found[name], parameter.grad, rtol=1e-5, atol=1e-6)
    for module, factor in zip(modules, factors, strict=True):
        torch.testing.assert_close(module.factor.grad, factor.grad, rtol=1e-5, atol=1e-5)
    assert set(found) == {name for name, _ in net.named_parameters()}


def test_parameters_keep_their_names_and_objects() -> None:
    torch.manual_seed(0)
    net = Net()
    before = dict(net.named_parameters())
    graph = trace(net, lambda: net(_x()))
    put(net, graph, "weight", "stem/conv2d:0", 1, Affine(1.3))
    put(net, graph, "output", "blocks.0/add:0", 0, Affine(1.3))
    after = dict(net.named_parameters())
    assert all(after[name] is parameter for name, parameter in before.items())
    assert sorted(set(net.state_dict()) - set(before)) == [
        "blocks.0.lnncf_add_0_out0.test.factor",
        "stem.lnncf_weight.test.factor",
    ]
    net(_x())
    assert net.stem.weight is before["stem.weight"]


def test_state_dict_keys_name_holder_slot_and_algorithm() -> None:
    net, _ = hooked_net()
    keys = {name.removesuffix(".test.factor") for name in net.state_dict() if "lnncf_" in name}
    assert keys == {
        "stem.lnncf_weight",
        "stem.lnncf_in",
        "blocks.0.conv1.lnncf_weight",
        "blocks.1.conv2.lnncf_weight",
        "head.lnncf_weight",
        "blocks.0.relu.lnncf_out",
        "blocks.0.relu.lnncf_out_1",
        "blocks.1.relu.lnncf_out_1",
        "blocks.0.lnncf_add_0_in1",
        "blocks.0.lnncf_add_0_out0",
        "blocks.1.lnncf_out",
        "lnncf_mean_0_out0",
    }


def test_only_owners_of_functions_and_activations_change_class_and_keep_their_type_and_signature() -> None:
    net, _ = hooked_net()
    assert type(net.stem) is nn.Conv2d
    for module, plain in ((net.blocks[0], Block()), (net.blocks[0].relu, nn.ReLU())):
        assert type(module) is not type(plain)
        assert isinstance(module, type(plain))
        assert type(module).__name__ == type(plain).__name__
        assert inspect.signature(module.forward) == inspect.signature(plain.forward)


def test_what_looks_at_an_activation_sees_what_goes_in_and_what_comes_out() -> None:
    net = nn.Sequential(nn.Linear(2, 2, bias=False), nn.ReLU())
    graph = trace(net, lambda: net(torch.ones(1, 2)))
    put(net, graph, "input", "1/relu:0", 0, Affine(3.0))
    put(net, graph, "output", "1/relu:0", 0, Affine(1.3))
    seen: list[torch.Tensor] = []
    net[1].register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    net[1].register_forward_hook(lambda _, args, result: seen.append(result))
    x = torch.tensor([[1.0, -2.0]])
    result = net(x)
    torch.testing.assert_close(seen[0], net[0](x))
    assert seen[1] is result
    torch.testing.assert_close(result, (net[0](x) * 3.0 + 0.05).relu() * 1.3 + 0.05)


def test_strip_restores_the_plain_network() -> None:
    torch.manual_seed(0)
    plain = Net()
    net = copy.deepcopy(plain)
    before = {path: (type(module), set(module.__dict__)) for path, module in net.named_modules()}
    graph = trace(net, lambda: net(_x()))
    for kind, address, port, factor in NET_POINTS:
        put(net, graph, kind, address, port, Affine(factor))
    hooked = net(_x())["logits"]
    strip(net)
    assert {path: (type(module), set(module.__dict__)) for path, module in net.named_modules()} == before
    for module in net.modules():
        assert not module._forward_hooks
        assert not module._forward_pre_hooks
        assert not module._forward_hooks_always_called
        assert not module._forward_pre_hooks_with_kwargs
    assert list(net.state_dict()) == list(plain.state_dict())
    assert torch.equal(net(_x())["logits"], plain(_x())["logits"])
    assert not torch.allclose(hooked, plain(_x())["logits"])


def test_inserted_lists_what_was_inserted_and_rebuilds_it_without_a_graph() -> None:
    net, modules = hooked_net()
    listed = list(inserted(net))
    assert {id(module) for _, _, module in listed} == {id(module) for module in modules}
    torch.manual_seed(0)
    other = Net()
    for site, algorithm, _ in listed:
        insert(other, HookSite.from_dict(site.to_dict()), Affine(3.0), algorithm=algorithm, priority=1)
    other.load_state_dict(net.state_dict())
    torch.testing.assert_close(other(_x())["logits"], net(_x())["logits"])


def test_sites_survive_json() -> None:
    import json

    net, _ = hooked_net()
    for site, _, _ in inserted(net):
        assert HookSite.from_dict(json.loads(json.dumps(site.to_dict()))) == site


def test_algorithms_at_one_site_run_in_ascending_priority() -> None:
    net = nn.Sequential(nn.Linear(2, 2, bias=False))
    graph = trace(net, lambda: net(torch.ones(1, 2)))
    (site,) = sites(graph, net, InsertionPoint(kind="weight", address="0/linear:0", port=1))
    insert(net, site, Affine(1.0, shift=1.0), algorithm="late", priority=11)
    insert(net, site, Affine(2.0, shift=0.0), algorithm="early", priority=2)
    nn.init.ones_(net[0].weight)
    # early doubles 1 to 2, late adds 1: 3 per weight, two weights per row. The other order would give 4 + 4.
    assert net(torch.ones(1, 2)).tolist() == [[6.0, 6.0]]
    assert [algorithm for _, algorithm, _ in inserted(net)] == ["early", "late"]


def test_shared_module_is_registered_under_its_first_holder_only() -> None:
    net, _ = hooked_net()
    strip(net)
    graph = trace(net, lambda: net(_x()))
    shared = Affine(1.5)
    put(net, graph, "output", "blocks.0.relu/relu:0", 0, shared)
    put(net, graph, "output", "blocks.1.relu/relu:0", 0, shared)
    assert [name for name in net.state_dict() if "lnncf" in name] == ["blocks.0.relu.lnncf_out.test.factor"]
    clone = copy.deepcopy(net)
    with torch.no_grad():
        dict(clone.named_parameters())["blocks.0.relu.lnncf_out.test.factor"].fill_(0.0)
    chains = [module for _, _, module in inserted(clone)]
    assert len(chains) == 2
    assert chains[0] is chains[1]
    assert shared.factor.item() == 1.5


@pytest.mark.parametrize("copied", ["deepcopy", "pickle", "torch.save"])
def test_copies_are_independent_and_equal(copied: str) -> None:
    net, modules = hooked_net()
    expected = net(_x())["logits"]
    if copied == "deepcopy":
        other = copy.deepcopy(net)
    elif copied == "pickle":
        other = pickle.loads(pickle.dumps(net))
    else:
        buffer = io.BytesIO()
        torch.save(net, buffer)
        buffer.seek(0)
        other = torch.load(buffer, weights_only=False)
    assert torch.equal(other(_x())["logits"], expected)
    with torch.no_grad():
        for _, _, module in inserted(other):
            module.factor.mul_(2)
        other.stem.weight.mul_(2)
    assert torch.equal(net(_x())["logits"], expected)
    assert not torch.allclose(other(_x())["logits"], expected)
    strip(other)
    assert type(other.blocks[0]) is Block
    assert len(list(inserted(net))) == len(modules)


def test_exception_in_the_middle_of_a_forward_leaves_no_trace() -> None:
    net, _ = hooked_net()
    expected = net(_x())["logits"]

    def fail(module: nn.Module, args: object, output: object) -> None:
        raise RuntimeError("on purpose")

    for target in (net.blocks[0].conv1, net.blocks[1].relu, net.head):
        handle = target.register_forward_hook(fail)
        with pytest.raises(RuntimeError, match="on purpose"):
            net(_x())
        handle.remove()
        for module in net.modules():
            assert not any(isinstance(value, torch.Tensor) for value in module.__dict__.values())
        assert torch.equal(net(_x())["logits"], expected)


def test_exception_inside_an_inserted_module_leaves_no_trace() -> None:
    net, modules = hooked_net()
    expected = net(_x())["logits"]
    for module in modules:
        shift, module.shift = module.shift, "not a number"
        with pytest.raises(TypeError):
            net(_x())
        module.shift = shift
        assert torch.equal(net(_x())["logits"], expected)


def test_compressed_weights_and_activations_are_freed_after_the_forward() -> None:
    net, modules = hooked_net()
    seen: list[weakref.ref[torch.Tensor]] = []
    for module in modules:
        module.register_forward_hook(lambda _, __, out: seen.append(weakref.ref(out)))
    with torch.no_grad():
        net(_x())
    gc.collect()
    assert len(seen) == len(modules)
    assert all(ref() is None for ref in seen)


def test_threads_are_refused_or_right() -> None:
    net, _ = hooked_net()
    net.eval()
    with torch.no_grad():
        expected = [net(_x(seed))["logits"] for seed in range(4)]
    wrong, refused, right = [], [], []

    def work(seed: int) -> None:
        for _ in range(30):
            try:
                with torch.no_grad():
                    out = net(_x(seed))["logits"]
            except HookError:
                refused.append(seed)
                continue
            (right if torch.equal(out, expected[seed]) else wrong).append(seed)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert len(refused) + len(right) == 120
    with torch.no_grad():
        assert torch.equal(net(_x(0))["logits"], expected[0])


def test_user_initialization_reaches_the_parameter() -> None:
    net, _ = hooked_net()
    nn.init.constant_(net.head.weight, 0.5)
    nn.init.zeros_(net.head.bias)
    assert net.head.weight.unique().tolist() == [0.5]
    x = torch.ones(1, 4)
    # 0.5 * 1.4 + 0.05 per weight, four inputs.
    torch.testing.assert_close(net.head(x), torch.full((1, 5), 4 * (0.5 * 1.4 + 0.05)))


def test_autocast_reaches_inserted_modules_and_keeps_the_result_close() -> None:
    net, modules = hooked_net()
    with torch.autocast("cpu", torch.bfloat16):
        out = net(_x())["logits"]
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out.float(), _by_hand(net, modules, _x()), rtol=0.05, atol=0.1)


class Recursive(nn.Module):
    """Calls itself, with a weight and a function of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((2, 2), 0.5))

    def forward(self, x: torch.Tensor, depth: int = 2) -> torch.Tensor:
        x = F.linear(x, self.weight)
        if depth:
            x = self(x, depth - 1)
        return F.linear(x, self.weight) + 1


def test_recursion_keeps_the_compressed_weight_after_the_inner_call() -> None:
    net = Recursive()
    graph = trace(net, lambda: net(torch.ones(1, 2)))
    put(net, graph, "weight", "/linear:0", 1, Affine(1.3))

    def by_hand(x: torch.Tensor, depth: int = 2) -> torch.Tensor:
        weight = net.weight * 1.3 + 0.05
        x = x @ weight.T
        if depth:
            x = by_hand(x, depth - 1)
        return x @ weight.T + 1

    torch.testing.assert_close(net(torch.ones(1, 2)), by_hand(torch.ones(1, 2)))
    torch.testing.assert_close(net(torch.ones(1, 2), 4), by_hand(torch.ones(1, 2), 4))
    assert "weight" not in net.__dict__


class DirectForward(nn.Module):
    """Calls its child's forward without its hooks."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 2, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer.forward(x).relu()


def test_direct_forward_calls_are_compressed_in_the_caller() -> None:
    net = DirectForward()
    graph = trace(net, lambda: net(torch.ones(1, 2)))
    assert graph["/linear:0"].parameters == {1: "layer.weight"}
    put(net, graph, "weight", "/linear:0", 1, Affine(1.3))
    put(net, graph, "input", "/linear:0", 0, Affine(0.7))
    x = torch.tensor([[1.0, -2.0]])
    expected = F.linear(x * 0.7 + 0.05, net.layer.weight * 1.3 + 0.05).relu()
    torch.testing.assert_close(net(x), expected)
    keys = {"layer.weight", "lnncf_linear_0_in0.test.factor", "layer.lnncf_weight.test.factor"}
    assert set(net.state_dict()) == keys


def test_direct_forward_of_an_owner_still_compresses_its_functions() -> None:
    net, _ = hooked_net()
    block = net.blocks[0]
    x = torch.rand(1, 4, 5, 5)
    torch.testing.assert_close(block.forward(x), block(x))


class Attention(nn.Module):
    """Attention followed by a projection."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.attention(x, x, x)[0]


@pytest.mark.parametrize("grad", [True, False], ids=["grad", "no_grad_eval"])
def test_attention_out_projection_is_compressed_though_never_called(grad: bool) -> None:
    torch.manual_seed(0)
    net = Attention()
    graph = trace(net, lambda: net(torch.rand(2, 3, 8)))
    for op, factor in (("attention/linear:0", 1.3), ("attention/linear:1", 0.7)):
        put(net, graph, "weight", op, 1, Affine(factor))
    plain = copy.deepcopy(net)
    strip(plain)
    with torch.no_grad():
        plain.attention.in_proj_weight.mul_(1.3).add_(0.05)
        plain.attention.out_proj.weight.mul_(0.7).add_(0.05)
    x = torch.rand(2, 3, 8)
    net.train(grad)
    plain.train(grad)
    with torch.set_grad_enabled(grad):
        torch.testing.assert_close(net(x), plain(x))
    assert "attention.out_proj.lnncf_weight.test.factor" in net.state_dict()


def test_encoder_layer_gives_the_same_with_and_without_gradients() -> None:
    torch.manual_seed(0)
    net = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
    graph = trace(net, lambda: net(torch.rand(2, 3, 8)))
    put(net, graph, "weight", "linear1/linear:0", 1, Affine(1.3))
    put(net, graph, "weight", "self_attn/linear:1", 1, Affine(1.2))
    net.eval()
    x = torch.rand(2, 3, 8)
    with torch.no_grad():
        fast = net(x)
    torch.testing.assert_close(fast, net(x).detach(), rtol=1e-5, atol=1e-6)


class Tied(nn.Module):
    """An embedding whose weight is also the output projection's."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(7, 4)
        self.out = nn.Linear(4, 7, bias=False)
        self.out.weight = self.embed.weight

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.out(self.embed(ids))


def test_tied_weight_is_compressed_per_consumer() -> None:
    torch.manual_seed(0)
    net = Tied()
    ids = torch.tensor([[1, 2, 3]])
    graph = trace(net, lambda: net(ids))
    assert graph["out/linear:0"].parameters == {1: "embed.weight"}
    put(net, graph, "weight", "out/linear:0", 1, Affine(1.3))
    expected = F.linear(net.embed.weight[ids], net.embed.weight * 1.3 + 0.05)
    torch.testing.assert_close(net(ids), expected)
    shared = Affine(0.6)
    strip(net)
    put(net, graph, "weight", "embed/embedding:0", 1, shared)
    put(net, graph, "weight", "out/linear:0", 1, shared)
    weight = net.embed.weight * 0.6 + 0.05
    torch.testing.assert_close(net(ids), F.linear(weight[ids], weight))
    assert [key for key in net.state_dict() if "lnncf" in key] == ["embed.lnncf_weight.test.factor"]
    assert net.out.weight is net.embed.weight


def test_what_hid_a_weight_before_a_call_hides_it_after_the_call() -> None:
    net = nn.Sequential(nn.Linear(2, 2, bias=False))
    graph = trace(net, lambda: net(torch.ones(1, 2)))
    put(net, graph, "weight", "0/linear:0", 1, Affine(1.3))
    weight, hiding = net[0].weight.detach().clone(), torch.zeros(2, 2)
    net[0].__dict__["weight"] = hiding
    torch.testing.assert_close(net(torch.eye(2)), (weight * 1.3 + 0.05).T)
    assert net[0].__dict__["weight"] is hiding


def test_a_layer_that_was_interrupted_goes_on_and_can_be_stripped(monkeypatch: pytest.MonkeyPatch) -> None:
    net = nn.Sequential(nn.Linear(2, 2, bias=False))
    graph = trace(net, lambda: net(torch.ones(1, 2)))
    put(net, graph, "weight", "0/linear:0", 1, Affine(1.3))
    weight = net[0]._parameters["weight"]
    assert weight is not None
    with monkeypatch.context() as patch:
        patch.setattr(F, "linear", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            net(torch.eye(2))
    torch.testing.assert_close(net(torch.eye(2)), (weight * 1.3 + 0.05).T)
    assert net[0].weight is weight
    strip(net)
    assert net[0].weight is weight


class Loop(nn.Module):
    """Calls a module, and a function, as often as it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 2)
        self.times = 2

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for _ in range(self.times):
            x = self.layer(x)
            x = torch.tanh(x)
        return x


def test_calls_that_were_not_traced_warn_once_and_use_the_nearest_module() -> None:
    net = Loop()
    graph = trace(net, lambda: net(torch.ones(1, 2)))
    put(net, graph, "output", "layer/linear:0", 0, Affine(1.3))
    put(net, graph, "output", "layer@1/linear:0", 0, Affine(0.6))
    net.times = 4
    x = torch.ones(1, 2)
    with pytest.warns(UserWarning, match="layer@2.*was not seen") as caught:
        outs = [net(x) for _ in range(2)]
    assert len(caught) == 1
    for factor in (1.3, 0.6, 0.6, 0.6):
        x = torch.tanh(net.layer.forward(x) * factor + 0.05)
    torch.testing.assert_close(outs[1], x)


def test_functions_that_were_not_traced_warn_once_and_stay_plain() -> None:
    net = Loop()
    graph = trace(net, lambda: net(torch.ones(1, 2)))
    put(net, graph, "output", "/tanh:1", 0, Affine(1.3))
    net.times = 3
    x = torch.ones(1, 2)
    with pytest.warns(UserWarning, match="call 2 of 'tanh' in the network was not seen") as caught:
        outs = [net(x) for _ in range(2)]
    assert len(caught) == 1
    x = torch.tanh(net.layer(x))
    x = torch.tanh(net.layer(x)) * 1.3 + 0.05
    torch.testing.assert_close(outs[1], torch.tanh(net.layer(x)))


def test_module_with_modules_per_call_refuses_a_call_outside_its_caller() -> None:
    net = Loop()
    graph = trace(net, lambda: net(torch.ones(1, 2)))
    put(net, graph, "output", "layer/linear:0", 0, Affine(1.3))
    expected = net(torch.ones(1, 2))
    with pytest.raises(
        HookError, match=r"'layer' has a compression module for each of its calls .*outside the network"
    ):
        net.layer(torch.ones(1, 2))
    assert torch.equal(net(torch.ones(1, 2)), expected)


class Siamese(nn.Module):
    """Calls a head twice; the head's layers have one call each per call of the head."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Sequential(nn.Linear(2, 2), nn.ReLU())

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return self.head(x) - self.head(y)


def test_layers_of_a_head_called_twice_have_a_module_per_call() -> None:
    torch.manual_seed(0)
    net = Siamese()
    x, y = torch.rand(3, 2), torch.rand(3, 2)
    graph = trace(net, lambda: net(x, y))
    put(net, graph, "output", "head.0/linear:0", 0, Affine(1.3))
    put(net, graph, "output", "head@1.0/linear:0", 0, Affine(0.6))
    layer = net.head[0].forward
    expected = (layer(x) * 1.3 + 0.05).relu() - (layer(y) * 0.6 + 0.05).relu()
    torch.testing.assert_close(net(x, y), expected)
    torch.testing.assert_close(copy.deepcopy(net)(x, y), expected)


class Elsewhere(nn.Module):
    """A module registered in one branch and called from another, too."""

    def __init__(self) -> None:
        super().__init__()
        self.left = nn.Sequential(nn.Linear(2, 2))
        self.right = nn.Module()
        self.right.forward = self._right

    def _right(self, x: torch.Tensor) -> torch.Tensor:
        return self.left[0](x)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.left(x) - 2 * self.right(x)


def test_module_called_from_two_callers_has_a_module_for_each() -> None:
    torch.manual_seed(0)
    net = Elsewhere()
    x = torch.rand(3, 2)
    graph = trace(net, lambda: net(x))
    assert "right>left.0/linear:0" in graph
    put(net, graph, "output", "left.0/linear:0", 0, Affine(1.3))
    put(net, graph, "output", "right>left.0/linear:0", 0, Affine(0.6))
    layer = net.left[0].forward
    torch.testing.assert_close(net(x), (layer(x) * 1.3 + 0.05) - 2 * (layer(x) * 0.6 + 0.05))


class Dense(nn.ModuleDict):
    """A container that runs all its children and has functions of its own, as densenet's blocks."""

    def __init__(self) -> None:
        super().__init__({"a": nn.Linear(2, 2), "b": nn.Linear(2, 2)})

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([layer(x) for _, layer in self.items()], 1)


def test_slots_are_not_put_into_containers_that_run_their_children() -> None:
    net = nn.Sequential(Dense(), nn.Linear(4, 2))
    graph = trace(net, lambda: net(torch.ones(1, 2)))
    put(net, graph, "output", "0/cat:0", 0, Affine(1.3))
    put(net, graph, "input", "0/cat:0", 1, Affine(0.6))
    x = torch.rand(2, 2)
    dense = net[0]
    joined = torch.cat([dense["a"](x), dense["b"](x) * 0.6 + 0.05], 1) * 1.3 + 0.05
    torch.testing.assert_close(net(x), net[1](joined))


def test_data_parallel_replicas_and_shallow_copies_are_refused() -> None:
    net, _ = hooked_net()
    with pytest.raises(HookError, match=r"replica or shallow copy.*DistributedDataParallel"):
        copy.copy(net.stem)(torch.rand(1, 3, 4, 4))
    with pytest.raises(HookError, match="replica or shallow copy"):
        copy.copy(net.blocks[0].relu)(torch.rand(1, 4, 4, 4))
    with pytest.raises(HookError, match="DataParallel"):
        insert(nn.DataParallel(net), next(inserted(net))[0], Affine(1.0), algorithm="other", priority=1)


def test_parameters_without_dimensions_are_refused() -> None:
    net = nn.Sequential(nn.Linear(2, 2))
    module = Affine(1.0)
    module.factor = nn.Parameter(torch.tensor(1.0))
    site = HookSite(kind="weight", module="0", holder="0", slot="weight", frame="0", parameter="weight")
    with pytest.raises(HookError, match=r"'factor'.*no dimensions.*shape \[1\]"):
        insert(net, site, module, algorithm="test", priority=1)


def test_unknown_places_are_errors_that_name_near_ones() -> None:
    net = Net()
    graph = trace(net, lambda: net(_x()))
    with pytest.raises(HookError, match="did you mean 'stem/conv2d:0'"):
        sites(graph, net, InsertionPoint(kind="output", address="stem/conv2:0"))
    with pytest.raises(HookError, match="3 input tensor"):
        sites(graph, net, InsertionPoint(kind="input", address="stem/conv2d:0", port=3))
    site = HookSite(kind="weight", module="stm", holder="stm", slot="weight", frame="stm", parameter="weight")
    with pytest.raises(HookError, match="did you mean 'stem'"):
        insert(net, site, Affine(1.0), algorithm="test", priority=1)


def test_second_module_of_an_algorithm_at_a_site_is_refused() -> None:
    net, modules = hooked_net()
    site, _, module = next(inserted(net))
    insert(net, site, module, algorithm="test", priority=1)
    with pytest.raises(HookError, match="already holds a module of algorithm 'test'"):
        insert(net, site, Affine(1.0), algorithm="test", priority=1)
    assert len(list(inserted(net))) == len(modules)


def test_operations_outside_every_module_are_said_and_skipped() -> None:
    class Parts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = nn.Linear(2, 2)

        def step(self, x: torch.Tensor) -> torch.Tensor:
            return torch.tanh(self.encoder(x)) + self.encoder(x)

    net = Parts()
    graph = trace(net, lambda: net.step(torch.ones(1, 2)))
    with pytest.warns(UserWarning, match="'/tanh:0' runs outside the forward of every module"):
        assert sites(graph, net, InsertionPoint(kind="output", address="/tanh:0")) == ()
    put(net, graph, "output", "encoder/linear:0", 0, Affine(1.3))
    x = torch.rand(1, 2)
    plain = net.encoder.forward(x) * 1.3 + 0.05
    torch.testing.assert_close(net.step(x), torch.tanh(plain) + plain)


def test_nothing_warns_in_ordinary_use() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        net, _ = hooked_net()
        net(_x())["logits"].sum().backward()
        strip(net)
