"""Find the run that ``--resume`` means, and refuse what would not go on exactly."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.utilities import rank_zero_warn

from fmnist_pl.checkpoints.checkpoint_file import load_checked
from fmnist_pl.checkpoints.last_checkpoint import LAST, PREVIOUS, RESUMABLE
from fmnist_pl.runs.record import RUN, RUN_FORMAT
from fmnist_pl.variants import overlay_digest, variant_name
from fmnist_pl.yaml_file import load_yaml
from training_health.errors import UserError

# Options that a resumed run may be given anew. "trainer.logger" is where the run lies, which its folder says.
FREE = ("trainer.max_epochs", "trainer.logger", "trainer.enable_progress_bar", "data.root", "checkpoint", "variant")
_NO_OPTIONS = ("config", "resume", "ckpt_path", "weights_only")


@dataclass(frozen=True)
class ResumePoint:
    """Where a run goes on.

    Attributes:
        folder: The run's folder.
        file: The checkpoint.
        config: The run's configuration, as it was saved.
        checkpoint: The checkpoint's content.
    """

    folder: Path
    file: Path
    config: dict[str, Any]
    checkpoint: dict[str, Any]

    @property
    def config_file(self) -> Path:
        """The run's configuration."""
        return self.folder / "config.yaml"

    @property
    def run(self) -> dict[str, Any]:
        """What the checkpoint says of its run."""
        return self.checkpoint[RUN]

    @property
    def steps(self) -> int:
        """How many optimiser steps were done."""
        return int(self.checkpoint["global_step"])


def find(value: str, runs: Path, max_epochs: int | None, variant: str | None) -> ResumePoint:
    """Find, load and check what ``--resume VALUE`` means.

    Args:
        value: "last", a run's folder, or a checkpoint's file.
        runs: Folder with the ``version_N`` folders of the variant, for "last".
        max_epochs: The number of epochs that was asked for now, if any.
        variant: The variant that was asked for now, if any.

    Raises:
        UserError: There is nothing to go on with, it is finished, damaged, or of another run.
    """
    folder, file = _folder_and_file(value, runs, max_epochs)
    if not (folder / "config.yaml").is_file():
        raise UserError(f"{folder} is not the folder of a run: it has no config.yaml. Give --resume a run's folder.", 2)
    config = load_yaml(folder / "config.yaml")
    if not isinstance(config, dict):
        raise UserError(f"{folder / 'config.yaml'} is not the configuration of a run.")
    if is_finished(folder) and not _raised(config, max_epochs):
        epochs = config.get("trainer", {}).get("max_epochs")
        raise UserError(
            f"{folder} is finished: {epochs} epochs. To train it further, raise --trainer.max_epochs; "
            "for a new run leave --resume out."
        )
    file = file or _last_checkpoint(folder)
    point = ResumePoint(folder, file, config, load_checked(file))
    _check_checkpoint(point)
    if variant is not None:
        _check_variant(point, variant)
    return point


def is_finished(folder: Path) -> bool:
    """Whether the run was trained and tested to its end."""
    return (folder / "summary.json").is_file()


def check_options(saved: dict[str, Any], now: dict[str, Any]) -> None:
    """Refuse options that would make another run of it.

    Args:
        saved: The run's configuration.
        now: The same with the command line's options in it.

    Raises:
        UserError: They differ in more than is free; the message lists where.
    """
    before, after = _flat(saved), _flat(now)
    differing = [
        f"{name} is {after[name]!r} here and {before[name]!r} in the run"
        for name in sorted(before.keys() & after.keys())
        if before[name] != after[name] and not _is_free(name)
    ]
    if differing:
        raise UserError(
            f"This is not the run to resume: {'; '.join(differing)}. A run goes on as it began: leave those options "
            "out (with make: give the run's own SEED, DATASET and MONITORS), or start a new run without --resume.",
            exit_code=2,
        )
    epochs_before, epochs = before.get("trainer.max_epochs"), after.get("trainer.max_epochs")
    if epochs != epochs_before and before.get("model.schedule", "constant") != "constant":
        raise UserError(
            f"--trainer.max_epochs cannot be changed from {epochs_before} to {epochs}: the run's learning rates "
            f"(model.schedule {before['model.schedule']}) were laid out over {epochs_before} epochs.",
            exit_code=2,
        )
    if epochs != epochs_before and not _more(epochs, epochs_before):
        raise UserError(
            f"--trainer.max_epochs can only be raised: it is {epochs_before} in the run, and {epochs} here.",
            exit_code=2,
        )


def check_identity(point: ResumePoint, identity: dict[str, Any]) -> None:
    """Refuse other data; warn of what changes a result's last digits: versions, source code, threads."""
    before = point.run.get("identity", {})
    if before.get("data") not in (None, identity["data"]):
        raise UserError(f"{point.folder} was trained on other images, or another split: {before['data']} there.")
    if before.get("code") not in (None, identity["code"]):
        rank_zero_warn(f"The program has changed since {point.folder} began: it may not end as it would have.")
    for name, version in point.run["versions"].items():
        now = identity["versions"].get(name)
        if name == "pytorch_lightning" and _release(now) != _release(version):
            raise UserError(
                f"{point.file} was written by Lightning {version}, and this is {now}: the state of its loops does not "
                f"carry over. Install pytorch-lightning=={version} to go on, or start a new run."
            )
        if now is not None and now != version:
            rank_zero_warn(f"{point.folder} began with {name} {version}, now {now}: its last digits may differ.")
    threads = torch.get_num_threads()
    if point.run["threads"] != threads:
        rank_zero_warn(
            f"{point.folder} began with {point.run['threads']} threads, now {threads}: its last digits will differ. "
            f"OMP_NUM_THREADS={point.run['threads']} gives it as many as before."
        )


