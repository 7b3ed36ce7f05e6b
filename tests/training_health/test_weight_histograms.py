"""Histograms, update ratios and counts of non-finite values, beside a real fit."""

import json
import math

import pytest
import torch
from tensorboard.util.tensor_util import make_ndarray
from torch import nn
from torch.nn import functional as F

from tests.training_health.toys import FEW_EXAMPLES, Toy, events, fit, loader, make_trainer, pl
from training_health import WeightHistogramMonitor
from training_health.lightning import MisconfigurationException

pytestmark = FEW_EXAMPLES


def run(module, folder, *monitors, **options):
    callbacks = list(monitors) or [WeightHistogramMonitor()]
    return fit(module, callbacks, folder, logger="tensorboard", **({"epochs": 1} | options))


def records(folder, tag: str) -> list[dict[str, float]]:
    """The values by parameter in each record of a tag."""
    found, names = [], []
    for _, _, value in (e for e in events(folder) if e[0] == f"training_health/{tag}"):
        if content := value.metadata.plugin_data.content:  # of a file's first record
            names = json.loads(content)["parameters"]
        found.append(dict(zip(["epoch", "n", *names], make_ndarray(value.tensor).tolist(), strict=True)))
    return found


def histograms(folder) -> dict[tuple[str, int], list[list[float]]]:
    """Buckets (left, right, count) by tag and step, as TensorBoard reads them."""
    read = [(tag, step, v) for tag, step, v in events(folder) if v.metadata.plugin_data.plugin_name == "histograms"]
    return {(tag, step): make_ndarray(value.tensor).tolist() for tag, step, value in read}


class Noting(pl.Callback):
    """Keeps the weights before and after the last optimiser step, and the gradients."""

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        self.before = {name: parameter.detach().clone() for name, parameter in pl_module.named_parameters()}
        self.gradients = {name: parameter.grad.clone() for name, parameter in pl_module.named_parameters()}

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.after = {name: parameter.detach().clone() for name, parameter in pl_module.named_parameters()}


@pytest.mark.parametrize(
    "options",
    [{}, {"epochs": 3}, {"accumulate_grad_batches": 2}, {"limit_train_batches": 3}, {"max_steps": 3, "epochs": -1}],
    ids=lambda options: "-".join(options) or "plain",
)
def test_the_update_ratio_is_that_of_the_epochs_last_step(options, tmp_path):
    noting = Noting()

    trainer = run(Toy(), tmp_path, noting, WeightHistogramMonitor(), **options)

    record = records(tmp_path, "update_ratio")[-1]
    for name, before in noting.before.items():
        ratio = ((noting.after[name] - before).norm() / before.norm()).item()
        logged = trainer.callback_metrics[f"update_ratio/{name}"].item()
        assert (logged, record[name]) == pytest.approx((ratio, ratio), rel=1e-5)


class Halving(pl.Callback):
    def on_train_epoch_end(self, trainer, pl_module):
        with torch.no_grad():
            pl_module.net[7].weight.mul_(0.5)


def test_the_update_ratio_is_the_steps_alone_where_a_callback_changes_weights_at_the_epochs_end(tmp_path):
    noting = Noting()

    trainer = run(Toy(), tmp_path, noting, Halving(), WeightHistogramMonitor())

    before, after = noting.before["net.7.weight"], noting.after["net.7.weight"]
    ratio = trainer.callback_metrics["update_ratio/net.7.weight"].item()
    assert ratio == pytest.approx(((after - before).norm() / before.norm()).item(), rel=1e-4)
    assert ratio < 0.3


def test_weights_and_the_last_steps_gradients_are_drawn_each_epoch(tmp_path):
    noting, module = Noting(), Toy()

    run(module, tmp_path, noting, WeightHistogramMonitor(bins=8), epochs=2)

    drawn = histograms(tmp_path)
    names = [name for name, _ in module.named_parameters()]
    assert set(drawn) == {(f"{kind}/{n}", step) for kind in ("weights", "gradients") for n in names for step in (4, 9)}
    for kind, tensors in (("weights", noting.after), ("gradients", noting.gradients)):
        for name, tensor in tensors.items():
            buckets = drawn[f"{kind}/{name}", 9]
            assert (len(buckets), sum(count for _, _, count in buckets)) == (8, tensor.numel())
            assert (buckets[0][0], buckets[-1][1]) == (tensor.min().item(), tensor.max().item())


