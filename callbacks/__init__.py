"""Lightning monitors that work in any project: dead ReLUs, weight histograms, the train/validation gap, predictions.

They change nothing about the training they watch and import nothing from fmnist_pl.
"""

from callbacks.dead_relu import DeadReLUMonitor
from callbacks.train_val_gap import TrainValGapMonitor

__all__ = ["DeadReLUMonitor", "TrainValGapMonitor"]
