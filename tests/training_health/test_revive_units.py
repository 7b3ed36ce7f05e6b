"""Units that begin again: which, with what, and that nothing else changes."""

import contextlib
from collections import Counter

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tests.training_health.toys import (
    FEW_EXAMPLES,
    Toy,
    assert_clean,
    events,
    fingerprint,
    fit,
    image_set,
    loader,
    make_trainer,
    pl,
    vectors,
)
from training_health import DeadReLUMonitor, ReviveUnits, TrainValGapMonitor

pytestmark = FEW_EXAMPLES
LambdaCallback = pl.callbacks.LambdaCallback


def planted(dead: int = 2, norm: bool = False, dropout: float = 0.1) -> nn.Sequential:
    """A convolution and a dense layer, whose first ``dead`` units never fire and have positive incoming weights."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4) if norm else nn.Identity(), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(16, 8), nn.ReLU(inplace=True), nn.Dropout(dropout), nn.Linear(8, 4),
    )  # fmt: skip
    with torch.no_grad():
        for layer in (net[1] if norm else net[0], net[5]):
            layer.bias.fill_(3.0)
            layer.bias[:dead] = -99.0
    return net


class Snapshots(pl.Callback):
    """Keeps the network's state at the end of each validation, before each epoch's first step, and at its end."""

    def __init__(self) -> None:
        self.evaluated, self.begun, self.ended = [], [], []

    def on_validation_end(self, trainer, pl_module):
        self.evaluated.append(self.copy(pl_module))

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if batch_idx == 0:
            self.begun.append(self.copy(pl_module))

    def on_train_epoch_end(self, trainer, pl_module):
        self.ended.append(self.copy(pl_module))

    @staticmethod
    def copy(pl_module):
        return {name.removeprefix("net."): tensor.clone() for name, tensor in pl_module.state_dict().items()}


def revived(revive: ReviveUnits, net: nn.Module, folder, epochs: int = 2, **options) -> Snapshots:
    snapshots = Snapshots()
    fit(Toy(net, learning_rate=0.0), [revive, snapshots], folder, epochs=epochs, **options)
    return snapshots


def test_dead_units_get_new_incoming_weights_no_bias_and_no_outgoing_weights(tmp_path):
    seen = revived(ReviveUnits(threshold=0.0), planted(), tmp_path)
    before, after = seen.evaluated[0], seen.begun[1]

    changed = {name: before[name] != after[name] for name in before}
    assert changed["0.weight"].flatten(1).all(1).tolist() == [True, True, False, False]
    assert changed["0.weight"].flatten(1).any(1).tolist() == [True, True, False, False]
    assert after["0.bias"].tolist() == [0, 0, 3, 3]
    assert not after["5.weight"][:, :8].any()  # channels 0 and 1, four positions each
    assert changed["5.weight"][:, 8:].all(1).tolist() == [True, True, *[False] * 6]
    assert changed["5.weight"][:, 8:].any(1).tolist() == [True, True, *[False] * 6]
    assert after["5.bias"].tolist() == [0, 0, 3, 3, 3, 3, 3, 3]
    assert not after["8.weight"][:, :2].any()
    assert not changed["8.weight"][:, 2:].any()
    assert torch.equal(after["8.bias"], before["8.bias"])


def test_with_outgoing_weights_zero_the_network_computes_what_it_did(tmp_path):
    seen = revived(ReviveUnits(threshold=0.0), planted(), tmp_path)
    images = image_set(13, seed=1).tensors[0]

    def outputs(state):
        net = planted()
        net.load_state_dict(state)
        return net.eval()(images)

    torch.testing.assert_close(outputs(seen.begun[1]), outputs(seen.evaluated[0]))


def test_new_weights_have_the_scale_of_the_layers_first_ones(tmp_path):
    net = nn.Sequential(nn.Flatten(), nn.Linear(36, 300), nn.ReLU(), nn.Linear(300, 4))
    nn.init.uniform_(net[1].weight, -0.2, 0.2)
    with torch.no_grad():
        net[1].bias.fill_(-99.0)
        net[3].weight.normal_(std=0.3)
    after = revived(ReviveUnits(threshold=0.0, outgoing="drawn"), net, tmp_path).begun[1]

    assert float(after["1.weight"].abs().max()) == pytest.approx(0.2, rel=0.01)
    assert float(after["1.weight"].std()) == pytest.approx(0.2 / 3**0.5, rel=0.03)
    assert float(after["3.weight"].std()) == pytest.approx(0.3, rel=0.15)


def test_a_batch_normalisation_in_between_begins_again(tmp_path):
    seen = revived(ReviveUnits(threshold=0.0), planted(norm=True), tmp_path)
    before, after = seen.evaluated[0], seen.begun[1]

    for name, value in {"weight": 1.0, "bias": 0.0, "running_mean": 0.0, "running_var": 1.0}.items():
        assert after[f"1.{name}"][:2].tolist() == [value, value]
        assert torch.equal(after[f"1.{name}"][2:], before[f"1.{name}"][2:])


@pytest.mark.parametrize(
    ("make", "keys"),
    [
        (lambda p: torch.optim.Adam(p, 1e-3, amsgrad=True), ["exp_avg", "exp_avg_sq", "max_exp_avg_sq"]),
        (lambda p: torch.optim.SGD(p, 1e-3, momentum=0.9), ["momentum_buffer"]),
    ],
    ids=["adam", "sgd"],
)
def test_the_optimisers_state_is_cleared_at_these_entries_alone(make, keys, tmp_path):
    class Optimised(Toy):
        def configure_optimizers(self):
            return make(self.parameters())

    class Full(pl.Callback):  # before `ReviveUnits`
        def on_train_epoch_start(self, trainer, pl_module):
            for state in trainer.optimizers[0].state.values():
                for key in keys:
                    state[key].fill_(7.0)

    class Look(pl.Callback):  # after it
        def on_train_epoch_start(self, trainer, pl_module):
            if trainer.current_epoch == 1:
                named = dict(pl_module.net.named_parameters())
                self.state = {name: trainer.optimizers[0].state[p] for name, p in named.items()}
                self.state = {name: {k: v.clone() for k, v in s.items()} for name, s in self.state.items()}

    look = Look()
    fit(Optimised(planted()), [Full(), ReviveUnits(threshold=0.0), look], tmp_path)

    for key in keys:
        assert look.state["0.bias"][key].tolist() == [0, 0, 7, 7]
        assert (look.state["5.weight"][key] == 7).tolist() == [[False] * 16] * 2 + [[False] * 8 + [True] * 8] * 6
        assert (look.state["8.weight"][key] == 7).tolist() == [[False] * 2 + [True] * 6] * 4
        assert (look.state["8.bias"][key] == 7).all()
    assert all(state.get("step", 5) == 5 for state in look.state.values())


def test_what_is_saved_at_an_epochs_end_are_the_weights_that_were_evaluated(tmp_path):
    seen = revived(ReviveUnits(threshold=0.0), planted(), tmp_path)

    for evaluated, ended in zip(seen.evaluated, seen.ended, strict=True):
        assert all(torch.equal(evaluated[name], ended[name]) for name in ended)  # also after the last epoch


# ---- which units

OUTPUTS = torch.tensor([0.0, 0.0, 0.001, 1.0, 1.0, 1.0])


class Chooser(Toy):
    """One site whose units' outputs are ``OUTPUTS``, the last with no gradient, and training that changes nothing."""

    def __init__(self, outputs=OUTPUTS) -> None:
        super().__init__(learning_rate=0.0)
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(36, 6), nn.ReLU(), nn.Linear(6, 4))
        with torch.no_grad():
            self.net[1].weight.zero_()
            self.net[1].bias.copy_(torch.where(outputs > 0, outputs, -1.0))
            self.net[3].weight[:, 5] = 0
            self.outgoing = self.net[3].weight


