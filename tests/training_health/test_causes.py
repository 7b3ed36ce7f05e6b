"""Why units are dead: planted causes are named, whatever the form of the network, and no other ones."""

import math
import time
from collections import defaultdict
from functools import partial
from itertools import product
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tensorboard.util import tensor_util
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from tests.training_health.toys import FEW_EXAMPLES, Toy, events, image_set, make_trainer, pl
from training_health import DeadReLUMonitor, inspect
from training_health.batches import BatchSize
from training_health.health.health_run import HealthRun, read_run
from training_health.relu.causes import weight_change
from training_health.relu.sites import ReLUSites
from training_health.relu.sub_windows import SubWindows, predicted, sub_windows
from training_health.relu.unit_counts import UnitCounter, WindowCounts

pytestmark = FEW_EXAMPLES
NAN = math.nan
few = settings(deadline=None, max_examples=40)

# Inputs are uniform in [0, 1]. A row is a unit's eight weights and its bias.
FIRST = torch.tensor([
    [*[-0.5] * 8, -0.1],  # no such input makes it fire
    [1.0, *[-1.0] * 7, 0.0],  # the first input could, but their mean is in the way
    [*[1.0, -1.0] * 4, -3.9],  # its weights add up to nothing: it is the bias
    *[[0.0] * i + [1.0] + [0.0] * (7 - i) + [0.1] for i in range(5)],
])  # fmt: skip
SECOND = torch.tensor([
    [1.0, 2.0, -1.0, 0, 0, 0, 0, 0, -0.1],  # reads the three dead units
    [0, 0, 0, 1.0, 1.0, 0, 0, 0, NAN],
    [0, 0, 0, 1.0, 0, 0, 0, 0, 0.2],  # killed in the second epoch
    [0, 0, 0, 0, 0, 1.0, 1.0, 1.0, 0.3],
])  # fmt: skip
CAUSES = [{0: "any input", 1: "mean shift", 2: "bias"}, {0: "dead inputs", 1: "not a number", 2: "killed"}]


