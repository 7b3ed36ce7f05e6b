"""What `fmnist predict` leaves and says, against a forward pass of its own."""

import csv

import pytest
import pytorch_lightning as pl
import torch

from fmnist_pl.classifier import FashionClassifier
from fmnist_pl.cli import main
from fmnist_pl.dataset.files import CLASS_NAMES
from fmnist_pl.dataset.synthetic import load_synthetic
from fmnist_pl.loader import BatchLoader
from fmnist_pl.runs.predictions_file import in_image_order
from training_health.errors import UserError

NETWORK = {"conv_channels": [2, 2], "hidden_units": [4]}
IMAGES = 2_000  # the synthetic test set


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """Weights that no training has touched, and the module that has them."""
    pl.seed_everything(3, verbose=False)
    module = FashionClassifier(**NETWORK)
    trainer = pl.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False)
    trainer.strategy.connect(module)
    module.trainer = trainer
    path = tmp_path_factory.mktemp("weights") / "some.ckpt"
    trainer.save_checkpoint(path)
    return path, module.eval()


@pytest.fixture
def predict(tmp_path, data_dir, checkpoint, monkeypatch):
    """Run the command in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DATA_DIR", str(data_dir))

    def run(*options: str) -> None:
        given = ["--data.dataset=synthetic", "--trainer.accelerator=cpu", f"--ckpt_path={checkpoint[0]}"]
        main(["predict", *given, *options])

    return run


def expected_rows(data_dir, module, count=IMAGES):
    images, labels = load_synthetic(data_dir, "test", images=IMAGES)
    inputs = torch.as_tensor(images[:count]).float().div(255).unsqueeze(1)
    with torch.no_grad():
        probabilities = torch.exp(torch.log_softmax(module(inputs), dim=1))
    return [
        (i, CLASS_NAMES[int(label)], CLASS_NAMES[int(row.argmax())], float(row.max()))
        for i, (label, row) in enumerate(zip(labels, probabilities, strict=False))
    ]


def read(path):
    with path.open(newline="") as file:
        header, *rows = list(csv.reader(file))
    assert header == ["image", "label", "predicted", "probability"]
    return [(int(i), label, predicted, float(probability)) for i, label, predicted, probability in rows]


def check(rows, expected):
    assert [row[:2] for row in rows] == [row[:2] for row in expected]
    assert [row[3] for row in rows] == pytest.approx([row[3] for row in expected], abs=2e-6)
    # Rounding may turn a tie of two classes: the summation order depends on the batch.
    assert sum(a[2] != b[2] for a, b in zip(rows, expected, strict=True)) <= 1


def test_every_image_has_its_line_in_order(predict, tmp_path, data_dir, checkpoint, capsys):
    predict()

    path = tmp_path / "lightning_logs" / "baseline-synthetic-predict" / "version_0" / "predictions.csv"
    rows = read(path)
    check(rows, expected_rows(data_dir, checkpoint[1]))
    accuracy = sum(row[1] == row[2] for row in rows) / IMAGES
    printed = capsys.readouterr().out
    assert f"Accuracy {accuracy:.4f} on 2,000 images." in printed
    assert f"Each prediction: {path.relative_to(tmp_path)}" in printed.replace(f"{tmp_path}/", "")


def test_without_a_logger_the_file_is_in_the_current_folder(predict, tmp_path, data_dir, checkpoint):
    predict("--trainer.logger=false", "--trainer.limit_predict_batches=0.05")

    check(read(tmp_path / "predictions.csv"), expected_rows(data_dir, checkpoint[1], 100))


def test_a_trial_run_leaves_no_file(predict, tmp_path):
    predict("--trainer.fast_dev_run=true")

    assert not list(tmp_path.rglob("predictions.csv"))


def test_a_file_that_cannot_be_written_is_refused_in_words(predict, tmp_path):
    (tmp_path / "predictions.csv").mkdir()

    with pytest.raises(UserError, match=r"predictions.csv cannot be written: Is a directory"):
        predict("--trainer.logger=false", "--trainer.limit_predict_batches=1")


@pytest.mark.parametrize("ranks", [1, 2, 3, 8])
def test_the_images_of_the_ranks_come_in_the_order_of_the_data_set(ranks):
    labels = torch.tensor([4, 1, 9, 0, 7, 3, 3])  # 8 ranks: the last has no image
    images = torch.arange(7, dtype=torch.uint8).view(7, 1, 1).expand(7, 2, 2)
    parts = []
    for rank in range(ranks):
        batches = list(BatchLoader(images, labels, 2, rank=rank, world_size=ranks))
        rows = [torch.stack([b.labels, b.labels, b.images[:, 0, 0, 0] * 255], dim=1) for b in batches]
        parts.append(torch.cat([torch.empty(0, 3), *rows]))  # the "probability" tells which image it was

    image, label, predicted, probability = zip(*in_image_order(parts), strict=True)

    assert image == (0, 1, 2, 3, 4, 5, 6)
    assert label == predicted == (4, 1, 9, 0, 7, 3, 3)
    assert probability == pytest.approx([0, 1, 2, 3, 4, 5, 6])
