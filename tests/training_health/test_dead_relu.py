"""Planted truth: networks whose dead, rare and lively units are known are counted exactly."""

import gc
import math
from contextlib import nullcontext

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from tests.training_health.toys import (
    FEW_EXAMPLES,
    Toy,
    dense_network,
    events,
    fit,
    loader,
    make_trainer,
    pl,
    vectors,
)
from training_health import DeadReLUMonitor
from training_health.lightning import MisconfigurationException
from training_health.relu.unit_counts import SiteCounts, WindowCounts, combined
from training_health.relu.window import DeadReLUReport, WindowPart, sentence, shorten
from training_health.torch_private import ForcedEager

pytestmark = FEW_EXAMPLES


class Watched(pl.LightningModule):
    """Runs a network in validation and nothing else."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def validation_step(self, batch, batch_idx):
        self.net(batch[0])


def validate(net: nn.Module, inputs: torch.Tensor, folder, batch_size: int = 50, **options):
    """The monitor after one validation, and the logged values."""
    monitor = DeadReLUMonitor(**options)
    trainer = make_trainer([monitor], folder)
    trainer.validate(Watched(net), DataLoader(TensorDataset(inputs), batch_size=batch_size), verbose=False)
    return monitor, {key: value.item() for key, value in trainer.callback_metrics.items()}


def dense(*biases: float) -> nn.Linear:
    """A unit per bias b on one input x: x + b."""
    layer = nn.Linear(1, len(biases))
    with torch.no_grad():
        layer.weight.fill_(1)
        layer.bias.copy_(torch.tensor(biases))
    return layer


class InParts(nn.Module):
    """Takes its input in parts: as a loop over images or chunks does."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.inner, self.size = nn.Sequential(dense(-0.5, 0.5), nn.ReLU()), size

    def forward(self, x):
        return torch.cat([self.inner(part) for part in x.split(self.size)])


@pytest.mark.parametrize("size", [1, 3, 4])
def test_a_module_called_for_one_part_of_a_batch_after_another_is_one_site(size, tmp_path):
    inputs = torch.tensor([-1.0, 0, 1, 0, 0, 0, 0, 0, -1, 0])[:, None]  # above 0.5 and -0.5: 1 and 8 of 10

    monitor, _ = validate(InParts(size), inputs, tmp_path, batch_size=7)

    site = monitor.summary()["sites"]
    assert {name: (of["n"], of["units"], of["dead"]) for name, of in site.items()} == {"inner": (10, 2, 0)}
    assert site["inner"]["sparsity"] == pytest.approx(1 - 9 / 20)


