"""``fmnist slim``: remove a trained network's dead units, prove it, save the smaller network and export it."""

import argparse
import copy
import io
import os
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from fmnist_pl.checkpoints.checkpoint_file import checkpoint_bytes
from fmnist_pl.classifier import FashionClassifier
from fmnist_pl.dataset.clothes import SIDE
from fmnist_pl.loader import BatchLoader
from fmnist_pl.network import ConvBlock, HiddenBlock, parameter_count
from fmnist_pl.process import printable
from fmnist_pl.runs.record import RUN
from fmnist_pl.saved_network import SavedNetwork, load_network
from training_health import slim
from training_health.durable_file import replace_durably
from training_health.errors import UserError

CHECKPOINT, EXPORTED = "slim.ckpt", "slim.pt2"
_KEPT = ("epoch", "global_step", "pytorch-lightning_version", "hparams_name")  # no state of the optimiser: it ends here
_TOUCHED = 1e-4  # change of a logit from which on an image counts as touched: beyond what rounding does


class TestDifference(NamedTuple):
    """What became of the test images."""

    images: int
    touched: int
    changed: int  # predictions
    before: float  # accuracy
    after: float

    def __str__(self) -> str:
        """Say it in a sentence."""
        return (
            f"On the {self.images:,} test images: {self.touched} with a logit that changes by more than {_TOUCHED:g}, "
            f"{self.changed} predictions change, accuracy {self.before:.2%} -> {self.after:.2%}."
        )


def main(args: list[str]) -> int:
    """Run ``fmnist slim``; gives the exit status."""
    parser = argparse.ArgumentParser(
        prog="fmnist slim",
        description="Remove the units of a run's best checkpoint, or of any checkpoint, that are dead on training "
        "images, and prove on them that the outputs stay the same.",
        allow_abbrev=False,
    )
    parser.add_argument("run", type=Path, metavar="RUN|CHECKPOINT", help="a run's folder, or a checkpoint")
    parser.add_argument("--images", type=int, default=5_000, help="training images to look at; default: %(default)s")
    parser.add_argument("--certified", action="store_true", help="remove only units that are dead for any image")
    parser.add_argument("--root", help="folder of the data; default: DATA_DIR, else data")
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("slim"),
        metavar="FOLDER",
        help=f"a new folder for {CHECKPOINT} and {EXPORTED}; default: %(default)s",
    )
    options = parser.parse_args(args)
    if options.images < 1:
        raise UserError(f"--images must be at least 1, got {options.images}.", exit_code=2)
    _refuse_existing(options.output)
    saved = load_network(options.run, options.root)
    saved.data.setup("fit")
    saved.data.setup("test")
    window = saved.data.train_dataloader().evaluation_sample(options.images, seed=0)
    slimmed = slim(saved.model, window, certified_for=(0.0, 1.0) if options.certified else None)
    print(slimmed)
    if not slimmed.removed:
        print("Nothing was removed, so nothing is written.")
        return 0
    model = rebuilt(saved, slimmed.model)
    difference = compare(saved.model, model, saved.data.test_dataloader())
    print(difference)
    proof = {**slimmed.to_dict(), "test": difference._asdict(), "of": str(saved.file)}
    write(options.output, {CHECKPOINT: checkpoint_of(saved, model, proof), EXPORTED: exported(model)})
    print(f"Written: {printable(options.output / CHECKPOINT)}, {printable(options.output / EXPORTED)}")
    return 0


def rebuilt(saved: SavedNetwork, slim_model: nn.Module) -> FashionClassifier:
    """The slim network as its constructor makes it: from the new widths, with the weights in the fastest layout."""
    blocks = list(slim_model.net.children())  # type: ignore[union-attr]
    widths = {
        "conv_channels": [block.conv.out_channels for block in blocks if isinstance(block, ConvBlock)],
        "hidden_units": [block.linear.out_features for block in blocks if isinstance(block, HiddenBlock)],
    }
    model = FashionClassifier(**{**saved.checkpoint.get("hyper_parameters", {}), **widths})
    model.load_state_dict(slim_model.state_dict())
    return model


@torch.no_grad()
def compare(before: nn.Module, after: nn.Module, images: BatchLoader) -> TestDifference:
    """Evaluate both networks on the same images."""
    before.eval()
    after.eval()
    count = touched = changed = right_before = right_after = 0
    for batch in images:
        old, new = before(batch.images), after(batch.images)
        count += len(old)
        touched += int(((old - new).abs().amax(dim=1) > _TOUCHED).sum())
        first, second = old.argmax(dim=1), new.argmax(dim=1)
        changed += int((first != second).sum())
        right_before += int((first == batch.labels).sum())
        right_after += int((second == batch.labels).sum())
    return TestDifference(count, touched, changed, right_before / count, right_after / count)


def checkpoint_of(saved: SavedNetwork, model: FashionClassifier, proof: dict[str, Any]) -> bytes:
    """A checkpoint that ``fmnist test`` takes: the weights, the arguments that make their network, what was proved."""
    run = saved.checkpoint.get(RUN, {})
    widths = {name: model.hparams[name] for name in ("conv_channels", "hidden_units")}
    return checkpoint_bytes(
        {
            **{key: saved.checkpoint[key] for key in _KEPT if key in saved.checkpoint},
            "state_dict": model.state_dict(),
            "hyper_parameters": dict(model.hparams),
            RUN: {**run, **widths, "parameters": parameter_count(model)},
            "slim": proof,
        }
    )


def exported(model: FashionClassifier) -> bytes:
    """The network in eval mode as a program that runs without this package, for any number of images.

    By ``torch.export``, which PyTorch recommends in place of TorchScript. ``torch.export.load`` uses pickle, so it is
    for files that one trusts; the checkpoint is what can be loaded safely.
    """
    network = copy.deepcopy(model.net).eval().to(memory_format=torch.contiguous_format)
    size = model.hparams.get("image_size", SIDE)
    images = torch.zeros(2, 1, size, size)
    program = torch.export.export(network, (images,), dynamic_shapes=({0: torch.export.Dim("images")},))
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    return buffer.getvalue()


def write(folder: Path, contents: dict[str, bytes]) -> None:
    """Write all files or none, into a folder that is new."""
    part = folder.with_name(f".{folder.name}.{os.getpid()}.part")
    try:
        for name, content in contents.items():
            replace_durably(part / name, content)
        _refuse_existing(folder)
        os.rename(part, folder)
    except OSError as error:
        raise UserError(f"{printable(folder)} cannot be written: {error.strerror}. Give another --output.") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _refuse_existing(folder: Path) -> None:
    if folder.exists():
        raise UserError(f"{printable(folder)} exists, and nothing is overwritten. Give --output a new folder.", 2)
