"""What the run's record says to the Training Health tab."""

import inspect
import re

from fmnist_pl.classifier import FashionClassifier
from fmnist_pl.network import FashionCNN
from fmnist_pl.runs.record import FOR_THE_TAB


def test_the_model_options_in_the_tabs_advice_exist():
    known = {name for part in (FashionClassifier, FashionCNN) for name in inspect.signature(part).parameters}
    named = set(re.findall(r"--model\.(\w+)", " ".join(FOR_THE_TAB["advice"].values())))
    assert {"learning_rate", "conv_dropout"} <= named
    assert named <= known