class Block(nn.Module):
    """Two layers with one ReLU module; of the first unit 0 is dead, of the second unit 1."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.relu = dense(-9, 1), nn.Linear(2, 2), nn.ReLU()
        with torch.no_grad():
            self.second.weight.copy_(torch.tensor([[0.0, 1], [0, -1]]))
            self.second.bias.zero_()

    def forward(self, x):
        return self.relu(self.second(self.relu(self.first(x))))


def test_images_that_come_one_by_one_without_a_batch_are_of_one_site(tmp_path):
    class OneByOne(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Sequential(nn.Conv2d(1, 2, 1), nn.ReLU())
            with torch.no_grad():
                self.net[0].weight.copy_(torch.tensor([1.0, -1.0]).view(2, 1, 1, 1))
                self.net[0].bias.zero_()

        def forward(self, x):
            return torch.stack([self.net(image) for image in x])

    inputs = torch.ones(10, 1, 3, 6)
    inputs[:4, 0, 0, 0] = 0
    monitor, _ = validate(OneByOne(), inputs, tmp_path, batch_size=5)

    ((name, site),) = monitor.summary()["sites"].items()
    assert (name, site["n"], site["units"], site["dead_units"]) == ("net", 10, 2, [1])
    assert site["sparsity"] == pytest.approx(1 - 176 / 360)  # of 18 positions each


class Chunks(nn.Module):
    def __init__(self, sizes: list[int]) -> None:
        super().__init__()
        self.block, self.sizes = Block(), sizes

    def forward(self, x):
        return [self.block(part) for part in x.split(self.sizes)]


def test_the_relus_of_a_block_that_takes_a_batch_in_parts_stay_apart(tmp_path):
    monitor, _ = validate(Chunks([2, 2, 4]), torch.ones(8, 1), tmp_path)

    found = {name: (site["n"], site["dead_units"]) for name, site in monitor.summary()["sites"].items()}
    assert found == {"relu": (8, [0]), "relu:2": (8, [1])}


def test_what_one_forward_computes_of_a_part_of_the_batch_is_a_site_of_its_own(tmp_path):
    class Half(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = dense(-9, 1), dense(1, -9)

        def forward(self, x):
            return F.relu(self.a(x)), F.relu(self.b(x[:4])), F.relu(self.a(x[:3]))

    monitor, _ = validate(Half(), torch.ones(8, 1), tmp_path)

    found = [site["dead_units"] for site in monitor.summary()["sites"].values()]
    assert found == [[0], [1], [0]]


def test_a_relu_of_a_loss_in_the_step_is_named_and_not_counted(tmp_path):
    class Hinge(Watched):
        def validation_step(self, batch, batch_idx):
            F.relu(3 - self.net(batch[0]).sum(1, keepdim=True))

    monitor, module = DeadReLUMonitor(), Hinge(nn.Sequential(dense(1, -9), nn.ReLU()))
    data = DataLoader(TensorDataset(torch.ones(4, 1)), batch_size=4)
    with pytest.warns(
        UserWarning, match="does not count relu: it is called outside of every module's forward and leads to no layer"
    ):
        make_trainer([monitor], tmp_path).validate(module, data, verbose=False)

    assert [*monitor.summary()["sites"]] == ["net"]
    assert [*monitor.summary()["unwatched"]] == ["relu"]


def test_a_loss_that_calls_the_network_once_more_is_no_layer(tmp_path):
    class HingeGAN(Watched):
        def validation_step(self, batch, batch_idx):
            real, fake = batch[0], 2 * batch[0]
            return F.relu(1 - self.net(real)).mean() + F.relu(1 + self.net(fake)).mean()

    monitor, module = DeadReLUMonitor(), HingeGAN(nn.Sequential(dense(1, -9), nn.ReLU(), nn.Linear(2, 1)))
    data = DataLoader(TensorDataset(torch.ones(4, 1)), batch_size=4)
    with pytest.warns(UserWarning, match="does not count relu: .* as in a loss; relu:2: .* as in a loss"):
        make_trainer([monitor], tmp_path).validate(module, data, verbose=False)

    assert {name: site["dead_units"] for name, site in monitor.summary()["sites"].items()} == {
        "net.1": [1],
        "net.1:2": [1],
    }


class Margin(nn.Module):
    def __init__(self, reduced: bool) -> None:
        super().__init__()
        self.reduced = reduced

    def forward(self, x):
        margins = F.relu(1 - x)
        return margins.mean() if self.reduced else margins


@pytest.mark.parametrize(("reduced", "sites"), [(True, ["net.0"]), (False, ["0.1", "1.relu"])])
def test_a_relu_in_a_module_without_weights_that_gives_one_number_is_a_losses(reduced, sites, tmp_path):
    monitor, module = DeadReLUMonitor(), Watched(nn.Sequential(nn.Sequential(dense(1, -9), nn.ReLU()), Margin(reduced)))
    data = DataLoader(TensorDataset(torch.ones(4, 1)), batch_size=4)
    with pytest.warns(UserWarning, match="part of a loss: net.1 has no weights") if reduced else nullcontext():
        make_trainer([monitor], tmp_path).validate(module, data, verbose=False)

    assert [*monitor.summary()["sites"]] == sites


def test_a_relu_in_the_step_that_cannot_be_counted_is_named_with_that_reason(tmp_path):
    class Ensemble(Watched):
        def validation_step(self, batch, batch_idx):
            torch.vmap(lambda weight: F.relu(batch[0] * weight))(torch.ones(3, 1))

    monitor, module = DeadReLUMonitor(), Ensemble(dense(1))
    data = DataLoader(TensorDataset(torch.ones(4, 1)), batch_size=4)
    with pytest.warns(UserWarning, match="does not count relu: its output could not be counted: .* such as vmap"):
        make_trainer([monitor], tmp_path).validate(module, data, verbose=False)


@pytest.mark.parametrize(
    ("behind", "way"),
    [
        (nn.Linear(2, 1), lambda h: h),
        (nn.Linear(4, 1), lambda h: torch.cat([h, h], 1)),
        (nn.LayerNorm(2), lambda h: h * 2),
        (nn.GRU(2, 3), lambda h: h[None]),
        (nn.TransformerEncoderLayer(2, 1, 4, batch_first=True), lambda h: h[None]),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_relu_in_the_step_that_comes_before_a_layer_is_counted(behind, way, tmp_path):
    class Residual(Watched):
        def validation_step(self, batch, batch_idx):
            self.net[1](way(F.relu(self.net[0](batch[0]) + batch[0])))

    monitor, module = DeadReLUMonitor(), Residual(nn.ModuleList([dense(1, -9), behind]))
    make_trainer([monitor], tmp_path).validate(
        module, DataLoader(TensorDataset(torch.ones(4, 1)), batch_size=4), verbose=False
    )

    assert {name: site["dead_units"] for name, site in monitor.summary()["sites"].items() if name == "relu"} == {
        "relu": [1]
    }


class Sometimes(nn.Module):
    """Each site is reached by one half of the examples only."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.layer = nn.ReLU(), nn.ReLU(), dense(-0.5, 1)

    def forward(self, x):
        x = self.layer(x)
        return self.second(x) if x[0, 0] > 0 else self.first(x)


