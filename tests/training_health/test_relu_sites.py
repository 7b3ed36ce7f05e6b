"""Seeing every form of ReLU, by name, and leaving the model as it was."""

import copy
import pickle
from concurrent.futures import ThreadPoolExecutor
from threading import Event

import pytest
import torch
from torch import nn
from torch.ao.nn.intrinsic.quantized import dynamic as quantised
from torch.nn import functional as F
from torch.overrides import (
    TorchFunctionMode,
    _get_current_function_mode_stack,
    handle_torch_function,
    has_torch_function_unary,
)
from torch.utils._python_dispatch import TorchDispatchMode
from torchmetrics import Metric

from training_health.relu.sites import ReLUSites
from training_health.torch_private import ForcedEager


def watch(net: nn.Module, x: torch.Tensor, passes: int = 1, eager: bool = True) -> tuple[list, ReLUSites]:
    calls = []
    sites = ReLUSites(calls.append, eager)
    sites.attach(net)
    with torch.no_grad():
        for _ in range(passes):
            sites.begin_pass()
            net(x.clone())
            sites.end_pass()
    sites.detach()
    return calls, sites


def assert_clean(net: nn.Module) -> None:
    assert all(not m._forward_hooks and not m._forward_pre_hooks for m in net.modules())
    assert _get_current_function_mode_stack() == []


class Calls(nn.Module):
    """Applies one function in a forward of its own."""

    def __init__(self, function) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function(x)


class Weighted(Calls):
    """Applies a layer before."""

    def __init__(self, layer: nn.Module, function) -> None:
        super().__init__(function)
        self.layer = layer

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.layer(x)
        result = self.function(x)
        return x if result is None else result


@pytest.mark.parametrize(
    ("function", "activation"),
    [
        (F.relu, "relu"), (lambda x: F.relu(x, inplace=True), "relu"), (torch.relu, "relu"), (torch.relu_, "relu"),
        (lambda x: x.relu(), "relu"), (lambda x: x.relu_(), "relu"), (lambda x: torch.ops.aten.relu(x), "relu"),
        (lambda x: F.threshold(x, 0, 0), "relu"), (nn.ReLU(), "relu"), (nn.ReLU(inplace=True), "relu"),
        (F.relu6, "relu6"), (lambda x: F.hardtanh(x, 0.0, 6.0), "relu6"), (nn.ReLU6(), "relu6"),
        (lambda x: F.hardtanh(x, min_val=0.0, max_val=1.0), "hardtanh"), (nn.Hardtanh(0, 1), "hardtanh"),
        # by their numbers
        (lambda x: F.threshold(x, threshold=0.0, value=0.0), "relu"), (lambda x: torch.threshold(x, 0, 0), "relu"),
        (nn.LeakyReLU(0.0), "relu"), (nn.RReLU(0.0, 0.0), "relu"), (nn.ELU(0.0), "relu"),
        (lambda x: x.clamp(min=0), "relu"), (lambda x: torch.clamp(x, 0), "relu"), (lambda x: x.clamp_min(0), "relu"),
        (lambda x: x.clamp(0, 6), "relu6"), (lambda x: x.clamp(0, 1), "hardtanh"),
        (lambda x: x.clamp(min=torch.zeros(())), "relu"), (lambda x: torch.maximum(x, torch.zeros_like(x)), "relu"),
        (lambda x: torch.max(torch.zeros(()), x), "relu"), (lambda x: torch.where(x > 0, x, 0.0), "relu"),
        (lambda x: torch.where(x <= 0, torch.zeros(()), x), "relu"), (lambda x: x.where(x > 0, 0), "relu"),
        (lambda x: x * (x > 0), "relu"), (lambda x: (x > 0).float() * x, "relu"),
        (lambda x: x.masked_fill(x < 0, 0), "relu"), (lambda x: x.__setitem__(x < 0, 0), "relu"),
        (lambda x: torch.fmax(x, torch.zeros(())), "relu"), (lambda x: F.threshold_(x, 0, 0), "relu"),
        # as an exported network calls them
        (lambda x: torch.ops.aten.relu_.default(x), "relu"), (lambda x: torch.ops.aten.relu6.default(x), "relu6"),
        (lambda x: torch.ops.aten.hardtanh.default(x, 0.0, 6.0), "relu6"),
        (lambda x: torch.ops.aten.hardtanh_(x, 0.0, 6.0), "relu6"),
        (lambda x: torch.ops.aten.clamp.default(x, 0.0), "relu"),
        (lambda x: torch.ops.aten.clamp_min.default(x, 0.0), "relu"),
        (lambda x: torch.ops.aten.leaky_relu.default(x, 0.0), "relu"),
        (lambda x: torch.ops.aten.threshold.default(x, 0.0, 0.0), "relu"),
    ],
)  # fmt: skip
def test_every_form_of_relu_is_one_site(function, activation):
    layer = nn.Linear(2, 2, bias=False)
    nn.init.eye_(layer.weight)

    calls, _ = watch(Weighted(layer, function), torch.tensor([[-1.0, 2.0], [-3.0, 0.5]]))

    assert [call.activation for call in calls] == [activation]
    assert (calls[0].output > 0).tolist() == [[False, True], [False, True]]


