"""The LightningModule: steps, metrics and optimiser around the network."""

import inspect
import math
from typing import Any, Literal

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.nn import functional as F

from fmnist_pl.loader import Batch, BatchLoader
from fmnist_pl.metrics import ExampleAccuracy, ExampleMean
from fmnist_pl.network import FashionCNN
from training_health.errors import UserError

Stage = Literal["train", "val", "test"]
START_IMAGES = 500  # training images that an initialisation looks at, or all if there are fewer


class FashionClassifier(pl.LightningModule):
    """Trains `FashionCNN` with cross-entropy. The defaults are Keras's Adam.

    Logged once per epoch, means over all examples of all processes:

    | key | value |
    | --- | --- |
    | ``train/loss``, ``train/accuracy`` | running: in train mode, while the weights change |
    | ``val/loss``, ``val/accuracy`` | in eval mode, at the end of the epoch |
    | ``test/loss``, ``test/accuracy`` | in eval mode, by ``Trainer.test`` |

    Args:
        optimizer: Which optimiser.
        learning_rate: Its learning rate; the peak one if there is a schedule.
        momentum: Of SGD (with Nesterov's correction if above zero).
        weight_decay: Decoupled for adamw, an L2 penalty for the others.
        adam_epsilon: Keras's 1e-7 rather than PyTorch's 1e-8.
        schedule: "one_cycle" (Smith 2018, per step), "cosine" (to zero, per step) or "constant".
        label_smoothing: Label smoothing of the training loss; evaluation uses plain cross-entropy.
        flip_at_test: Test and predict with the mean of the logits of each image and of its mirror image.
        network: Arguments of `FashionCNN`.

    Raises:
        ValueError: A rate, momentum, epsilon or smoothing that is negative or no finite number, or an argument that
            `FashionCNN` does not take.

    Example:
        >>> model = FashionClassifier(optimizer="sgd", momentum=0.9, conv_channels=(8,), hidden_units=(16,))
        >>> model(torch.rand(5, 1, 28, 28)).shape
        torch.Size([5, 10])
    """

    def __init__(
        self,
        optimizer: Literal["adam", "adamw", "sgd"] = "adam",
        learning_rate: float = 1e-3,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
        adam_epsilon: float = 1e-7,
        schedule: Literal["constant", "one_cycle", "cosine"] = "constant",
        label_smoothing: float = 0.0,
        flip_at_test: bool = False,
        **network: Any,  # noqa: ANN401
    ) -> None:
        super().__init__()
        rates = {"learning_rate": learning_rate, "weight_decay": weight_decay, "adam_epsilon": adam_epsilon}
        for name, value in {**rates, "momentum": momentum, "label_smoothing": label_smoothing}.items():
            if not 0 <= value < math.inf:
                raise ValueError(f"{name} must not be negative, infinite or NaN, got {value}.")
        if label_smoothing > 1:
            raise ValueError(f"label_smoothing must be at most 1, got {label_smoothing}.")
        self.save_hyperparameters()
        self.optimizer, self.learning_rate = optimizer, learning_rate
        self.momentum, self.weight_decay, self.adam_epsilon = momentum, weight_decay, adam_epsilon
        self.schedule, self.label_smoothing, self.flip_at_test = schedule, label_smoothing, flip_at_test
        self.net = FashionCNN(**network)
        self.net.to(memory_format=torch.channels_last)  # the same numbers, faster kernels
        self.train_loss, self.train_accuracy = ExampleMean(), ExampleAccuracy()
        self.val_loss, self.val_accuracy = ExampleMean(), ExampleMean()
        self.test_loss, self.test_accuracy = ExampleMean(), ExampleMean()

    def __setattr__(self, name: str, value: Any) -> None:  # noqa: ANN401
        """As ``nn.Module`` does, without its search where Lightning notes the name of a hook: 0.1 ms a step."""
        if (value is None or isinstance(value, str)) and name in self.__dict__:
            object.__setattr__(self, name, value)
        else:
            super().__setattr__(name, value)

    def forward(self, images: Tensor) -> Tensor:
        """Map images (N, 1, 28, 28) in [0, 1] to logits (N, 10)."""
        return self.net(images)

    def on_fit_start(self) -> None:
        """Forget what a fit that was interrupted in this process had summed up; Lightning resets the others."""
        for mean in (self.train_loss, self.train_accuracy, self.val_loss, self.val_accuracy):
            mean.reset()
        if self.net.awaits_start:
            self._start()

    def _start(self) -> None:
        """Let the network look at training images without augmentation, the same on every process."""
        self.trainer.fit_loop.setup_data()
        loader = self.trainer.train_dataloader
        if not isinstance(loader, BatchLoader):
            raise UserError(
                "model.initialization median_bias and lsuv, and model.standardize, look at training images before the "
                f"first step: train with FashionMNISTDataModule or a BatchLoader, not with {type(loader).__name__}."
            )
        batches = loader.evaluation_sample(START_IMAGES, loader.seed)
        convert = self.trainer.precision_plugin.convert_input
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # sums in an order of their own for each number of threads
        try:
            self.net.start(*loader.pixel_statistics(), [convert(batch.images) for batch in batches], loader.seed)
        finally:
            torch.set_num_threads(threads)

    @property
    def measured(self) -> dict[str, float]:
        """What the network took from the training images, by name."""
        if not self.net.standardize:
            return {}
        return {"pixel_mean": self.net.pixel_mean.item(), "pixel_std": self.net.pixel_std.item()}

    def on_validation_start(self) -> None:
        """Evaluate the network that is saved, whose batch statistics are the first rank's."""
        if self.trainer.world_size > 1:
            for buffer in self.net.buffers():
                torch.distributed.broadcast(buffer, 0)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Mean cross-entropy of the batch, weighted so that the ranks' average is the mean over all their images."""
        images, labels, *weight = batch
        logits = self.net(images)
        losses = F.cross_entropy(logits, labels, reduction="none", label_smoothing=self.label_smoothing)
        self.train_loss.add(losses.detach())
        self.train_accuracy.add(logits.detach(), labels)
        self._log_means("train", batch_idx, self.train_loss, self.train_accuracy)
        loss = losses.sum() / max(len(labels), 1)
        return loss * weight[0] if weight and weight[0] != 1.0 else loss

    # Lightning looks for `batch_idx` at every step, which takes 0.04 ms where `inspect` has to make the signature.
    training_step.__signature__ = inspect.signature(training_step)  # type: ignore[attr-defined]

    def validation_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """Per example its loss and whether it was right, for callbacks; see `test_step`."""
        result = self._evaluate(batch, self.net(batch[0]), self.val_loss, self.val_accuracy)
        self._log_means("val", batch_idx, self.val_loss, self.val_accuracy)
        return result

    def test_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """Per example its loss and whether it was right, for callbacks.

        Returns:
            ``loss`` (), ``losses`` (N,), ``correct`` (N,) bool, ``logits`` (N, 10), ``labels`` (N,).
        """
        result = self._evaluate(batch, self._test_logits(batch[0]), self.test_loss, self.test_accuracy)
        self._log_means("test", batch_idx, self.test_loss, self.test_accuracy)
        return result

    def predict_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """Probabilities (N, 10), the predicted class (N,) and the true one (N,)."""
        images, labels, *_ = batch
        probabilities = self._test_logits(images).softmax(dim=1)
        return {"probabilities": probabilities, "predicted": probabilities.argmax(dim=1), "labels": labels}

    def configure_optimizers(self) -> Any:  # noqa: ANN401
        """The optimiser, and where asked for a schedule that moves at every step."""
        optimizer = self.make_optimizer()
        if self.schedule == "constant":
            return optimizer
        steps = int(self.trainer.estimated_stepping_batches)
        scheduler: torch.optim.lr_scheduler.LRScheduler
        if self.schedule == "one_cycle":
            scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, self.learning_rate, total_steps=steps)
        else:
            scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def make_optimizer(self) -> torch.optim.Optimizer:
        """A new optimiser of the weights, without a schedule."""
        parameters, fused = self.parameters(), self.device.type in {"cpu", "cuda"}
        if self.optimizer == "sgd":
            return torch.optim.SGD(
                parameters,
                self.learning_rate,
                momentum=self.momentum,
                nesterov=self.momentum > 0,
                weight_decay=self.weight_decay,
                fused=fused,
            )
        adam = torch.optim.Adam if self.optimizer == "adam" else torch.optim.AdamW
        return adam(parameters, self.learning_rate, eps=self.adam_epsilon, weight_decay=self.weight_decay, fused=fused)

    def _test_logits(self, images: Tensor) -> Tensor:
        logits = self.net(images)
        return (logits + self.net(images.flip(-1))) / 2 if self.flip_at_test else logits

    @staticmethod
    def _evaluate(batch: Batch, logits: Tensor, loss: ExampleMean, accuracy: ExampleMean) -> dict[str, Tensor]:
        labels = batch[1]
        losses = F.cross_entropy(logits, labels, reduction="none")
        correct = logits.argmax(dim=1) == labels
        loss.update(losses)
        accuracy.update(correct)
        return {"loss": losses.mean(), "losses": losses, "correct": correct, "logits": logits, "labels": labels}

    def _log_means(self, stage: Stage, batch_idx: int, loss: ExampleMean, accuracy: ExampleMean) -> None:
        if batch_idx != 0:  # Lightning keeps the metrics and computes them at the epoch's end: once is enough
            return
        # batch_size is given so that Lightning does not search the batch for it; the means weigh examples themselves.
        self.log(f"{stage}/loss", loss, on_step=False, on_epoch=True, batch_size=1)
        shown = stage == "val"
        self.log(f"{stage}/accuracy", accuracy, on_step=False, on_epoch=True, batch_size=1, prog_bar=shown)
