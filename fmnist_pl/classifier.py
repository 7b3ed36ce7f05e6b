"""The LightningModule: steps, metrics and optimiser around the network."""

from typing import Any, Literal

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.nn import functional as F

from fmnist_pl.loader import Batch
from fmnist_pl.metrics import ImageMean
from fmnist_pl.network import FashionCNN, to_fastest_layout
from training_health.lightning import every_rank

Stage = Literal["train", "val", "test"]

EPOCH_SUMS = "epoch_sums"  # key in the checkpoint


class FashionClassifier(pl.LightningModule):
    """Trains `FashionCNN` with cross-entropy.

    Logs once per epoch ``train/loss``, ``train/accuracy`` (running: train mode, while the weights change),
    ``val/loss``, ``val/accuracy``, ``test/loss`` and ``test/accuracy``. The defaults are Keras's Adam.

    Args:
        optimizer: Which optimiser.
        learning_rate: Its learning rate; the peak one if there is a schedule.
        momentum: Of SGD (with Nesterov's correction if above zero).
        weight_decay: Decoupled for adamw, an L2 penalty for the others.
        adam_epsilon: Keras's 1e-7 rather than PyTorch's 1e-8.
        schedule: "one_cycle" (Smith 2018, per step), "cosine" (to zero, per step) or "constant".
        label_smoothing: Of the training loss; evaluation uses plain cross-entropy.
        network: Arguments of `FashionCNN`.
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
        **network: Any,  # noqa: ANN401
    ) -> None:
        super().__init__()
        if learning_rate < 0:
            raise ValueError(f"learning_rate must not be negative, got {learning_rate}.")
        self.save_hyperparameters()
        self.optimizer, self.learning_rate = optimizer, learning_rate
        self.momentum, self.weight_decay, self.adam_epsilon = momentum, weight_decay, adam_epsilon
        self.schedule, self.label_smoothing = schedule, label_smoothing
        self.net = to_fastest_layout(FashionCNN(**network))
        self.train_loss, self.train_accuracy = ImageMean(), ImageMean()
        self.val_loss, self.val_accuracy = ImageMean(), ImageMean()
        self.test_loss, self.test_accuracy = ImageMean(), ImageMean()
        self._registered_in_epoch = -1

    def __setattr__(self, name: str, value: Any) -> None:  # noqa: ANN401
        if name == "_current_fx_name":
            # Lightning notes which hook runs 44 times per training step; nn.Module's way takes 1 % of the step.
            self.__dict__[name] = value
        else:
            super().__setattr__(name, value)

    def forward(self, images: Tensor) -> Tensor:
        """Map images (N, 1, 28, 28) in [0, 1] to logits (N, 10)."""
        return self.net(images)

    def on_fit_start(self) -> None:
        """Forget what an earlier fit registered."""
        self._registered_in_epoch = -1

    def on_train_epoch_start(self) -> None:
        """Start the epoch's means. An epoch that is resumed in the middle does not come here and goes on with them."""
        for mean in (self.train_loss, self.train_accuracy):
            mean.reset()

    def on_validation_start(self) -> None:
        """Evaluate the network that is saved, whose batch statistics are the first rank's."""
        if self.trainer.world_size > 1:
            for buffer in self.net.buffers():
                torch.distributed.broadcast(buffer, 0)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add each rank's sums of the running epoch, shape (ranks, 2, 2); every rank must come here."""
        sums = torch.stack([self.train_loss.sums(), self.train_accuracy.sums()]).cpu()
        checkpoint[EPOCH_SUMS] = torch.stack(every_rank(self.trainer, sums))

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take this rank's sums, if they are there for as many ranks."""
        sums = checkpoint.get(EPOCH_SUMS)
        if sums is not None and self.global_rank < len(sums):
            self.train_loss.set_sums(sums[self.global_rank][0])
            self.train_accuracy.set_sums(sums[self.global_rank][1])

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Mean cross-entropy of the batch, weighted so that the ranks' average is the mean over all their images."""
        images, labels, *weight = batch
        logits = self.net(images)
        losses = F.cross_entropy(logits, labels, reduction="none", label_smoothing=self.label_smoothing)
        self.train_loss.add(losses.detach())
        self.train_accuracy.add(logits.argmax(dim=1) == labels)
        if self._registered_in_epoch != self.current_epoch:
            # Lightning keeps the metric object and asks it at the epoch's end; logging every step would cost 1 %.
            self._registered_in_epoch = self.current_epoch
            self._log_means("train", self.train_loss, self.train_accuracy)
        loss = losses.sum() / max(len(labels), 1)
        return loss * weight[0] if weight and weight[0] != 1.0 else loss

    def validation_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """Loss and correctness of each image; see `_evaluate`."""
        result = self._evaluate(batch, self.val_loss, self.val_accuracy)
        self._log_means("val", self.val_loss, self.val_accuracy)
        return result

    def test_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """Loss and correctness of each image; see `_evaluate`."""
        result = self._evaluate(batch, self.test_loss, self.test_accuracy)
        self._log_means("test", self.test_loss, self.test_accuracy)
        return result

    def predict_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """Probabilities (N, 10), the predicted class (N,) and the true one (N,)."""
        images, labels, *_ = batch
        probabilities = self.net(images).softmax(dim=1)
        return {"probabilities": probabilities, "predicted": probabilities.argmax(dim=1), "labels": labels}

    def configure_optimizers(self) -> Any:  # noqa: ANN401
        """The optimiser, and where asked for a schedule that moves at every step."""
        optimizer = self._build_optimizer()
        if self.schedule == "constant":
            return optimizer
        steps = int(self.trainer.estimated_stepping_batches)
        scheduler: torch.optim.lr_scheduler.LRScheduler
        if self.schedule == "one_cycle":
            scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, self.learning_rate, total_steps=steps)
        else:
            scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def _build_optimizer(self) -> torch.optim.Optimizer:
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

    def _evaluate(self, batch: Batch, loss: ImageMean, accuracy: ImageMean) -> dict[str, Tensor]:
        """Update the means and return what callbacks need: per image its loss and whether it was right.

        Returns:
            ``loss`` (), ``losses`` (N,), ``correct`` (N,) bool, ``logits`` (N, 10), ``labels`` (N,).
        """
        images, labels, *_ = batch
        logits = self.net(images)
        losses = F.cross_entropy(logits, labels, reduction="none")
        correct = logits.argmax(dim=1) == labels
        loss.update(losses)
        accuracy.update(correct)
        return {"loss": losses.mean(), "losses": losses, "correct": correct, "logits": logits, "labels": labels}

    def _log_means(self, stage: Stage, loss: ImageMean, accuracy: ImageMean) -> None:
        # batch_size is given so that Lightning does not search the batch for it; the means weigh images themselves.
        self.log(f"{stage}/loss", loss, on_step=False, on_epoch=True, batch_size=1)
        shown = stage == "val"
        self.log(f"{stage}/accuracy", accuracy, on_step=False, on_epoch=True, batch_size=1, prog_bar=shown)
