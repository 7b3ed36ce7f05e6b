"""What feeds a unit and what takes it in is followed, and what cannot be followed is said."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from training_health.relu.sites import ReLUSites
from training_health.revive.wiring import Wires
from training_health.revive.wiring import wires_of as wires_after


def wires_of(net: nn.Module, x: torch.Tensor) -> dict[str, Wires]:
    sites = ReLUSites()
    sites.attach(net.eval())
    sites.begin_pass()
    net(x)
    sites.detach()
    return wires_after(net, sites.origins)


class Net(nn.Module):
    """Two layers around whatever ``between`` does with the first one's output."""

    def __init__(self, first, between, second, **more) -> None:
        super().__init__()
        self.first, self.between, self.second = first, between, second
        for name, module in more.items():
            self.add_module(name, module)

    def forward(self, x):
        return self.second(self.between(self, self.first(x)))


CONV, DENSE = (2, 1, 6, 6), (2, 3)
FOLLOWED = {
    "a dense layer": (nn.Linear(3, 2), lambda net, x: F.relu(x), nn.Linear(2, 4), DENSE, [0, 1]),
    "in place": (nn.Linear(3, 2), lambda net, x: x.relu_(), nn.Linear(2, 4), DENSE, [0, 1]),
    "clamped": (nn.Linear(3, 2), lambda net, x: x.clamp(min=0), nn.Linear(2, 4), DENSE, [0, 1]),
    "a token's features": (nn.Linear(3, 2), lambda net, x: F.relu(x), nn.Linear(2, 4), (2, 5, 3), [0, 1]),
    "pooled and flattened": (
        nn.Conv2d(1, 2, 3), lambda net, x: F.dropout(F.max_pool2d(torch.relu(x), 2), 0.5, False).flatten(1),
        nn.Linear(8, 4), CONV, [0, 0, 0, 0, 1, 1, 1, 1],
    ),
    "channels last": (
        nn.Conv2d(1, 2, 3), lambda net, x: F.relu(x).permute(0, 2, 3, 1).reshape(len(x), -1),
        nn.Linear(32, 4), CONV, [0, 1] * 16,
    ),
    "averaged": (nn.Conv2d(1, 2, 3), lambda net, x: F.relu(x).mean((2, 3)), nn.Linear(2, 4), CONV, [0, 1]),
    "padded": (
        nn.Conv2d(1, 2, 3), lambda net, x: F.pad(F.relu(F.avg_pool2d(x, 2)), (1, 1, 1, 1)),
        nn.Conv2d(2, 3, 3), CONV, [0, 1],
    ),
    "the last position": (nn.Linear(3, 2), lambda net, x: F.relu(x)[:, -1], nn.Linear(2, 4), (2, 5, 3), [0, 1]),
    "grouped": (nn.Conv2d(1, 2, 3), lambda net, x: F.relu(x), nn.Conv2d(2, 4, 3, groups=2), CONV, [0, 1]),
    "asked for its type": (
        nn.Linear(3, 2), lambda net, x: x if (x := F.relu(x)).is_floating_point() and x.is_contiguous() else x + 1,
        nn.Linear(2, 4), DENSE, [0, 1],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FOLLOWED)
def test_units_are_followed_into_the_layer_that_takes_them(name):
    first, between, second, shape, units = FOLLOWED[name]
    (wires,) = wires_of(Net(first, between, second), torch.rand(shape)).values()

    assert wires.obstacle == ""
    assert wires.feed is not None
    assert (wires.feed.weight, wires.feed.bias, wires.feed.rows) == ("first.weight", "first.bias", [0, 1])
    assert [(use.weight, use.units) for use in wires.uses] == [("second.weight", units)]


@pytest.mark.parametrize("name", FOLLOWED)
def test_the_columns_that_were_followed_are_those_that_depend_on_the_unit(name):
    """An independent reference: without these columns, the output is the same whatever a unit gives."""
    first, between, second, shape, units = FOLLOWED[name]
    net, x = Net(first, between, second).eval(), torch.rand(shape)
    with torch.no_grad():
        kept = {key: tensor.clone() for key, tensor in net.state_dict().items()}
        per_group = len(units) // getattr(second, "groups", 1)
        for column, unit in enumerate(units):
            if unit == 1:
                outputs = len(second.weight) // getattr(second, "groups", 1)
                group = column // per_group
                second.weight[group * outputs : (group + 1) * outputs, column % per_group] = 0
        outputs_of = []
        for bias in (-100.0, 1.0, 100.0):  # of unit 1
            first.bias[1] = bias
            outputs_of.append(net(x))
        first.bias[0] = 100.0
        other = net(x)
        net.load_state_dict(kept)

    assert all(torch.equal(output, outputs_of[0]) for output in outputs_of)
    assert not torch.allclose(other, outputs_of[0])


class Both(nn.Module):
    def __init__(self, a: nn.Module, b: nn.Module) -> None:
        super().__init__()
        self.a, self.b = a, b

    def forward(self, x):
        return self.a(x), self.b(x)


def test_every_layer_that_takes_the_units_is_found():
    net = Net(nn.Linear(3, 2), lambda net, x: F.relu(x), Both(nn.Linear(2, 4), nn.Linear(2, 5)))
    (wires,) = wires_of(net, torch.rand(DENSE)).values()

    assert [use.weight for use in wires.uses] == ["second.a.weight", "second.b.weight"]


def test_batch_normalisations_on_the_way_are_found():
    net = Net(nn.Conv2d(1, 2, 3), lambda net, x: F.relu(net.norm(x)), nn.Conv2d(2, 3, 3), norm=nn.BatchNorm2d(2))
    (wires,) = wires_of(net, torch.rand(CONV)).values()

    assert wires.feed is not None
    assert wires.feed.norms == (("norm.weight", "norm.bias", "norm.running_mean", "norm.running_var"),)


@pytest.mark.parametrize("name", ["first.weight", "first.bias", "norm.weight", "norm.bias", "second.weight"])
def test_units_with_a_frozen_part_are_left_alone(name):
    net = Net(nn.Conv2d(1, 2, 3), lambda net, x: F.relu(net.norm(x)), nn.Conv2d(2, 3, 3), norm=nn.BatchNorm2d(2))
    net.get_parameter(name).requires_grad_(False)
    (wires,) = wires_of(net, torch.rand(CONV)).values()

    assert wires.obstacle == f"{name} is frozen"


def test_a_normalisation_whose_weights_are_buffers_is_frozen():
    norm = nn.BatchNorm2d(2, affine=False)
    for part in ("weight", "bias"):
        delattr(norm, part)
        norm.register_buffer(part, torch.ones(2))
    net = Net(nn.Conv2d(1, 2, 3), lambda net, x: F.relu(net.norm(x)), nn.Conv2d(2, 3, 3), norm=norm)
    (wires,) = wires_of(net, torch.rand(CONV)).values()

    assert wires.obstacle == "norm.weight is frozen"


LEFT_ALONE = {
    "a residual addition": (lambda net, x: F.relu(x) + 1, "`add` takes its values"),
    "a product": (lambda net, x: F.relu(x) @ torch.ones(2, 2), "`matmul` takes its values"),
    "a feature before the ReLU": (lambda net, x: F.relu(x) if x.mean() > -1e9 else x, "`mean` takes its values"),
    "two ReLUs of one layer": (lambda net, x: (F.relu(x), F.relu(-x))[0], "`neg` takes its values"),
    "a join": (lambda net, x: torch.cat([F.relu(x)[:, :1], x[:, 1:]], 1), "`getitem` takes its values"),
    "a normalisation behind": (lambda net, x: F.layer_norm(F.relu(x), (2,)), "`layer_norm` takes its values"),
    "padding with ones": (lambda net, x: F.pad(F.relu(x), (0, 0, 1, 1), value=1.0), "`pad` takes its values"),
    "a detour through NumPy": (lambda net, x: torch.from_numpy(F.relu(x).numpy()), "`numpy` takes its values"),
}


@pytest.mark.parametrize("name", LEFT_ALONE)
def test_units_that_anything_else_takes_are_left_alone(name):
    between, reason = LEFT_ALONE[name]
    with torch.no_grad():
        wires = wires_of(Net(nn.Linear(3, 2), between, nn.Linear(2, 4)), torch.rand(DENSE))

    assert reason in {found.obstacle for found in wires.values()}
    assert all(found.obstacle for found in wires.values())


@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_what_goes_into_a_part_that_cannot_be_watched_is_left_alone():
    hidden = torch.jit.script(nn.Linear(2, 4))
    net = Net(nn.Linear(3, 2), lambda net, x: F.relu(x), Both(nn.Linear(2, 4), hidden))
    (wires,) = wires_of(net, torch.rand(DENSE)).values()

    assert wires.obstacle == "a part that cannot be watched may take it"


def test_a_model_that_computes_what_it_shapes_is_followed():
    def between(net, x):
        x = F.relu(x)
        return x.view(x.size(0), x.shape[1], *x.shape[2:]).reshape(len(x), -1) if x.dim() > 1 else x

    (wires,) = wires_of(Net(nn.Linear(3, 2), between, nn.Linear(2, 4)), torch.rand(DENSE)).values()

    assert wires.obstacle == ""
