"""The network against one of stock modules, and the arguments the notebooks asked about."""

import pytest
import torch
from torch import nn

from fmnist_pl.network import FashionCNN, parameter_count


def test_each_layer_has_the_notebooks_parameter_count():
    network = FashionCNN()

    counts = {name: parameter_count(block) for name, block in network.named_children()}

    assert counts == {"conv1": 320, "conv2": 8_224, "fc1": 401_664, "output": 2_570}


def test_the_forward_pass_is_that_of_the_notebooks_layers():
    network = FashionCNN(initialization="pytorch").eval()  # PyTorch's biases are not zero, so they are tested too
    end = nn.ZeroPad2d((0, 1, 0, 1))  # Keras's "same" of a 2x2 filter: zeros below and to the right
    stock = nn.Sequential(
        *(end, nn.Conv2d(1, 64, 2), nn.ReLU(), nn.MaxPool2d(2), end, nn.Conv2d(64, 32, 2), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(1568, 256), nn.ReLU(), nn.Linear(256, 10)),
    )
    stock.load_state_dict(dict(zip(stock.state_dict(), network.state_dict().values(), strict=True)))
    images = torch.rand(3, 1, 28, 28)

    torch.testing.assert_close(network(images), stock(images), rtol=0, atol=2e-6)


def test_glorot_gives_uniform_weights_within_keras_limits_and_zero_biases():
    torch.manual_seed(0)
    linear = FashionCNN().fc1.linear

    limit = (6 / (1568 + 256)) ** 0.5

    assert linear.weight.abs().max().item() == pytest.approx(limit, rel=1e-3)
    assert linear.weight.var().item() == pytest.approx(limit**2 / 3, rel=0.01)
    assert linear.bias.abs().max() == 0


def test_he_gives_normal_weights_with_variance_two_over_fan_in():
    torch.manual_seed(0)

    weight = FashionCNN(initialization="he").fc1.linear.weight

    assert weight.var().item() == pytest.approx(2 / 1568, rel=0.02)


@pytest.mark.parametrize(
    ("options", "features"),
    [
        ({"kernel_size": 5}, 32 * 7 * 7),
        ({"stride": 2, "convs_per_pool": 0}, 32 * 7 * 7),
        ({"convs_per_pool": 2}, 32 * 14 * 14),
        ({"normalization": "batch"}, 32 * 7 * 7),
    ],
)
def test_each_geometry_reaches_the_hidden_layer_with_its_feature_count(options, features):
    network = FashionCNN(**options)

    assert network.fc1.linear.in_features == features
    assert network(torch.rand(2, 1, 28, 28)).shape == (2, 10)


def test_a_network_deeper_than_the_image_is_refused_in_words():
    with pytest.raises(ValueError, match="conv5 would leave an image of 0 pixels"):
        FashionCNN(conv_channels=(4, 4, 4, 4, 4))


@pytest.mark.parametrize(
    "options", [{"kernel_size": 0}, {"stride": 0}, {"conv_channels": (0,)}, {"hidden_units": (-1,)}]
)
def test_an_argument_below_one_is_refused(options):
    with pytest.raises(ValueError, match="must be at least 1"):
        FashionCNN(**options)


@pytest.mark.parametrize("training", [True, False])
def test_what_a_hook_keeps_of_a_layer_stays_as_the_layer_returned_it(training):
    network, kept = FashionCNN(conv_channels=(4, 4), hidden_units=(8,)).train(training), []
    for layer in (network.conv1.conv, network.fc1.linear):
        layer.register_forward_hook(lambda _module, _inputs, output: kept.append((output, output.detach().clone())))

    network(torch.rand(2, 1, 28, 28))

    assert [torch.equal(output, returned) for output, returned in kept] == [True, True]


def test_a_layer_may_have_a_full_backward_hook():
    network, seen = FashionCNN(conv_channels=(4, 4), hidden_units=(8,)), []
    for layer in (network.conv1.conv, network.fc1.linear):
        layer.register_full_backward_hook(lambda _module, _inputs, outputs: seen.append(tuple(outputs[0].shape)))

    network(torch.rand(2, 1, 28, 28, requires_grad=True)).sum().backward()

    assert seen == [(2, 8), (2, 4, 28, 28)]
