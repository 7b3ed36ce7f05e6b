"""Seeing every form of ReLU, by name, and leaving the model as it was."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.overrides import _get_current_function_mode_stack
from torch.utils._python_dispatch import TorchDispatchMode
from torchmetrics import Metric

from training_health.relu.sites import ReLUSites


def watch(net: nn.Module, x: torch.Tensor, passes: int = 1) -> tuple[list, ReLUSites]:
    calls = []
    sites = ReLUSites(calls.append)
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


@pytest.mark.parametrize(
    ("function", "activation"),
    [
        (F.relu, "relu"), (lambda x: F.relu(x, inplace=True), "relu"), (torch.relu, "relu"), (torch.relu_, "relu"),
        (lambda x: x.relu(), "relu"), (lambda x: x.relu_(), "relu"), (lambda x: torch.ops.aten.relu(x), "relu"),
        (lambda x: F.threshold(x, 0, 0), "relu"), (nn.ReLU(), "relu"), (nn.ReLU(inplace=True), "relu"),
        (F.relu6, "relu6"), (lambda x: F.hardtanh(x, 0.0, 6.0), "relu6"), (nn.ReLU6(), "relu6"),
        (lambda x: F.hardtanh(x, min_val=0.0, max_val=1.0), "hardtanh"),
    ],
)  # fmt: skip
def test_every_form_of_relu_is_one_site(function, activation):
    calls, _ = watch(Calls(function), torch.tensor([[-1.0, 2.0], [-3.0, 0.5]]))

    assert [call.activation for call in calls] == [activation]
    assert (calls[0].output > 0).tolist() == [[False, True], [False, True]]


@pytest.mark.parametrize(
    ("function", "never_zero", "unwatched"),
    [
        *[(function, [], 0) for function in (
            F.hardtanh, torch.tanh, torch.sigmoid, lambda x: F.threshold(x, 1, 0), lambda x: x.clamp(0, 1),
            lambda x: x.clamp(min=torch.zeros(3)),
        )],
        (nn.LeakyReLU(), ["leaky_relu"], 0), (nn.GELU(), ["gelu"], 0), (nn.SiLU(), ["silu"], 0),
        (nn.ELU(), ["elu"], 0), (nn.SELU(), ["selu"], 0), (nn.CELU(), ["celu"], 0), (nn.Mish(), ["mish"], 0),
        (nn.PReLU(), ["prelu"], 0), (nn.Softplus(), ["softplus"], 0), (nn.RReLU(), ["rrelu"], 0),
        (Calls(F.gelu), ["gelu"], 0),
        *[(Calls(function), [], 1) for function in (  # a zero that is not counted is named
            lambda x: x.clamp(min=0), lambda x: torch.clamp_min(x, 0), F.hardswish, lambda x: torch.clamp(x, 0),
            lambda x: torch.relu(x.flatten()),  # one dimension, no unit to tell apart
        )],
    ],
)  # fmt: skip
def test_what_is_no_relu_is_not_counted_and_listed_where_it_matters(function, never_zero, unwatched):
    net = nn.Sequential(function if isinstance(function, nn.Module) else Calls(function))

    calls, sites = watch(net, torch.randn(2, 3))

    assert (calls, list(sites.never_zero.values()), len(sites.unwatched)) == ([], never_zero, unwatched)


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


@pytest.mark.parametrize(
    ("layer", "shape", "unit_dim"),
    [
        (nn.Linear(5, 7), (2, 5), 1),
        (nn.Conv1d(5, 7, 1), (2, 5, 9), 1),
        (nn.Conv2d(5, 7, 1), (2, 5, 9, 9), 1),
        (nn.Conv3d(5, 7, 1), (2, 5, 4, 4, 4), 1),
        (nn.Linear(5, 7), (2, 9, 5), 2),  # (N, T, F)
        (nn.Linear(5, 7), (2, 9, 9, 5), 3),  # channels last by permutation
        (nn.Sequential(nn.Conv1d(5, 7, 1), nn.BatchNorm1d(7)), (2, 5, 9), 1),
    ],
)
def test_units_are_where_the_last_layer_with_weights_put_its_features(layer, shape, unit_dim):
    (call,), _ = watch(nn.Sequential(layer, nn.ReLU()), torch.randn(shape))

    assert (call.unit_dim, call.output.shape[call.unit_dim]) == (unit_dim, 7)


def test_only_what_the_examples_reach_through_one_layer_is_a_first_layer():
    net = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2), nn.ReLU(), nn.Conv2d(2, 2, 1), nn.ReLU())

    assert [call.first_layer for call in watch(net, torch.randn(2, 1, 3, 3))[0]] == [True, False]


def part() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 3), nn.ReLU())


def compiled_in_place() -> nn.Module:
    module = part()
    module.compile(backend="eager")
    return module


@pytest.mark.parametrize("make", [lambda: torch.compile(part(), backend="eager"), compiled_in_place])
def test_a_compiled_part_is_named_runs_unwatched_and_is_not_compiled_again(make):
    torch._dynamo.reset()
    net, x = nn.Sequential(make(), part()), torch.randn(2, 3)
    compilations = torch._dynamo.utils.counters["stats"]
    with torch.no_grad():
        expected = net(x)
        before = compilations["unique_graphs"]
        calls, sites = watch(net, x, passes=2)
        assert torch.equal(net(x), expected)

    assert [call.site for call in calls] == ["1.1", "1.1"]
    assert sites.opaque == {"0": "compiled with torch.compile"}
    assert compilations["unique_graphs"] == before
    assert_clean(net)


@pytest.mark.filterwarnings("ignore:.*torch.jit")  # TorchScript is deprecated, not gone
@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: torch.jit.trace(part(), torch.randn(2, 3)), "a TorchScript module"),
        (lambda: nn.RNN(3, 4, nonlinearity="relu", batch_first=True), "a fused RNN with ReLU"),
    ],
)
def test_a_part_that_hides_its_calls_is_named(make, reason):
    calls, sites = watch(nn.Sequential(make()), torch.randn(2, 5, 3))

    assert (calls, sites.opaque) == ([], {"0": reason})


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
