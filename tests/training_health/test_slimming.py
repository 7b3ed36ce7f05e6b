"""Dead units are removed from a copy whose outputs stay the same; what cannot be proved is kept, by name."""

import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from tests.training_health.toys import fingerprint
from training_health import inspect, slim
from training_health.errors import UserError
from training_health.slimming.certificate import largest_pre_activation

pytest.importorskip("torch_pruning")

PLANTED = {"conv1": [1, 4, 11], "bn": [0, 15], "fc1": [2, 3, 9, 20, 31], "fc2": [0, 7, 8, 19]}


class Layers(nn.Module):
    """Convolution, convolution with batch normalisation, two dense layers; `PLANTED` units are dead."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2, self.bn = nn.Conv2d(1, 16, 3, padding=1), nn.Conv2d(16, 16, 3), nn.BatchNorm2d(16)
        self.fc1, self.fc2, self.out = nn.Linear(16 * 6 * 6, 32), nn.Linear(32, 24), nn.Linear(24, 10)
        self.act = nn.ReLU(inplace=True)
        with torch.no_grad():
            for layer in (self.conv1, self.conv2, self.fc1, self.fc2):
                layer.weight.abs_().div_(4)  # no unit is dead by chance
            self.bn.running_mean.normal_(0, 0.1)
            self.bn.running_var.uniform_(0.5, 2)
            self.conv1.bias += 1
            self.conv1.bias[PLANTED["conv1"]] = -100
            self.bn.weight[PLANTED["bn"]], self.bn.bias[PLANTED["bn"]] = 0, -1
            self.fc1.bias[PLANTED["fc1"]] = -1000
            self.fc2.weight[PLANTED["fc2"]] = -self.fc2.weight[PLANTED["fc2"]].abs()
            self.fc2.bias[PLANTED["fc2"]] = 0


class Easy(Layers):
    """Each ReLU is a module of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.relu1, self.relu2, self.relu3, self.relu4 = nn.ReLU(), nn.ReLU(), nn.ReLU(), nn.ReLU()
        self.pool, self.dropout = nn.MaxPool2d(2), nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.relu1(self.conv1(x)))
        x = self.dropout(self.relu2(self.bn(self.conv2(x)))).flatten(1)
        return self.out(self.relu4(self.fc2(self.relu3(self.fc1(x)))))


class Hard(Layers):
    """A functional ReLU, an in-place module used twice, a torch function, a view."""

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = self.act(self.bn(self.conv2(x)))
        x = self.act(self.fc1(x.view(x.size(0), -1)))
        return self.out(torch.relu(self.fc2(x)))


def images(count: int = 40) -> list[Tensor]:
    return list(torch.rand(count, 1, 16, 16, generator=torch.Generator().manual_seed(0)).split(15))


