"""Pictures of what a tested network predicts."""

import io
import math

import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgb
from PIL import Image
from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.utilities.exceptions import MisconfigurationException
from torch.utils.data import DataLoader, TensorDataset

from fmnist_pl.prediction_figures import RIGHT, WRONG, class_table, confusion_figure, figure_pixels, prediction_grid
from fmnist_pl.predictions import PredictionImages
from tests.training_health.toys import FEW_EXAMPLES, Toy, events, loader, make_trainer, vectors

pytestmark = FEW_EXAMPLES
NAMES = ["cat", "dog", "$fish", "b<i>rd"]


class Guessing(Toy):
    """Predicts the class that the image's first pixel names."""

    def test_step(self, batch, batch_idx):
        images, labels = batch
        return {"logits": torch.eye(4)[images[:, 0, 0, 0].long()], "labels": labels}


def predict(folder, guesses: list[int], labels: list[int], callback=None, batch_size=2) -> PredictionImages:
    callback = callback or PredictionImages(NAMES, rows=1, columns=2)
    images = torch.zeros(len(guesses), 1, 6, 6)
    images[:, 0, 0, 0] = torch.tensor(guesses)
    trainer = make_trainer([callback], folder, logger=TensorBoardLogger(folder, name=None, version="run"))
    data = TensorDataset(images, torch.tensor(labels))
    trainer.test(Guessing(), DataLoader(data, batch_size=batch_size), verbose=False)
    return callback


def test_the_confusion_matrix_counts_true_by_predicted(tmp_path):
    callback = predict(tmp_path, guesses=[0, 0, 1, 1, 3], labels=[0, 0, 0, 1, 2])

    assert callback.confusion() == [[2, 1, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1], [0, 0, 0, 0]]


def test_pictures_and_a_table_are_written_once(tmp_path):
    predict(tmp_path, guesses=[0, 1, 2], labels=[0, 1, 1])

    found = {tag: value for tag, _, value in events(tmp_path)}
    assert {"predictions", "confusion_matrix", "per_class_accuracy/text_summary"} <= set(found)
    for tag in ("predictions", "confusion_matrix"):
        width, height = Image.open(io.BytesIO(found[tag].tensor.string_val[2])).size
        assert min(width, height) > 200
    table = found["per_class_accuracy/text_summary"].tensor.string_val[0].decode()
    assert "| dog | 2 | 50.0 % |" in table


class Judged(Toy):
    """Is right where the image's first pixel names the label."""

    def validation_step(self, batch, batch_idx):
        images, labels = batch
        return {"correct": images[:, 0, 0, 0].long() == labels, "labels": labels}


def test_each_epoch_records_the_accuracy_of_each_class(tmp_path):
    images, labels = torch.zeros(5, 1, 6, 6), torch.tensor([0, 0, 1, 1, 3])
    images[:, 0, 0, 0] = torch.tensor([0.0, 1.0, 1.0, 1.0, 0.0])
    val = DataLoader(TensorDataset(images, labels), batch_size=2)
    trainer = make_trainer([PredictionImages(NAMES)], tmp_path, logger="tensorboard")
    trainer.fit(Judged(), loader(10), val)

    (_, first), (_, second) = vectors(tmp_path, "class_accuracy")
    assert first == pytest.approx([0, 5, 0.5, 1.0, math.nan, 0.0], nan_ok=True)  # of epoch 0, 5 examples
    assert second[:2] == [1, 5]


def test_the_sanity_check_is_no_epochs_accuracy(tmp_path):
    val = DataLoader(TensorDataset(torch.zeros(5, 1, 6, 6), torch.tensor([0, 0, 1, 1, 3])), batch_size=2)
    options = {"num_sanity_val_steps": -1, "check_val_every_n_epoch": 2}
    make_trainer([PredictionImages(NAMES)], tmp_path, logger="tensorboard", **options).fit(Judged(), loader(10), val)

    assert [vector[0] for _, vector in vectors(tmp_path, "class_accuracy")] == [1]


def has_colour(figure, colour: str) -> bool:
    pixels = figure_pixels(figure).reshape(-1, 3)
    return bool((pixels == np.round(np.array(to_rgb(colour)) * 255).astype(np.uint8)).all(axis=1).any())


@pytest.mark.parametrize(("guess", "right"), [("dog", True), ("cat", False)])
def test_a_title_is_green_where_right_and_red_where_wrong(guess, right):
    figure = prediction_grid(torch.zeros(1, 1, 6, 6), [guess], ["dog"], 1, 1)

    assert figure.axes[0].get_title() == f"{guess} (dog)"
    assert (has_colour(figure, RIGHT), has_colour(figure, WRONG)) == (right, not right)


def test_a_grid_with_fewer_images_than_cells_leaves_them_empty():
    figure = prediction_grid(torch.rand(2, 3, 6, 6), ["a", "b"], ["a", "a"], 2, 3)

    assert [ax.get_title() for ax in figure.axes] == ["a (a)", "b (a)", "", "", "", ""]


def test_the_matrix_shows_counts_and_their_fractions_of_the_row():
    figure = confusion_figure(torch.tensor([[3, 1, 0], [0, 999, 1], [0, 0, 0]]), ["a", "b", "c"])

    texts = [text.get_text() for text in figure.axes[0].texts]
    assert texts == ["75", "25", "", "", "100", "·", "", "", ""]


def test_a_class_without_images_has_no_accuracy():
    assert class_table(torch.tensor([[3, 1], [0, 0]]), ["a", "b"]).splitlines()[2:] == [
        "| a | 4 | 75.0 % | b (1) |",
        "| b | 0 | - | - |",
    ]


def test_the_images_are_a_random_choice_that_the_seed_fixes(tmp_path):
    def picture(name, seed, batch_size):
        guesses = [i % 4 for i in range(40)]
        callback = PredictionImages(NAMES, rows=2, columns=3, seed=seed)
        predict(tmp_path / name, guesses, guesses[::-1], callback, batch_size)
        return next(value.tensor.string_val[2] for tag, _, value in events(tmp_path / name) if tag == "predictions")

    assert picture("a", 0, 8) == picture("b", 0, 5)
    assert picture("c", 1, 8) != picture("d", 0, 8)


def test_a_test_step_without_logits_is_said_once(tmp_path):
    class Silent(Toy):
        def test_step(self, batch, batch_idx):
            return None

    trainer = make_trainer([PredictionImages(NAMES)], tmp_path, logger=TensorBoardLogger(tmp_path))
    with pytest.warns(UserWarning, match="`test_step` must return a mapping") as caught:
        trainer.test(Silent(), DataLoader(TensorDataset(torch.rand(6, 1, 6, 6), torch.zeros(6))), verbose=False)

    assert len([w for w in caught if "must return" in str(w.message)]) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [({"class_names": []}, "needs the class names"), ({"class_names": NAMES, "rows": 0}, "0 x 5 has no images")],
)
def test_a_wrong_argument_is_refused(options, message):
    with pytest.raises(MisconfigurationException, match=message):
        PredictionImages(**options)