def chosen(revive, module, folder, epochs=2) -> list[list[int]]:
    """Units of each record."""
    fit(module, [revive], folder, epochs=epochs, logger="tensorboard")
    return [np.flatnonzero(vector[2:]).tolist() for _, vector in vectors(folder, "revived/net")]


def test_redo_takes_units_with_little_output(tmp_path):
    assert chosen(ReviveUnits("redo"), Chooser(), tmp_path) == [[0, 1, 2]]


def test_redo_with_threshold_zero_takes_dead_units_alone(tmp_path):
    assert chosen(ReviveUnits("redo", threshold=0), Chooser(), tmp_path) == [[0, 1]]


def test_grama_takes_units_that_no_gradient_reaches(tmp_path):
    assert chosen(ReviveUnits("grama"), Chooser(), tmp_path) == [[0, 1, 5]]


@pytest.mark.parametrize("activation", [nn.ReLU6(), nn.ReLU6(inplace=True), nn.Hardtanh(0, 1.5)])
def test_grama_takes_units_at_the_upper_end_of_the_activation(activation, tmp_path):
    module = Chooser(torch.tensor([0.0, 0.5, 0.5, 1.0, 9.0, 1.0]))
    module.net[2] = activation

    assert chosen(ReviveUnits("grama"), module, tmp_path) == [[0, 4, 5]]