def convolution() -> nn.Module:
    conv, norm = nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4)
    with torch.no_grad():
        conv.weight.fill_(0.1)
        norm.bias.copy_(torch.tensor([1.0, -100.0, 1.0, -100.0]))  # beta: far below what the normalised values reach
    return nn.Sequential(conv, norm, nn.ReLU())


@pytest.mark.parametrize(
    ("net", "inputs", "dead", "units"),
    [
        (nn.Sequential(dense(-9, -9, -9, 1, 1), nn.ReLU()), torch.rand(120, 1), {"net": [0, 1, 2]}, 5),
        (convolution(), torch.rand(60, 1, 6, 6), {"net": [1, 3]}, 4),  # a channel is one unit, whatever its size
        (Sometimes(), torch.cat([torch.ones(50, 1), torch.zeros(50, 1)]), {"second": [], "first": [0]}, 4),
    ],
    ids=["dense", "convolution", "sometimes"],
)
def test_dead_units_are_counted_and_named_by_index(net, inputs, dead, units, tmp_path):
    monitor, logged = validate(net, inputs, tmp_path)

    summary, count = monitor.summary(), sum(map(len, dead.values()))
    assert {name: site["dead_units"] for name, site in summary["sites"].items()} == dead
    assert (summary["dead"], summary["units"], summary["n"]) == (count, units, len(inputs))
    assert logged["dead_relu/total"] == pytest.approx(count / units)
    assert f"({count} of {units} units, on {len(inputs)} validation examples)" in monitor.sentence()


def test_a_sites_n_is_that_of_the_examples_that_reached_it(tmp_path):
    inputs = torch.cat([torch.ones(50, 1), torch.zeros(100, 1)])

    monitor, _ = validate(Sometimes(), inputs, tmp_path)

    assert {name: site["n"] for name, site in monitor.summary()["sites"].items()} == {"second": 50, "first": 100}
    assert "Only some batches reached second (50 examples), first (100 examples)." in monitor.sentence()