def test_patterns_choose_parameters_and_epochs_are_skipped(tmp_path):
    run(Toy(), tmp_path, WeightHistogramMonitor(["*.weight", "net.7.*"], every_n_epochs=2), epochs=4)

    weights = {"net.0.weight", "net.1.weight", "net.5.weight", "net.7.weight", "net.7.bias"}
    assert {tag.removeprefix("weights/") for tag, _ in histograms(tmp_path) if tag.startswith("weights")} == weights
    assert [record["epoch"] for record in records(tmp_path, "nonfinite")] == [1, 3]


class Linear(Toy):
    """Two layers; ``optimised`` names the part that the optimiser holds, ``lost`` a weight whose gradient gets lost."""

    def __init__(self, optimised: str = "net", lost: str = "", learning_rate: float = 0.1) -> None:
        super().__init__(nn.Sequential(nn.Flatten(), nn.Linear(36, 8), nn.Linear(8, 4)), learning_rate=learning_rate)
        self.optimised, self.lost = optimised, lost

    def on_after_backward(self):
        if self.lost:
            self.get_parameter(self.lost).grad = None

    def configure_optimizers(self):
        return torch.optim.SGD(self.get_submodule(self.optimised).parameters(), self.learning_rate)


def test_nan_weights_and_gradients_are_counted_and_the_run_goes_on(tmp_path):
    module = Linear()
    with torch.no_grad():
        module.net[1].weight[0, :2] = torch.tensor([math.nan, math.inf])

    logged = run(module, tmp_path).callback_metrics

    weight = torch.isfinite(module.net[1].weight).logical_not().sum().item()
    assert logged["nonfinite/net.1.weight"].item() == records(tmp_path, "nonfinite")[0]["net.1.weight"] == weight > 0
    assert logged["nonfinite_gradients/net.2.bias"].item() == 4
    assert records(tmp_path, "nonfinite_gradients")[0]["net.2.bias"] == 4
    assert ("gradients/net.2.bias", 4) not in histograms(tmp_path)  # nothing finite to draw


def frozen() -> Toy:
    module = Linear()
    module.net[1].requires_grad_(False)
    return module


def without_bias_values() -> Toy:
    module = Linear(learning_rate=0.0)
    nn.init.zeros_(module.net[1].bias)
    return module


@pytest.mark.parametrize(
    ("make", "parameter", "ratio"),
    [
        (lambda: Linear(optimised="net.2"), "net.1.weight", 0.0),
        (lambda: Linear(lost="net.2.weight"), "net.2.weight", 0.0),
        (frozen, "net.1.weight", None),
        (without_bias_values, "net.1.bias", None),  # its norm is 0
    ],
    ids=["in_no_optimiser", "without_gradient", "frozen", "norm_zero"],
)
def test_a_parameter_that_does_not_move_shows_as_such_unless_it_is_meant_to(make, parameter, ratio, tmp_path):
    logged = run(make(), tmp_path).callback_metrics

    recorded = records(tmp_path, "update_ratio")[0][parameter]
    assert logged.get(f"update_ratio/{parameter}") == ratio
    assert math.isnan(recorded) if ratio is None else recorded == ratio
    assert "update_ratio/net.2.bias" in logged


def test_empty_and_sparse_parameters_are_no_trouble(tmp_path):
    class Odd(Linear):
        def training_step(self, batch, batch_idx):
            return F.cross_entropy(self.net(batch[0]) + self.table(batch[1]), batch[1]) + self.empty.sum()

    module = Odd(optimised="")
    module.empty, module.table = nn.Parameter(torch.empty(0, 3)), nn.Embedding(10, 4, sparse=True)
    run(module, tmp_path)

    assert records(tmp_path, "nonfinite")[0]["empty"] == 0
    assert ("gradients/table.weight", 4) in histograms(tmp_path)


