"""Stops a fit that overfits, and no other."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lightning_utilities.core import rank_zero
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from tests.training_health.toys import FEW_EXAMPLES, Toy, make_trainer, pl
from training_health import GapStopping, TrainValGapMonitor
from training_health.gap_stopping import Overfitting
from training_health.lightning import MisconfigurationException

pytestmark = FEW_EXAMPLES


def readable(count: int, wrong: float = 0.0, seed: int = 0) -> DataLoader:
    """Images whose first pixels say the label, of which a fraction is wrong."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 4, (count,), generator=generator)
    said = torch.where(torch.rand(count, generator=generator) < wrong, (labels + 1) % 4, labels)
    images = torch.zeros(count, 1, 6, 6)
    images.flatten(1)[:, :4] = 4.0 * F.one_hot(said, 4)
    return DataLoader(TensorDataset(images, labels), batch_size=20)


class Reader(Toy):
    """Reads the label from the first pixels, and learns nothing."""

    def __init__(self, exact: bool = True) -> None:
        super().__init__(nn.Sequential(nn.Flatten(), nn.Linear(36, 4)), exact, 0.0)
        with torch.no_grad():
            self.net[1].weight.copy_(torch.eye(4, 36))


class Truth(pl.Callback):
    """The loss on many examples that neither training nor the decision knows, after each epoch."""

    def __init__(self) -> None:
        self.images, self.labels = noisy(4000, seed=9).dataset.tensors
        self.losses = []

    def on_train_epoch_end(self, trainer, pl_module):
        pl_module.eval()
        with torch.no_grad():
            self.losses.append(F.cross_entropy(pl_module.net(self.images), self.labels).item())
        pl_module.train()