@pytest.mark.parametrize(
    ("function", "never_zero", "unwatched"),
    [
        *[(function, [], 0) for function in (
            F.hardtanh, torch.tanh, torch.sigmoid, lambda x: x.clamp(-1, 1), lambda x: x.clamp(min=torch.ones(3)),
            lambda x: torch.maximum(x, -x), lambda x: torch.where(x > 1, x, 0.0), lambda x: x * (x + 1 > 0),
        )],
        (nn.LeakyReLU(), ["leaky_relu"], 0), (nn.GELU(), ["gelu"], 0), (nn.SiLU(), ["silu"], 0),
        (nn.ELU(), ["elu"], 0), (nn.SELU(), ["selu"], 0), (nn.CELU(), ["celu"], 0), (nn.Mish(), ["mish"], 0),
        (nn.PReLU(), ["prelu"], 0), (nn.Softplus(), ["softplus"], 0), (nn.RReLU(), ["rrelu"], 0),
        (Calls(F.gelu), ["gelu"], 0), (Calls(lambda x: torch.ops.aten.silu.default(x)), ["silu"], 0),
        *[(Calls(function), [], 1) for function in (  # a zero that is not counted is named
            F.hardswish, F.hardsigmoid, F.softshrink, F.hardshrink, lambda x: F.threshold(x, 1, 0), nn.PReLU(init=0),
            lambda x: -(-x).clamp(max=0), lambda x: torch.relu(x.flatten()),  # one dimension, no unit to tell apart
        )],
    ],
)  # fmt: skip
def test_what_is_no_relu_is_not_counted_and_listed_where_it_matters(function, never_zero, unwatched):
    calls, sites = watch(Weighted(nn.Linear(3, 3), function), torch.randn(2, 3))

    assert (calls, list(sites.never_zero.values()), len(sites.unwatched)) == ([], never_zero, unwatched)


def test_the_layers_of_an_exported_network_are_followed_as_well():
    linear = nn.Linear(3, 2)
    net = Calls(lambda x: torch.ops.aten.relu.default(torch.ops.aten.linear.default(x, linear.weight, linear.bias)))

    (call,), _ = watch(net, torch.randn(4, 5, 3))

    assert (call.unit_dim, call.derived, call.first_layer) == (2, True, True)
    assert call.feed is not None
    assert call.feed.weight is linear.weight


@pytest.mark.parametrize(
    ("make", "counted", "named"),
    [
        (lambda x: torch.nested.nested_tensor([*x]), [], "relu"),
        (lambda x: torch.nested.nested_tensor([*x], layout=torch.jagged), [], "relu"),
        (lambda x: x.flatten(1).relu().to_sparse(), ["relu"], "relu:2"),
        (lambda x: x.flatten(1).to_mkldnn(), [], "relu"),
        (lambda x: torch.quantize_per_tensor(x.flatten(1), 0.1, 0, torch.quint8), [], "relu"),
    ],
    ids=["nested", "jagged", "sparse", "mkldnn", "quantised"],
)
@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.filterwarnings("ignore:.*quant")
def test_a_relu_of_a_tensor_that_cannot_be_counted_is_named(make, counted, named):
    net = Calls(lambda x: torch.relu(make(x)))

    calls, sites = watch(net, torch.ones(2, 3, 4))

    reason = "its output is a nested, sparse, quantised or MKL-DNN tensor"
    assert ([call.site for call in calls], sites.unwatched) == (counted, {named: reason})


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda net: pickle.loads(pickle.dumps(net))], ids=["copy", "file"])
def test_a_copy_that_is_made_in_a_pass_is_watched_by_nobody_and_computes_with_its_own_weights(copied):
    x, seen = torch.randn(2, 3, 8), []
    net = nn.Sequential(nn.TransformerEncoderLayer(8, 2, 8, dropout=0.0, batch_first=True), nn.ReLU())
    sites = ReLUSites(seen.append)
    sites.attach(net)
    sites.begin_pass()
    other = copied(net)
    sites.end_pass()
    sites.detach()
    with torch.no_grad():
        for weight in net.parameters():
            weight.zero_()

    result = copied(other)(x)  # of a copy of the copy

    with torch.no_grad():
        for own, weight in zip(net.parameters(), other.parameters(), strict=True):
            own.copy_(weight)
    assert torch.equal(result, net(x))
    assert seen == []
    assert_clean(net)