def test_a_sites_records_hold_its_own_n():
    sites = {name: SiteCounts("relu", 1, True, n, [0, n], examples=n) for name, n in (("a", 9), ("b", 4))}
    report = DeadReLUReport.of([WindowPart(WindowCounts(9, sites), {}, {})], {}, "validation", 0.01, {})

    assert {tag: vector[0] for tag, _, vector, _ in report.records()} == {
        "activity/a": 9, "activity/b": 4, "cause/a": 9, "cause/b": 4,
    }  # fmt: skip


def test_what_more_examples_would_fire_is_unknown_where_not_all_reach_a_site(tmp_path):
    inputs = torch.cat([torch.ones(50, 1), torch.zeros(100, 1)])

    monitor, _ = validate(Sometimes(), inputs, tmp_path)

    assert monitor.summary()["by_examples"] is None


def test_a_unit_alive_on_one_example_of_five_thousand_is_rare_and_not_dead(tmp_path):
    inputs = torch.zeros(5000, 1)
    inputs[4321] = 1.0

    monitor, logged = validate(nn.Sequential(dense(-0.5, -2, 1), nn.ReLU()), inputs, tmp_path, batch_size=500)

    site = monitor.summary()["sites"]["net"]
    assert (site["dead_units"], site["rare"]) == ([1], 1)
    assert logged["sparsity/net"] == pytest.approx((4999 + 5000) / 15000)


@pytest.mark.parametrize(("below", "rare"), [(0.01, []), (0.0101, [0])])
def test_rare_begins_below_the_threshold(below, rare):
    assert SiteCounts("relu", 1, True, pairs=200, active=[2, 0]).rare(below) == rare


def test_the_unit_dimension_can_be_named(tmp_path):
    monitor, _ = validate(nn.Sequential(nn.ReLU()), torch.randn(20, 3, 7), tmp_path, unit_dims={"net.*": 2})

    assert monitor.summary()["units"] == 7


def windows(sites: list[str]):
    counts = st.integers(1, 50).flatmap(
        lambda pairs: st.builds(
            SiteCounts, st.just("relu"), st.just(1), st.just(True), st.just(pairs),
            st.lists(st.integers(0, pairs), min_size=3, max_size=3),
        )
    )  # fmt: skip
    return st.builds(WindowCounts, st.integers(0, 9), st.dictionaries(st.sampled_from(sites), counts))


@settings(deadline=None, max_examples=50)
@given(parts=st.lists(windows(["a", "b"]), min_size=1, max_size=5), cut=st.integers(0, 5))
def test_merging_counts_is_associative_and_loses_none(parts, cut):
    whole = combined(parts)

    assert combined([combined(parts[:cut]), combined(parts[cut:])]) == whole
    for site in ("a", "b"):
        pairs = sum(part.sites[site].pairs for part in parts if site in part.sites)
        assert (whole.sites[site].pairs if site in whole.sites else 0) == pairs


def test_logged_values_and_records_agree_with_the_counts(tmp_path):
    net = dense_network()
    with torch.no_grad():
        net[1].bias[:2] = -1000

    trainer = fit(Toy(net, learning_rate=0.0), [DeadReLUMonitor()], tmp_path, logger="tensorboard")

    metrics = trainer.callback_metrics
    assert metrics["dead_relu/total"].item() == metrics["dead_relu/net"].item() == 0.25
    assert metrics["dead_relu/n"].item() == 13
    rows = [vector for _, vector in vectors(tmp_path, "activity/net")]
    assert [row[:4] for row in rows] == [[0, 13, 0, 0], [1, 13, 0, 0]]
    assert 1 - sum(rows[1][2:]) / 8 == pytest.approx(metrics["sparsity/net"].item())


class Plunging(Toy):
    """Its first unit dies in the second epoch and comes back in the third."""

    def __init__(self):
        super().__init__(dense_network(), learning_rate=0.0)

    def on_train_epoch_start(self):
        with torch.no_grad():
            self.net[1].bias[0] = -1000 if self.current_epoch == 1 else 1000


