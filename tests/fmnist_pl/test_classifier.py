"""Steps, metrics and optimisers of the LightningModule, on a tiny network."""

import copy

import pytest
import pytorch_lightning as pl
import torch
from torch.nn import functional as F
from torch.utils.data import DataLoader

from fmnist_pl.classifier import FashionClassifier
from fmnist_pl.loader import Batch, BatchLoader
from tests.training_health.toys import FEW_EXAMPLES, fingerprint
from training_health import lsuv, median_bias
from training_health.errors import UserError

QUIET = {
    "accelerator": "cpu", "logger": False, "num_sanity_val_steps": 0,
    **{f"enable_{part}": False for part in ("checkpointing", "progress_bar", "model_summary")},
}  # fmt: skip
TINY = {"conv_channels": (2,), "hidden_units": (4,), "image_size": 6}


def tiny_loader(count: int = 20, batch_size: int = 8, **options) -> BatchLoader:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, 6, 6), generator=generator, dtype=torch.uint8)
    return BatchLoader(images, torch.arange(count) % 10, batch_size, **options)


def fit(model: pl.LightningModule, tmp_path, epochs: int = 1, **options) -> pl.Trainer:
    trainer = pl.Trainer(max_epochs=epochs, default_root_dir=tmp_path, **QUIET, **options)
    trainer.fit(model, tiny_loader(shuffle=True), tiny_loader())
    return trainer


def test_attributes_are_set_as_in_any_module():
    model = FashionClassifier(**TINY)
    model.scale, model.note = torch.nn.Parameter(torch.ones(1)), "text"
    model.scale, model.note = None, torch.nn.Linear(1, 1)

    assert "scale" not in dict(model.named_parameters())
    assert "note" in dict(model.named_children())


def test_the_logged_validation_metrics_are_means_over_all_images(tmp_path):
    model = FashionClassifier(**TINY)
    trainer = fit(model, tmp_path)

    (everything,) = tiny_loader(batch_size=20)
    with torch.inference_mode():
        logits = model.eval()(everything.images)
    loss = F.cross_entropy(logits, everything.labels).item()
    accuracy = (logits.argmax(1) == everything.labels).double().mean().item()

    assert set(trainer.callback_metrics) == {"train/loss", "train/accuracy", "val/loss", "val/accuracy"}
    assert trainer.callback_metrics["val/loss"].item() == pytest.approx(loss, rel=1e-6)
    assert trainer.callback_metrics["val/accuracy"].item() == pytest.approx(accuracy, rel=1e-6)


def test_the_running_training_loss_is_the_mean_over_the_images_of_the_last_epoch(tmp_path):
    model = FashionClassifier(**TINY, learning_rate=0.0, conv_dropout=0.0, hidden_dropout=0.0)
    trainer = fit(model, tmp_path, epochs=2)

    (everything,) = tiny_loader(batch_size=20)
    loss = F.cross_entropy(model(everything.images), everything.labels).item()

    assert trainer.callback_metrics["train/loss"].item() == pytest.approx(loss, rel=1e-6)


def test_an_interrupted_fit_leaves_nothing_in_the_next_ones_means(tmp_path):
    class Interrupt(pl.Callback):
        def on_train_batch_end(self, _trainer, _module, _outputs, _batch, batch_idx):
            if batch_idx == 1:
                raise RuntimeError

    model = FashionClassifier(**TINY, learning_rate=0.0, conv_dropout=0.0, hidden_dropout=0.0)
    expected = fit(model, tmp_path).callback_metrics["train/loss"]
    with pytest.raises(RuntimeError):
        fit(model, tmp_path, callbacks=[Interrupt()])

    torch.testing.assert_close(fit(model, tmp_path).callback_metrics["train/loss"], expected)


def test_evaluation_returns_each_images_loss_and_correctness():
    model = FashionClassifier(**TINY).eval()
    model.log = lambda *args, **kwargs: None
    (batch,) = tiny_loader(batch_size=20)

    result = model.validation_step(batch, 0)

    assert result["losses"].shape == (20,)
    assert result["correct"].dtype == torch.bool
    torch.testing.assert_close(result["loss"], F.cross_entropy(model(batch.images), batch.labels))


