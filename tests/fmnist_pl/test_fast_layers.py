"""Each fast path against the stock module it stands for."""

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from fmnist_pl.fast import blocks as fast_layers
from fmnist_pl.fast.blocks import FastDropout, activate_and_pool, conv_block


def test_dropout_zeroes_its_fraction_and_scales_the_rest():
    torch.manual_seed(0)

    out = FastDropout(0.3)(torch.ones(1_000_000))

    rate = round(0.3 * 65536) / 65536
    assert (out == 0).double().mean().item() == pytest.approx(rate, abs=5 * (rate * (1 - rate) / 1e6) ** 0.5)
    assert out.unique().tolist() == pytest.approx([0.0, 1 / (1 - rate)])


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
    assert out.is_contiguous(memory_format=torch.channels_last)


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


SIZES = st.integers(2, 11)
PADDINGS = st.tuples(st.integers(0, 2), st.integers(0, 2))


def with_ties(*shape: int) -> torch.Tensor:
    """Values of one decimal, so that equal maxima happen, as in an image's background; channels innermost."""
    return torch.randn(*shape).round(decimals=1).to(memory_format=torch.channels_last)


@given(st.integers(1, 4), st.integers(1, 5), SIZES, SIZES, st.sampled_from([nn.ReLU(), nn.LeakyReLU()]))
@settings(max_examples=30, deadline=None)
def test_pooling_first_gives_the_stock_output_and_gradient(count, channels, height, width, activation):
    values, pool = with_ties(count, channels, height, width), nn.MaxPool2d(2)
    stock_x, fast_x = values.clone().requires_grad_(), values.clone().requires_grad_()

    stock, fast = pool(activation(stock_x)), activate_and_pool(fast_x, activation, pool)
    weights = torch.randn_like(stock)
    (stock * weights).sum().backward()
    (fast * weights).sum().backward()

    assert torch.equal(fast, stock)
    assert torch.equal(fast_x.grad, stock_x.grad)


@pytest.mark.parametrize("training", [True, False])
def test_a_hooked_activation_sees_every_position(training):
    seen = []
    activation = nn.ReLU().train(training)
    activation.register_forward_hook(lambda _module, args, _out: seen.append(tuple(args[0].shape)))

    activate_and_pool(torch.randn(1, 2, 8, 8), activation, nn.MaxPool2d(2))

    assert seen == [(1, 2, 8, 8)]