def test_a_clamp_that_prepares_data_or_belongs_to_a_loss_is_no_relu():
    assert watch(nn.Sequential(Calls(lambda x: x.clamp(min=0)), nn.Linear(3, 3)), torch.randn(2, 3))[0] == []


class Names(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.block = nn.Sequential(nn.Linear(3, 3), nn.ReLU())
        self.inner = Calls(lambda x: torch.relu(F.relu(x)))
        self.shared = nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.shared(self.block(x))
        return self.shared(F.relu(self.inner(x)))


class Rectified(nn.Linear):
    """A subclass of a layer that calls no activation may call one."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(super().forward(x))


class Counting(Metric):
    """Calls a ReLU that is not the network's."""

    def update(self, x: torch.Tensor) -> None:
        F.relu(x)

    def compute(self) -> torch.Tensor:
        return torch.zeros(())


@pytest.mark.filterwarnings("ignore:The ``compute`` method")
@pytest.mark.parametrize(
    ("net", "names"),
    [
        (Names(), ["block.1", "shared", "inner.relu", "inner.relu:2", "relu", "shared:2"]),
        (nn.Sequential(nn.Sequential(Rectified(3, 3))), ["0.0.relu"]),
        (nn.Sequential(nn.Linear(3, 3), nn.ReLU(), Counting()), ["1"]),
    ],
)
def test_sites_are_named_after_the_module_they_are_called_for_in_every_pass(net, names):
    calls, _ = watch(net, torch.randn(2, 3), passes=3)

    assert [call.site for call in calls] == names * 3
    assert_clean(net)


def test_a_relu_outside_of_modules_is_seen_in_every_pass():
    net, calls = nn.Linear(3, 3), []
    sites = ReLUSites(calls.append)
    sites.attach(net)
    for _ in range(3):
        sites.begin_pass()
        F.relu(net(torch.randn(2, 3)))
        sites.end_pass()
        F.relu(net(torch.randn(2, 3)))  # between passes nobody looks
    sites.detach()

    assert [(call.site, call.first_layer) for call in calls] == [("relu", True)] * 3


def test_a_pass_that_raises_leaves_nothing_and_names_the_next_pass_rightly():
    net, calls = nn.Sequential(nn.Sequential(nn.Linear(3, 3), nn.ReLU()), nn.ReLU()), []
    sites = ReLUSites(calls.append)
    sites.attach(net)
    sites.begin_pass()
    with pytest.raises(RuntimeError):
        net(torch.randn(2, 4))
    F.relu(net(torch.randn(2, 3)))
    sites.begin_pass()
    net(torch.randn(2, 3))
    sites.detach()
    sites.detach()

    assert [call.site for call in calls] == ["0.1", "1", "relu", "0.1", "1"]
    assert_clean(net)


class First(nn.Module):
    """The first output of a module that has several."""

    def __init__(self, module: nn.Module, copies: int = 1) -> None:
        super().__init__()
        self.module, self.copies = module, copies

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.module(*[x] * self.copies)[0]


def attention() -> nn.Module:
    return First(nn.MultiheadAttention(8, 2, batch_first=True), copies=3)


@pytest.mark.parametrize(
    ("layers", "shape", "unit_dim"),
    [
        ([nn.Linear(5, 8)], (2, 5), 1),
        ([nn.Conv1d(5, 8, 1)], (2, 5, 9), 1),
        ([nn.Conv2d(5, 8, 1)], (2, 5, 9, 9), 1),
        ([nn.Conv3d(5, 8, 1)], (2, 5, 4, 4, 4), 1),
        ([nn.Linear(5, 8)], (2, 9, 5), 2),  # (N, T, F)
        ([nn.Linear(5, 8)], (2, 9, 9, 5), 3),  # channels last by permutation
        ([nn.Conv1d(5, 8, 1), nn.BatchNorm1d(8)], (2, 5, 9), 1),
        ([nn.Linear(5, 8), lambda x: x.transpose(1, 2), nn.BatchNorm1d(8)], (2, 9, 5), 1),
        ([lambda x: x.flatten(0, 1), nn.Conv2d(5, 8, 1), lambda x: x.unflatten(0, (2, 3))], (2, 3, 5, 9, 9), 2),
        ([nn.Linear(5, 8), lambda x: x.permute(0, 3, 1, 2)], (2, 4, 4, 5), 1),
        ([nn.Linear(5, 8), lambda x: x.permute(0, 3, 1, 2).contiguous().reshape(2, 8, 16)], (2, 4, 4, 5), 1),
        ([lambda x: x.mT, nn.Conv1d(5, 8, 1), lambda x: x.mT], (2, 9, 5), 2),
        ([lambda x: x.mT, nn.Conv1d(5, 4, 1), lambda x: x.mT, First(nn.LSTM(4, 8, batch_first=True))], (2, 9, 5), 2),
        ([nn.Conv2d(5, 8, 3, 3), lambda x: x.flatten(2).transpose(1, 2), nn.LayerNorm(8)], (2, 5, 9, 9), 2),
        ([nn.Conv2d(5, 16, 1), lambda x: x.chunk(2, dim=1)[1], nn.AvgPool2d(3)], (2, 5, 9, 9), 1),
        ([nn.Conv1d(5, 4, 1), lambda x: torch.cat([x, -x], dim=1)], (2, 5, 9), 1),
        ([nn.Linear(5, 8), attention(), lambda x: x[:, 1:]], (2, 9, 5), 2),
    ],
)
def test_units_are_where_the_features_of_the_last_layer_with_weights_went(layers, shape, unit_dim):
    layers = [layer if isinstance(layer, nn.Module) else Calls(layer) for layer in layers]

    (call,), _ = watch(nn.Sequential(*layers, nn.ReLU()).eval(), torch.randn(shape))

    assert (call.unit_dim, call.derived, call.output.shape[call.unit_dim]) == (unit_dim, True, 8)


class Product(nn.Module):
    """A product with a weight of its own, written in different ways."""

    def __init__(self, product, *shape: int) -> None:
        super().__init__()
        self.weight, self.product = nn.Parameter(torch.randn(shape or (8, 5))), product

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(self.product(x, self.weight))


@pytest.mark.parametrize(
    ("product", "unit_dim"),
    [
        (lambda x, w: x @ w.T, 2), (lambda x, w: w @ x.mT, 1), (lambda x, w: torch.einsum("ntf,of->not", x, w), 1),
        (lambda x, w: torch.einsum("ntf,of->nto", x, w), 2),
    ],
)  # fmt: skip
def test_units_are_where_the_weights_of_a_product_are(product, unit_dim):
    (call,), _ = watch(Product(product), torch.randn(2, 9, 5))

    assert (call.unit_dim, call.derived, call.first_layer) == (unit_dim, True, True)


class GraphConvolution(nn.Module):
    """Joins the features of the four nodes that a graph connects."""

    def __init__(self, product) -> None:
        super().__init__()
        self.layer, self.edges, self.product = nn.Linear(5, 6), nn.Parameter(torch.eye(4)), product

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(self.product(self.edges, self.layer(x)))


@pytest.mark.parametrize("trained", [True, False])
@pytest.mark.parametrize(
    ("product", "unit_dim"),
    [
        (lambda a, h: a @ h, 2), (torch.matmul, 2), (lambda a, h: torch.einsum("vw,nwc->nvc", a, h), 2),
        (lambda a, h: torch.einsum("vw,nwc->ncv", a.detach().clone(), h), 1),
    ],
)  # fmt: skip
def test_features_stay_the_units_where_a_graph_joins_nodes(product, unit_dim, trained):
    network = GraphConvolution(product)
    network.edges.requires_grad_(trained)

    (call,), _ = watch(network, torch.randn(3, 4, 5))

    assert (call.unit_dim, call.derived, call.output.shape[unit_dim]) == (unit_dim, True, 6)


@pytest.mark.parametrize(
    ("product", "shape"),
    [
        (lambda x, w: x @ w, (3, 5, 8)), (lambda x, w: torch.bmm(x, w), (3, 5, 8)), (lambda x, w: w @ x, (3, 8, 4)),
        (lambda x, w: torch.baddbmm(torch.zeros(8), x, w), (3, 5, 8)),
        (lambda x, w: torch.einsum("eni,eio->eno", x, w), (3, 5, 8)),
        (lambda x, w: torch.einsum("eni,eio->eon", x, w), (3, 5, 8)),
        (lambda x, w: torch.einsum("...ni,...io->...no", x, w), (3, 5, 8)),
        (lambda x, w: x @ w + torch.zeros(8), (3, 5, 8)),
    ],
)  # fmt: skip
def test_of_the_two_dimensions_of_a_stack_of_weights_one_is_guessed(product, shape):
    (call,), _ = watch(Product(product, *shape), torch.randn(3, 4, 5))

    assert call.output.shape[call.unit_dim] == 8
    assert not call.derived


@pytest.mark.parametrize(
    ("product", "shape"),
    [
        (lambda x, w: x @ w, (1, 5, 8)), (lambda x, w: torch.bmm(x, w.expand(3, 5, 8)), (5, 8)),
        (lambda x, w: torch.einsum("...ni,...io->...no", x, w), (5, 8)),
    ],
)  # fmt: skip
def test_a_stack_of_one_is_a_matrix(product, shape):
    (call,), _ = watch(Product(product, *shape), torch.randn(3, 4, 5))

    assert (call.unit_dim, call.derived) == (2, True)


@pytest.mark.parametrize(
    "change",
    [
        nn.Flatten(), lambda x: x.max(2).values, lambda x: x[torch.arange(4), :, 2], lambda x: x[:, ::2].flatten(1),
        lambda x: torch.hstack([x.mean(2), x.mean(2)]), lambda x: x.transpose(1, 2)[x[:, 0] > 0],
        lambda x: torch.stack([x.sum((1, 2)), x.mean((1, 2))], 1),
    ],
)  # fmt: skip
def test_columns_are_units_whatever_they_were_made_of(change):
    (call,), _ = watch(nn.Sequential(nn.Conv1d(5, 9, 1), Calls(change), nn.ReLU()), torch.randn(4, 5, 9))

    assert (call.unit_dim, call.derived) == (1, True)


@pytest.mark.parametrize("lose", [lambda x: x[..., 3], lambda x: x.sum(-1), lambda x: x[..., :1].squeeze(-1)])
def test_where_the_units_dimension_is_gone_the_columns_are_a_guess(lose):
    (call,), _ = watch(nn.Sequential(nn.Linear(5, 8), Calls(lose), nn.ReLU()), torch.randn(4, 9, 5))

    assert (call.output.shape, call.derived) == ((4, 9), False)


@pytest.mark.parametrize("lose", [lambda x: F.pixel_shuffle(x, 2), lambda x: x.reshape(2, 4, 2, 9, 9)])
def test_a_unit_dimension_that_is_lost_is_said_to_be_a_guess(lose):
    (call,), _ = watch(nn.Sequential(nn.Conv2d(5, 8, 1), Calls(lose), nn.ReLU()), torch.randn(2, 5, 9, 9))

    assert not call.derived


class Residual(nn.Module):
    """Adds a shortcut, which runs first, to two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.shortcut, self.first, self.second = nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        shortcut = self.shortcut(x)
        return F.relu(shortcut + self.second(F.relu(self.first(x))))


@pytest.mark.parametrize(
    ("layers", "x", "first"),
    [
        ([nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2), nn.ReLU(), nn.Conv2d(2, 2, 1), nn.ReLU()],
         torch.randn(2, 1, 3, 3), [True, False]),
        ([nn.Embedding(9, 8), nn.Linear(8, 8), nn.ReLU()], torch.ones(2, 5, dtype=torch.long), [False]),
        ([nn.BatchNorm1d(8), nn.Linear(8, 8), nn.ReLU()], torch.randn(2, 8), [False]),
        ([attention(), nn.ReLU()], torch.randn(2, 5, 8), [False]),
        ([First(nn.GRU(8, 8)), nn.Linear(8, 8), nn.ReLU()], torch.randn(2, 5, 8), [False]),
        ([nn.Linear(8, 8), nn.LayerNorm(8), nn.ReLU()], torch.randn(2, 8), [False]),  # which mixes the units
        ([Residual()], torch.randn(2, 3), [True, False]),
    ],
)  # fmt: skip
def test_a_first_layer_is_one_whose_inputs_depend_on_no_weights(layers, x, first):
    assert [call.first_layer for call in watch(nn.Sequential(*layers).eval(), x)[0]] == first


def part() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 3), nn.ReLU())


def compiled_in_place() -> nn.Module:
    module = part()
    module.compile(backend="eager")
    return module


def with_compiled_forward() -> nn.Module:
    module = part()
    module.forward = torch.compile(module.forward, backend="eager", fullgraph=True)
    return module


class HoldsFunction(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.part = part()
        self.run = torch.compile(self.apply_part, backend="eager")

    def apply_part(self, x: torch.Tensor) -> torch.Tensor:
        return self.part(x)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.run(x)


FORMS = {
    "module": (lambda: torch.compile(part(), backend="eager"), "0.1"),
    "in place": (compiled_in_place, "0.1"),
    "forward": (with_compiled_forward, "0.1"),
    "bound method": (HoldsFunction, "0.part.1"),
    "function": (lambda: Weighted(nn.Linear(3, 3), torch.compile(lambda x: F.relu(x), backend="eager")), "0.relu"),
}


NEWER = pytest.param(True, marks=pytest.mark.skipif(not ForcedEager.possible, reason="needs torch 2.6"))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("eager", [NEWER, False])
def test_a_compiled_part_is_counted_eagerly_or_named_and_never_compiled_again(form, eager):
    torch._dynamo.reset()
    make, name = FORMS[form]
    net, x = nn.Sequential(make(), part()), torch.randn(2, 3)
    compilations = torch._dynamo.utils.counters["stats"]
    with torch.no_grad():
        expected = net(x)
        before = compilations["unique_graphs"]
        calls, sites = watch(net, x, passes=2, eager=eager)
        assert torch.equal(net(x), expected)

    assert [call.site for call in calls] == ([name, "1.1"] if eager else ["1.1"]) * 2
    assert sites.opaque == ({} if eager else {"0": "compiled with torch.compile"})
    assert compilations["unique_graphs"] == before
    assert_clean(net)


def scripted(x: torch.Tensor) -> torch.Tensor:
    return torch.relu(x)


@pytest.mark.filterwarnings("ignore:.*torch.jit")  # TorchScript is deprecated, not gone
@pytest.mark.parametrize(
    ("make", "name", "reason"),
    [
        (lambda: torch.jit.trace(part(), torch.randn(2, 3)), "0", "a TorchScript module"),
        (lambda: Calls(torch.jit.script(scripted)), "0.scripted", "a TorchScript function"),
        (lambda: nn.RNN(3, 4, nonlinearity="relu", batch_first=True), "0", "a fused RNN with ReLU"),
        (lambda: quantised.LinearReLU(3, 4), "0", "a fused quantised layer with ReLU"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*quant")
def test_a_part_that_hides_its_calls_is_named(make, name, reason):
    calls, sites = watch(nn.Sequential(make()), torch.randn(2, 5, 3))

    assert (calls, sites.opaque) == ([], {name: reason})


def test_two_watchers_see_the_same_and_leave_a_model_as_it_was_whichever_stops_first():
    net, x, seen = (
        nn.Sequential(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)).eval(),
        torch.randn(2, 5, 8),
        [],
    )
    first, second = (ReLUSites(lambda call: seen.append(call.site)) for _ in range(2))
    with torch.no_grad():
        expected = net(x)
        for sites in (first, second):
            sites.attach(net)
            sites.begin_pass()
        output = net(x)
    first.detach()
    second.detach()

    assert seen == ["0.relu", "0.relu"]
    assert torch.equal(output, expected)
    assert "forward" not in vars(net[0])
    assert "forward" not in vars(net[0].self_attn)
    assert_clean(net)


def test_what_runs_in_a_transform_of_torch_func_is_named():
    ensemble = Calls(torch.func.vmap(lambda weight, x: F.relu(x @ weight), in_dims=(0, None)))
    net = Calls(lambda x: ensemble.function(torch.randn(4, 3, 5), x))

    calls, sites = watch(net, torch.randn(2, 3))

    assert calls == []
    assert "torch.func" in sites.unwatched["relu"]


def test_a_call_whose_counting_fails_is_named_and_the_pass_goes_to_its_end():
    def fail(call):
        raise ZeroDivisionError("planted")

    net, x = part(), torch.randn(2, 3)
    sites = ReLUSites(fail)
    sites.attach(net)
    sites.begin_pass()
    output = net(x)
    sites.detach()

    assert torch.equal(output, net(x))
    assert sites.unwatched == {"1": "its output could not be counted: planted"}


def encoder(activation="relu") -> nn.Module:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, activation=activation)
    return nn.TransformerEncoder(layer, 2).eval()


class Padded(nn.Module):
    """Masks the last two of five positions of the second example, as padding."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = encoder()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mask = torch.zeros(2, 5, dtype=torch.bool)
        mask[1, 3:] = True
        return self.encoder(x, src_key_padding_mask=mask)


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize(("make", "positions"), [(encoder, 20), (Padded, 16), (lambda: encoder(nn.ReLU()), 20)])
def test_the_fused_evaluation_of_a_transformer_stays_on_and_its_relus_are_counted(make, positions):
    net, x, outputs = make(), torch.randn(2, 5, 8), []
    note = Calls(lambda y: outputs.append(y) or y)
    with torch.no_grad():
        expected = net(x)
    calls, sites = watch(nn.Sequential(net, note), x)

    assert torch.equal(outputs[0], expected)
    assert {call.site.removeprefix("0.").removeprefix("encoder.") for call in calls} == {
        "layers.0.relu",
        "layers.1.relu",
    }
    assert all(call.unit_dim == 2 and call.derived and not call.first_layer for call in calls)
    assert (sum(call.output.numel() for call in calls), sites.unwatched) == (positions * 16, {})


class Listing(TorchFunctionMode):
    """A network's own mode, which lists what it sees."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        self.names.append(func.__name__)
        return func(*args, **(kwargs or {}))


class WithMode(nn.Module):
    """Runs attention, whose inside is not watched, and a ReLU in a mode of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.attention, self.listing = nn.MultiheadAttention(8, 2, batch_first=True), Listing()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with self.listing:
            return torch.relu(self.attention(x, x, x)[0])


def test_a_networks_own_mode_around_attention_sees_what_it_sees_without_watching():
    net, x = WithMode().eval(), torch.randn(2, 5, 8)
    with torch.no_grad():
        net(x)
    alone, net.listing.names = net.listing.names, []
    calls, _ = watch(net, x)

    assert "multi_head_attention_forward" in alone
    assert net.listing.names == alone
    assert [call.site for call in calls] == ["relu"]
    assert_clean(net)


class Overridable(nn.Module):
    """Runs attention inside a function that a mode sees, as torch's own are written."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.attend(x))

    def attend(self, x: torch.Tensor) -> torch.Tensor:
        if has_torch_function_unary(x):
            return handle_torch_function(self.attend, (x,), x)
        return self.attention(x, x, x)[0]


def test_attention_inside_a_function_that_the_mode_sees_leaves_the_mode_where_it_is():
    net = Overridable().eval()
    calls, sites = watch(net, torch.randn(2, 5, 8), passes=2)

    assert [call.site for call in calls] == ["relu", "relu"]
    assert sites.unwatched == {}
    assert_clean(net)


class Threaded(nn.Module):
    """Runs a part in another thread, perhaps after it ran in the pass's own, then a ReLU."""

    def __init__(self, part: nn.Module, before: bool = False) -> None:
        super().__init__()
        self.part, self.before = part, before

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.before:
            self.part(x)
        with ThreadPoolExecutor(1) as pool, torch.no_grad():
            return torch.relu(pool.submit(self.run, x).result())

    @torch.no_grad()
    def run(self, x: torch.Tensor) -> torch.Tensor:
        return self.part(x, x, x)[0] if isinstance(self.part, nn.MultiheadAttention) else self.part(x)


@pytest.mark.parametrize(
    "make",
    [
        lambda: nn.Sequential(nn.Linear(8, 8), nn.ReLU()),
        lambda: nn.Sequential(nn.Sequential(nn.Linear(8, 8), nn.ReLU())),
        lambda: nn.TransformerEncoderLayer(8, 2, 16, batch_first=True),
    ],
)
def test_a_module_in_another_thread_is_named_and_the_others_are_counted(make):
    net, x = Threaded(make().eval()), torch.randn(2, 5, 8)
    expected = net.run(x)
    calls, sites = watch(net, x)

    assert sites.opaque == sites.unwatched == {"part": "it runs in another thread"}
    assert [(call.site, call.first_layer) for call in calls] == [("relu", False)]
    assert torch.equal(calls[0].input, expected)
    assert_clean(net)


def test_attention_in_another_thread_counts_as_a_layer():
    attention = nn.MultiheadAttention(8, 2, batch_first=True).eval()
    calls, _ = watch(Threaded(attention), torch.randn(2, 5, 8))

    assert [(call.site, call.first_layer) for call in calls] == [("relu", False)]


@pytest.mark.parametrize(
    ("part", "names"),
    [
        (nn.Sequential(nn.Linear(8, 8), nn.ReLU()), ["part.1", "relu"]),
        (nn.Sequential(nn.Linear(8, 8)), ["relu"]),
    ],
)
def test_a_module_that_runs_once_more_in_another_thread_is_not_named(part, names):
    calls, sites = watch(Threaded(part, before=True), torch.randn(2, 8))

    assert [call.site for call in calls] == names
    assert sites.unwatched == {}


@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_a_scripted_function_in_another_thread_is_named():
    net = Threaded(nn.Identity())
    net.run = torch.jit.script(scripted)
    calls, sites = watch(net, torch.randn(2, 8))

    assert sites.opaque == {"scripted": "a TorchScript function"}
    assert [(call.site, call.first_layer) for call in calls] == [("relu", False)]


class Meeting(TorchFunctionMode):
    """Calls something at the first function that it sees."""

    def __init__(self, meet) -> None:
        super().__init__()
        self.meet = meet

    def __torch_function__(self, func, types, args=(), kwargs=None):
        meet, self.meet = self.meet, lambda: None
        meet()
        return func(*args, **(kwargs or {}))


def test_attention_that_began_in_another_thread_before_a_pass_takes_no_mode_along():
    attention, x = nn.MultiheadAttention(8, 2, batch_first=True).eval(), torch.randn(2, 5, 8)
    began, goes_on, ended, calls = Event(), Event(), Event(), []
    sites = ReLUSites(calls.append)
    sites.attach(nn.Sequential(attention))

    def run(meet) -> list[object]:
        with torch.no_grad(), Meeting(meet):
            torch.relu(attention(x, x, x)[0])
        return _get_current_function_mode_stack()

    with ThreadPoolExecutor(1) as pool:
        other = pool.submit(run, lambda: (began.set(), goes_on.wait(10)))
        other.add_done_callback(lambda _: ended.set())
        assert began.wait(10)
        sites.begin_pass()
        here = run(lambda: (goes_on.set(), ended.wait(10)))
        sites.end_pass()
    sites.detach()

    assert (here, other.result()) == ([sites], [])
    assert [call.site for call in calls] == ["relu"]


@pytest.mark.parametrize("last_first", [False, True])
def test_two_watchers_leave_and_enter_beside_each_other(last_first):
    net = nn.Sequential(First(nn.RNN(8, 8, nonlinearity="relu", batch_first=True)), nn.ReLU())
    seen: tuple[list, list] = [], []
    watchers = [ReLUSites(calls.append) for calls in seen]
    for watcher in watchers:
        watcher.attach(net)
    for watcher in watchers:
        watcher.begin_pass()
    net(torch.randn(2, 5, 8))
    for watcher in watchers[::-1] if last_first else watchers:
        watcher.end_pass()
    for watcher in watchers:
        watcher.detach()

    assert [[call.site for call in calls] for calls in seen] == [["1"], ["1"]]
    assert_clean(net)


def test_a_transformer_with_gelu_is_listed_as_one_that_cannot_die():
    calls, sites = watch(encoder("gelu"), torch.randn(2, 5, 8))

    assert (calls, sites.never_zero) == ([], {"layers.0.gelu": "gelu", "layers.1.gelu": "gelu"})


class Reference(TorchDispatchMode):
    """Sees every ReLU below Python, whoever calls it: what is counted, without knowing for whom."""

    def __init__(self) -> None:
        super().__init__()
        self.active: list[int] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        output = func(*args, **(kwargs or {}))
        if func in (torch.ops.aten.relu.default, torch.ops.aten.relu_.default):
            self.active.append(int((output > 0).sum()))
        return output


def resnet18() -> nn.Module:
    from torchvision.models import resnet18

    return resnet18(weights=None)


@pytest.mark.parametrize(
    ("make", "shape", "count", "first_names"),
    [
        (resnet18, (2, 3, 32, 32), 17, ["relu", "layer1.0.relu", "layer1.0.relu:2"]),
        (Names, (2, 3), 6, ["block.1", "shared", "inner.relu"]),
        (lambda: nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), (2, 5, 8), 1, ["relu"]),  # has a fast path
    ],
)
def test_calls_are_those_of_a_reference_below_python(make, shape, count, first_names):
    torch.manual_seed(0)
    net, reference = make().eval(), Reference()

    with reference:
        calls, _ = watch(net, torch.randn(shape))

    assert [int((call.output > 0).sum()) for call in calls] == reference.active[: len(calls)]
    assert len({call.site for call in calls}) == len(calls) == len(reference.active) == count
    assert [call.site for call in calls[:3]] == first_names