def made(kind: type[nn.Module], seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return kind()


@pytest.mark.parametrize("kind", [Easy, Hard])
def test_the_planted_units_go_and_no_output_changes(kind):
    net = made(kind)
    before, window = fingerprint(net), images()

    slimmed = slim(net, window)

    assert list(slimmed.removed.values()) == list(PLANTED.values())
    assert slimmed.kept == []
    with torch.no_grad():
        outputs = [torch.cat([model.eval()(batch) for batch in window]) for model in (net, slimmed.model)]
    assert (outputs[0] - outputs[1]).abs().max() <= 1e-5
    assert (outputs[0] - outputs[1]).abs().max().item() == pytest.approx(slimmed.change, rel=1e-6)
    widths = [getattr(slimmed.model, n).weight.shape[0] for n in ("conv1", "conv2", "fc1", "fc2", "out")]
    assert widths == [13, 14, 27, 20, 10]
    assert slimmed.parameters == (
        sum(p.numel() for p in net.parameters()),
        sum(p.numel() for p in slimmed.model.parameters()),
    )
    assert fingerprint(net) == before
    assert inspect(slimmed.model, window).to_dict()["dead"] == 0


def test_the_copy_has_the_modes_and_the_frozen_parameters_of_the_original():
    net = made(Easy)
    net.conv1.weight.requires_grad_(False)
    net.bn.eval()

    slimmed = slim(net, images()).model

    assert [name for name, p in slimmed.named_parameters() if not p.requires_grad] == ["conv1.weight"]
    assert [m.training for m in slimmed.modules()] == [m.training for m in net.modules()]
    assert all(p.requires_grad for name, p in net.named_parameters() if name != "conv1.weight")


def test_the_table_says_what_was_removed_and_what_changed():
    slimmed = slim(made(Easy), iter(images()))  # an iterator can be read once only

    lines = str(slimmed).splitlines()
    before, after = slimmed.parameters
    assert lines[0].startswith(f"{before:,} -> {after:,} parameters (-")
    assert "without 14 units that are dead on 40 examples; there no output changes by more than" in lines[0]
    assert [line.split() for line in lines[2:]] == [
        ["relu1", "16", "3", "13", "0"],
        ["relu2", "16", "2", "14", "0"],
        ["relu3", "32", "5", "27", "0"],
        ["relu4", "24", "4", "20", "0"],
    ]
    assert slimmed.to_dict()["removed"]["relu4"] == PLANTED["fc2"]
    assert slimmed.to_dict()["n"] == 40


def test_one_unit_on_one_example_is_said_in_the_singular():
    text = str(slim(made(Easy), images(1), units={"relu3": [2]}))

    assert "without 1 unit that is dead on 1 example; there no output changes" in text


# ---- a list of one's own


def test_listed_units_alone_are_removed():
    slimmed = slim(made(Easy), images(), units={"relu3": [9, 2]})

    assert slimmed.removed == {"relu3": [2, 9]}


@pytest.mark.parametrize(
    ("units", "message"),
    [
        ({"relu3": [2, 5], "relu1": [0]}, r"Not dead on these examples, so not removed: relu3 5 \(activity .*relu1 0"),
        ({"relu9": [2]}, "There is no ReLU site 'relu9'. Sites: relu1, relu2, relu3, relu4"),
        ({"relu3": [32]}, "relu3 has units 0 to 31, not 32"),
    ],
)
def test_a_list_with_a_unit_that_fires_or_is_not_there_is_an_error(units, message):
    with pytest.raises(UserError, match=message):
        slim(made(Easy), images(), units=units)


# ---- what is kept


class Block(nn.Module):
    """Any layers between an input of 4 features and 3 outputs, of which unit 1 of ``first`` is dead."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Linear(4, 6), nn.Linear(6, 6), nn.Linear(6, 3)
        self.norm = nn.LayerNorm(6)
        with torch.no_grad():
            for layer in (self.first, self.second):
                layer.bias += 1
                layer.bias[1] = -100


class Residual(Block):
    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.first(x))
        return self.last(h + self.second(h).cos())


class DeadResidual(Block):
    """Both branches and what they add up to are dead in unit 1."""

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.first(x))
        return self.last(h + F.relu(self.second(h)))


class UsedTwice(Block):
    def forward(self, x: Tensor) -> Tensor:
        return self.last(F.relu(self.second(F.relu(self.second(F.sigmoid(self.first(x)))))))


class Tied(Block):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 6), nn.Linear(6, 6)
        self.second.weight = self.first.weight
        with torch.no_grad():
            self.first.bias[1] = -100

    def forward(self, x: Tensor) -> Tensor:
        return self.second(F.relu(self.first(F.pad(x, (0, 2)))))


class Output(Block):
    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.first(x))


class Normed(Block):
    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.norm(F.relu(self.first(x))))


class Mixed(Block):
    """A function that takes all units together, which no graph shows."""

    def forward(self, x: Tensor) -> Tensor:
        return self.last(F.relu(self.first(x)).softmax(1))


class FixedSize(Block):
    def forward(self, x: Tensor) -> Tensor:
        return self.last(F.relu(self.first(x)).reshape(-1, 6))


class Detached(Block):
    def forward(self, x: Tensor) -> Tensor:
        return self.last(F.relu(self.first(x)).detach())


class Grouped(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv1d(4, 6, 1, groups=2), nn.Conv1d(6, 3, 1)
        with torch.no_grad():
            self.first.bias[1] = -100

    def forward(self, x: Tensor) -> Tensor:
        return self.last(F.relu(self.first(x[..., None]))).flatten(1)


class Parametrized(Block):
    def __init__(self) -> None:
        super().__init__()
        nn.utils.parametrizations.weight_norm(self.first)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(F.relu(self.first(x)))


@pytest.mark.parametrize(
    ("batches", "tolerance", "message"),
    [([], 1e-5, "There is no example to look at"), (images(), -1, "`tolerance` is -1: give a relative change of 0 or")],
)
def test_a_window_or_a_tolerance_that_makes_no_sense_is_an_error(batches, tolerance, message):
    with pytest.raises(UserError, match=message):
        slim(made(Easy), batches, tolerance=tolerance)


class Dense(nn.Module):
    """The input is concatenated with a layer's output, in front of a depthwise convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.depthwise, self.last = nn.Conv1d(4, 6, 1), nn.Conv1d(10, 10, 1, groups=10), nn.Conv1d(10, 3, 1)
        nn.init.constant_(self.first.bias[:2], -100)

    def forward(self, x: Tensor) -> Tensor:
        x = x[..., None]
        return self.last(self.depthwise(torch.cat([x, F.relu(self.first(x))], 1))).flatten(1)


FEATURES = [torch.rand(30, 4, generator=torch.Generator().manual_seed(1)) for _ in range(2)]


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        (Residual, "last gets other values than a constant of it, being joined by an addition or the like with second"),
        (UsedTwice, "second is used 2 times"),
        (Tied, "first shares its weights with another module"),
        (Output, "it is an output of the model"),
        (Normed, r"norm \(LayerNorm\) uses its units together"),
        (Mixed, "last gets other values than a constant of it|an output changes by"),
        (FixedSize, "does not run without these units"),
        (Detached, "no output depends on it in a way that autograd follows"),
        (Grouped, "first is a grouped convolution"),
        (Parametrized, "first is parametrized"),
        (Dense, r"^Torch-Pruning cannot follow this model \(TypeError: .*\)$"),
    ],
)
def test_what_cannot_be_proved_is_kept_and_named(kind, reason):
    net = made(kind)
    slimmed = slim(net, FEATURES)

    assert slimmed.removed == {}
    assert {unit for kept in slimmed.kept for unit in kept.units} >= {1}
    assert all(re.search(reason, kept.reason) for kept in slimmed.kept), slimmed.kept
    assert fingerprint(slimmed.model) == fingerprint(net)
    assert f"Kept, {slimmed.kept[0].site} " in str(slimmed)


