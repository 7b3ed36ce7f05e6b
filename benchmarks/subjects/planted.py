"""The planted network in a plain Lightning program, or in fastai's, watched by one peer.

Without a channel it prints, as JSON, what the peer found at learning rate 0, and whether training with it ends in the
same bits as without. With one, a round is an epoch of training and validation at learning rate 0.01.
"""

import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import TensorBoardLogger
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.channel import VARIABLE, contender_parser
from benchmarks.planted.network import BATCH, FORMS, examples
from benchmarks.planted.peers import PEERS, Found, Setting, fastai_fit
from benchmarks.subjects.our_lightning import EpochGate
from fmnist_pl.process import keep_freed_memory

EPOCHS = 13  # of counting: ormas-monitor calls a unit silent after four checks, and checks every 50th of 16 steps


class Watched(pl.LightningModule):
    """A given network and optimizer."""

    def __init__(self, net: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        super().__init__()
        self.net, self._optimizer = net, optimizer

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """One step."""
        return F.cross_entropy(self.net(batch[0]), batch[1])

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """One batch."""
        logits = self.net(batch[0])
        self.log("val/loss", F.cross_entropy(logits, batch[1]))
        self.log("val/accuracy", (logits.argmax(dim=1) == batch[1]).float().mean())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """The given one."""
        return self._optimizer


def train(
    peer: str, form: str, seed: int, folder: Path, rate: float, epochs: int, gates: list[pl.Callback]
) -> tuple[nn.Module, Callable[[], Found]]:
    """Train under the peer's eyes; the network, and what the peer found."""
    torch.manual_seed(seed)
    net, data = FORMS[form](seed), TensorDataset(*examples(seed))
    optimizer = torch.optim.SGD(net.parameters(), rate)
    training, validation = (DataLoader(data, BATCH, shuffle=shuffle) for shuffle in (rate > 0, False))
    if peer.startswith("fastai"):
        return net, fastai_fit(net, training, validation, rate, epochs, peer == "fastai", bool(gates))
    callbacks, read = PEERS[peer](Setting(net, optimizer, validation, folder))
    trainer = pl.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        default_root_dir=folder,
        logger=TensorBoardLogger(folder),
        callbacks=[*callbacks, *gates],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    trainer.fit(Watched(net, optimizer), training, validation)
    return net, read


def main() -> None:
    """See the module."""
    parser = contender_parser(__doc__)
    parser.add_argument("--peer", choices=[*PEERS, "fastai", "fastai, off"], default="off")
    parser.add_argument("--form", choices=FORMS, default="easy")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    settings = arguments.peer, arguments.form, arguments.seed
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if VARIABLE in os.environ:
            keep_freed_memory()  # without it processes of the same work differ by a fifth
            train(*settings, folder, 0.01, -1, [EpochGate(1)])
        for part in ("count", "without", "with"):
            (folder / part).mkdir()
        _, read = train(*settings, folder / "count", 0.0, EPOCHS, [])
        result: dict[str, Any] = {"found": read()}
        without = "fastai, off" if arguments.peer.startswith("fastai") else "off"
        runs = (without, "without"), (arguments.peer, "with")
        nets = [train(peer, *settings[1:], folder / part, 0.01, 2, [])[0] for peer, part in runs]
    for kind in ("parameters", "buffers"):
        pairs = zip(*(getattr(net, kind)() for net in nets), strict=True)
        result[kind] = all(torch.equal(first, second) for first, second in pairs)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