def test_label_smoothing_applies_to_training_alone():
    model = FashionClassifier(**TINY, label_smoothing=0.5, conv_dropout=0.0, hidden_dropout=0.0)
    model.log = lambda *args, **kwargs: None
    (batch,) = tiny_loader(batch_size=20)

    training = model.training_step(batch, 1)
    evaluation = model.eval().validation_step(batch, 0)["loss"]

    logits = model(batch.images)
    torch.testing.assert_close(training, F.cross_entropy(logits, batch.labels, label_smoothing=0.5))
    torch.testing.assert_close(evaluation, F.cross_entropy(logits, batch.labels))


def test_a_batchs_weight_multiplies_its_loss():
    model = FashionClassifier(**TINY, conv_dropout=0.0, hidden_dropout=0.0)
    (batch,) = tiny_loader(batch_size=20)

    plain = model.training_step((batch.images, batch.labels), 1)  # not the first of an epoch, which logs
    weighted = model.training_step(Batch(batch.images, batch.labels, 0.5), 1)

    torch.testing.assert_close(weighted, plain * 0.5)


def test_prediction_returns_probabilities():
    result = FashionClassifier(**TINY).eval().predict_step(Batch(torch.rand(3, 1, 6, 6), torch.tensor([1, 2, 3])), 0)

    torch.testing.assert_close(result["probabilities"].sum(dim=1), torch.ones(3))


def test_flips_at_test_average_the_logits_of_an_image_and_its_mirror_image_but_not_in_validation():
    model = FashionClassifier(**TINY, flip_at_test=True).eval()
    model.log = lambda *args, **kwargs: None
    (batch,) = tiny_loader(batch_size=20)
    logits, mirrored = model(batch.images), model(batch.images.flip(dims=[3]))
    assert not torch.equal(logits, mirrored)

    tested, validated = model.test_step(batch, 0), model.validation_step(batch, 0)

    torch.testing.assert_close(tested["logits"], (logits + mirrored) / 2)
    torch.testing.assert_close(tested["loss"], F.cross_entropy((logits + mirrored) / 2, batch.labels))
    torch.testing.assert_close(model.predict_step(batch, 0)["probabilities"], tested["logits"].softmax(dim=1))
    torch.testing.assert_close(validated["logits"], logits)


@pytest.mark.parametrize(
    ("options", "kind", "settings"),
    [
        ({}, torch.optim.Adam, {"lr": 1e-3, "betas": (0.9, 0.999), "eps": 1e-7}),
        ({"optimizer": "adamw", "weight_decay": 0.1}, torch.optim.AdamW, {"weight_decay": 0.1}),
        ({"optimizer": "sgd", "learning_rate": 0.01}, torch.optim.SGD, {"lr": 0.01, "momentum": 0}),
        ({"optimizer": "sgd", "momentum": 0.9}, torch.optim.SGD, {"momentum": 0.9, "nesterov": True}),
    ],
)
def test_each_optimiser_is_built_with_its_settings(options, kind, settings):
    optimizer = FashionClassifier(**TINY, **options).configure_optimizers()

    assert type(optimizer) is kind
    assert {name: optimizer.param_groups[0][name] for name in settings} == settings


@pytest.mark.parametrize("schedule", ["one_cycle", "cosine"])
def test_a_schedule_moves_at_every_step_and_ends_low(tmp_path, schedule):
    rates = []

    class Watch(pl.Callback):
        def on_before_optimizer_step(self, _trainer, _module, optimizer):
            rates.append(optimizer.param_groups[0]["lr"])

    fit(FashionClassifier(**TINY, schedule=schedule), tmp_path, epochs=2, callbacks=[Watch()])

    assert len(set(rates)) == 6  # two epochs of three batches
    assert rates[-1] < 0.1 * max(rates)


def test_a_negative_learning_rate_is_refused():
    with pytest.raises(ValueError, match="learning_rate must not be negative, infinite or NaN, got -1"):
        FashionClassifier(learning_rate=-1)


def test_first_activations_are_laid_out_with_channels_innermost():
    model = FashionClassifier(**TINY)
    seen = []
    model.net.conv1.conv.register_forward_hook(
        lambda _module, _args, out: seen.append(out.is_contiguous(memory_format=torch.channels_last))
    )

    model(next(iter(tiny_loader())).images)

    assert seen == [True]