def test_a_torch_function_mode_sees_every_position():
    seen = []

    class Watch(TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            if func is F.relu:
                seen.append(tuple(args[0].shape))
            return func(*args, **(kwargs or {}))

    with Watch():
        activate_and_pool(torch.randn(1, 2, 8, 8), nn.ReLU(), nn.MaxPool2d(2))

    assert seen == [(1, 2, 8, 8)]


def test_an_activation_that_is_not_monotone_is_never_moved_behind_the_pool():
    x = -torch.rand(1, 1, 4, 4) * 3
    gelu, pool = nn.GELU(), nn.MaxPool2d(2)

    assert torch.equal(activate_and_pool(x, gelu, pool), pool(gelu(x)))


def images(*shape: int) -> torch.Tensor:
    """Noise on a constant background, as in the data: equal maxima are common."""
    x = torch.rand(*shape)
    x[:, :, :, : shape[3] // 2] = 0.0
    x[:, :, : shape[2] // 3] = 1.0
    return x


def block(channels: int, kernel: int, dropout: float = 0.0, **conv: int) -> list[nn.Module]:
    convolution = nn.Conv2d(channels, 6, kernel, **conv).to(memory_format=torch.channels_last)
    return [convolution, nn.Identity(), nn.ReLU(), nn.MaxPool2d(2), FastDropout(dropout)]


def stock_float64(x: torch.Tensor, conv: nn.Conv2d, padding: tuple[int, int]) -> tuple[torch.Tensor, ...]:
    """The block in stock float64 operations, and its leaves for the gradients: out, weight, bias."""
    before, after = padding
    weight, bias = conv.weight.detach().double().requires_grad_(), conv.bias.detach().double().requires_grad_()
    out = F.max_pool2d(F.relu(F.conv2d(x.double(), weight, bias)), 2)
    return F.pad(out, (before, after, before, after)), weight, bias


def path_taken(out: torch.Tensor) -> str:
    return out.grad_fn.name().removesuffix("Backward")


@pytest.fixture(params=[1, 2])
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("threads")
@given(st.integers(1, 40), st.integers(1, 5), st.integers(1, 20), PADDINGS)
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_fused_first_block_is_the_stock_function(count, kernel, more, padding):
    x, layers = images(count, 1, kernel + more, kernel + more), block(1, kernel)
    reference, weight, bias = stock_float64(x, layers[0], padding)
    weights = torch.randn_like(reference)

    out = conv_block(x, *layers, padding)
    (out * weights.float()).sum().backward()
    (reference * weights).sum().backward()

    assert path_taken(out) == "ConvReluPoolDropout"
    torch.testing.assert_close(out.double(), reference, rtol=0, atol=1e-6)
    torch.testing.assert_close(layers[0].weight.grad.double(), weight.grad, rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(layers[0].bias.grad.double(), bias.grad, rtol=1e-5, atol=1e-4)


def test_the_fused_first_block_gives_the_same_whatever_the_chunk(monkeypatch):
    torch.manual_seed(0)
    x, layers = images(7, 1, 9, 9), block(1, 2)
    whole = conv_block(x, *layers, (0, 1))
    monkeypatch.setattr("fmnist_pl.fast.first_block._CHUNK_BYTES", 1)

    assert torch.equal(conv_block(x, *layers, (0, 1)), whole)


@given(st.integers(1, 4), st.integers(1, 5), SIZES, SIZES, PADDINGS)
@settings(max_examples=30, deadline=None)
def test_the_fused_tail_is_exactly_the_stock_function(count, channels, height, width, padding):
    values = with_ties(count, channels, height, width)
    stock_x, fast_x = values.clone().requires_grad_(), values.clone().requires_grad_()
    stock = fast_layers.pad(F.max_pool2d(F.relu(stock_x), 2), padding)
    weights = torch.randn_like(stock)

    fast = fast_layers.ReluPoolDropout.apply(fast_x, 0.0, padding)
    (stock * weights).sum().backward()
    (fast * weights).sum().backward()

    assert torch.equal(fast, stock)
    assert torch.equal(fast_x.grad, stock_x.grad)


@pytest.mark.parametrize("channels", [1, 4])
def test_dropout_in_a_fused_block_drops_its_fraction_and_scales_the_rest(channels):
    torch.manual_seed(0)
    x, layers = torch.rand(400, channels, 29, 29), block(channels, 2, dropout=0.3)
    nn.init.constant_(layers[0].bias, 5.0)  # every unit fires, so a zero is a drop
    undropped = F.max_pool2d(layers[0](x), 2)
    rate = round(0.3 * 65536) / 65536

    out = conv_block(x, *layers, (0, 0))

    assert path_taken(out) == ("ConvReluPoolDropout" if channels == 1 else "ReluPoolDropout")
    dropped = (out == 0).double().mean().item()
    assert dropped == pytest.approx(rate, abs=5 * (rate * (1 - rate) / out.numel()) ** 0.5)
    expected = torch.where(out == 0, 0.0, undropped / (1 - rate))
    torch.testing.assert_close(out, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("channels", [1, 4])
def test_the_gradient_of_a_fused_block_passes_the_survivors_alone(channels):
    torch.manual_seed(0)
    x, layers = torch.rand(30, channels, 9, 9), block(channels, 2, dropout=0.5)
    conv = layers[0]

    out = conv_block(x, *layers, (0, 1))
    out.sum().backward()

    kept = (out.detach()[:, :, :-1, :-1] > 0).float() * 2.0
    weight, bias = conv.weight.detach().requires_grad_(), conv.bias.detach().requires_grad_()
    (F.max_pool2d(F.relu(F.conv2d(x, weight, bias)), 2) * kept).sum().backward()
    torch.testing.assert_close(conv.weight.grad, weight.grad, rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(conv.bias.grad, bias.grad, rtol=1e-5, atol=1e-4)


def test_a_fused_block_follows_the_global_seed():
    x, layers = torch.rand(4, 1, 9, 9), block(1, 2, dropout=0.5)
    torch.manual_seed(3)
    first = conv_block(x, *layers, (0, 0))
    torch.manual_seed(3)

    assert torch.equal(conv_block(x, *layers, (0, 0)), first)


def stock_only(*_args: object) -> None:
    raise AssertionError("a fused block ran")


def watched(layers: list[nn.Module]) -> list[nn.Module]:
    layers[2].register_forward_hook(lambda *_: None)
    return layers


@pytest.mark.parametrize(
    ("layers", "dtype"),
    [
        pytest.param([layer.eval() for layer in block(1, 2)], torch.float32, id="evaluation"),
        pytest.param([layer.double() for layer in block(1, 2)], torch.float64, id="float64"),
        pytest.param(watched(block(1, 2)), torch.float32, id="hooked"),
        pytest.param([*block(1, 2)[:2], nn.GELU(), *block(1, 2)[3:]], torch.float32, id="gelu"),
        pytest.param([*block(1, 2)[:3], nn.MaxPool2d(3), nn.Identity()], torch.float32, id="pool of 3"),
        pytest.param([*block(1, 2)[:3], nn.Identity(), nn.Identity()], torch.float32, id="no pool"),
        pytest.param([*block(1, 2)[:4], nn.Dropout(0.0)], torch.float32, id="stock dropout"),
    ],
)
def test_the_stock_layers_run_where_no_fast_path_applies(layers, dtype, monkeypatch):
    monkeypatch.setattr(fast_layers.ConvReluPoolDropout, "apply", stock_only)
    monkeypatch.setattr(fast_layers.ReluPoolDropout, "apply", stock_only)
    x = torch.rand(2, 1, 9, 9, dtype=dtype)

    out = conv_block(x, *layers, (0, 0))

    torch.testing.assert_close(out, nn.Sequential(*layers)(x))


def test_under_autocast_the_stock_layers_run(monkeypatch):
    monkeypatch.setattr(fast_layers.ConvReluPoolDropout, "apply", stock_only)

    with torch.autocast("cpu", torch.bfloat16):
        out = conv_block(torch.rand(2, 1, 9, 9), *block(1, 2, dropout=0.5), (0, 0))

    assert out.dtype == torch.bfloat16


def test_an_image_that_needs_a_gradient_gets_it():
    x, layers = torch.rand(2, 1, 9, 9, requires_grad=True), block(1, 2)

    conv_block(x, *layers, (0, 0)).sum().backward()

    stock = x.detach().requires_grad_()
    F.max_pool2d(F.relu(layers[0](stock)), 2).sum().backward()
    torch.testing.assert_close(x.grad, stock.grad)


def test_a_strided_first_convolution_keeps_its_own_kernel():
    layers = block(1, 2, stride=2)

    assert path_taken(conv_block(torch.rand(2, 1, 9, 9), *layers, (0, 0))) == "ReluPoolDropout"