def test_random_takes_as_many_live_units(tmp_path):
    (units,) = chosen(ReviveUnits("random", threshold=0.0), Chooser(), tmp_path / "a")
    drawn = {tuple(chosen(ReviveUnits("random", seed=s), Chooser(), tmp_path / str(s))[0]) for s in range(6)}

    assert len(units) == 2
    assert set(units) <= {2, 3, 4, 5}
    assert len(drawn) == 1  # redo would choose three of the six, which leaves three that live
    assert drawn == {(3, 4, 5)}


def test_snr_waits_longer_for_a_unit_that_fires_rarely(tmp_path):
    class Silenced(Chooser):
        """Unit 0 fires on every example, unit 1 on one of 13; from the second epoch on neither does."""

        def validation_step(self, batch, batch_idx):
            images, labels = batch
            images = images.clone()
            images[:, 0, 0, 0] = float(self.current_epoch == 0)
            images[:, 0, 0, 1] = float(self.current_epoch == 0 and batch_idx == 0) * (torch.arange(len(images)) == 0)
            return super().validation_step((images, labels), batch_idx)

    module = Silenced(torch.ones(6))
    with torch.no_grad():
        module.net[1].weight[[0, 1], [0, 1]] = 1.0
        module.net[1].bias[:2] = -0.5
    # 13 examples a window; (12 / 13)^26 = 0.125, (12 / 13)^39 = 0.044
    found = chosen(ReviveUnits("snr", threshold=0.1), module, tmp_path, epochs=5)

    assert found == [[], [0], [], [1]]


def test_it_acts_every_few_epochs(tmp_path):
    revive = ReviveUnits("redo", every_n_epochs=2)
    fit(Chooser(), [revive], tmp_path, epochs=6, logger="tensorboard")

    assert [vector[0] for _, vector in vectors(tmp_path, "revived/net")] == [2, 4]


# ---- what is left alone


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = nn.Linear(36, 6), nn.Linear(6, 6), nn.Linear(6, 4)

    def forward(self, x):
        x = F.relu(self.first(x.flatten(1)))
        return self.third(F.relu(self.second(x)) + x)