class Alternating(Toy):
    """Optimisers that are stepped by hand, each in the batches of its own; notes the weights before every step."""

    def __init__(self, *schedules):
        super().__init__(nn.ModuleList(nn.Linear(36, 4) for _ in schedules))
        self.automatic_optimization, self.schedules, self.before = False, schedules, {}

    def training_step(self, batch, batch_idx):
        for index, (part, steps_in) in enumerate(zip(self.net, self.schedules, strict=True)):
            optimizer = self.optimizers()[index] if len(self.net) > 1 else self.optimizers()
            for _ in range(steps_in(batch_idx, self.current_epoch)):
                optimizer.zero_grad()
                self.manual_backward(F.cross_entropy(part(batch[0].flatten(1)), batch[1]))
                self.before[index] = part.weight.detach().clone()
                optimizer.step()

    def configure_optimizers(self):
        return [torch.optim.SGD(part.parameters(), 0.1) for part in self.net]


def train(module, folder, examples=50, **options):
    trainer = make_trainer([WeightHistogramMonitor()], folder, limit_val_batches=0, **options)
    trainer.fit(module, loader(examples), loader(4))
    return trainer


def every(period, offset=0):
    return lambda batch, epoch: batch % period == offset


@pytest.mark.parametrize(
    ("schedules", "options"),
    [
        ([every(1), every(3)], {"epochs": 1}),  # a GAN whose generator steps now and then
        ([every(1), every(3)], {"max_steps": 10}),  # in the middle of the epoch
        ([every(1), every(1)], {"max_steps": 7}),
        ([every(2), every(2, 1)], {"epochs": 1}),
        ([every(1), lambda batch, epoch: batch == 0], {"epochs": 1}),  # once
        ([lambda batch, epoch: batch < 5, lambda batch, epoch: batch >= 5], {"epochs": 2}),  # half of the epoch each
        ([lambda batch, epoch: 3 * (batch % 4 == 0), every(1)], {"epochs": 1}),  # three steps in one batch
        ([lambda batch, epoch: (batch + epoch) % 4 == 0], {"epochs": 3}),  # another batch in each epoch
        ([lambda batch, epoch: batch % 3 != 2], {"epochs": 2}),
    ],
)
@pytest.mark.filterwarnings("ignore:.*earlier than foreseen in epoch 0")
def test_each_optimisers_last_step_of_the_epoch_is_measured(schedules, options, tmp_path):
    module = Alternating(*schedules)

    metrics = train(module, tmp_path, **options).callback_metrics

    for index, before in module.before.items():
        ratio = ((module.net[index].weight.detach() - before).norm() / before.norm()).item()
        assert metrics[f"update_ratio/net.{index}.weight"].item() == pytest.approx(ratio, rel=1e-4)


class Copies(torch.overrides.TorchFunctionMode):
    """Counts the copies of a weight of 4 x 36 elements."""

    number = 0

    def __torch_function__(self, func, types, args=(), kwargs=None):
        self.number += func is torch.Tensor.copy_ and args[0].shape == (4, 36)
        return func(*args, **(kwargs or {}))


def test_few_steps_are_measured(tmp_path):
    with Copies() as copies:
        train(Alternating(every(1), every(7)), tmp_path, examples=200, epochs=3)  # 40 batches

    assert copies.number <= 2 * 2 * 4  # two optimisers, weights and gradients, three last steps and the first of all


@pytest.mark.parametrize(
    ("schedule", "words"),
    [(lambda batch, epoch: batch < 2, "earlier than foreseen"), (lambda batch, epoch: False, "no step")],
)
def test_an_optimiser_that_was_not_measured_is_named_once(schedule, words, tmp_path):
    with pytest.warns(UserWarning, match=words) as caught:
        trainer = train(Alternating(every(1), schedule), tmp_path, epochs=3)

    assert len([w for w in caught if "Optimiser 1 (SGD)" in str(w.message)]) == 1
    assert ("update_ratio/net.1.weight" in trainer.callback_metrics) is (
        "foreseen" in words
    )  # from the second epoch on
    assert records(tmp_path, "nonfinite")[2]["net.1.weight"] == 0