def changes(monitor: DeadReLUMonitor, folder, epochs: int, checkpoint=None) -> list[tuple]:
    """Deaths and revivals after each epoch of a fit, which leaves ``<epochs>.ckpt``."""
    found = []
    note = pl.callbacks.LambdaCallback(on_train_epoch_end=lambda *_: found.append(monitor.summary()))
    trainer = make_trainer([monitor, note], folder, epochs=epochs)
    trainer.fit(Plunging(), loader(23), loader(13, seed=1), ckpt_path=checkpoint)
    trainer.save_checkpoint(folder / f"{epochs}.ckpt")
    return [(summary["deaths"], summary["revivals"]) for summary in found]


def test_deaths_and_revivals_are_counted_from_one_epoch_to_the_next_in_a_resumed_run_too(tmp_path):
    assert changes(DeadReLUMonitor(), tmp_path, epochs=3) == [(None, None), (1, 0), (0, 1)]
    changes(DeadReLUMonitor(), tmp_path, epochs=2)
    assert changes(DeadReLUMonitor(), tmp_path, epochs=3, checkpoint=tmp_path / "2.ckpt") == [(0, 1)]


def test_a_monitor_starts_fresh_in_a_fit_that_no_checkpoint_resumes(tmp_path):
    monitor = DeadReLUMonitor()
    fit(Toy(nn.Sequential(dense_network(), nn.GELU())), [monitor], tmp_path)

    assert changes(monitor, tmp_path, epochs=2) == [(None, None), (1, 0)]
    assert (list(monitor.summary()["sites"]), monitor.summary()["cannot_die"]) == (["net"], {})


def test_names_and_order_of_sites_stay_when_a_new_site_appears(tmp_path):
    net, data = nn.Sequential(dense(1, 1), nn.ReLU()), DataLoader(TensorDataset(torch.rand(8, 1)))
    monitor, names = DeadReLUMonitor(), []
    for _ in range(2):
        make_trainer([monitor], tmp_path).validate(Watched(net), data, verbose=False)
        names.append(list(monitor.summary()["sites"]))
        net.append(nn.ReLU())

    assert names == [["net"], ["net", "net.2"]]


def test_a_model_without_relu_is_reported_once(tmp_path):
    monitor = DeadReLUMonitor()
    with pytest.warns(UserWarning, match="saw no ReLU") as caught:
        fit(Toy(nn.Sequential(nn.Flatten(), nn.Linear(36, 4))), [monitor], tmp_path)

    assert len([w for w in caught if "no ReLU" in str(w.message)]) == 1
    assert monitor.sentence().startswith("No ReLU was seen")


class OfSeveral(Toy):
    """Is validated on several loaders, one after the other or joined."""

    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        for images, _ in batch.values() if isinstance(batch, dict) else [batch]:
            self.net(images)


def test_nested_validation_loaders_count_as_the_loaders_that_they_hold(tmp_path):
    monitor = DeadReLUMonitor()
    validation = {"a": loader(5, 2), "b": [loader(4, 2), loader(3, 2)]}

    make_trainer([monitor], tmp_path).fit(OfSeveral(dense_network()), loader(8, 4), validation)

    assert monitor.summary()["n"] == 12


def test_of_joined_validation_loaders_the_number_of_examples_is_unknown(tmp_path):
    monitor = DeadReLUMonitor()
    validation = pl.utilities.CombinedLoader({"a": loader(6, 2), "b": loader(3, 1)}, "min_size")

    make_trainer([monitor], tmp_path).fit(OfSeveral(dense_network()), loader(8, 4), validation)

    assert monitor.summary()["n"] is None


