"""Lightning monitors that work in any project: dead ReLUs, weight histograms, the train/validation gap, predictions.

They change nothing about the training they watch and import nothing from fmnist_pl.
"""

from callbacks.dead_relu import DeadReLUMonitor
from callbacks.predictions import PredictionImages
from callbacks.train_val_gap import TrainValGapMonitor
from callbacks.weight_histograms import WeightHistogramMonitor

__all__ = ["DeadReLUMonitor", "PredictionImages", "TrainValGapMonitor", "WeightHistogramMonitor"]