def check_network(point: ResumePoint, state: dict[str, torch.Tensor], world_size: int) -> None:
    """Refuse weights of another network, and another number of processes."""
    saved = point.checkpoint["state_dict"]
    shapes = {name: tuple(value.shape) for name, value in state.items()}
    saved_shapes = {name: tuple(value.shape) for name, value in saved.items()}
    if shapes != saved_shapes:
        name = sorted(
            name for name in shapes.keys() | saved_shapes.keys() if shapes.get(name) != saved_shapes.get(name)
        )[0]
        raise UserError(
            f"{point.file} is of another network: {name} is {saved_shapes.get(name, 'absent')} in it and "
            f"{shapes.get(name, 'absent')} in this run."
        )
    before = point.checkpoint[RESUMABLE]["world_size"]
    if before != world_size:
        raise UserError(
            f"{point.folder} was trained by {before} processes, and this is {world_size}: the batches would differ. "
            f"Go on with --trainer.devices and --trainer.num_nodes as it began.",
            exit_code=2,
        )


def _folder_and_file(value: str, runs: Path, max_epochs: int | None) -> tuple[Path, Path | None]:
    if value == "last":
        return _newest(runs, max_epochs), None
    path = Path(value).expanduser()
    if path.is_dir():
        return (path.parent if path.name == "checkpoints" else path), None
    if not path.is_file():
        hint = " Give --resume last, a run's folder, or a checkpoint." if "://" not in value else ""
        raise UserError(f"There is nothing to resume at {value}.{hint}", exit_code=2)
    return path.absolute().parent.parent if path.parent == Path() else path.parent.parent, path


def _newest(runs: Path, max_epochs: int | None) -> Path:
    """The newest unfinished run; a finished one if there is no other and it is to be trained further."""
    folders = [path for path in runs.glob("version_*") if path.name[8:].isdigit() and (path / "config.yaml").is_file()]
    folders.sort(key=lambda path: int(path.name[8:]), reverse=True)
    if not folders:
        raise UserError(f"There is no run to resume in {runs}. Start one: leave --resume out.", exit_code=2)
    unfinished = [folder for folder in folders if not is_finished(folder)]
    if unfinished:
        return unfinished[0]
    if max_epochs is None:
        raise UserError(
            f"There is no unfinished run in {runs}; the newest, {folders[0]}, is finished. To train it further, raise "
            "--trainer.max_epochs; for a new run leave --resume out."
        )
    return folders[0]


def _last_checkpoint(folder: Path) -> Path:
    for name in (LAST, PREVIOUS):  # the second alone is there for a moment where a disk has no hard links
        if (folder / "checkpoints" / name).is_file():
            return folder / "checkpoints" / name
    raise UserError(
        f"{folder} has no checkpoint to resume from: it ended before its first save. Start it anew without --resume, "
        "or name another run's folder."
    )


def _check_checkpoint(point: ResumePoint) -> None:
    run = point.checkpoint.get(RUN)
    if run is None:
        raise UserError(
            f"{point.file} was not written by fmnist fit, or by an older version of it: it cannot be resumed."
        )
    if run["format"] > RUN_FORMAT:
        raise UserError(f"{point.file} was written by a newer version of this program. Update it to go on.")
    if RESUMABLE not in point.checkpoint:
        raise UserError(
            f"{point.file} holds the weights of the best epoch, for testing. Resume from {LAST} beside it: "
            f"--resume {point.folder}",
            exit_code=2,
        )
    saved = {
        "variant": variant_name(point.config["variant"]),
        "dataset": point.config["data"]["dataset"],
        "seed": point.config["seed_everything"],
    }
    for name, value in saved.items():
        if run[name] != value:
            raise UserError(
                f"{point.file} is of another run: its {name} is {run[name]!r}, and that of {point.folder} {value!r}."
            )


def _check_variant(point: ResumePoint, variant: str) -> None:
    if variant_name(variant) != point.run["variant"]:
        raise UserError(
            f"{point.folder} is a run of the variant {point.run['variant']}, not of {variant_name(variant)}.",
            exit_code=2,
        )
    if point.run["overlay"] != overlay_digest(variant):
        raise UserError(
            f"The variant {variant} says something else than when {point.folder} began. Start a new run without "
            f"--resume; or go on with the run as it was, without --variant: --resume {point.folder}",
            exit_code=2,
        )


def _flat(value: Any, name: str = "") -> dict[str, Any]:  # noqa: ANN401
    """Nested dicts as one, ``{"trainer.max_epochs": 10}``; lists are values."""
    if not isinstance(value, dict):
        return {name: value}
    parts = (_flat(item, f"{name}.{key}" if name else str(key)) for key, item in value.items())
    return {key: item for part in parts for key, item in part.items()}


def _is_free(name: str) -> bool:
    return any(name == free or name.startswith(free + ".") for free in (*FREE, *_NO_OPTIONS))


def _raised(config: dict[str, Any], max_epochs: int | None) -> bool:
    return max_epochs is not None and _more(max_epochs, config.get("trainer", {}).get("max_epochs"))


def _more(epochs: int | None, before: int | None) -> bool:
    """Whether there are more epochs than before; -1 stands for no limit."""
    return epochs is not None and before not in (None, -1) and (epochs == -1 or epochs > before)


def _release(version: str | None) -> tuple[str, ...]:
    """Major and minor number."""
    return tuple((version or "").split(".")[:2])