def test_a_relu_that_was_seen_and_not_counted_is_not_called_unseen(tmp_path):
    class Flat(nn.Module):
        def forward(self, x):
            return F.relu(x.flatten()).reshape(x.shape)

    monitor = DeadReLUMonitor()
    with pytest.warns(UserWarning, match="does not count net.1.relu: .*its output has one dimension"):
        fit(Toy(nn.Sequential(nn.Flatten(), Flat(), nn.Linear(36, 4))), [monitor], tmp_path)

    assert monitor.sentence().startswith("No ReLU was counted (on ")


def test_a_network_that_cannot_die_is_listed_as_such_without_a_warning(tmp_path):
    monitor, logged = validate(nn.Sequential(nn.Linear(3, 4), nn.GELU()), torch.rand(5, 3), tmp_path)

    assert "net (gelu)" in monitor.sentence()
    assert logged == {}  # never "0 % dead"


@pytest.mark.parametrize("name", ["net.1", pytest.param("Toy", marks=pytest.mark.slow)])
@pytest.mark.filterwarnings("ignore:.*saw no ReLU")
def test_what_is_compiled_is_named_in_one_warning_and_in_the_sentence_where_it_must_stay_so(name, tmp_path):
    torch._dynamo.reset()
    module, monitor = Toy(dense_network()), DeadReLUMonitor(eager=False)
    if name == "Toy":
        module = torch.compile(module, backend="eager")
    else:
        module.net[1] = torch.compile(module.net[1], backend="eager")

    with pytest.warns(UserWarning, match=rf"cannot see into: {name} \(compiled") as caught:
        fit(module, [monitor], tmp_path)

    assert len([w for w in caught if "cannot see" in str(w.message)]) == 1
    assert f"Not counted: {name} (compiled" in monitor.sentence()
    assert ("units" in monitor.sentence()) is (name != "Toy")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The .grad attribute", "ignore:.*LeafSpec")
@pytest.mark.skipif(not ForcedEager.possible, reason="needs torch 2.6")
def test_a_compiled_module_is_counted_and_trained_as_compiled(tmp_path):
    torch._dynamo.reset()
    monitor = DeadReLUMonitor()
    fit(torch.compile(Toy(dense_network()), backend="eager"), [monitor], tmp_path)

    assert monitor.summary()["units"] == 8
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 0


class Still(Toy):
    """Its weights stay what they are, NaN among them."""

    def training_step(self, batch, batch_idx):
        return sum((parameter * 0).sum() for parameter in self.parameters())


def test_units_that_give_nan_are_neither_dead_nor_alive(tmp_path):
    net = dense_network()
    with torch.no_grad():
        net[1].weight[0, 0], net[1].bias[1] = math.nan, -1000
    monitor = DeadReLUMonitor()

    with pytest.warns(UserWarning, match=r"1 units gave NaN or infinity, at net: .*net\.1\.weight"):
        trainer = fit(Still(net), [monitor], tmp_path, logger="tensorboard")

    assert trainer.callback_metrics["dead_relu/total"].item() == pytest.approx(1 / 7)
    assert (monitor.summary()["dead"], monitor.summary()["not_a_number"]) == (1, 1)
    assert "(1 of 7 units" in monitor.sentence()
    _, (_, n, first, second, *_) = vectors(tmp_path, "activity/net")[-1]
    assert (n, math.isnan(first), second) == (13, True, 0)


def test_a_network_of_nan_has_no_fraction_of_dead_units(tmp_path):
    net = nn.Sequential(dense(math.nan, math.nan), nn.ReLU())

    with pytest.warns(UserWarning, match="2 units gave NaN"):
        monitor, logged = validate(net, torch.rand(5, 1), tmp_path)

    assert logged == {"dead_relu/n": 5}
    assert "unknown: all 2 gave NaN" in monitor.sentence()