LOOKS_AT_DATA = [{"initialization": "median_bias"}, {"initialization": "lsuv"}, {"standardize": True}]


class BeforeTheFirstStep(pl.Callback):
    """Keeps a copy of the network that training starts with, and whether random numbers were drawn for it."""

    def on_fit_start(self, trainer, module):
        self.random_state = torch.get_rng_state()

    def on_train_start(self, trainer, module):
        self.net, self.drew = copy.deepcopy(module.net), not torch.equal(self.random_state, torch.get_rng_state())


@pytest.mark.parametrize("scheme", ["median_bias", "lsuv"])
def test_a_fit_starts_with_weights_and_biases_from_all_of_few_training_images_without_augmentation(tmp_path, scheme):
    torch.manual_seed(0)
    model, start = FashionClassifier(**TINY, initialization=scheme), BeforeTheFirstStep()
    expected = copy.deepcopy(model.net)
    trainer = fit(model, tmp_path, callbacks=[start], max_steps=1)
    images = [next(iter(tiny_loader(batch_size=20))).images]  # 20, fewer than 500

    assert trainer.global_step == 1
    median_bias(expected, images) if scheme == "median_bias" else lsuv(expected, images, seed=0)

    for name, value in expected.state_dict().items():
        if name != "started":
            torch.testing.assert_close(start.net.state_dict()[name], value)
    assert not start.drew


def test_a_standardised_network_is_the_plain_one_on_standardised_images(tmp_path):
    torch.manual_seed(0)
    model, start = FashionClassifier(**TINY, standardize=True), BeforeTheFirstStep()
    plain = copy.deepcopy(model.net)
    fit(model, tmp_path, callbacks=[start])
    pixels = tiny_loader().images.numpy() / 255

    images = torch.rand(3, 1, 6, 6)
    plain.standardize = False

    assert model.measured == pytest.approx({"pixel_mean": pixels.mean(), "pixel_std": pixels.std()}, rel=1e-6)
    expected = plain.eval()((images - pixels.mean()) / pixels.std())
    torch.testing.assert_close(start.net.eval()(images), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("options", LOOKS_AT_DATA)
def test_a_resumed_fit_ends_with_the_weights_of_an_uninterrupted_one(tmp_path, options):
    found = []
    for epochs in (2, 1):
        torch.manual_seed(0)
        model = FashionClassifier(**TINY, **options)
        trainer = fit(model, tmp_path, epochs=epochs)
        found.append(fingerprint(model))
    trainer.save_checkpoint(tmp_path / "one.ckpt")
    resumed = FashionClassifier(**TINY, **options)
    trainer = pl.Trainer(max_epochs=2, **QUIET, default_root_dir=tmp_path)
    trainer.fit(resumed, tiny_loader(shuffle=True), tiny_loader(), ckpt_path=tmp_path / "one.ckpt", weights_only=True)

    assert fingerprint(resumed) == found[0] != found[1]


@pytest.mark.parametrize("options", LOOKS_AT_DATA)
def test_what_is_trained_is_not_initialised_by_a_further_fit(tmp_path, options):
    model = FashionClassifier(**TINY, **options)
    fit(model, tmp_path)
    trained, start = fingerprint(model.net), BeforeTheFirstStep()

    loaded = FashionClassifier(**TINY, **options)
    loaded.load_state_dict(model.state_dict())
    fit(loaded, tmp_path, callbacks=[start])

    assert fingerprint(start.net) == trained


@FEW_EXAMPLES
@pytest.mark.parametrize("options", LOOKS_AT_DATA)
def test_a_loader_without_the_images_in_memory_is_refused_in_words(tmp_path, options):
    loader = DataLoader([(torch.rand(1, 6, 6), 0)] * 4, batch_size=2)
    trainer = pl.Trainer(max_epochs=1, **QUIET, default_root_dir=tmp_path)

    with pytest.raises(UserError, match="train with FashionMNISTDataModule or a BatchLoader, not with DataLoader"):
        trainer.fit(FashionClassifier(**TINY, **options), loader, tiny_loader())