def test_units_that_an_addition_joins_go_where_all_are_dead():
    slimmed = slim(made(DeadResidual), FEATURES)

    assert [len(units) for units in slimmed.removed.values()] == [1, 1]
    assert slimmed.model.last.in_features == 5
    assert slimmed.change < 1e-6


def test_one_site_that_fails_the_proof_does_not_keep_the_others():
    class Both(FixedSize):
        def forward(self, x):
            return self.last(F.relu(self.second(F.relu(self.first(x)).reshape(-1, 6))))

    slimmed = slim(made(Both), FEATURES)

    assert list(slimmed.removed.values()) == [[1]]
    assert slimmed.model.second.out_features == 5
    assert [kept.units for kept in slimmed.kept] == [[1]]


def test_a_layer_keeps_its_last_unit():
    net = made(Block)
    net.forward = lambda x: net.last(F.relu(net.first(x)))
    with torch.no_grad():
        net.first.bias.fill_(-100)
    sequence = nn.Sequential(net.first, nn.ReLU(), net.last)

    slimmed = slim(sequence, FEATURES)

    assert slimmed.model[0].out_features == 1
    assert [(kept.units, kept.reason) for kept in slimmed.kept] == [([0], "the last unit of its layer")]


def test_a_model_that_returns_no_tensor_is_an_error():
    net = nn.Sequential(nn.Linear(4, 3), nn.ReLU())

    with pytest.raises(UserError, match="returns no tensor"):
        slim(net, FEATURES, forward=lambda model, batch: model(batch).sum().item())


# ---- constants that are not zero


def normed_after(padding: int) -> nn.Sequential:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 6, 3), nn.ReLU(), nn.BatchNorm2d(6), nn.Conv2d(6, 3, 3, padding=padding, bias=False)
    )
    with torch.no_grad():
        net[0].bias[:] = torch.tensor([2.0, -50.0, 2.0, 2.0, -50.0, 2.0])
        net[2].bias.normal_()
    return net


def test_the_constant_behind_a_batch_normalisation_moves_into_the_next_bias():
    net = normed_after(padding=0)
    slimmed = slim(net, images())

    assert list(slimmed.removed.values()) == [[1, 4]]
    assert slimmed.change <= 1e-5
    assert slimmed.model[3].bias.shape == (3,)
    assert net[3].bias is None