class Varying(nn.Module):
    """A site whose number of units is that of the batch's examples, beside one that is steady."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = dense(1, -9)

    def forward(self, x):
        x = torch.relu(self.layer(x))
        return F.relu6(x @ x.T)


def test_a_unit_count_that_varies_is_not_counted_and_only_that(tmp_path):
    with pytest.warns(UserWarning, match="does not count net.relu6: .* number of units changes"):
        monitor, _ = validate(Varying(), torch.rand(120, 1), tmp_path)

    assert {name: (site["units"], site["dead"]) for name, site in monitor.summary()["sites"].items()} == {"net": (2, 1)}
    assert list(monitor.summary()["unwatched"]) == ["net.relu6"]


def test_a_unit_count_that_differs_between_processes_is_not_counted():
    windows = [WindowCounts(5, {"a": SiteCounts("relu", 1, True, 5, [1] * units)}) for units in (2, 3)]

    report = DeadReLUReport.of([WindowPart(counts, {}, {}) for counts in windows], {}, "validation", 0.01, {})

    assert (report.examples, report.sites) == (10, {})
    assert "differs between processes" in report.unwatched["a"]


def test_a_dimension_that_is_not_known_is_named_until_the_user_names_it(tmp_path):
    with pytest.warns(UserWarning, match=r"units of net\.0 \(dimension 1\).*`unit_dims="):
        monitor, _ = validate(nn.Sequential(nn.ReLU()), torch.randn(20, 3, 7), tmp_path)

    assert monitor.summary()["units"] == 3


def test_an_unknown_number_of_examples_is_said_to_be_unknown():
    report = DeadReLUReport.of(
        [WindowPart(WindowCounts(n, {"a": SiteCounts("relu", 1, True, 9, [0, 3])}), {}, {}) for n in (9, math.nan)],
        {}, "validation", 0.01, {},
    )  # fmt: skip

    assert "on an unknown number of validation examples" in sentence(report)
    assert report.as_dict()["n"] is None
    assert all(math.isnan(vector[0]) for _, _, vector, _ in report.records())


def test_many_sites_are_logged_without_weighing_on_lightning(tmp_path):
    net = nn.Sequential(nn.Flatten(), *[nn.Sequential(nn.Linear(36, 36), nn.ReLU()) for _ in range(65)])

    trainer = fit(Toy(net), [DeadReLUMonitor()], tmp_path, logger="tensorboard")

    tags = [(tag, step) for tag, step, _ in events(tmp_path) if tag.startswith("dead_relu/net.")]
    assert sorted({step for _, step in tags}) == [4, 9]
    assert len(tags) == 2 * 65
    assert {key for key in trainer.callback_metrics if "relu/" in key} >= {"dead_relu/total", "dead_relu/n"}


class Sequence(Toy):
    """A transformer's encoder over six rows of six pixels."""

    def __init__(self) -> None:
        super().__init__(nn.Sequential(nn.TransformerEncoderLayer(6, 2, 8, batch_first=True), nn.Flatten()))
        self.values = []

    def training_step(self, batch, batch_idx):
        return super().training_step((batch[0][:, 0], batch[1]), batch_idx)

    def validation_step(self, batch, batch_idx):
        self.values.append(self.net(batch[0][:, 0]))


def test_a_transformers_validation_is_the_same_to_the_last_bit(tmp_path):
    values = []
    for monitors in ([], [DeadReLUMonitor()]):
        pl.seed_everything(0)
        module = Sequence()
        fit(module, monitors, tmp_path)
        values.append(torch.cat(module.values))

    assert torch.equal(*values)


def test_several_validations_in_an_epoch_leave_one_record_per_epoch(tmp_path):
    fit(Toy(), [DeadReLUMonitor()], tmp_path, logger="tensorboard", val_check_interval=2)  # at 2 and 4 of 5

    assert [step for step, _ in vectors(tmp_path, "activity/net.2")] == [3, 8]


def test_the_training_window_is_counted_on_training_examples(tmp_path):
    monitor = DeadReLUMonitor(window="train")

    assert fit(Toy(), [monitor], tmp_path).callback_metrics["dead_relu/n"].item() == 13
    assert "on 13 training examples" in monitor.sentence()