def noisy(count: int, seed: int, shuffle: bool = False) -> DataLoader:
    """Classes that overlap: learnt by heart, they are not learnt."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 4, (count,), generator=generator)
    images = torch.randn(count, 1, 6, 6, generator=generator) + 0.3 * (labels - 1.5).view(-1, 1, 1, 1)
    return DataLoader(TensorDataset(images, labels), batch_size=50, shuffle=shuffle)


def wide_network(dropout: float = 0.0) -> nn.Sequential:
    return nn.Sequential(nn.Flatten(), nn.Linear(36, 256), nn.ReLU(), nn.Dropout(dropout), nn.Linear(256, 4))


def run(module, folder, train, val, epochs=30, stopping=None, callbacks=(), **options):
    stopping = GapStopping() if stopping is None else stopping
    trainer = make_trainer([TrainValGapMonitor(), stopping, *callbacks], folder, epochs=epochs, **options)
    trainer.fit(module, train, val)
    return stopping, trainer


@pytest.mark.parametrize("seed", range(3))
def test_a_planted_overfit_is_stopped_within_two_epochs_of_its_onset(seed, tmp_path):
    pl.seed_everything(seed)
    truth = Truth()

    stopping, trainer = run(
        Toy(wide_network()), tmp_path, noisy(200, seed, shuffle=True), noisy(1000, seed + 20), callbacks=[truth]
    )

    onset = truth.losses.index(min(truth.losses)) + 1  # the first epoch that is worse
    assert abs(stopping.stopped_epoch - onset) <= 2
    assert trainer.current_epoch == stopping.stopped_epoch + 1


@pytest.mark.parametrize("seed", range(3))
def test_a_fit_whose_running_accuracy_alone_is_far_off_goes_to_its_end(seed, tmp_path):
    pl.seed_everything(seed)

    stopping, trainer = run(
        Toy(wide_network(dropout=0.9), learning_rate=0.01), tmp_path, noisy(2000, seed, shuffle=True), noisy(1000, 20),
        epochs=8,
    )  # fmt: skip

    assert trainer.callback_metrics["gap/mode_effect"] > 0.05
    assert (stopping.stopped_epoch, stopping.sentence(), trainer.current_epoch) == (None, "", 8)


@pytest.mark.parametrize(
    ("patience", "wrong", "stopped"), [(1, 0.5, 1), (2, 0.5, 2), (3, 0.5, 3), (1, 0.0, None), (5, 0.5, None)]
)
def test_it_stops_after_as_many_epochs_in_a_row_as_it_was_told(patience, wrong, stopped, tmp_path):
    stopping, _ = run(Reader(), tmp_path, readable(100), readable(100, wrong), 5, GapStopping(patience))

    assert stopping.stopped_epoch == stopped  # the first epoch sets the best value, later ones equal it


def test_validation_that_is_better_than_training_is_no_reason(tmp_path):
    stopping, _ = run(Reader(), tmp_path, readable(100, 0.5), readable(100), 4)

    assert stopping.summary() == {"stopped_epoch": None, "epochs_in_a_row": 0}


def test_why_is_said_in_one_line(tmp_path, caplog):
    with caplog.at_level("INFO", logger=rank_zero.log.name):  # another test may have quieted it
        stopping, _ = run(Reader(), tmp_path, readable(100), readable(100, 0.5), 5)

    said = [record.getMessage() for record in caplog.records if record.getMessage().startswith("GapStopping")]
    assert said == [stopping.sentence()]
    assert "ends the fit after epoch 4: in 3 epochs in a row the gap was beyond noise (now " in said[0]


class Regression(Reader):
    """Without an accuracy."""

    def validation_step(self, batch, batch_idx):
        return {"losses": F.cross_entropy(self.net(batch[0]), batch[1], reduction="none")}


@pytest.mark.parametrize(("kind", "metric", "words"), [
    (Reader, "accuracy", "points, 95 %) and validation set no new best (loss"),
    (Reader, "loss", ", 95 %) and validation set no new best (loss"),
    (Regression, "accuracy", ", 95 %) and validation set no new best (loss"),
])  # fmt: skip
def test_the_gap_is_the_asked_metrics_or_the_losss(kind, metric, words, tmp_path):
    stopping, _ = run(kind(), tmp_path, readable(100), readable(100, 0.5), 5, GapStopping(metric=metric))

    assert stopping.stopped_epoch == 3
    assert words in stopping.sentence()
    assert ("points" in stopping.sentence()) == ("points" in words)


def test_epochs_without_validation_are_passed_over(tmp_path):
    stopping, trainer = run(
        Reader(), tmp_path, readable(100), readable(100, 0.5), 9, callbacks=(), check_val_every_n_epoch=2
    )

    assert stopping.stopped_epoch == 7  # the fourth validation
    assert trainer.current_epoch == 8


def test_a_resumed_fit_stops_where_it_would_have(tmp_path):
    train, val = readable(100), readable(100, 0.5)
    _, trainer = run(Reader(), tmp_path, train, val, epochs=2)
    trainer.save_checkpoint(tmp_path / "two.ckpt")

    stopping = GapStopping()
    trainer = make_trainer([TrainValGapMonitor(), stopping], tmp_path, epochs=9)
    trainer.fit(Reader(), train, val, ckpt_path=tmp_path / "two.ckpt")

    assert stopping.stopped_epoch == 3


VALIDATES_AGAIN = pytest.mark.skipif(
    pl.__version__.startswith("2.2."), reason="Lightning 2.2 validates again, on the last batch alone"
)


@VALIDATES_AGAIN
@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")
def test_a_fit_stops_where_it_would_have_that_resumes_from_the_end_of_a_validation(tmp_path):
    def fitted(checkpoint=None):
        stopping, save = GapStopping(), pl.callbacks.ModelCheckpoint(tmp_path, "{epoch}", save_top_k=-1)
        callbacks = [TrainValGapMonitor(), stopping, save]
        options = {"enable_checkpointing": True, "check_val_every_n_epoch": 2}  # saved before the epoch's end
        trainer = make_trainer(callbacks, tmp_path, epochs=12, **options)
        trainer.fit(Reader(), readable(100), readable(100, 0.5), ckpt_path=checkpoint)
        return stopping.stopped_epoch

    stopped = fitted()
    assert fitted(tmp_path / "epoch=1.ckpt") == stopped
    assert fitted(tmp_path / "epoch=3.ckpt") == stopped


@VALIDATES_AGAIN
def test_a_gap_in_a_checkpoint_is_of_its_own_epoch_alone(tmp_path):
    class Save(pl.Callback):
        def on_validation_end(self, trainer, pl_module):
            trainer.save_checkpoint(file)

    file, monitor = tmp_path / "within.ckpt", TrainValGapMonitor()
    make_trainer([TrainValGapMonitor(), Save()], tmp_path, epochs=1).fit(Reader(), readable(100), readable(100, 0.5))
    checkpoint = torch.load(file, weights_only=False)
    checkpoint["TrainValGapMonitor"][-1] = 5
    torch.save(checkpoint, file)
    make_trainer([monitor], tmp_path, epochs=1).fit(Reader(), readable(100), readable(100, 0.5), ckpt_path=file)

    assert monitor.summary() == {}


@pytest.mark.parametrize("callbacks", [[], ["after"]])
def test_without_a_monitor_before_it_the_error_says_what_to_do(callbacks, tmp_path):
    monitors = [TrainValGapMonitor() for _ in callbacks]
    trainer = make_trainer([GapStopping(), *monitors], tmp_path)

    with pytest.raises(MisconfigurationException, match="there is none before it: use `Trainer"):
        trainer.fit(Reader(), readable(20), readable(20))


@pytest.mark.parametrize("options", [{"patience": 0}, {"patience": 1.5}, {"metric": "mode_effect"}])
def test_what_makes_no_sense_is_refused(options):
    with pytest.raises(MisconfigurationException, match="GapStopping"):
        GapStopping(**options)


def test_a_fit_in_which_nothing_could_be_measured_says_so(tmp_path):
    class Mute(Reader):
        def validation_step(self, batch, batch_idx):
            pass

    with pytest.warns(UserWarning, match=r"`GapStopping` had nothing to decide by\. The gap is unknown"), \
         pytest.warns(UserWarning, match="has nothing to compare"):  # fmt: skip
        run(Mute(), tmp_path, readable(20), readable(20), epochs=1)


def test_an_epoch_whose_gap_has_no_interval_is_named(tmp_path):
    with pytest.warns(UserWarning, match="`GapStopping` cannot judge epoch 1, and passes over all such epochs"):
        run(Reader(exact=False), tmp_path, readable(20), readable(20), 2, GapStopping(metric="loss"))  # a single batch


values = st.one_of(st.just(math.nan), st.floats(-1, 1))


@settings(deadline=None, max_examples=200)
@given(st.lists(st.tuples(values, st.one_of(st.just(math.nan), st.floats(0, 1)), values), max_size=12))
def test_the_count_is_of_the_last_epochs_with_a_gap_beyond_noise_and_no_new_best(epochs):
    watch, expected = Overfitting(), 0
    for number, (gap, margin, value) in enumerate(epochs):
        earlier = [each for _, _, each in epochs[:number] if each == each]
        overfits = gap > margin and bool(earlier) and value >= min(earlier)
        expected = expected + 1 if overfits else 0

        assert watch.update(number, gap, margin, value) == expected