class Shared(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.both, self.last = nn.Linear(36, 6), nn.Linear(6, 6), nn.Linear(6, 4)

    def forward(self, x):
        return self.last(torch.relu(self.both(torch.relu(self.both(torch.relu(self.first(x.flatten(1))))))))


def frozen() -> nn.Module:
    net = planted()
    net[0].requires_grad_(False)
    return net


@pytest.mark.parametrize(
    ("net", "named"),
    [
        (Residual(), {"relu": "`add` takes its values", "relu:2": "`add` takes its values"}),
        (Shared(), dict.fromkeys(("relu", "relu:2", "relu:3"), "both.weight is used more than once")),
        (frozen(), {"net.2": "0.weight is frozen"}),
    ],
    ids=["residual", "shared", "frozen"],
)
def test_what_cannot_be_followed_is_named_and_left_alone(net, named, tmp_path):
    for parameter in net.parameters():  # all dead
        if parameter.dim() == 1:
            nn.init.constant_(parameter, -99.0)
    revive = ReviveUnits()
    with pytest.warns(UserWarning, match="`ReviveUnits` leaves units alone"):
        seen = revived(revive, net, tmp_path)

    left = {
        site.removeprefix("relu."): reason.replace("net.", "")
        for site, reason in revive.summary()["left_alone"].items()
    }
    assert {site: left[site] for site in named} == named
    if not isinstance(net, nn.Sequential):
        assert all(torch.equal(seen.begun[0][name], seen.begun[1][name]) for name in seen.begun[0])
    else:
        assert torch.equal(seen.begun[0]["0.weight"], seen.begun[1]["0.weight"])


def test_a_frozen_normalisation_keeps_its_numbers(tmp_path):
    net = planted(norm=True)
    net[1].requires_grad_(False)
    with pytest.warns(UserWarning, match=r"net\.2: net\.1\.weight is frozen"):
        seen = revived(ReviveUnits(threshold=0.0), net, tmp_path)

    assert seen.begun[1]["1.bias"].tolist() == [-99, -99, 3, 3]
    assert torch.equal(seen.begun[1]["1.running_var"], seen.evaluated[0]["1.running_var"])
    assert seen.begun[1]["5.bias"].tolist() == [0, 0, 3, 3, 3, 3, 3, 3]  # of the site that is not frozen


# ---- the promises


def test_where_no_unit_is_chosen_training_is_the_same_to_the_last_bit(tmp_path):
    def trained(callbacks):
        pl.seed_everything(3)
        module = Toy(planted(dead=0), learning_rate=0.001)
        fit(module, callbacks, tmp_path, epochs=3)
        return fingerprint(module), torch.rand(3).tolist()

    for method in ("redo", "snr", "random"):
        assert trained([ReviveUnits(method, threshold=0.0)]) == trained([])
    assert trained([ReviveUnits("grama", threshold=0.0)]) == trained([])


@pytest.mark.parametrize("method", ["redo", "snr", "grama", "random"])
def test_a_resumed_run_is_the_same_as_one_that_never_stopped(method, tmp_path):
    def run(epochs, checkpoint=None):
        pl.seed_everything(5)
        module, revive = Toy(planted(norm=True, dropout=0.0)), ReviveUnits(method, threshold=0.05)
        trainer = make_trainer([revive, DeadReLUMonitor()], tmp_path, epochs=epochs)
        trainer.fit(module, loader(23), loader(13, seed=1), ckpt_path=checkpoint)
        trainer.save_checkpoint(tmp_path / f"{epochs}.ckpt")
        torch.load(tmp_path / f"{epochs}.ckpt", weights_only=True)  # nothing but plain values is in it
        return fingerprint(module), revive.summary()

    whole = run(5)
    run(2)

    assert run(5, tmp_path / "2.ckpt") == whole
    assert whole[1]["units"] > 0


def test_the_seed_decides_what_is_drawn(tmp_path):
    def weights(seed):
        return revived(ReviveUnits(threshold=0.0, seed=seed), planted(), tmp_path).begun[1]["0.weight"]

    assert torch.equal(weights(1), weights(1))
    assert not torch.equal(weights(1), weights(2))


@pytest.mark.parametrize("first", [True, False], ids=["before the monitors", "after the monitors"])
def test_it_works_beside_the_monitors_in_either_order(first, tmp_path):
    revive, dead = ReviveUnits(threshold=0.0), DeadReLUMonitor()
    monitors = [dead, TrainValGapMonitor()]
    fit(Toy(planted(), learning_rate=0.0), [revive, *monitors] if first else [*monitors, revive], tmp_path)

    assert revive.summary()["left_alone"] == {}
    assert revive.summary()["units"] == 4


def test_it_logs_how_many_units_began_again(tmp_path):
    trainer = fit(Toy(planted(), learning_rate=0.0), [ReviveUnits(threshold=0.0)], tmp_path)

    logged = {key: value.item() for key, value in trainer.callback_metrics.items() if key.startswith("revive/")}
    assert logged == {"revive/total": 4.0, "revive/net.2": 2.0, "revive/net.6": 2.0}


def test_summary_and_sentence_follow_what_became_of_the_units(tmp_path):
    class Fated(Chooser):
        """Unit 0 fires once it has new weights; unit 1 never does."""

        def on_train_batch_start(self, batch, batch_idx):
            with torch.no_grad():
                if self.current_epoch:
                    self.net[1].bias[0] = 5.0
                self.net[1].bias[1] = -99.0

    revive = ReviveUnits(threshold=0.0)
    fit(Fated(), [revive], tmp_path, epochs=5)

    found = {key: revive.summary()[key] for key in ("units", "dead", "lasting", "died_again")}
    assert found == {"units": 5, "dead": 5, "lasting": 1, "died_again": 4}
    assert revive.sentence() == (
        "ReviveUnits (redo) gave new weights to 5 units, counting each time; 5 of them were dead, and of these 1 fired "
        "in each of the next three windows and 4 did not."
    )


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"method": "pray"}, "choose one of redo, snr, grama, random"),
        ({"threshold": 1.5}, "from 0 to below 1, not 1.5"),
        ({"outgoing": "none"}, '"zero" or "drawn"'),
        ({"every_n_epochs": 0}, "at least 1, not 0"),
        ({"seed": -1}, "must not be negative"),
    ],
)
def test_wrong_arguments_are_named(arguments, words):
    with pytest.raises(pl.utilities.exceptions.MisconfigurationException, match=words):
        ReviveUnits(**arguments)