@pytest.mark.parametrize(("options", "message"), [({"window": "test"}, "window"), ({"rare_below": 0}, "not 0")])
def test_a_wrong_argument_is_an_error_that_names_it(options, message):
    with pytest.raises(MisconfigurationException, match=message):
        DeadReLUMonitor(**options)


class NotingTheCollector(Toy):
    """Notes in each validation step whether Python looks for cyclic garbage."""

    def validation_step(self, batch, batch_idx):
        self.collects = gc.isenabled()
        return super().validation_step(batch, batch_idx)


@pytest.mark.parametrize("collects", [True, False])
def test_pythons_collector_is_in_the_users_hands(collects, tmp_path):
    module = NotingTheCollector()
    (gc.enable if collects else gc.disable)()
    try:
        fit(module, [DeadReLUMonitor()], tmp_path, epochs=1)
        after = gc.isenabled()
    finally:
        gc.enable()

    assert (module.collects, after) == (collects, collects)


def test_pythons_collector_waits_while_a_window_is_published(tmp_path, monkeypatch):
    collects = []
    monkeypatch.setattr(DeadReLUReport, "records", lambda report: collects.append(gc.isenabled()) or iter(()))

    fit(Toy(), [DeadReLUMonitor()], tmp_path, epochs=2)

    assert (collects, gc.isenabled()) == ([False, False], True)


def test_a_second_monitor_is_an_error(tmp_path):
    class Derived(DeadReLUMonitor):
        """Lightning itself takes it for another kind."""

    with pytest.raises(MisconfigurationException, match="one `DeadReLUMonitor`"):
        fit(Toy(), [DeadReLUMonitor(), Derived()], tmp_path)


segment = st.sampled_from(["net", "relu", "relu:2", "0", "0:2", "1", "total", "n", "fc"])


@settings(deadline=None, max_examples=200)
@given(st.lists(st.lists(segment, min_size=1, max_size=4).map(".".join), unique=True, max_size=6))
def test_short_names_are_distinct_and_no_reserved_key_nor_a_mere_number(names):
    short = shorten(names)

    assert len(set(short)) == len(names)
    assert not any(name.replace(":", "").isdigit() for name in short)
    assert not {"total", "deaths", "revivals", "n", ""} & set(short)


def test_a_site_called_as_a_total_is_renamed():
    assert shorten(["net.total.relu", "net.fc.relu"]) == ["relu.total", "fc"]


@pytest.mark.parametrize(
    ("names", "short"),
    [
        (["net.1", "net.3"], ["net.1", "net.3"]),
        ([f"model.decoder.layers.{i}.activation_fn" for i in (0, 1)], ["layers.0", "layers.1"]),
        (["1", "3"], ["relu.1", "relu.3"]),
        (["net.conv1.relu", "net.fc1.relu"], ["conv1", "fc1"]),
    ],
)
def test_a_name_says_which_layer_it_is(names, short):
    assert shorten(names) == short


class FeaturesFirst(nn.Module):
    """A product with its features in front: (F, N)."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(16, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.weight @ x.T + torch.tensor([-9.0] * 3 + [9.0] * 13)[:, None])


@pytest.mark.parametrize("batch_size", [20, 700])
def test_units_in_front_of_the_examples_are_counted_in_small_batches_and_large_ones(batch_size, tmp_path):
    monitor, logged = validate(FeaturesFirst(), torch.zeros(1400, 1), tmp_path, batch_size)
    assert (monitor.summary()["dead"], monitor.summary()["units"], logged["dead_relu/n"]) == (3, 16, 1400)


def test_a_unit_dimension_that_an_output_lacks_is_named(tmp_path):
    with pytest.warns(UserWarning, match=r"`unit_dims` names dimension 2"):
        monitor, _ = validate(nn.Sequential(dense(1), nn.ReLU()), torch.zeros(20, 1), tmp_path, unit_dims={"*": 2})
    assert list(monitor.summary()["unwatched"]) == ["net.1"]
