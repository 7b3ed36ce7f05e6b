"""Each layer with a kernel against the stock layers that it stands for."""

import math
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.func import functional_call, grad, vmap
from torch.nn import functional as F
from torch.nn.modules.module import register_module_forward_hook
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode

from fmnist_pl.fast.layers import FastDropout
from fmnist_pl.loader import BatchLoader
from fmnist_pl.network import ConvBlock, FashionCNN
from training_health.relu.sites import ReLUSites

REPOSITORY = Path(__file__).parents[2]
KERNEL = "_PoolDropoutBackward"
RATES = (0.0, 0.3, 0.9)


@pytest.fixture(autouse=True)
def same_threads_after():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def block(channels=1, kernel=2, dropout=0.0, *, filters=16, stride=1, activation="relu", norm="none") -> ConvBlock:
    return ConvBlock(channels, filters, kernel, stride, activation, norm, True, dropout).to(
        memory_format=torch.channels_last
    )


def with_exact_numbers(module: nn.Module) -> nn.Module:
    """Small multiples of 1/4: sums in any order are the same, and equal maxima are common."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randint(-4, 5, parameter.shape) / 4)
    return module


def run(module: nn.Module, x: torch.Tensor, *, watched: bool = False) -> list[torch.Tensor]:
    """Output and gradients of one step with a fixed seed; a watched module runs the stock layers."""
    torch.manual_seed(1)
    if watched:
        module.activation.register_forward_hook(lambda *_: None)
    module.zero_grad()
    x = x.detach().requires_grad_(x.requires_grad)
    out = module(x)
    assert (out.grad_fn.name() == KERNEL) != watched
    (out * torch.randint(-3, 4, out.shape)).sum().backward()
    gradients = [parameter.grad.clone() for parameter in module.parameters()]
    return [out.detach(), *gradients] + ([x.grad] if x.requires_grad else [])


@given(
    channels=st.sampled_from([1, 3]),
    filters=st.sampled_from([16, 32, 5]),
    kernel=st.integers(1, 5),
    stride=st.integers(1, 2),
    size=st.tuples(st.integers(4, 13), st.integers(4, 13)),
    count=st.integers(0, 20),
    rate=st.sampled_from(RATES),
    activation=st.sampled_from(["relu", "leaky_relu"]),
    layout=st.sampled_from([torch.contiguous_format, torch.channels_last]),
    threads=st.sampled_from([1, 2, 4]),
)
@settings(deadline=None, max_examples=60)
@example(3, 16, 1, 2, (4, 8), 6, 0.0, "relu", torch.channels_last, 1)
def test_a_block_is_the_same_function_as_its_stock_layers(
    channels, filters, kernel, stride, size, count, rate, activation, layout, threads
):
    torch.set_num_threads(threads)
    x = torch.randint(0, 3, (count, channels, *size)).float().to(memory_format=layout).requires_grad_(channels > 1)
    module = with_exact_numbers(block(channels, kernel, rate, filters=filters, stride=stride, activation=activation))

    fast, stock = run(module, x), run(module, x, watched=True)

    assert torch.equal(fast[0], stock[0])
    torch.testing.assert_close(fast[1:], stock[1:], rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("size", [(4, 8), (5, 9), (1, 2)])
def test_one_tap_with_a_stride_is_torchs_convolution(size):
    module, x = with_exact_numbers(ConvBlock(3, 16, 1, 2, "relu", "none", False, 0.0)), torch.randn(4, 3, *size)

    expected = F.conv2d(x, module.conv.weight, module.conv.bias, stride=2).relu()

    torch.testing.assert_close(module(x), expected)


def test_batch_normalisation_stays_between_convolution_and_activation():
    module = with_exact_numbers(block(1, 3, 0.3, norm="batch"))
    x = torch.rand(6, 1, 9, 9)

    torch.testing.assert_close(run(module, x), run(module, x, watched=True), rtol=1e-5, atol=1e-4)


def test_a_gradient_may_be_a_strided_view():
    module = block(3, 2)

    def step() -> torch.Tensor:
        module.zero_grad()
        F.pad(module(torch.ones(2, 3, 8, 8)), (0, 1, 0, 1)).mean().backward()
        return module.conv.weight.grad

    fast = step().clone()
    module.activation.register_forward_hook(lambda *_: None)

    torch.testing.assert_close(fast, step())


@pytest.mark.parametrize("channels", [1, 3])
def test_what_is_not_a_number_stays_so(channels):
    x = torch.zeros(1, channels, 8, 8)
    x[0, 0, 2, 3] = float("nan")
    module = block(channels, 1)

    assert torch.equal(module(x).isnan(), F.max_pool2d(module.conv(x), 2).isnan())


def test_the_number_of_threads_changes_no_bit():
    module, x = block(1, 3, 0.3), torch.rand(37, 1, 11, 11)
    seen = []
    for threads in (1, 2, 4):
        torch.set_num_threads(threads)
        seen.append(run(module, x))

    for others in seen[1:]:
        assert all(torch.equal(tensor, first) for tensor, first in zip(others, seen[0], strict=True))


@pytest.mark.parametrize("rate", RATES)
def test_dropout_keeps_its_fraction_and_scales_it(rate):
    torch.manual_seed(0)

    out = FastDropout(rate)(torch.ones(500, 2000))

    assert (out != 0).double().mean().item() == pytest.approx(1 - rate, abs=5 * (rate * (1 - rate) / 1e6) ** 0.5)
    assert out.max().item() == pytest.approx(1 / (1 - rate))


@pytest.mark.parametrize("rate", [0.3, 0.9])
def test_dropout_decides_each_element_for_itself(rate):
    """Neighbours in both directions, the same lane or row far away, the next layer and the next step."""
    torch.manual_seed(0)
    layer = FastDropout(rate)
    kept, next_layer = ((layer(torch.ones(2000, 256)) != 0).double() for _ in range(2))
    torch.manual_seed(1)
    next_step = (layer(torch.ones(2000, 256)) != 0).double()

    def correlation(a: torch.Tensor, b: torch.Tensor) -> float:
        return torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1].item()

    pairs = [(kept, next_layer), (kept, next_step)]
    pairs += [(kept[lag:], kept[:-lag]) for lag in (1, 2, 3, 7, 14, 49, 196, 1024)]
    pairs += [(kept[:, lag:], kept[:, :-lag]) for lag in (1, 2, 4, 8, 16, 32, 64, 128)]
    pairs += [(kept[1:, lag:], kept[:-1, :-lag]) for lag in (1, 2, 16)]
    assert [abs(correlation(a, b)) * a.numel() ** 0.5 for a, b in pairs] == pytest.approx([0] * len(pairs), abs=5)


def test_as_many_elements_of_a_row_survive_as_independent_ones_would():
    torch.manual_seed(0)

    kept = (FastDropout(0.3)(torch.ones(40_000, 64)) != 0).double().sum(dim=1)

    assert kept.var().item() == pytest.approx(64 * 0.3 * 0.7, rel=0.04)


def test_dropout_passes_the_gradient_to_the_survivors_alone():
    x = torch.rand(4, 8, 6, 6).requires_grad_()

    out = FastDropout(0.5)(x)
    out.backward(torch.full_like(out, 3.0))

    assert torch.equal(x.grad, torch.where(out != 0, 6.0, 0.0))


def test_a_mask_is_a_function_of_the_position_whatever_the_layout():
    x, layer = torch.ones(4, 8, 6, 6), FastDropout(0.5)
    torch.manual_seed(5)
    first = layer(x)
    torch.manual_seed(5)

    assert torch.equal(layer(x.to(memory_format=torch.channels_last)), first)


def masks(seed: int, epoch: int, rank: int) -> list[torch.Tensor]:
    images, layer = torch.zeros(24, 2, 2, dtype=torch.uint8), FastDropout(0.5)
    loader = BatchLoader(images, torch.zeros(24), 4, shuffle=True, seed=seed, rank=rank, world_size=2)
    loader.set_epoch(epoch)
    return [layer(torch.ones(8, 32)) for _batch in loader for _layer in range(2)]


def test_a_mask_is_a_function_of_seed_epoch_batch_rank_and_layer():
    assert all(torch.equal(a, b) for a, b in zip(masks(0, 1, 1), masks(0, 1, 1), strict=True))
    runs = [masks(seed, epoch, rank) for seed in (0, 1) for epoch in (0, 1) for rank in (0, 1)]
    different = {tuple(mask.flatten().tolist()) for run in runs for mask in run}
    assert len(different) == 8 * 3 * 2  # runs, batches, layers


@pytest.mark.parametrize(("rate", "expected"), [(0.0, 1.0), (1.0, 0.0)])
def test_dropout_at_its_limits_keeps_all_or_nothing(rate, expected):
    assert FastDropout(rate)(torch.ones(5)).tolist() == [expected] * 5


def test_dropout_is_the_identity_in_eval_mode():
    x = torch.rand(10)

    assert FastDropout(0.5).eval()(x) is x


@pytest.mark.parametrize("x", [torch.ones(8, 8)[:, ::2], torch.ones(()), torch.ones(0, 3), torch.ones(2, 3, 4)])
def test_dropout_takes_any_shape(x):
    out = FastDropout(0.5)(x)

    assert out.shape == x.shape
    assert set(out.unique().tolist()) <= {0.0, 2.0}


@pytest.mark.parametrize(
    ("change", "x"),
    [
        pytest.param(lambda m: m.eval(), torch.rand(2, 1, 8, 8), id="evaluation"),
        pytest.param(lambda m: m.double(), torch.rand(2, 1, 8, 8, dtype=torch.float64), id="float64"),
        pytest.param(lambda m: setattr(m, "activation", nn.GELU()), torch.rand(2, 1, 8, 8), id="gelu"),
        pytest.param(lambda m: setattr(m, "pool", nn.MaxPool2d(3)), torch.rand(2, 1, 8, 8), id="pool of 3"),
        pytest.param(lambda m: setattr(m, "pool", nn.Identity()), torch.rand(2, 1, 8, 8), id="no pool"),
        pytest.param(lambda m: setattr(m, "dropout", nn.Dropout(0.0)), torch.rand(2, 1, 8, 8), id="stock dropout"),
    ],
)
def test_the_stock_layers_run_where_there_is_no_kernel(change, x):
    module = block()
    change(module)

    out = module(x)

    assert out.grad_fn.name() != KERNEL
    stock = (module.pad, module.conv, module.norm, module.activation, module.pool, module.dropout)
    torch.testing.assert_close(out, nn.Sequential(*stock)(x))


class Standardized(nn.Conv2d):
    def forward(self, x):
        return F.conv2d(x, self.weight - self.weight.mean(), self.bias, padding=1)


def replace_forward(module):
    forward = module.conv.forward
    module.conv.forward = lambda x: 2 * forward(x)


def prune_filters(module):
    module.conv.weight = nn.Parameter(module.conv.weight[:13].detach())
    module.conv.bias = nn.Parameter(module.conv.bias[:13].detach())


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda m: setattr(m, "conv", Standardized(1, 16, 3, padding=1)), id="a subclass"),
        pytest.param(replace_forward, id="a forward of its own"),
        pytest.param(prune_filters, id="filters taken out"),
        pytest.param(lambda m: setattr(m, "conv", nn.Conv2d(1, 16, 3, padding="same")), id="padding by name"),
        pytest.param(lambda m: setattr(m, "conv", nn.Conv2d(1, 16, 3, padding="valid")), id="no padding, by name"),
        pytest.param(lambda m: setattr(m, "conv", nn.Sequential(m.conv, nn.BatchNorm2d(16))), id="two layers"),
    ],
)
def test_a_convolution_that_was_changed_is_the_one_that_runs(change):
    module, x = block(1, 3), torch.rand(4, 1, 9, 9)
    change(module)
    module.eval()  # batch normalisation's statistics stay
    for part in (module.activation, module.pool, module.dropout):
        part.train()

    out = module(x)
    out.sum().backward()
    found = [parameter.grad.clone() for parameter in module.parameters()]
    module.zero_grad()
    stock = F.max_pool2d(F.relu(module.conv(x)), 2)
    stock.sum().backward()

    torch.testing.assert_close(out, stock)
    torch.testing.assert_close(found, [parameter.grad for parameter in module.parameters()])


@pytest.mark.parametrize(
    ("module", "x"),
    [
        pytest.param(block(), torch.rand(2, 3, 8, 8), id="too many channels"),
        pytest.param(block().double(), torch.rand(2, 1, 8, 8), id="weights of another type"),
    ],
)
def test_what_the_stock_layers_refuse_is_refused(module, x):
    with pytest.raises(RuntimeError):
        module(x)


@pytest.mark.parametrize("training", [True, False])
def test_a_compiler_gets_the_stock_layers_as_one_graph(training):
    network, x = FashionCNN(conv_dropout=0.0, hidden_dropout=0.0).train(training), torch.rand(4, 1, 28, 28)

    compiled = torch.compile(network, backend="aot_eager", fullgraph=True)

    torch.testing.assert_close(compiled(x), network(x))


def test_an_image_without_a_batch_is_taken():
    module, x = block(1, 3), torch.rand(1, 8, 8)

    torch.testing.assert_close(module(x), module(x[None])[0])


def test_each_example_has_a_gradient_by_vmap():
    module, x = block(3, 3), torch.rand(4, 3, 8, 8)
    weights = {name: value.detach() for name, value in module.named_parameters()}

    def loss(weights, image):
        return functional_call(module, weights, image[None]).square().sum()

    found = vmap(grad(loss), (None, 0))(weights, x)
    module(x[2:3]).square().sum().backward()
    torch.testing.assert_close(found["conv.weight"][2], module.conv.weight.grad)


@pytest.mark.parametrize("training", [True, False])
def test_a_hook_of_all_modules_sees_every_layer(training):
    module, seen = block().train(training), []
    hook = register_module_forward_hook(lambda module, _, output: seen.append((type(module).__name__, output.shape[2])))
    try:
        module(torch.randn(1, 1, 8, 8))
    finally:
        hook.remove()

    assert ("Conv2d", 8) in seen
    assert ("ReLU", 8) in seen
    assert ("MaxPool2d", 4) in seen


def test_operations_are_counted_as_those_of_the_stock_layers():
    with FlopCounterMode(display=False) as counter:
        block(1, 3)(torch.rand(2, 1, 8, 8))

    assert counter.get_total_flops() == 2 * 2 * 16 * 9 * 8 * 8


def test_an_infinite_value_that_is_dropped_is_no_number_as_with_the_stock_layers():
    out = block(3, 3, dropout=0.9)(torch.full((8, 3, 8, 8), math.nan))

    assert bool(out.isnan().all())


def test_dropout_keeps_the_type_whatever_the_default_is():
    torch.set_default_dtype(torch.float64)
    try:
        assert FastDropout(0.5)(torch.ones(4, 8, dtype=torch.float32)).dtype == torch.float32
    finally:
        torch.set_default_dtype(torch.float32)


def test_an_image_that_needs_a_gradient_gets_it():
    x, module = torch.rand(2, 1, 8, 8, requires_grad=True), block(1, 3)

    module(x).sum().backward()

    stock = x.detach().requires_grad_()
    F.max_pool2d(F.relu(module.conv(stock)), 2).sum().backward()
    torch.testing.assert_close(x.grad, stock.grad)


def test_under_autocast_the_stock_layers_run():
    with torch.autocast("cpu", torch.bfloat16):
        assert block(dropout=0.5)(torch.rand(2, 1, 8, 8)).dtype == torch.bfloat16


@pytest.mark.parametrize("training", [True, False])
def test_a_torch_function_mode_sees_every_position(training):
    seen = []

    class Watch(TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            if func is F.relu:
                seen.append(tuple(args[0].shape))
            return func(*args, **(kwargs or {}))

    with Watch():
        block().train(training)(torch.randn(1, 1, 8, 8))

    assert seen == [(1, 16, 8, 8)]


def test_threads_that_evaluate_one_module_leave_its_relu_as_it_was():
    module, x = block().eval(), torch.randn(8, 1, 28, 28)
    module.pool = nn.Identity()

    def evaluate(_):
        with torch.no_grad():
            return [module(x) for _ in range(50)][-1]

    with ThreadPoolExecutor(2) as pool:
        outputs = list(pool.map(evaluate, range(2)))

    assert not module.activation.inplace
    assert torch.equal(*outputs)


def test_what_a_hook_of_all_modules_holds_is_not_written_over():
    module, held = block().eval(), []
    hook = register_module_forward_hook(lambda m, _, output: held.append(output) if m is module.conv else None)
    try:
        with torch.no_grad():
            module.pool = nn.Identity()
            module(torch.randn(1, 1, 8, 8))
    finally:
        hook.remove()

    assert bool((held[0] < 0).any())


@pytest.mark.parametrize("hooked", ["conv", "activation"])
def test_what_a_hook_holds_of_the_convolution_is_not_written_over(hooked):
    module, held, sites = block().eval(), [], ReLUSites()
    x = torch.randn(1, 1, 8, 8)
    module.get_submodule(hooked).register_forward_hook(
        lambda _, inputs, output: held.append(output if hooked == "conv" else inputs[0])
    )

    with torch.no_grad():
        sites.attach(module)
        sites.begin_pass()
        module(x)
        sites.detach()

    torch.testing.assert_close(held[0], module.conv(module.pad(x)))
    assert bool((held[0] < 0).any())


def test_watched_in_evaluation_the_output_keeps_every_bit():
    module, x, sites = block().eval(), torch.randn(2, 1, 8, 8), ReLUSites()

    with torch.no_grad():
        alone = module(x)
        sites.attach(module)
        sites.begin_pass()
        watched = module(x)
        sites.detach()

    assert torch.equal(watched, alone)
    assert not module.activation.inplace


@pytest.mark.parametrize(("activation", "size"), [("relu", 4), ("leaky_relu", 4), ("gelu", 8)])
def test_in_evaluation_what_a_maximum_may_precede_runs_after_the_pool(activation, size, monkeypatch):
    module, seen = block(activation=activation).eval(), []
    kind, forward = type(module.activation), type(module.activation).forward
    monkeypatch.setattr(kind, "forward", lambda self, x: [seen.append(x.shape[2]), forward(self, x)][1])

    module(torch.randn(1, 1, 8, 8))

    assert seen == [size]


def train(network: nn.Module, steps: int = 2) -> torch.Tensor:
    """Weights after some steps, one after the other."""
    torch.manual_seed(3)
    optimizer = torch.optim.SGD(network.parameters(), 0.1)
    for _ in range(steps):
        optimizer.zero_grad()
        F.cross_entropy(network(torch.rand(8, 1, 28, 28)), torch.arange(8)).backward()
        optimizer.step()
    return torch.cat([parameter.detach().flatten() for parameter in network.parameters()])


def network() -> nn.Module:
    torch.manual_seed(0)
    return FashionCNN().to(memory_format=torch.channels_last)


def block_gradient() -> torch.Tensor:
    module = block(1, 3)
    for parameter in module.parameters():
        nn.init.constant_(parameter, 0.5)
    for _ in range(20):
        module(torch.linspace(0, 1, 640).view(10, 1, 8, 8)).mean().backward()
    return module.conv.weight.grad


def test_threads_of_one_process_train_side_by_side():
    torch.set_num_threads(2)
    with ThreadPoolExecutor(3) as pool:
        gradients = [future.result() for future in [pool.submit(block_gradient) for _ in range(3)]]

    assert all(torch.equal(gradient, block_gradient()) for gradient in gradients)


SCRIPT = """
import os, sys, torch
torch.set_num_threads(2)
from tests.fmnist_pl.test_fast_layers import network, train
"""


def python(script: str, **environment: str) -> subprocess.CompletedProcess:
    path = os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "callbacks")])
    return subprocess.run(
        [sys.executable, "-c", SCRIPT + script],
        env={**os.environ, "PYTHONPATH": path, **environment},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.mark.slow
def test_after_a_fork_the_stock_layers_train():
    """With one thread: torch's own pool of threads does not survive a fork."""
    result = python("""
train(network())
if child := os.fork():
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
torch.set_num_threads(1)
net = network()
assert net.conv1(torch.rand(2, 1, 28, 28)).grad_fn.name() != "_PoolDropoutBackward"
assert train(net).isfinite().all()
os._exit(0)
""")

    assert result.returncode == 0, result.stderr