def test_an_epoch_that_is_cut_short_is_measured_from_the_second_on(tmp_path):
    class Cut(Toy):
        def on_train_batch_start(self, batch, batch_idx):
            return -1 if batch_idx == 3 else None

    with pytest.warns(UserWarning, match="earlier than foreseen"):
        run(Cut(), tmp_path, epochs=2)

    assert [record["epoch"] for record in records(tmp_path, "update_ratio") if record["net.0.weight"] > 0] == [1]


def test_a_step_that_evaluates_its_loss_several_times_is_one(tmp_path):
    class Quadratic(Toy):
        def configure_optimizers(self):
            return torch.optim.LBFGS(self.parameters(), 0.01, max_iter=3)

    class Start(pl.Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            self.before = pl_module.net[7].weight.detach().clone()

    module, start = Quadratic(), Start()
    trainer = run(module, tmp_path, start, WeightHistogramMonitor())

    expected = (module.net[7].weight - start.before).norm() / start.before.norm()
    assert trainer.callback_metrics["update_ratio/net.7.weight"].item() == pytest.approx(expected.item(), rel=1e-4)


@pytest.mark.filterwarnings("ignore:Lazy modules", "ignore:.*uninitialized parameter")
def test_parameters_that_come_later_are_drawn_from_then_on(tmp_path):
    class Growing(Toy):
        def on_train_epoch_start(self):
            if self.current_epoch == 1:
                self.more = nn.Linear(3, 2)

    lazy = nn.Sequential(nn.Flatten(), nn.LazyLinear(8), nn.Linear(8, 4))
    trainer = run(Growing(lazy), tmp_path, epochs=2)

    assert trainer.callback_metrics["update_ratio/net.1.weight"].item() > 0
    assert ("gradients/net.1.weight", 4) in histograms(tmp_path)
    assert [name for name, step in histograms(tmp_path) if step == 9 and "more" in name]
    assert trainer.callback_metrics["update_ratio/more.weight"].item() == 0  # in no optimiser


def test_a_parameter_of_a_kind_that_cannot_be_read_is_named_and_the_others_are_drawn(tmp_path):
    class Packed(torch.Tensor):
        @classmethod
        def __torch_function__(cls, func, types, args=(), kwargs=None):
            if func is torch.Tensor.flatten:
                raise NotImplementedError("no flatten\nand more")
            return super().__torch_function__(func, types, args, kwargs)

    module = Toy(nn.Sequential(nn.Flatten(), nn.Linear(36, 4)))
    module.packed = nn.Parameter(torch.ones(3).as_subclass(Packed), requires_grad=False)
    with pytest.warns(UserWarning, match="has no histogram of packed: no flatten$") as caught:
        run(module, tmp_path)

    assert len([w for w in caught if "packed" in str(w.message)]) == 1
    assert {name for name, _ in histograms(tmp_path) if "weights" in name} == {
        "weights/net.1.weight",
        "weights/net.1.bias",
    }


def test_a_complex_parameter_is_drawn_by_its_parts(tmp_path):
    class Spectral(Toy):
        def training_step(self, batch, batch_idx):
            return F.cross_entropy(self.net(batch[0]) * self.phase.abs(), batch[1])

    module = Spectral(nn.Sequential(nn.Flatten(), nn.Linear(36, 4)))
    module.phase = nn.Parameter(torch.tensor([1 + 1j]))
    trainer = run(module, tmp_path)

    assert sum(count for _, _, count in histograms(tmp_path)["weights/phase", 4]) == 2
    assert trainer.callback_metrics["update_ratio/phase"].item() > 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"every_n_epochs": 0}, "not 0 and 64"), ({"bins": 0}, "not 1 and 0"),
        ({"parameters": "conv*"}, "net.0.weight, net.0.bias"),
    ],
)  # fmt: skip
def test_a_wrong_argument_is_an_error_that_names_it_or_what_there_is(options, message, tmp_path):
    with pytest.raises(MisconfigurationException, match=message):
        fit(Toy(), [WeightHistogramMonitor(**options)], tmp_path)