class Planted(nn.Module):
    """Two layers with planted causes, in one of several forms."""

    def __init__(self, form: str) -> None:
        super().__init__()
        self.form, own_bias = form, form != "batch_norm"
        self.first, self.second = nn.Linear(8, 8, own_bias), nn.Linear(8, 4, own_bias)
        if form == "convolution":
            self.first, self.second = nn.Conv2d(8, 8, 1, padding=1), nn.Linear(8 * 16, 4)
        self.one, self.other = nn.ReLU(), nn.ReLU()
        self.shared = nn.ReLU(inplace=True)
        self.norms = nn.ModuleList([nn.BatchNorm1d(8), nn.BatchNorm1d(4)])
        self.end = nn.Linear(4, 4)
        with torch.no_grad():
            self.first.weight.copy_(FIRST[:, :8].reshape(self.first.weight.shape))
            self.second.weight.copy_(SECOND[:, :8].repeat_interleave(self.second.in_features // 8, 1))
            for layer, norm, rows in ((self.first, self.norms[0], FIRST), (self.second, self.norms[1], SECOND)):
                (layer if own_bias else norm).bias.copy_(rows[:, 8])

    def kill(self) -> None:
        with torch.no_grad():
            self.second.weight[2] = -9.0
            (self.norms[1] if self.form == "batch_norm" else self.second).bias[2] = -9.0

    def forward(self, x):
        if self.form == "shared_in_place":
            return self.end(self.shared(self.second(self.shared(self.first(x)))))
        if self.form == "functional":
            x = torch.relu_(F.linear(x, self.first.weight, self.first.bias).view(len(x), 8))
            x = torch.addmm(self.second.bias, F.dropout(x, training=self.training), self.second.weight.t())
            return self.end(torch.where(x > 0, x, 0.0))
        if self.form == "products":
            x = (x @ self.first.weight.T + self.first.bias).clamp_min(0)
            x = x @ self.second.weight.T
            x += self.second.bias
            x[x < 0] = 0
            return self.end(x)
        if self.form == "batch_norm":
            x = self.one(self.norms[0](self.first(x)))
            return self.end(F.relu(self.norms[1](self.second(x)), inplace=True))
        if self.form == "convolution":
            x = F.relu(self.first(x[:, :, None, None].expand(-1, -1, 2, 2)), inplace=True)
            return self.end(self.other(self.second(x.flatten(1))))
        return self.end(self.other(self.second(self.one(self.first(x)))))


class Run(Toy):
    """Its weights change where they are planted to, and only there."""

    def training_step(self, batch, batch_idx):
        return sum((parameter * 0).sum() for parameter in self.parameters())

    def on_train_epoch_start(self):
        if self.current_epoch == 1:
            self.net.kill()


def examples(count: int, batch_size: int = 50) -> DataLoader:
    generator = torch.Generator().manual_seed(0)
    data = TensorDataset(torch.rand(count, 8, generator=generator), torch.zeros(count, dtype=torch.long))
    return DataLoader(data, batch_size=batch_size)


def read(folder) -> HealthRun:
    """The run that a fit logged."""
    contents, data = {}, defaultdict(list)
    for number, (tag, step, value) in enumerate(events(folder)):
        if value.metadata.plugin_data.plugin_name == "training_health" or tag in contents:
            contents.setdefault(tag, value.metadata.plugin_data.content)
            array = tensor_util.make_ndarray(value.tensor)
            data[tag].append(SimpleNamespace(step=step, wall_time=float(number), numpy=array))
    return read_run("run", contents, data)


FORMS = ["modules", "shared_in_place", "functional", "products", "batch_norm", "convolution"]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.filterwarnings("ignore:1 units gave NaN")
def test_each_planted_cause_is_named_in_every_form_and_survives_the_log(form, tmp_path):
    monitor = DeadReLUMonitor()
    trainer = make_trainer([monitor], tmp_path, epochs=3, logger="tensorboard", num_sanity_val_steps=-1)
    trainer.fit(Run(Planted(form)), examples(50), examples(200))

    run = read(tmp_path)
    assert run.problems == []
    assert [{u: name for u, name in enumerate(site.causes_now) if name} for site in run.sites] == CAUSES
    first, second = monitor.summary()["sites"].values()
    assert (first["dead_unit_causes"], first["born_dead"], first["died_in_epoch"]) == (list(CAUSES[0].values()), 3, {})
    assert (second["dead_unit_causes"], second["died_in_epoch"]) == (["dead inputs", "killed"], {"2": 1})
    assert run.sites[1].died_in[[0, 2]].tolist() == run.sites[1].causes.field("since")[-1, [0, 2]].tolist() == [-1, 1]
    assert run.sites[1].causes.field("weight_change")[-1, 2] >= 1
    assert (run.sites[0].start.n, len(run.sites[0].start.activity)) == (200, 8)
    assert "1 killed between two epochs" in monitor.sentence()
    assert "1 born dead, 1 died in epoch 2." in monitor.sentence()


class Native(nn.Module):
    """Calls ``torch.batch_norm``, as exported networks do."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.norm = nn.Linear(8, 3), nn.BatchNorm1d(3)

    def forward(self, x):
        norm = self.norm
        statistics = norm.running_mean, norm.running_var
        return F.relu(torch.batch_norm(self.layer(x), norm.weight, norm.bias, *statistics, False, 0.1, norm.eps, False))


def test_both_orders_of_the_arguments_of_a_batch_normalisation_give_the_same_causes():
    torch.manual_seed(0)
    native = Native().eval()
    with torch.no_grad():
        native.norm.running_mean.uniform_(-1, 1)
        native.norm.running_var.uniform_(0.01, 0.05)
        native.norm.bias.copy_(torch.tensor([-9.0, -400.0, 20.0]))
    stock = nn.Sequential(native.layer, native.norm, nn.ReLU())
    batches = [torch.rand(40, 8)]

    found = [list(inspect(net, batches).report.verdicts.values()) for net in (native, stock)]

    assert found[0] == found[1]
    assert [verdict.cause for verdict in found[0][0].values()] == ["bias", "any input"]
    assert [verdict.bias for verdict in found[0][0].values()] == [-9, -400]


@pytest.mark.parametrize("seed", range(5))
def test_a_healthy_run_has_no_cause(seed, tmp_path):
    pl.seed_everything(seed)
    net = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(),
        nn.Linear(64, 8), nn.BatchNorm1d(8), nn.ReLU(inplace=True), nn.Linear(8, 4),
    )  # fmt: skip
    monitor, found = DeadReLUMonitor(), []
    note = pl.callbacks.LambdaCallback(on_train_epoch_end=lambda *_: found.append(monitor.summary()["sites"]))
    trainer = make_trainer([monitor, note], tmp_path, epochs=3, num_sanity_val_steps=-1)
    trainer.fit(Toy(net, learning_rate=0.01), DataLoader(image_set(120), 20), DataLoader(image_set(200), 50))

    assert [site["causes"] for sites in found for site in sites.values()] == [{}] * 6


def test_without_a_sanity_check_the_start_is_unknown(tmp_path):
    monitor = DeadReLUMonitor()
    trainer = make_trainer([monitor], tmp_path, epochs=1, logger="tensorboard")
    net = Planted("modules")
    with torch.no_grad():
        net.second.bias[1] = 0.0
    trainer.fit(Run(net), examples(50), examples(200))

    site = next(iter(monitor.summary()["sites"].values()))
    assert (site["born_dead"], site["died_in_epoch"], monitor.summary()["start_n"]) == (None, {}, None)
    assert read(tmp_path).sites[0].start is None
    assert "born" not in monitor.sentence()


@pytest.mark.parametrize("every", [1, 2])  # the first window comes before the checkpoint, or behind it
def test_the_start_is_kept_over_a_resume(tmp_path, every):
    def run(epochs, checkpoint=None):
        net, monitor = Planted("modules"), DeadReLUMonitor()
        with torch.no_grad():
            net.second.bias[1] = 0.0
        options = {"num_sanity_val_steps": -1, "check_val_every_n_epoch": every}
        trainer = make_trainer([monitor], tmp_path, epochs=epochs, **options)
        trainer.fit(Run(net), examples(50), examples(200), ckpt_path=checkpoint)
        trainer.save_checkpoint(tmp_path / f"{epochs}.ckpt")
        return monitor.sentence(), monitor.summary()

    whole = run(4)
    run(1)

    assert run(4, tmp_path / "1.ckpt") == whole
    assert "3 born dead" in whole[0]


numbers = st.floats(-2, 2, width=32)


def test_numbers_too_small_to_be_exact_are_no_other_layers():
    net = nn.Sequential(nn.Linear(1, 1), nn.BatchNorm1d(1), nn.ReLU()).eval()
    with torch.no_grad():
        net[0].weight.zero_()
        net[0].bias.zero_()
        net[1].weight.fill_(1e-45)  # the smallest number of single precision: what comes out is rounded to twice it
        net[1].running_mean.fill_(1.5)

    (of_site,) = inspect(net, [torch.ones(5, 1)]).report.verdicts.values()

    assert (of_site[0].cause, of_site[0].bound) == ("any input", pytest.approx(-2e-45, abs=1e-45))


@few
@given(weights=st.lists(st.tuples(numbers, numbers, numbers), min_size=1, max_size=4), data=st.data())
def test_no_input_in_the_range_fires_a_unit_that_is_dead_for_any(weights, data):
    units = len(weights)
    net = nn.Sequential(nn.Linear(3, units), nn.BatchNorm1d(units), nn.ReLU()).eval()
    corners = torch.tensor(list(product((-0.5, 1.0), repeat=3)))
    with torch.no_grad():
        net[0].weight.copy_(torch.tensor(weights))
        for tensor in (net[0].bias, net[1].weight, net[1].bias, net[1].running_mean):
            tensor.copy_(torch.tensor(data.draw(st.lists(numbers, min_size=units, max_size=units))))
        highest = net[:2](corners).amax(0)

    (report,) = [inspect(net, [corners]).report]
    (found,) = report.verdicts.values()

    for unit, verdict in found.items():
        assert verdict.bound == pytest.approx(highest[unit].item(), abs=1e-4)  # the largest lies in a corner
        assert (verdict.cause == "any input") == (verdict.bound <= 0)


@few
@given(st.lists(numbers, min_size=6, max_size=6), numbers)
def test_no_padded_image_fires_a_filter_that_is_dead_for_any(taps, bias):
    net = nn.Sequential(nn.Conv2d(1, 1, (2, 3), padding=1), nn.ReLU())
    images = torch.tensor(list(product((0.25, 1.0), repeat=6))).view(-1, 1, 2, 3)
    with torch.no_grad():
        net[0].weight.copy_(torch.tensor(taps).view(1, 1, 2, 3))
        net[0].bias.fill_(bias)
        highest = net[0](images).amax().item()

    (found,) = inspect(net, [images[:1] * 0 + 0.25, images]).report.verdicts.values()

    for verdict in found.values():
        assert verdict.bound >= highest - 1e-5
        assert (verdict.low, verdict.high) == (0, 1)


@few
@given(st.lists(numbers, min_size=2, max_size=6), st.data())
def test_the_change_of_weights_that_is_named_is_never_more_than_the_true_one(before, data):
    after = data.draw(st.lists(numbers, min_size=len(before), max_size=len(before)))

    def kept(row):
        along = sum(row) / math.sqrt(len(row))
        return [along, math.sqrt(max(sum(w * w for w in row) - along**2, 0)), 0.0, NAN, NAN]

    bound, norm = weight_change(kept(before), kept(after)), math.hypot(*before)

    assert math.isnan(bound) or bound <= math.dist(before, after) / norm + 1e-5


@pytest.mark.parametrize(("memory", "shape"), [("channels_last", (12, 12)), ("contiguous_format", (12, 12))])
@pytest.mark.parametrize("batch", [7, 40, 120])
def test_depth_is_the_distance_of_the_largest_pre_activation_in_its_standard_deviations(memory, shape, batch):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(2, 16, 3), nn.ReLU(inplace=True)).to(memory_format=getattr(torch, memory))
    with torch.no_grad():
        net[0].bias[::3] -= 3
    images = torch.rand(120, 2, *shape).to(memory_format=getattr(torch, memory))

    (found,) = inspect(net, images.split(batch)).report.verdicts.values()

    z = net[0](images).detach().double().transpose(0, 1).flatten(1).numpy()
    dead = [unit for unit in range(16) if z[unit].max() <= 0]
    assert list(found) == dead
    assert dead[:6] == [0, 3, 6, 9, 12, 15]
    for unit, verdict in found.items():
        assert verdict.top == pytest.approx(z[unit].max(), abs=1e-6)
        assert verdict.sd == pytest.approx(z[unit].std(), rel=1e-5)
        assert verdict.depth == pytest.approx(-z[unit].max() / z[unit].std(), rel=1e-4)
        assert verdict.mean_shift == pytest.approx(z[unit].mean() - net[0].bias[unit].item(), abs=1e-5)


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x):
        return torch.relu(self.layer(x) + x - 5)


class Stacked(nn.Module):
    """Its weight is a stack of one matrix."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(1, 4, 4))

    def forward(self, x):
        return torch.relu(x @ self.weight)


class Overwritten(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x):
        z = self.layer(x)
        z.view(-1).add_(-9.0)  # through an alias
        return torch.relu(z)


@pytest.mark.parametrize(
    "net",
    [
        Residual(),
        Overwritten(),
        nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4), nn.Threshold(0, 0)),
        nn.Sequential(nn.Linear(4, 4), nn.AvgPool1d(1), nn.ReLU()),
        Stacked(),
    ],
)
def test_what_cannot_be_followed_is_unknown_and_its_depth_is_known(net):
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.fill_(-1.0)

    (site,) = inspect(net, [torch.rand(30, 4)]).to_dict()["sites"].values()

    assert site["dead_unit_causes"] == ["unknown"] * site["dead"]
    assert site["dead"] > 0


