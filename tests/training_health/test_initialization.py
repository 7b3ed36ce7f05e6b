"""Initialisations that look at data: what the units fire on, and variances, measured by other means than theirs."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tests.training_health.toys import fingerprint
from training_health import lsuv, median_bias


def batches(*shape: int, count: int = 4, seed: int = 0) -> list[torch.Tensor]:
    """Inputs from 0 to 1, as images have: not centred."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.rand(*shape, generator=generator) for _ in range(count)]


class Functional(nn.Module):
    """A convolution before a normalisation and a max-pool, a residual addition, in-place and functional ReLUs."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(1, 4, 3, bias=False), nn.BatchNorm2d(4)
        self.branch, self.fc, self.head = nn.Conv2d(4, 4, 3, padding=1), nn.Linear(36, 8), nn.Linear(8, 3)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.norm(self.conv(x))), 2)
        x = F.relu(F.max_pool2d(self.branch(x) + x, 2, 1, padding=1)[..., :3, :3], inplace=True)
        return self.head(self.fc(x.flatten(1)).relu_())


def activities(model: nn.Module, inputs: list[torch.Tensor]) -> dict[str, list[float]]:
    """Fraction of positive values of each unit of each ReLU, with hooks on modules."""
    seen: dict[str, list[torch.Tensor]] = {}
    hooks = [
        module.register_forward_hook(lambda _m, _i, out, name=name: seen.setdefault(name, []).append(out.clone()))
        for name, module in model.named_modules()
        if isinstance(module, nn.ReLU)
    ]
    with torch.no_grad():
        for batch in inputs:
            model(batch)
    for hook in hooks:
        hook.remove()
    return {name: (torch.cat(out).movedim(1, 0).flatten(1) > 0).float().mean(1).tolist() for name, out in seen.items()}


def convolutional() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 5, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Dropout(0.5), nn.Flatten(), nn.Linear(80, 7), nn.ReLU(),
        nn.Linear(7, 3),
    )  # fmt: skip


def test_each_unit_fires_on_half_of_its_inputs():
    model, inputs = convolutional(), batches(50, 1, 10, 10)

    done = median_bias(model, inputs)

    for units in activities(model.eval(), inputs).values():
        assert units == pytest.approx([0.5] * len(units), abs=1e-4)
    assert done.layers == pytest.approx({"0": 0.5, "5": 0.5})
    assert done.skipped == {"7": "no activation that is known follows it"}


def test_functional_in_place_and_normalised_relus_are_followed_and_the_change_is_to_biases_alone():
    model, inputs = Functional(), batches(40, 1, 8, 8)
    weights = {name: value.clone() for name, value in model.state_dict().items() if not name.endswith("bias")}

    done = median_bias(model, inputs)

    assert list(done.layers) == ["norm", "branch", "fc"]
    assert done.skipped == {
        "conv": "it has no bias of its own",
        "head": "no activation that is known follows it",
    }
    assert all(torch.equal(model.state_dict()[name], value) for name, value in weights.items())
    seen = {"norm": [], "fc": []}
    for name, values in seen.items():
        model.get_submodule(name).register_forward_hook(lambda _m, _i, out, values=values: values.append(out.clone()))
    for batch in inputs:
        model(batch)
    for values in seen.values():
        fired = (torch.cat(values).movedim(1, 0).flatten(1) > 0).float().mean(1)
        assert fired.tolist() == pytest.approx([0.5] * len(fired), abs=1e-3)


def test_values_that_are_equal_are_split_as_near_to_half_as_can_be():
    model = nn.Sequential(nn.Linear(1, 2), nn.ReLU(), nn.Linear(2, 1))
    model[0].weight.data = torch.tensor([[1.0], [-1.0]])
    nn.init.zeros_(model[0].bias)
    blank = torch.tensor([[0.0]] * 6 + [[1.0]] * 2 + [[2.0]] * 2)  # of ten, six are blank

    done = median_bias(model, [blank])

    assert (model[:2](blank) > 0).float().mean(0).tolist() == pytest.approx([0.4, 0.6])
    assert done.layers["0"] in (pytest.approx(0.4), pytest.approx(0.6))


class Odd(nn.Module):
    """What cannot be set: each layer for a reason of its own."""

    def __init__(self):
        super().__init__()
        self.twice, self.unused, self.frozen = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4).requires_grad_(False)
        self.tied, self.tied_to = nn.Linear(4, 4), nn.Linear(4, 4)
        self.tied_to.weight, self.tied_to.bias = self.tied.weight, self.tied.bias
        self.normed = torch.nn.utils.parametrizations.weight_norm(nn.Linear(4, 4))
        self.scaled, self.flattened = nn.Linear(4, 4), nn.Conv1d(1, 4, 1)

    def forward(self, x):
        for layer in (self.twice, self.twice, self.frozen, self.tied, self.tied_to, self.normed):
            x = F.relu(layer(x))
        x = F.relu(2 * self.scaled(x))  # a bias arrives there doubled
        return F.relu(self.flattened(x[:, None]).flatten(1))


def test_what_cannot_be_set_stays_as_it_was_and_is_named_with_the_reason():
    torch.manual_seed(0)  # in one network of eight nothing passes through the first layers
    model, inputs = Odd(), batches(20, 4)
    kept = {name: value.clone() for name, value in model.state_dict().items() if not name.startswith("normed.bias")}

    done = median_bias(model, inputs)

    assert list(done.layers) == ["normed"]
    assert done.skipped == {
        "twice": "it runs 2 times in a pass",
        "frozen": "its bias is not trained",
        "tied": "it shares its bias with another layer",
        "tied_to": "it shares its bias with another layer",
        "scaled": "a change of its bias does not reach the activation as it is",
        "flattened": "what the activation gets is not laid out in this layer's units",
        "unused": "it does not run",
    }
    assert all(torch.equal(model.state_dict()[name], value) for name, value in kept.items())
    assert lsuv(model, inputs).skipped["normed"] == "it has no weight of its own"


def variances(model: nn.Module, inputs: list[torch.Tensor]) -> dict[str, float]:
    """Of the output of each layer with a weight, in eval mode."""
    seen: dict[str, list[torch.Tensor]] = {}
    for name, module in model.named_modules():
        if isinstance(module, (nn.Linear, nn.Conv2d)):
            module.register_forward_hook(lambda _m, _i, out, name=name: seen.setdefault(name, []).append(out))
    with torch.no_grad():
        for batch in inputs:
            model.eval()(batch)
    return {name: torch.cat(outputs).var(correction=0).item() for name, outputs in seen.items()}


def test_lsuv_gives_every_layer_an_output_of_variance_one_from_orthonormal_weights():
    model, inputs = convolutional(), batches(50, 1, 10, 10)

    done = lsuv(model, inputs)

    assert done.layers == pytest.approx(variances(model, inputs), rel=1e-3)
    assert done.layers == pytest.approx(dict.fromkeys(["0", "5", "7"], 1.0), abs=1e-3)
    weight = model[5].weight  # (7, 80): its rows are orthogonal and equally long
    products = weight @ weight.T
    torch.testing.assert_close(products, products[0, 0] * torch.eye(7), rtol=1e-4, atol=1e-4)
    assert all(model[layer].bias.abs().max() == 0 for layer in (0, 5, 7))


def test_without_a_seed_lsuv_only_scales():
    model, inputs = convolutional(), batches(50, 1, 10, 10)
    before = model[5].weight.clone()

    lsuv(model, inputs, seed=None)

    ratio = model[5].weight / before
    torch.testing.assert_close(ratio, ratio[0, 0].expand_as(ratio))
    assert variances(model, inputs)["5"] == pytest.approx(1, abs=0.1)


def test_a_variance_within_the_tolerance_is_left():
    model = nn.Sequential(nn.Linear(1, 1, bias=False))
    nn.init.ones_(model[0].weight)

    done = lsuv(model, [torch.tensor([[-1.04], [1.04]])], seed=None)  # variance 1.0816

    assert done.layers == pytest.approx({"0": 1.0816})
    assert model[0].weight.item() == 1


def test_an_output_without_variance_is_skipped():
    layer = nn.Linear(3, 2)
    before = fingerprint(layer)

    done = lsuv(nn.Sequential(layer), [torch.zeros(5, 3)])

    assert done.skipped == {"0": "the variance of its output is 0.0"}
    assert fingerprint(layer) == before


def test_lsuv_leaves_a_bias_that_is_not_trained():
    model, inputs = nn.Sequential(nn.Linear(4, 6)), batches(20, 4)
    model[0].bias.requires_grad_(False).fill_(3.0)

    lsuv(model, inputs)

    assert model[0].bias.tolist() == [3.0] * 6


def test_batches_of_no_example_are_named_as_the_reason():
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU())

    assert median_bias(model, [torch.zeros(0, 4)]).skipped == {"0": "the batches hold no example"}


def test_what_a_bias_of_few_digits_reaches_is_told():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 16), nn.ReLU()).to(torch.bfloat16)
    inputs = [(batch / 8 + 40).to(torch.bfloat16) for batch in batches(200, 4)]  # far from 0, and close together

    reached = median_bias(model, inputs).layers["0"]

    own = (model[0](torch.cat(inputs)).float() > 0).float().mean(0)
    assert reached == pytest.approx(own[(own - 0.5).abs().argmax()].item(), abs=0.05)
    assert abs(reached - 0.5) > 0.1


@pytest.mark.parametrize("initialize", [median_bias, lsuv])
def test_random_state_modes_and_statistics_are_put_back(initialize):
    model, inputs = Functional(), batches(40, 1, 8, 8)
    model.fc.eval()
    buffers = {name: value.clone() for name, value in model.named_buffers()}
    state = torch.get_rng_state()

    initialize(model, inputs)

    assert torch.equal(torch.get_rng_state(), state)
    assert (model.training, model.norm.training, model.fc.training) == (True, True, False)
    assert all(torch.equal(value, buffers[name]) for name, value in model.named_buffers())
    assert not any(module._forward_hooks for module in model.modules())


@pytest.mark.parametrize("initialize", [median_bias, lsuv])
def test_the_result_depends_on_model_and_batches_alone(initialize):
    found = []
    for state in (1, 2):
        model = convolutional()
        torch.manual_seed(state)
        initialize(model, iter(batches(20, 1, 10, 10)))
        found.append(fingerprint(model))

    assert found[0] == found[1]


@pytest.mark.parametrize("initialize", [median_bias, lsuv])
def test_without_a_batch_there_is_nothing_to_look_at(initialize):
    with pytest.raises(ValueError, match="There is no batch"):
        initialize(convolutional(), [])


@pytest.mark.parametrize("options", [{"tolerance": -1}, {"tolerance": float("nan")}, {"max_iterations": 0}])
def test_limits_that_make_no_sense_are_refused(options):
    with pytest.raises(ValueError, match="give a tolerance of 0 or more, and at least 1 iteration"):
        lsuv(convolutional(), [torch.zeros(2, 1, 6, 6)], **options)


def test_activations_other_than_relu_have_their_inputs_centred_too():
    torch.manual_seed(0)
    model, inputs = nn.Sequential(nn.Linear(4, 6), nn.GELU(), nn.Linear(6, 2)), batches(50, 4)

    median_bias(model, inputs)

    fired = (model[0](torch.cat(inputs)) > 0).float().mean(0)
    assert fired.tolist() == pytest.approx([0.5] * 6, abs=0.01)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_weights_of_another_type_are_set_as_precisely_as_they_can_be(dtype):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2)).to(dtype)
    inputs = [batch.to(dtype) for batch in batches(50, 4)]

    assert median_bias(model, inputs).layers == {"0": pytest.approx(0.5, abs=0.1)}
    assert list(lsuv(model, inputs).layers.values()) == pytest.approx([1, 1], abs=0.1)