@pytest.mark.slow
def test_two_ranks_average_their_gradients():
    result = python("""
import torch.distributed as dist, torch.multiprocessing as mp
def rank(number, port):
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    dist.init_process_group("gloo", rank=number, world_size=2)
    net = network()
    weights = train(torch.nn.parallel.DistributedDataParallel(net))
    both = [torch.empty_like(weights) for _ in range(2)]
    dist.all_gather(both, weights)
    assert net.conv1(torch.rand(2, 1, 28, 28)).grad_fn.name() == "_PoolDropoutBackward"
    assert torch.equal(*both) and both[0].isfinite().all()
    dist.destroy_process_group()
import socket
with socket.socket() as s:
    s.bind(("127.0.0.1", 0))
    port = s.getsockname()[1]
mp.start_processes(rank, (port,), nprocs=2, start_method="fork")
""")

    assert result.returncode == 0, result.stderr


@pytest.mark.slow
def test_a_cache_that_cannot_be_written_means_compiling_and_one_line(tmp_path):
    (tmp_path / "file").touch()

    result = python(
        "print(train(network()).isfinite().all().item())",
        NUMBA_CACHE_DIR=str(tmp_path / "file" / "cache"),
        NUMBA_CACHE_LOCATOR_CLASSES="UserProvidedCacheLocator",
    )

    assert result.stdout == "True\n", result.stderr
    assert result.stderr.count("Compiling") == 1
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.slow
def test_the_kernels_are_compiled_once(tmp_path):
    said = [python("train(network())", NUMBA_CACHE_DIR=str(tmp_path)).stderr for _ in range(2)]

    assert ["Compiling" in text for text in said] == [True, False]


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "size"), [("*.nbc", 100), ("*.nbi", 0)])
def test_a_damaged_cache_means_compiling(tmp_path, kind, size):
    python("train(network())", NUMBA_CACHE_DIR=str(tmp_path))
    damaged = list(tmp_path.rglob(kind))
    for file in damaged:
        os.truncate(file, size)

    result = python("print(train(network()).isfinite().all().item())", NUMBA_CACHE_DIR=str(tmp_path))

    assert len(damaged) >= 3
    assert result.stdout == "True\n", result.stderr


@pytest.mark.slow
def test_where_numba_is_to_compile_nothing_the_stock_layers_train():
    result = python("print(train(network()).isfinite().all().item())", NUMBA_DISABLE_JIT="1")

    assert result.stdout == "True\n", result.stderr


@pytest.mark.slow
def test_loading_the_kernels_leaves_torchs_number_of_threads():
    assert python("torch.set_num_threads(1); train(network()); print(torch.get_num_threads())").stdout == "1\n"


@pytest.mark.slow
def test_without_numba_the_stock_layers_train():
    result = python("""
sys.modules["numba"] = None
net = network()
assert net.conv1(torch.rand(2, 1, 28, 28)).grad_fn.name() != "_PoolDropoutBackward"
print(train(net).isfinite().all().item())
""")

    assert result.stdout == "True\n", result.stderr
