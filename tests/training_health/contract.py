"""The callbacks that the contract is for: a new one joins with one line."""

from collections.abc import Callable

from pytorch_lightning.callbacks import Callback

from fmnist_pl.predictions import PredictionImages
from training_health import DeadReLUMonitor, TrainValGapMonitor, WeightHistogramMonitor

Make = Callable[[], list[Callback]]

CALLBACKS: dict[str, Make] = {
    "dead_relu": lambda: [DeadReLUMonitor()],
    "dead_relu_on_training_images": lambda: [DeadReLUMonitor(window="train")],
    "weight_histograms": lambda: [WeightHistogramMonitor()],
    "train_val_gap": lambda: [TrainValGapMonitor()],
    "predictions": lambda: [PredictionImages(["a", "b", "c", "d"])],
    "all": lambda: [
        DeadReLUMonitor(window="train"),
        WeightHistogramMonitor(),
        TrainValGapMonitor(),
        PredictionImages(["a", "b", "c", "d"]),
    ],
}
