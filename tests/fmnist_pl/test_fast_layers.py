"""Each fast path against the stock module it stands for."""

import pytest
import torch
from torch import nn

from fmnist_pl.fast_layers import FastDropout, activate_and_pool


def test_dropout_zeroes_its_share_and_scales_the_rest():
    torch.manual_seed(0)

    out = FastDropout(0.3)(torch.ones(1_000_000))

    rate = round(0.3 * 65536) / 65536
    assert (out == 0).double().mean().item() == pytest.approx(rate, abs=5 * (rate * (1 - rate) / 1e6) ** 0.5)
    assert out.unique().tolist() == pytest.approx([0.0, 1 / (1 - rate)])


def test_dropout_at_one_half_is_exact():
    torch.manual_seed(0)

    assert FastDropout(0.5)(torch.ones(64)).unique().tolist() == [0.0, 2.0]


def test_dropout_decides_each_element_independently():
    torch.manual_seed(0)

    kept = (FastDropout(0.3)(torch.ones(500_000)) != 0).double()

    for lag in (1, 2, 3, 4, 5, 8):  # four elements share a random word
        correlation = torch.corrcoef(torch.stack([kept[:-lag], kept[lag:]]))[0, 1].item()
        assert abs(correlation) < 5 / 500_000**0.5


def test_dropout_passes_the_gradient_to_the_survivors_alone():
    torch.manual_seed(0)
    x = torch.rand(4, 8, 6, 6).to(memory_format=torch.channels_last).requires_grad_()

    out = FastDropout(0.5)(x)
    out.backward(torch.full_like(out, 3.0))

    assert torch.equal(x.grad, torch.where(out != 0, 6.0, 0.0))


def test_dropout_keeps_the_channels_last_layout():
    x = torch.rand(4, 8, 6, 6).to(memory_format=torch.channels_last)

    assert FastDropout(0.5)(x).is_contiguous(memory_format=torch.channels_last)


def test_dropout_follows_the_global_seed():
    layer, x = FastDropout(0.5), torch.ones(999)
    torch.manual_seed(5)
    first = layer(x)
    torch.manual_seed(5)

    assert torch.equal(layer(x), first)


def test_dropout_is_the_identity_in_eval_mode():
    x = torch.rand(10)

    assert FastDropout(0.5).eval()(x) is x


@pytest.mark.parametrize(("rate", "expected"), [(0.0, 1.0), (1.0, 0.0)])
def test_dropout_at_its_limits_keeps_all_or_nothing(rate, expected):
    assert FastDropout(rate)(torch.ones(5)).tolist() == [expected] * 5


def test_dropout_of_a_strided_view_falls_back_to_the_stock_layer():
    torch.manual_seed(0)

    out = FastDropout(0.5)(torch.ones(8, 8)[:, ::2])

    assert set(out.unique().tolist()) == {0.0, 2.0}


@pytest.mark.parametrize("activation", [nn.ReLU(), nn.LeakyReLU()])
def test_pooling_first_gives_the_stock_output_and_gradient(activation):
    torch.manual_seed(0)
    x = torch.randn(3, 5, 8, 8).round(decimals=1)  # rounded: ties happen, as in an image's background
    stock_x, fast_x = x.clone().requires_grad_(), x.clone().requires_grad_()
    weights = torch.randn(3, 5, 4, 4)
    pool = nn.MaxPool2d(2)

    stock, fast = pool(activation(stock_x)), activate_and_pool(fast_x, activation, pool)
    (stock * weights).sum().backward()
    (fast * weights).sum().backward()

    assert torch.equal(fast, stock)
    assert torch.equal(fast_x.grad, stock_x.grad)


def test_the_activation_sees_every_position_in_eval_mode():
    seen = []
    activation = nn.ReLU().eval()
    activation.register_forward_hook(lambda _module, args, _out: seen.append(tuple(args[0].shape)))

    activate_and_pool(torch.randn(1, 2, 8, 8), activation, nn.MaxPool2d(2))

    assert seen == [(1, 2, 8, 8)]


def test_an_activation_that_is_not_monotone_is_never_moved_behind_the_pool():
    x = -torch.rand(1, 1, 4, 4) * 3
    gelu, pool = nn.GELU(), nn.MaxPool2d(2)

    assert torch.equal(activate_and_pool(x, gelu, pool), pool(gelu(x)))