def test_the_causes_in_a_wide_network_that_is_all_dead_are_found_in_seconds():
    width = 1500
    net = nn.Sequential(nn.Linear(4, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU())
    with torch.no_grad():
        net[0].bias.fill_(-9.0)
        net[2].bias.fill_(-9.0)
    began = time.process_time()

    report = inspect(net, [torch.rand(30, 4)]).to_dict()

    assert time.process_time() - began < 5
    assert report["sites"]["relu.3"]["dead_unit_causes"] == ["dead inputs"] * width


def counted(net: nn.Module, batches) -> WindowCounts:
    """Count what goes into the ReLUs; a batch is a tensor, or the arguments of the network, the first one a tensor."""
    counter = UnitCounter({})
    sites = ReLUSites(counter.add)
    sites.attach(net)
    for batch in batches:
        x, *others = batch if isinstance(batch, tuple) else (batch,)
        counter.begin_batch(BatchSize(len(x), len(x)))
        sites.begin_pass()
        with torch.no_grad():
            net(x, *others)
        sites.end_pass()
        counter.end_batch(BatchSize(len(x), len(x)))
    sites.detach()
    return counter.take()


class Alternating(nn.Module):
    """Its one ReLU is behind a batch normalisation in every second batch."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.norm, self.act, self.calls = nn.Linear(4, 4), nn.BatchNorm1d(4), nn.ReLU(), 0

    def forward(self, x):
        self.calls += 1
        x = self.layer(x)
        return self.act(x if self.calls % 2 else self.norm(x))


def test_a_batch_normalisation_in_some_batches_only_costs_no_site_its_cause():
    net = nn.Sequential(Alternating(), nn.Linear(4, 4), nn.ReLU()).eval()
    with torch.no_grad():
        net[0].layer.bias.fill_(-9.0)
        net[1].bias.fill_(-9.0)

    report = inspect(net, [torch.rand(30, 4), torch.rand(30, 4)]).to_dict()

    causes = [site["dead_unit_causes"] for site in report["sites"].values()]
    assert causes == [["any input"] * 4, ["dead inputs"] * 4]


@few
@given(st.lists(st.sampled_from([1, 3, 200, 600]), min_size=1, max_size=8), st.integers(0, 9))
def test_batches_of_any_sizes_add_up_to_what_all_examples_say(sizes, seed):
    torch.manual_seed(seed)
    net, x = nn.Sequential(nn.Linear(4, 30), nn.ReLU()), torch.randn(sum(sizes), 4)
    batches = x.split(sizes)
    with torch.no_grad():
        net[0].bias -= torch.linspace(0, 5, 30)
        z = torch.cat([net[0](batch) for batch in batches]).numpy()  # in one batch its sums are rounded differently
    fired = [z[:, unit] > 0 for unit in range(30)]

    window = counted(net, batches)

    ((site, sums),) = window.sites.items()
    assert sums.active == [int(of_unit.sum()) for of_unit in fired]
    assert window.looks[site].first == [int(of_unit.argmax()) if of_unit.any() else -1 for of_unit in fired]
    tops = {unit: moments.top for unit, moments in window.looks[site].moments.items()}
    assert tops == {unit: z[:, unit].max() for unit in range(30) if not fired[unit].any()}


class SideBySide(nn.Module):
    """Dense layers and convolutions of some widths, each with its ReLU; keeps what goes into these."""

    def __init__(self, widths, skipped) -> None:
        super().__init__()
        layers = [layer for width in widths for layer in (nn.Linear(4, width), nn.Conv1d(1, width, 2))]
        self.layers, self.acts = nn.ModuleList(layers), nn.ModuleList(nn.ReLU() for _ in layers)
        self.skipped, self.batch = skipped, 0
        self.seen: dict[str, list] = {}  # by site: its batches, with a number for each example
        for number, layer in enumerate(layers):
            with torch.no_grad():
                layer.bias[0] = -99.0
                layer.bias[-1] += torch.nan if number % 3 == 2 else 0

    def forward(self, x, numbers):
        for number, (layer, act) in enumerate(zip(self.layers, self.acts, strict=True)):
            if (number, self.batch) not in self.skipped:
                z = layer(x if isinstance(layer, nn.Linear) else x[:, None])
                self.seen.setdefault(f"acts.{number}", []).append((numbers, z.clone()))
                act(z)
        self.batch += 1


@few
@given(
    widths=st.lists(st.sampled_from([2, 3, 40]), min_size=1, max_size=4),
    sizes=st.lists(st.sampled_from([1, 3, 200]), min_size=1, max_size=4),
    skipped=st.sets(st.tuples(st.integers(0, 7), st.integers(0, 3)), max_size=3),
    seed=st.integers(0, 9),
)
@example(widths=[40, 40, 40], sizes=[3, 200, 200], skipped={(0, 0), (2, 0), (4, 0)}, seed=0)
def test_many_small_sites_are_counted_each_for_itself(widths, sizes, skipped, seed):
    torch.manual_seed(seed)
    net = SideBySide(widths, skipped).eval()
    numbers = torch.arange(sum(sizes)).split(sizes)

    window = counted(net, [(torch.randn(len(each), 4), each) for each in numbers])

    assert window.sites.keys() == net.seen.keys()
    for site, batches in net.seen.items():
        z = torch.cat([values.reshape(*values.shape[:2], -1) for _, values in batches])  # (N, U, positions)
        examples, sums, look = torch.cat([each for each, _ in batches]), window.sites[site], window.looks[site]
        broken = [unit for unit in range(z.shape[1]) if bool(z[:, unit].isnan().any())]
        fired = (z > 0).any(2)
        assert (sums.active, sums.not_a_number) == ((z > 0).sum((0, 2)).tolist(), broken)
        assert (sums.examples, sums.pairs) == (len(z), len(z) * z.shape[2])
        assert look.first == [int(examples[of.int().argmax()]) if bool(of.any()) else -1 for of in fired.T]
        assert look.moments.keys() == {unit for unit in range(z.shape[1]) if not bool(fired[:, unit].any())}
        for unit, moments in look.moments.items():
            of_unit = z[:, unit].double().numpy()
            expected = (of_unit.mean(), of_unit.std(), of_unit.max())
            assert (moments.mean, moments.sd, moments.top) == pytest.approx(expected, rel=1e-5, abs=1e-5, nan_ok=True)


class OneBias(nn.Linear):
    """Adds the same to all units."""

    def __init__(self, *sizes) -> None:
        super().__init__(*sizes, bias=False)
        self.shift = nn.Parameter(torch.rand(1))

    def forward(self, x):
        return super().forward(x) + self.shift


class LayersOfAKind(nn.Module):
    """Layers of some kinds side by side, each with a batch normalisation of its own or none, and a ReLU."""

    def __init__(self, kinds) -> None:
        super().__init__()
        make = {
            "dense": lambda: nn.Linear(4, 3),
            "wide": lambda: nn.Linear(4, 5000),
            "convolution": lambda: nn.Conv1d(2, 4, 2, groups=2),
            "transposed": lambda: nn.ConvTranspose1d(2, 3, 2, bias=False),
            "one bias": partial(OneBias, 4, 3),
        }
        norm = {
            "none": nn.Identity,
            "plain": partial(nn.BatchNorm1d, affine=False),
            "affine": nn.BatchNorm1d,
            "wide eps": partial(nn.BatchNorm1d, eps=0.5),
        }
        self.layers = nn.ModuleList(make[kind]() for kind, _ in kinds)
        widths = [getattr(layer, "out_features", 0) or layer.out_channels for layer in self.layers]
        self.norms = nn.ModuleList(
            norm[of]() if of == "none" else norm[of](width) for (_, of), width in zip(kinds, widths, strict=True)
        )
        self.acts = nn.ModuleList(nn.ReLU() for _ in kinds)
        for module in self.norms:
            for values in (*module.parameters(), *(b for b in module.buffers() if b.is_floating_point())):
                nn.init.uniform_(values, 0.5, 2.0)

    def forward(self, x):
        for layer, norm, act in zip(self.layers, self.norms, self.acts, strict=True):
            act(norm(layer(x if isinstance(layer, nn.Linear) else x.reshape(len(x), 2, 2))))


LAYERS = st.sampled_from(["dense", "wide", "convolution", "transposed", "one bias"])
NORMS = st.sampled_from(["none", "plain", "affine", "wide eps"])


def numbers_by_the_formulas(layer, norm) -> np.ndarray:
    """What `feeds.numbers_of` says that it gives, row by row: (9, U)."""
    transposed = isinstance(layer, nn.ConvTranspose1d)
    w = (layer.weight.transpose(0, 1) if transposed else layer.weight).detach().double().flatten(1).numpy()
    b = getattr(layer, "shift", layer.bias)
    b = np.zeros(len(w)) + (0 if b is None else b.detach().double().numpy())
    along = w.sum(1) / math.sqrt(w.shape[1])
    across = np.sqrt(np.maximum((w**2).sum(1) - along**2, 0))
    if isinstance(norm, nn.Identity):
        unknown = np.full(len(w), NAN)
        return np.stack([w.clip(0).sum(1), w.clip(max=0).sum(1), b, b, along, across, b, unknown, unknown])
    mean, var = norm.running_mean.double().numpy(), norm.running_var.double().numpy()
    gain, shift = (np.ones(len(w)), np.zeros(len(w)))
    if norm.affine:
        gain, shift = norm.weight.detach().double().numpy(), norm.bias.detach().double().numpy()
    scaled = w * (gain / np.sqrt(var + norm.eps))[:, None]
    offset = (b - mean) * gain / np.sqrt(var + norm.eps) + shift
    return np.stack([scaled.clip(0).sum(1), scaled.clip(max=0).sum(1), offset, shift, along, across, b, gain, shift])


@few
@given(st.lists(st.tuples(LAYERS, NORMS), min_size=1, max_size=6), st.integers(0, 9))
def test_layers_that_are_read_together_keep_each_its_own_numbers(kinds, seed):
    torch.manual_seed(seed)
    net = LayersOfAKind(kinds).eval()

    window = counted(net, [torch.rand(5, 4), torch.rand(3, 4)])

    for number, (layer, norm) in enumerate(zip(net.layers, net.norms, strict=True)):
        expected = numbers_by_the_formulas(layer, norm)
        np.testing.assert_allclose(window.looks[f"acts.{number}"].numbers, expected, rtol=1e-6, atol=1e-6)


class Averaged(Toy):
    """Its validation runs on other weights than its training, in which the first layer's units are dead."""

    def __init__(self, in_the_step: bool) -> None:
        super().__init__(nn.Sequential(nn.Linear(8, 3), nn.ReLU(), nn.Linear(3, 4)))
        self.in_the_step = in_the_step

    def swap(self):
        self.net[0].bias.data.sub_(99.0)

    def swap_back(self):
        self.net[0].bias.data.add_(99.0)

    def validation_step(self, batch, batch_idx):
        if self.in_the_step:
            self.swap()
        super().validation_step(batch, batch_idx)
        if self.in_the_step:
            self.swap_back()


class SwapsInEachBatch(pl.Callback):
    def on_validation_batch_start(self, trainer, pl_module, *_):
        pl_module.swap()

    def on_validation_batch_end(self, trainer, pl_module, *_):
        pl_module.swap_back()


@pytest.mark.parametrize("in_the_step", [True, False])
def test_causes_are_those_of_the_weights_that_the_pass_ran_on(in_the_step, tmp_path):
    monitor = DeadReLUMonitor()
    trainer = make_trainer([*([] if in_the_step else [SwapsInEachBatch()]), monitor], tmp_path, epochs=1)
    trainer.fit(Averaged(in_the_step), examples(100), examples(200))

    (site,) = monitor.summary()["sites"].values()
    assert site["dead_unit_causes"] == ["any input"] * 3


@pytest.mark.parametrize(("where", "cause"), [("block", "any input"), ("layer", "unknown")])
def test_units_are_counted_where_weights_are_freed(where, cause):
    """As sharding and offloading do: a layer's or a block's weights are there while it runs."""
    block = nn.Sequential(nn.Linear(4, 2), nn.ReLU())
    owner, layer = block if where == "block" else block[0], block[0]
    nn.init.constant_(layer.bias, -99.0)
    weight = layer.weight.detach().clone()

    def put(values):
        layer.weight.data = values

    owner.register_forward_pre_hook(lambda *_: put(weight.clone()))
    owner.register_forward_hook(lambda *_: put(torch.empty(0)))

    (site,) = inspect(nn.Sequential(block), [torch.rand(40, 4)]).to_dict()["sites"].values()

    assert (site["dead_units"], site["dead_unit_causes"]) == ([0, 1], [cause, cause])


class Unreadable(nn.Parameter):
    """A weight of another library's kind, of which layers can be computed and little else."""

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        if func is torch.Tensor.detach:
            raise NotImplementedError
        return super().__torch_function__(func, types, args, kwargs or {})


def test_a_weight_that_cannot_be_read_costs_no_other_site_its_causes():
    net = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2), nn.ReLU()).eval()
    net[0].weight = Unreadable(net[0].weight.detach())
    nn.init.constant_(net[0].bias, 99.0)
    nn.init.constant_(net[2].bias, -9999.0)

    report = inspect(net, [torch.rand(40, 4)]).to_dict()

    assert report["sites"]["relu.3"]["dead_unit_causes"] == ["any input", "any input"]