def test_a_constant_that_meets_padding_keeps_its_unit():
    slimmed = slim(normed_after(padding=1), images())

    assert slimmed.removed == {}
    assert slimmed.kept[0].reason == "3 gets a constant of it, and pads with 0"


def test_units_behind_a_depthwise_convolution_go():
    torch.manual_seed(0)
    depthwise = nn.Conv2d(6, 6, 3, padding=1, groups=6)
    first = nn.Conv2d(1, 6, 1), nn.BatchNorm2d(6), nn.ReLU6()
    net = nn.Sequential(*first, depthwise, nn.ReLU6(), nn.Conv2d(6, 2, 1))
    with torch.no_grad():
        net[0].bias += 1
        net[3].bias[:] = torch.tensor([1.0, -50.0, 1.0, -50.0, 1.0, 1.0])

    slimmed = slim(net, images())

    assert slimmed.removed["relu.4"] == [1, 3]
    assert (slimmed.model[0].out_channels, slimmed.model[3].groups, slimmed.model[5].in_channels) == (4, 4, 4)
    assert slimmed.change <= 1e-5


def test_resnet18_loses_what_is_inside_its_blocks_and_names_what_its_additions_hold():
    models = pytest.importorskip("torchvision.models")
    torch.manual_seed(0)
    net = models.resnet18(num_classes=10)
    with torch.no_grad():
        for norm, dead in ((net.layer1[0].bn1, [3, 5]), (net.layer3[1].bn1, [7]), (net.bn1, [4])):
            norm.weight[dead], norm.bias[dead] = 0, -1
    window = [torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))]

    slimmed = slim(net, window)

    assert {3, 5} <= set(slimmed.removed["layer1.0.relu"])
    assert 7 in slimmed.removed["layer3.1.relu"]
    assert slimmed.model.layer1[0].conv2.in_channels == 64 - len(slimmed.removed["layer1.0.relu"])
    assert slimmed.change <= 1e-5 * slimmed.largest_output
    (held,) = [kept for kept in slimmed.kept if kept.site == "relu"]
    assert 4 in held.units
    assert held.reason.endswith("by an addition or the like with layer1.1.conv2, layer1.0.conv2")


# ---- for any input


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 10**6), low=st.floats(-3, 0), high=st.floats(0.1, 3))
def test_the_bound_is_the_largest_output_over_the_corners_of_the_range(seed, low, high):
    torch.manual_seed(seed)
    layer, norm = nn.Linear(4, 5), nn.BatchNorm1d(5).eval()
    with torch.no_grad():
        norm.running_mean.normal_(), norm.running_var.uniform_(0.1, 2), norm.weight.normal_(), norm.bias.normal_()
        corners = torch.cartesian_prod(*[torch.tensor([low, high])] * 4)
        in_float32 = norm(layer(corners.float())).amax(0)
        bound = largest_pre_activation(layer.weight, layer.bias, low, high, norm)
        largest = norm.double()(layer.double()(corners.double())).amax(0)

    torch.testing.assert_close(bound, largest, rtol=0, atol=2e-5)
    assert not ((bound <= 0) & (in_float32 > 0)).any()


def certain() -> nn.Sequential:
    """Unit 0 of the first layer and unit 1 of the second can never fire; unit 2 of the first does not on zeros."""
    net = nn.Sequential(nn.Conv2d(1, 3, 2), nn.ReLU(), nn.Conv2d(3, 3, 2, padding=1), nn.ReLU(), nn.Conv2d(3, 2, 1))
    with torch.no_grad():
        for layer in (net[0], net[2]):
            layer.weight.fill_(0.5), layer.bias.fill_(1.0)
        net[0].bias[0], net[0].bias[2] = -2.1, -1.9
        net[2].bias[1] = -20.0
    return net


def test_certified_units_alone_go_where_that_is_asked_for():
    slimmed = slim(certain(), [torch.zeros(3, 1, 5, 5)], certified_for=(0, 1))

    assert slimmed.removed == {"relu.1": [0], "relu.3": [1]}
    assert [(kept.site, kept.units, kept.reason) for kept in slimmed.kept] == [
        ("relu.1", [2], "dead on these examples, perhaps not for any input")
    ]
    assert "without 2 units that are dead for any input; on 3 examples no output changes" in str(slimmed)
    ones = torch.ones(1, 1, 5, 5)
    fires = certain()[:2](ones).amax(dim=(0, 2, 3)) > 0
    assert fires.tolist() == [False, True, True]  # what was kept


