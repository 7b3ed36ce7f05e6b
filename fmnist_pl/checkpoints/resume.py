"""Find the run that ``--resume`` means, and refuse what would not continue it exactly."""

import copy
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities import rank_zero_warn

from fmnist_pl.checkpoints.callbacks import is_resumable
from fmnist_pl.checkpoints.checkpoint_file import RESUMABLE, load_checked
from fmnist_pl.classifier import FashionClassifier
from fmnist_pl.configuration import load_yaml, variant_name
from fmnist_pl.runs.identity import relevant_config
from fmnist_pl.runs.record import RUN
from training_health.errors import UserError

MALFORMED = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)


@dataclass(frozen=True)
class ResumePoint:
    """Where a run continues."""

    folder: Path  # the run's
    file: Path
    config: dict[str, Any]  # as it was saved
    checkpoint: dict[str, Any]  # the file's content

    @property
    def run(self) -> dict[str, Any]:
        """What the checkpoint says of its run."""
        return self.checkpoint[RUN]


def find(value: str, runs: Path) -> ResumePoint:
    """Find and load what ``--resume VALUE`` means: "last" (of the ``version_N`` in ``runs``), a folder or a file."""
    path = _newest(runs) if value == "last" else Path(value).expanduser()
    if not path.exists():
        raise UserError(f"There is nothing to resume at {value}. Give last, a run's folder, or a checkpoint.", 2)
    if path.is_file():
        folder, files = (path if len(path.parts) > 2 else path.absolute()).parents[1], [path]
    else:
        folder = path.parent if path.name == "checkpoints" else path
        files = [file for name in RESUMABLE if (file := folder / "checkpoints" / name).is_file()]
    if not (folder / "config.yaml").is_file() and path.suffix == ".ckpt" and "slim" in load_checked(path):
        raise UserError(f"{path} holds a slimmed network, which cannot be trained further: it is there to be used.", 2)
    if not (folder / "config.yaml").is_file():
        raise UserError(f"{folder} is not the folder of a run: it has no config.yaml. Give --resume a run's folder.", 2)
    config = load_yaml(folder / "config.yaml")
    if not files:
        raise UserError(
            f"{folder} has no checkpoint: it ended in its first epoch, or they were deleted. Start it again without "
            "--resume."
        )
    file, checkpoint = _first_whole(files)
    if RUN not in checkpoint or not is_resumable(checkpoint):
        raise UserError(
            f"{file} was not written by fmnist fit at the end of an epoch, so no run resumes from it. "
            f"Resume from {' or '.join(RESUMABLE)}: --resume {shlex.quote(str(folder))}",
            exit_code=2,
        )
    return ResumePoint(folder, file, config, checkpoint)


def is_finished(folder: Path) -> bool:
    """Whether the run was trained and tested to its end."""
    return (folder / "summary.json").is_file()


def check_options(point: ResumePoint, config: Any, overlay: str = "") -> None:  # noqa: ANN401
    """Refuse options (``overlay``: digest of the variant named) of another run, and a run with nothing left to do."""
    before, now = _comparable(point.config), _comparable(config)
    epochs_before, epochs = before.pop("trainer.max_epochs", None), now.pop("trainer.max_epochs", None)
    names = [name for name in sorted(before.keys() & now.keys()) if before[name] != now[name]]
    differing = [f"{name} is {now[name]!s:.80} here and {before[name]!s:.80} in the run" for name in names]
    if not names and overlay and point.run["overlay"] not in {"", overlay}:
        differing = [f"the variant {config.variant} says something else than when it began"]
    if differing:
        raise UserError(
            f"{point.folder} is not the run to resume: {'; '.join(differing)}. A run resumes with the options that it "
            "began with: leave those out (with make: give the run's own SEED, DATASET and MONITORS), or start a new "
            "run without --resume.",
            exit_code=2,
        )
    if now["trainer.max_steps"] != -1:
        raise UserError(
            f"{point.folder} is limited by --trainer.max_steps: only runs that are limited by epochs resume exactly. "
            "Start a new run without --resume.",
            exit_code=2,
        )
    if epochs == epochs_before and is_finished(point.folder):
        raise UserError(
            f"{point.folder} is finished: {len(point.run['history'])} epochs. To train it further, raise "
            "--trainer.max_epochs; for a new run leave --resume out."
        )
    if epochs != epochs_before:
        schedule = before["model.schedule"]
        raised = None not in (epochs, epochs_before) and (epochs == -1 or -1 < epochs_before < epochs)
        if not raised or schedule != "constant":
            raise UserError(
                f"--trainer.max_epochs can only be raised, and only with a constant learning rate: it is "
                f"{epochs_before} in the run, with model.schedule {schedule}, and {epochs} here.",
                exit_code=2,
            )