class Products(nn.Module):
    """Pairs of a layer and a product with a weight, each with its ReLU."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(4, width) for _ in range(3))
        self.weights = nn.ParameterList(torch.randn(width, width) for _ in range(3))
        self.acts = nn.ModuleList(nn.ReLU() for _ in range(6))

    def forward(self, x):
        for number, (layer, weight) in enumerate(zip(self.layers, self.weights, strict=True)):
            self.acts[2 * number + 1](self.acts[2 * number](layer(x)) @ weight)


@pytest.mark.parametrize("width", [16, 37, 100])
def test_dead_inputs_are_found_beside_layers_that_are_read_together(width):
    torch.manual_seed(0)
    net = Products(width).eval()
    nn.init.constant_(net.layers[0].bias, -99.0)

    report = inspect(net, [torch.rand(40, 4)]).to_dict()

    assert report["sites"]["acts.1"]["dead_unit_causes"] == ["dead inputs"] * width


@pytest.mark.parametrize("replaced", [True, False])
def test_a_large_layer_that_has_other_weights_by_now_reads_what_is_not_known(replaced):
    net = nn.Sequential(nn.Linear(4, 5000), nn.ReLU(), nn.Linear(5000, 4), nn.ReLU()).eval()
    nn.init.constant_(net[0].bias, -99.0)
    nn.init.constant_(net[2].bias, -1.0)

    def batches():
        yield torch.rand(40, 4)
        if replaced:
            net[2].weight.data.mul_(2)

    (look,) = [look for look in counted(net, batches()).looks.values() if look.source is not None]

    assert look.reads.keys() == (set() if replaced else {0, 1, 2, 3})


def test_a_unit_that_a_bilinear_layer_takes_as_its_bias_is_used_in_other_ways_too():
    act, sites = nn.ReLU(), ReLUSites(lambda _: None)
    layer, weight, other = nn.Linear(4, 3), nn.Parameter(torch.randn(3, 4, 4)), nn.Parameter(torch.randn(5, 4))

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.act, self.layer = act, layer

        def forward(self, x):
            return F.bilinear(x, other, weight, self.act(self.layer(x[:1])).squeeze(0))

    net = Net()
    sites.attach(net)
    sites.begin_pass()
    net(torch.rand(5, 4))
    sites.end_pass()
    sites.detach()

    assert sites.origins.taken == {"act": "`bilinear` takes its values"}


def test_a_batch_with_other_rows_than_examples_leaves_their_numbers_unknown():
    counter, net = UnitCounter({}), nn.Sequential(nn.Linear(4, 3), nn.ReLU())
    sites = ReLUSites(counter.add)
    sites.attach(net)
    for rows in (50, 150):  # of 50 examples each
        counter.begin_batch(BatchSize(50, 50))
        sites.begin_pass()
        net(torch.randn(rows, 4))
        sites.end_pass()
        counter.end_batch(BatchSize(50, 50))
    sites.detach()

    (look,) = counter.take().looks.values()
    assert not look.aligned


class MaskedBefore(nn.Module):
    """A ReLU behind minus infinity, and another whose units are dead."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.act, self.other = nn.Linear(4, 4), nn.Linear(4, 2), nn.ReLU(), nn.ReLU()
        nn.init.constant_(self.two.bias, -99.0)

    def forward(self, x):
        self.act((self.one(x) - 99).masked_fill(x > 1, -torch.inf))
        return self.other(self.two(x))


