"""Seeing every form of ReLU, by name, and leaving the model as it was."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.overrides import _get_current_function_mode_stack
from torchmetrics import Metric

from training_health.relu.sites import ReLUSites


def watch(net: nn.Module, x: torch.Tensor, passes: int = 1) -> tuple[list, ReLUSites]:
    calls = []
    sites = ReLUSites(calls.append)
    sites.attach(net)
    with torch.no_grad():
        for _ in range(passes):
            sites.begin_pass()
            net(x)
            sites.end_pass()
    sites.detach()
    return calls, sites


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
        (F.relu, "relu"),
        (lambda x: F.relu(x, inplace=True), "relu"),
        (torch.relu, "relu"),
        (torch.relu_, "relu"),
        (lambda x: x.relu(), "relu"),
        (lambda x: x.relu_(), "relu"),
        (lambda x: torch.ops.aten.relu(x), "relu"),
        (lambda x: F.threshold(x, 0, 0), "relu"),
        (F.relu6, "relu6"),
        (lambda x: F.hardtanh(x, 0.0, 6.0), "relu6"),
        (lambda x: F.hardtanh(x, min_val=0.0, max_val=1.0), "hardtanh"),
        (nn.ReLU(), "relu"),
        (nn.ReLU(inplace=True), "relu"),
        (nn.ReLU6(), "relu6"),
    ],
)
def test_every_form_of_relu_is_one_site(function, activation):
    x = torch.tensor([[-1.0, 2.0], [-3.0, 0.5]])

    calls, _ = watch(Calls(function), x)

    assert [call.activation for call in calls] == [activation]
    assert (calls[0].output > 0).tolist() == [[False, True], [False, True]]


@pytest.mark.parametrize("function", [F.hardtanh, torch.tanh, torch.sigmoid, lambda x: F.threshold(x, 1, 0)])
def test_other_functions_are_no_sites(function):
    calls, _ = watch(Calls(function), torch.randn(2, 3))

    assert calls == []


@pytest.mark.parametrize(
    ("module", "kind"),
    [
        (nn.LeakyReLU(), "leaky_relu"), (nn.GELU(), "gelu"), (nn.SiLU(), "silu"), (nn.ELU(), "elu"),
        (nn.SELU(), "selu"), (nn.CELU(), "celu"), (nn.Mish(), "mish"), (nn.PReLU(), "prelu"),
        (nn.Softplus(), "softplus"), (nn.RReLU(), "rrelu"), (Calls(F.gelu), "gelu"),
    ],
)  # fmt: skip
def test_activations_that_cannot_die_are_listed_and_not_counted(module, kind):
    calls, sites = watch(nn.Sequential(module), torch.randn(2, 3))

    assert calls == []
    assert list(sites.never_zero.values()) == [kind]


@pytest.mark.parametrize(
    "function", [lambda x: x.clamp(min=0), lambda x: torch.clamp_min(x, 0), F.hardswish, lambda x: torch.clamp(x, 0)]
)
def test_a_zero_that_is_not_counted_is_named(function):
    calls, sites = watch(nn.Sequential(Calls(function)), torch.randn(2, 3))

    assert calls == []
    assert len(sites.unwatched) == 1


def test_a_clamp_to_a_range_is_none_of_ours():
    _, sites = watch(nn.Sequential(Calls(lambda x: x.clamp(0, 1))), torch.randn(2, 3))

    assert sites.unwatched == {}


class Names(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.block = nn.Sequential(nn.Linear(3, 3), nn.ReLU())
        self.inner = Calls(lambda x: torch.relu(F.relu(x)))
        self.shared = nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.shared(self.block(x))
        return self.shared(F.relu(self.inner(x)))


def test_sites_are_named_after_the_module_they_are_called_for_in_forward_order():
    calls, _ = watch(Names(), torch.randn(2, 3), passes=2)

    once = ["block.1", "shared", "inner.relu", "inner.relu:2", "relu", "shared:2"]
    assert [call.site for call in calls] == once * 2


class Counting(Metric):
    def __init__(self) -> None:
        super().__init__()
        self.add_state("total", torch.zeros(()), dist_reduce_fx="sum")

    def update(self, x: torch.Tensor) -> None:
        self.total += F.relu(x).sum()

    def compute(self) -> torch.Tensor:
        return self.total


def test_a_relu_inside_a_metric_is_not_the_networks():
    net = nn.Sequential(nn.Linear(3, 3), nn.ReLU())
    net.append(Counting())

    calls, _ = watch(net, torch.randn(2, 3))

    assert [call.site for call in calls] == ["1"]


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

    assert call.unit_dim == unit_dim
    assert call.output.shape[call.unit_dim] == 7


def test_only_what_the_images_reach_through_one_layer_is_a_first_layer():
    net = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2), nn.ReLU(), nn.Conv2d(2, 2, 1), nn.ReLU())

    calls, _ = watch(net, torch.randn(2, 1, 3, 3))

    assert [call.first_layer for call in calls] == [True, False]


def test_a_vector_without_a_batch_is_named_as_uncounted():
    calls, sites = watch(nn.Sequential(nn.ReLU()), torch.randn(5))

    assert calls == []
    assert list(sites.unwatched) == ["0"]


def test_nothing_stays_on_the_model_or_on_torchs_mode_stack():
    net = Names()
    watch(net, torch.randn(2, 3))

    assert all(not m._forward_hooks and not m._forward_pre_hooks for m in net.modules())
    assert _get_current_function_mode_stack() == []


def after_a_pass_that_raised(net, calls):
    """Sites of a network of three inputs, in a pass that follows one that raised."""
    sites = ReLUSites(calls.append)
    sites.attach(net)
    sites.begin_pass()
    with pytest.raises(RuntimeError):
        net(torch.randn(2, 4))
    sites.begin_pass()
    return sites


def test_a_pass_that_raises_leaves_nothing_after_detach_and_names_the_next_pass_rightly():
    net, calls = nn.Sequential(nn.Linear(3, 3), nn.ReLU()), []
    sites = after_a_pass_that_raised(net, calls)
    net(torch.randn(2, 3))
    sites.detach()
    sites.detach()

    assert [call.site for call in calls] == ["1"]
    assert _get_current_function_mode_stack() == []


class Inner(nn.Module):
    """Calls an inner layer of torch's without its parent, and an activation on what it returns."""

    def __init__(self) -> None:
        super().__init__()
        self.block = nn.Sequential(nn.Linear(3, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(self.block[0](x))


def test_a_subclass_of_such_a_layer_may_call_an_activation_and_names_its_site():
    class Rectified(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return F.relu(super().forward(x))

    calls, _ = watch(nn.Sequential(nn.Sequential(Rectified(3, 3))), torch.randn(2, 3))

    assert [call.site for call in calls] == ["0.0.relu"]


def test_an_inner_layer_called_without_its_parent_opens_every_pass():
    root, calls = Inner(), []
    sites = ReLUSites(calls.append)
    sites.attach(root)
    for _ in range(3):
        sites.begin_pass()
        root.forward(torch.randn(2, 3))  # as a LightningModule's step does: not through the module's call
        sites.end_pass()
    sites.detach()

    assert [(call.site, call.first_layer) for call in calls] == [("relu", True)] * 3


def test_a_relu_outside_of_modules_is_seen_in_every_pass():
    net, calls = nn.Linear(3, 3), []
    sites = ReLUSites(calls.append)
    sites.attach(net)
    for _ in range(3):
        sites.begin_pass()
        F.relu(net(torch.randn(2, 3)))
        sites.end_pass()
    sites.detach()

    assert [call.site for call in calls] == ["relu", "relu", "relu"]


def test_a_relu_outside_of_modules_is_seen_after_a_first_pass_that_raised():
    net, calls = nn.Linear(3, 3), []
    sites = after_a_pass_that_raised(net, calls)
    F.relu(net(torch.randn(2, 3)))
    sites.end_pass()
    sites.detach()

    assert [call.site for call in calls] == ["relu"]


class Parts(nn.Module):
    def __init__(self, hidden: nn.Module) -> None:
        super().__init__()
        self.hidden, self.open = hidden, nn.Sequential(nn.Linear(3, 3), nn.ReLU())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.open(self.hidden(x))


def compiled_wrapper() -> nn.Module:
    return torch.compile(nn.Sequential(nn.Linear(3, 3), nn.ReLU()), backend="eager")


def compiled_in_place() -> nn.Module:
    module = nn.Sequential(nn.Linear(3, 3), nn.ReLU())
    module.compile(backend="eager")
    return module


@pytest.mark.parametrize("make", [compiled_wrapper, compiled_in_place])
def test_a_compiled_part_is_named_runs_unwatched_and_is_not_compiled_anew(make):
    torch._dynamo.reset()
    net, x = Parts(make()), torch.randn(2, 3)
    compilations = torch._dynamo.utils.counters["stats"]
    with torch.no_grad():
        expected = net(x)
        before = compilations["unique_graphs"]
        calls, sites = watch(net, x, passes=2)
        assert torch.equal(net(x), expected)

    assert [call.site for call in calls] == ["open.1", "open.1"]
    assert sites.opaque == {"hidden": "compiled with torch.compile"}
    assert compilations["unique_graphs"] == before
    assert all(not m._forward_hooks and not m._forward_pre_hooks for m in net.modules())


@pytest.mark.filterwarnings("ignore:.*torch.jit")  # TorchScript is deprecated, not gone
def test_a_scripted_part_is_named():
    part = torch.jit.trace(nn.Sequential(nn.Linear(3, 3), nn.ReLU()), torch.randn(2, 3))

    calls, sites = watch(Parts(part), torch.randn(2, 3))

    assert [call.site for call in calls] == ["open.1"]
    assert sites.opaque == {"hidden": "a TorchScript module"}


def test_a_fused_rnn_with_relu_is_named():
    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn = nn.RNN(3, 4, nonlinearity="relu", batch_first=True)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.rnn(x)[0]

    _, sites = watch(Recurrent(), torch.randn(2, 5, 3))

    assert sites.opaque == {"rnn": "a fused RNN with ReLU"}


def test_an_encoder_layers_fast_path_does_not_hide_its_relu():
    net = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval()

    calls, _ = watch(net, torch.randn(2, 5, 8))

    assert [(call.site, call.output.shape[call.unit_dim]) for call in calls] == [("relu", 16)]


def test_resnet18_has_seventeen_sites():
    from torchvision.models import resnet18

    calls, _ = watch(resnet18(weights=None).eval(), torch.randn(1, 3, 32, 32))

    assert len({call.site for call in calls}) == len(calls) == 17
    assert [call.site for call in calls[:3]] == ["relu", "layer1.0.relu", "layer1.0.relu:2"]