# ---- it gets along with any trainer


@pytest.mark.parametrize("method", ["redo", "grama"])
@pytest.mark.parametrize("step", ["training_step", "validation_step"])
@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
@pytest.mark.filterwarnings("ignore:Detected KeyboardInterrupt")
def test_nothing_is_left_after_an_exception_or_ctrl_c(method, step, error, tmp_path):
    class Faulty(Toy):
        def on_train_batch_start(self, batch, batch_idx):
            self.fail("training_step", batch_idx)

        def on_validation_batch_end(self, outputs, batch, batch_idx):
            self.fail("validation_step", batch_idx)

        def fail(self, where, batch_idx):
            if (where, self.current_epoch, batch_idx) == (step, 1, 1):
                raise error("planted")

    module, revive = Faulty(planted()), ReviveUnits(method)
    with contextlib.suppress(RuntimeError, SystemExit, KeyboardInterrupt):  # Lightning 2.2 keeps Ctrl-C to itself
        fit(module, [revive], tmp_path)

    assert module.trainer.current_epoch == 1
    assert_clean(module)
    fit(Toy(planted()), [revive], tmp_path)  # and the callback is fit for another
    assert_clean(module)


@pytest.mark.parametrize("method", ["redo", "snr", "grama"])
@pytest.mark.parametrize(
    "options",
    [
        {"fast_dev_run": True}, {"limit_val_batches": 0}, {"num_sanity_val_steps": 2}, {"val_check_interval": 2},
        {"check_val_every_n_epoch": 2}, {"val_check_interval": 3, "check_val_every_n_epoch": None},
        {"accumulate_grad_batches": 2}, {"inference_mode": False}, {"precision": "bf16-mixed"},
    ],
    ids=lambda options: "-".join(options),
)  # fmt: skip
@pytest.mark.filterwarnings("ignore:Neither dead units nor the gap")
def test_any_trainer_option_will_do(method, options, tmp_path):
    trainer = fit(Toy(planted()), [ReviveUnits(method)], tmp_path, epochs=3, logger="tensorboard", **options)

    assert trainer.state.finished
    written = Counter((tag, step) for tag, step, _ in events(tmp_path) if "revive" in tag)
    assert [key for key, times in written.items() if times > 1] == []
    assert bool(written) == (not {"fast_dev_run", "limit_val_batches"} & set(options))


def test_validation_alone_will_do(tmp_path):
    trainer = make_trainer([ReviveUnits()], tmp_path)
    trainer.validate(Toy(planted()), loader(13), verbose=False)

    assert trainer.state.finished


def test_a_model_without_any_relu_is_said(tmp_path):
    with pytest.warns(UserWarning, match="`ReviveUnits` saw no ReLU"):
        fit(Toy(nn.Sequential(nn.Flatten(), nn.Linear(36, 4))), [ReviveUnits()], tmp_path)


def test_without_gradients_grama_says_so_and_the_fit_goes_on(tmp_path):
    class Manual(Toy):
        def __init__(self) -> None:
            super().__init__(planted())
            self.automatic_optimization = False

        def training_step(self, batch, batch_idx):
            loss = super().training_step(batch, batch_idx)
            self.optimizers().zero_grad()
            self.manual_backward(loss)
            self.optimizers().step()

    with pytest.warns(UserWarning, match="no gradients to judge by: with manual optimisation"):
        assert fit(Manual(), [ReviveUnits("grama")], tmp_path).state.finished