def fires_at_a_corner(layer: nn.Linear, high: Tensor) -> Tensor:
    """Whether each unit is above 0 for one of the inputs whose elements are 0 or ``high``."""
    corners = torch.cartesian_prod(*[torch.tensor([0.0, float(end)]) for end in high])
    with torch.no_grad():
        return (layer(corners) > 0).any(0)


@pytest.mark.parametrize(
    ("before", "shape"), [([], (4,)), ([], (5, 4)), ([nn.Flatten()], (2, 2)), ([nn.Dropout(), nn.Identity()], (4,))]
)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("frozen", [True, False])
def test_units_of_a_linear_layer_that_comes_first_are_certified_where_no_corner_of_the_range_makes_them_fire(
    before, shape, bias, frozen
):
    torch.manual_seed(1)
    first = nn.Linear(4, 24, bias=bias)
    if bias:
        first.bias.data.uniform_(-1, 0)
    else:
        first.weight.data[::3].abs_().neg_()
    fires = fires_at_a_corner(first, torch.ones(4)).tolist()
    net = nn.Sequential(*before, first, nn.ReLU(), nn.Linear(24, 3)).requires_grad_(not frozen)

    slimmed = slim(net, [torch.zeros(20, *shape)], certified_for=(0, 1))  # on zeros no unit fires

    assert 0 < sum(fires) < 24
    (removed,) = slimmed.removed.values()
    assert removed == [unit for unit in range(24) if not fires[unit]]


def test_units_of_a_second_linear_layer_are_certified_by_the_most_that_the_first_gives():
    torch.manual_seed(0)
    first, second = nn.Linear(4, 5), nn.Linear(5, 24)
    first.bias.data.fill_(-1e-6), second.bias.data.uniform_(-1, 0)
    most = first.weight.detach().clamp(min=0).sum(1).max()
    fires = fires_at_a_corner(second, most.repeat(5)).tolist()
    net = nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), nn.Linear(24, 3))

    slimmed = slim(net, [torch.zeros(20, 4)], certified_for=(0, 1))

    assert 0 < sum(fires) < 24
    assert slimmed.removed["relu.3"] == [unit for unit in range(24) if not fires[unit]]


def test_nothing_is_certified_behind_a_layer_that_is_called_twice():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second, self.last = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 3)
            self.second.weight.data.abs_(), self.second.bias.data.fill_(-1e9)

        def forward(self, x):
            return self.last(F.relu(self.second(F.relu(self.first(F.relu(self.first(x)))))))

    (kept,) = [kept for kept in slim(Twice(), FEATURES, certified_for=(0, 1)).kept if kept.site == "relu:3"]

    assert (kept.units, kept.reason) == ([0, 1, 2, 3], "dead on these examples, perhaps not for any input")


@pytest.mark.parametrize("prepared", [lambda x: x - 0.5, lambda x: x.detach()])
def test_no_unit_is_certified_behind_what_has_another_range(prepared):
    class Prepared(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = certain()

        def forward(self, x):
            return self.net(prepared(x))

    with torch.no_grad():
        net = Prepared()
        net.net[0].bias[:] = -100

    assert "relu.1" not in slim(net, [torch.zeros(3, 1, 5, 5)], certified_for=(0, 1)).removed


def test_inputs_out_of_the_range_that_was_named_are_an_error():
    net = certain()
    with torch.no_grad():
        net[0].bias[0] = -100

    with pytest.raises(UserError, match=r"`certified_for` is 0 to 1, and the inputs of 0 reach from 2 to 2"):
        slim(net, [torch.full((3, 1, 5, 5), 2.0)], certified_for=(0, 1))


def test_inputs_of_a_linear_layer_out_of_the_range_that_was_named_are_an_error():
    net = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    nn.init.constant_(net[0].bias, -99.0)

    with pytest.raises(UserError, match=r"`certified_for` is 0 to 1, and the inputs of 0 reach from 9 to 9"):
        slim(net, [torch.full((3, 4), 9.0)], certified_for=(0, 1))


@pytest.mark.parametrize("pair", [(1, 0), (0,), (float("nan"), 1)])
def test_a_range_without_an_order_is_an_error(pair):
    with pytest.raises(UserError, match=r"give the smallest and the largest element of the inputs, such as \(0, 1\)"):
        slim(certain(), [torch.zeros(3, 1, 5, 5)], certified_for=pair)
