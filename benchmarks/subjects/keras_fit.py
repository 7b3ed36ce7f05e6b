"""The notebooks' network in Keras 3 on TensorFlow: `fit` on arrays in memory. Needs no torch."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ["KERAS_BACKEND"] = "tensorflow"

import keras
import numpy as np

from benchmarks.channel import Channel, contender_parser


class EpochGate(keras.callbacks.Callback):
    """Holds every epoch at its start until the channel says go; reports the epoch's seconds per step."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.steps, self._channel = steps, Channel()

    def on_epoch_begin(self, epoch: int, logs: object = None) -> None:
        """Wait."""
        self._channel.begin()

    def on_epoch_end(self, epoch: int, logs: object = None) -> None:
        """Report."""
        self._channel.end(self.steps)


def network() -> keras.Model:
    """As in the notebooks: 412,778 parameters."""
    layers = keras.layers
    return keras.Sequential(
        [
            layers.Input((28, 28, 1)),
            layers.Conv2D(64, 2, padding="same", activation="relu"),
            layers.MaxPooling2D(2),
            layers.Dropout(0.3),
            layers.Conv2D(32, 2, padding="same", activation="relu"),
            layers.MaxPooling2D(2),
            layers.Dropout(0.3),
            layers.Flatten(),
            layers.Dense(256, activation="relu"),
            layers.Dropout(0.5),
            layers.Dense(10),
        ]
    )


def main() -> None:
    """Rounds of one epoch of ``--steps`` steps."""
    parser = contender_parser(__doc__)
    parser.add_argument("--jit", action="store_true", help="Compile with XLA.")
    parser.add_argument("--steps-per-execution", type=int, default=1)
    parser.add_argument("--dataset", action="store_true", help="Feed a tf.data.Dataset instead of arrays.")
    arguments = parser.parse_args()
    raw = arguments.data / "FashionMNIST" / "raw"
    count = arguments.steps * arguments.batch_size
    images = np.fromfile(raw / "train-images-idx3-ubyte", np.uint8)[16:].reshape(-1, 28, 28, 1)
    labels = np.fromfile(raw / "train-labels-idx1-ubyte", np.uint8)[8:].astype(np.int64)
    images, labels = images[5000 : 5000 + count].astype(np.float32) / 255, labels[5000 : 5000 + count]
    model = network()
    model.compile(
        optimizer=keras.optimizers.Adam(1e-3),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        jit_compile=arguments.jit,
        steps_per_execution=arguments.steps_per_execution,
    )
    fit = {"epochs": 1_000_000, "verbose": 0, "callbacks": [EpochGate(arguments.steps)]}
    if arguments.dataset:
        import tensorflow as tf

        data = tf.data.Dataset.from_tensor_slices((images, labels)).cache().shuffle(count)
        model.fit(data.batch(arguments.batch_size, drop_remainder=True).prefetch(tf.data.AUTOTUNE), **fit)
    else:
        model.fit(images, labels, batch_size=arguments.batch_size, **fit)


if __name__ == "__main__":
    main()