def check_identity(point: ResumePoint, identity: dict[str, Any]) -> None:
    """Refuse other data; warn of what may change a result's last digits: versions, source code, threads."""
    before = point.run["identity"]
    if before["data"] != identity["data"]:
        raise UserError(
            f"{point.folder} was trained on other data, {before['data']}, than are here, {identity['data']}. "
            "Start a new run without --resume."
        )
    began = {"code": before["code"], **point.run["versions"], "number of threads": point.run["threads"]}
    now = {"code": identity["code"], **identity["versions"], "number of threads": torch.get_num_threads()}
    changed = [f"{name} {began[name]}, now {now[name]}" for name in now if began.get(name, now[name]) != now[name]]
    if changed:
        rank_zero_warn(f"{point.folder} began with {'; '.join(changed)}. Its last digits may differ from here on.")


def check_weights(file: Path, checkpoint: dict[str, Any], model: torch.nn.Module) -> None:
    """Refuse a checkpoint whose weights are of another network, by name, shape and type."""
    saved, state = checkpoint["state_dict"], model.state_dict()
    _refuse_others(file, {name: (saved.get(name), state.get(name)) for name in sorted(saved.keys() | state.keys())})


def check_network(point: ResumePoint, model: FashionClassifier, trainer: pl.Trainer) -> None:
    """Refuse weights or optimiser state of another network, and another number of processes.

    torch's fused optimisers do not look at the state that they are given: they write beyond the ends of tensors that
    are smaller than the weights, of another type, or of overlapping elements.
    """
    model = trainer.precision_plugin.convert_module(copy.deepcopy(model))  # type: ignore[assignment]
    check_weights(point.file, point.checkpoint, model)
    optimizer = model.make_optimizer()
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()  # makes the state
    (saved,), expected = point.checkpoint["optimizer_states"], optimizer.state_dict()
    found = {}
    for number, state in saved["state"].items():
        known = expected["state"].get(number, {})
        for name in sorted(state.keys() | known.keys()) if state else ():
            found[f"the optimiser's {name} of parameter {number}"] = state.get(name), known.get(name)
    for before, now in zip(saved["param_groups"], expected["param_groups"], strict=True):
        found |= {f"the optimiser's {name}": (before.get(name), now[name]) for name in now.keys() - {"fused"}}
    _refuse_others(point.file, found)
    if point.run["devices"] != trainer.world_size:
        raise UserError(
            f"{point.folder} was trained by {point.run['devices']} processes, and this is {trainer.world_size}: the "
            "batches would differ. Resume with --trainer.devices and --trainer.num_nodes as it began.",
            exit_code=2,
        )


def malformed(file: Path, error: BaseException) -> UserError:
    """What to say of one of the errors `MALFORMED` that the content of a checkpoint caused."""
    reason = (str(error).strip().splitlines() or [""])[0]
    return UserError(f"{file} is malformed, or not of this run: {type(error).__name__}: {reason}. Use another one.")


def _refuse_others(file: Path, found: dict[str, tuple[Any, Any]]) -> None:
    """Refuse a checkpoint unless each of its values, given with the one that it replaces, is of the same kind."""
    for name, (before, now) in found.items():
        for one, other in zip(_kind(before), _kind(now), strict=False):
            if one != other:
                raise UserError(
                    f"{file} is of another network: {name} is {one} in it and {other} here. "
                    "Give the checkpoint of a run of this network."
                )


def _kind(value: Any) -> tuple[Any, ...]:  # noqa: ANN401
    """What must be the same of a value and of the one that it replaces; not the numbers themselves."""
    if isinstance(value, torch.Tensor):
        strides = [stride for stride, size in zip(value.stride(), value.shape, strict=True) if size > 1]
        return tuple(value.shape), value.dtype, f"laid out by {strides}"
    if isinstance(value, list | tuple):
        return ([item if isinstance(item, int) else _kind(item) for item in value],)
    return ("a number" if isinstance(value, float) else "absent" if value is None else value,)


def _newest(runs: Path) -> Path:
    """The newest unfinished run, or the newest if all are finished."""
    folders = [path for path in runs.glob("version_*") if path.name[8:].isdigit() and (path / "config.yaml").is_file()]
    if not folders:
        raise UserError(f"There is no run to resume in {runs}. Start one: leave --resume out.", exit_code=2)
    return max(folders, key=lambda path: (not is_finished(path), int(path.name[8:])))


def _first_whole(files: list[Path]) -> tuple[Path, dict[str, Any]]:
    """The first file that can be loaded, and its content; warns of those before it."""
    for file in files[:-1]:
        try:
            return file, load_checked(file)
        except UserError as error:
            rank_zero_warn(f"{error} Now it resumes from {files[-1].name}, an epoch earlier.")
    return files[-1], load_checked(files[-1])


def _comparable(config: Any) -> dict[str, Any]:  # noqa: ANN401
    """What bears on a run's metrics, ``{"trainer.max_epochs": 10}``, and the variant by its name."""
    return {**dict(_flat(relevant_config(config))), "variant": variant_name(config["variant"])}


def _flat(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:  # noqa: ANN401
    """Nested dicts as one; lists are values."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _flat(item, f"{name}.{key}" if name else str(key))
    else:
        yield name, value