def test_infinity_at_one_site_costs_no_other_its_causes():
    torch.manual_seed(0)

    report = inspect(MaskedBefore().eval(), [torch.randn(40, 4)]).to_dict()

    assert report["sites"]["other"]["dead_unit_causes"] == ["any input", "any input"]


@few
@given(st.integers(100, 300), st.integers(1, 3), st.integers(1, 70), st.integers(0, 9))
def test_dead_units_of_the_first_examples_are_counted_whatever_the_batches_and_ranks(count, ranks, batch, seed):
    torch.manual_seed(seed)
    net, x = nn.Sequential(nn.Linear(4, 30), nn.ReLU()), torch.randn(count, 4)
    batches, z = [x[rank::ranks].split(batch) for rank in range(ranks)], torch.empty(count, 30)
    with torch.no_grad():
        net[0].bias -= torch.linspace(0, 5, 30)
        for rank in range(ranks):
            z[rank::ranks] = torch.cat([net[0](batch) for batch in batches[rank]])
    sizes = tuple(count // part for part in (10, 5, 2, 1))

    parts = [counted(net, of_rank) for of_rank in batches]
    (site,) = parts[0].sites
    found = sub_windows(parts, {site: []}, count)

    assert found == SubWindows(sizes, tuple(int((z[:size] <= 0).all(0).sum()) for size in sizes), 30)


def test_ranks_with_unequal_numbers_of_examples_have_no_part_that_is_known():
    net = nn.Sequential(nn.Linear(4, 3), nn.ReLU())
    parts = [counted(net, [torch.rand(count, 4)]) for count in (60, 90)]
    (site,) = parts[0].sites

    assert sub_windows(parts, {site: []}, 150) is None


@few
@given(st.integers(0, 400), st.integers(0, 400))
def test_a_prediction_lies_in_its_interval_and_above_nothing(fired, dead):
    expected, low, high = predicted(dead + fired, dead)

    assert 0 <= low <= expected <= high == dead


def test_nine_of_ten_counts_of_the_same_mean_lie_in_the_interval():
    random = np.random.default_rng(0)
    means = random.uniform(0.5, 30, 2000)
    seen, following = random.poisson(means), random.poisson(means)

    inside = [predicted(500 + a, 500)[1] <= 500 - b for a, b in zip(seen, following, strict=True)]

    assert np.mean(inside) >= 0.96  # one-sided: the upper end is certain
