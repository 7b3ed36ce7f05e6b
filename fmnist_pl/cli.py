"""The ``fmnist`` command: LightningCLI with variants, monitors on or off, and a test and summary after each fit."""

import contextlib
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import jsonargparse.typing
import pytorch_lightning as pl
import torch
from filelock import BaseFileLock
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.cli import LightningArgumentParser, LightningCLI
from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.profilers import PassThroughProfiler
from pytorch_lightning.utilities.exceptions import MisconfigurationException

from fmnist_pl.checkpoints import resume
from fmnist_pl.checkpoints.callbacks import LastCheckpoint
from fmnist_pl.checkpoints.checkpoint_file import DurableCheckpointIO, evaluated_file, load_checked
from fmnist_pl.checkpoints.resume import ResumePoint
from fmnist_pl.classifier import FashionClassifier
from fmnist_pl.configuration import (
    BASE,
    MONITORS,
    load_options,
    load_yaml,
    overlay_path,
    value_of,
    values_of,
    variant_name,
)
from fmnist_pl.data import FashionMNISTDataModule
from fmnist_pl.dataset.clothes import SIDE
from fmnist_pl.dataset.files import CLASS_NAMES
from fmnist_pl.process import (
    ending_children,
    keep_freed_memory,
    printable,
    quiet_libraries,
    skip_gpu_search,
    stop_at_once,
)
from fmnist_pl.runs import folder as run_folder
from fmnist_pl.runs.identity import content_hash, identity
from fmnist_pl.runs.predictions_file import PredictionsFile
from fmnist_pl.runs.record import RUN, RunRecord
from fmnist_pl.runs.terminal import Progress, data_label, print_summary
from training_health.errors import UserError

LIGHTNING_COMMANDS = ("fit", "validate", "test", "predict")
# An argument of StochasticWeightAveraging, that is to be read back.
jsonargparse.typing.register_type(torch.device, deserializer_exceptions=(RuntimeError, TypeError))
_NOTHING = contextlib.nullcontext()
_RESUMED_FILE = "FMNIST_RESUMED_FILE"  # environment variable: what the first rank resumes from


class _NoProfiler(PassThroughProfiler):
    """Lightning's default, without the generator that it makes around each of some 50 hooks of a step."""

    def profile(self, action_name: str) -> Any:  # noqa: ANN401
        """The same context for all."""
        return _NOTHING


class FashionCLI(LightningCLI):
    """LightningCLI for this package's module, data and run folders, and with further callbacks of the run.

    Afterwards ``trainer`` has run, and the `RunRecord` ``record`` holds description, history and last metrics.
    """

    def __init__(self, *args: Any, callbacks: Sequence[pl.Callback] = (), **options: Any) -> None:  # noqa: ANN401
        self.callbacks = list(callbacks)
        self.resume: ResumePoint | None = None
        self.loaded: tuple[Path, dict[str, Any]] | None = None  # checkpoint that is evaluated or resumed: file, content
        self.lock: BaseFileLock | None = None
        self.quiet = False
        self.flip_at_test: bool | None = None  # as an evaluation was asked for it
        self.overlay = ""  # digest of what the variant's overlay says, if the command line names one
        self.requested = (options.get("args") or [""])[0]
        super().__init__(*args, **options)

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]  # static there
        """LightningCLI's; of those only the requested one, for each costs 0.1 s of introspection at the start."""
        known = super().subcommands()
        return {self.requested: known[self.requested]} if self.requested in known else known

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add this package's own options, tie the data's seed to the run's, and let the help begin shortly."""
        command = self.requested if self.requested in LIGHTNING_COMMANDS else "fit"  # whose options others read
        parser.usage = f"fmnist {command} [OPTIONS]"
        parser.add_argument("--variant", default="baseline", help="Packaged variant, or path of a YAML overlay.")
        parser.add_argument("--monitors", type=Literal["on", "off"], default="on", help="Train with the monitors.")
        parser.add_argument(
            "--test_checkpoint",
            type=Literal["best", "last", "none"],
            default="best",
            help="Which weights fit tests at its end: those of the lowest validation loss, of the last epoch, or none.",
        )
        parser.add_argument(
            "--resume",
            type=str,
            help="Continue a run: last (the variant's newest unfinished one), a run's folder, or a checkpoint.",
        )
        parser.add_argument(
            "--quiet", action="store_true", help="Show no progress, and of fit's result one line: accuracy and folder."
        )
        parser.link_arguments("seed_everything", "data.seed", compute_fn=int)

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:  # noqa: ANN401
        """Parse ``args``, never sys.argv, over the base, the variant's overlay and what a run or checkpoint says."""
        if self.requested not in LIGHTNING_COMMANDS:
            self.config = parser.parse_args(args)
            return
        command, *given = args
        if unreadable := [word for word in given if word.encode(errors="replace").decode() != word]:
            raise UserError(f"{unreadable[0]} is no UTF-8 text, as a configuration is. Rename what it names.", 2)
        self.config = parser.parse_args([command, *configs_of(given), *given])
        config = self.config[command]
        if not 0 <= int(config.seed_everything or 0) < 2**32:
            raise UserError(f"--seed_everything must be from 0 to {2**32 - 1}, got {config.seed_everything}.", 2)
        if (every := config.trainer.check_val_every_n_epoch) is not None and every < 1:  # Lightning divides by it
            raise UserError(f"--trainer.check_val_every_n_epoch must be 1 or more, or null; got {every}.", 2)
        if (variant := value_of(given, "variant")) is not None:
            self.overlay = content_hash(load_yaml(overlay_path(variant)))
        if command != "fit":
            self._take_network(parser, given)
        elif config.ckpt_path is not None:
            raise UserError("fit takes --resume last, --resume RUN_FOLDER or --resume CHECKPOINT.", exit_code=2)
        elif config.resume is not None:
            # The ranks that Lightning launches repeat the command line: "last" must be the same run for all.
            launched = os.environ.get("LOCAL_RANK", "0") != "0"
            asked = os.environ.get(_RESUMED_FILE, config.resume) if launched else config.resume
            self.resume = resume.find(asked, run_folder.runs_folder(config))
            os.environ[_RESUMED_FILE] = str(self.resume.file)
            self.loaded = self.resume.file, self.resume.checkpoint
            self.config = parser.parse_args([command, "--config", str(self.resume.folder / "config.yaml"), *given])
            with self._malformed_is_said():
                resume.check_options(self.resume, self.config[command], self.overlay)

    def _take_network(self, parser: LightningArgumentParser, given: list[str]) -> None:
        """Check the checkpoint to be evaluated; take the network's arguments and, unless given, the labels from it."""
        command, config = self.config.subcommand, self.config[self.config.subcommand]
        if config.ckpt_path is None:
            raise UserError(f"{command} needs weights: give --ckpt_path a checkpoint or a run's folder.", exit_code=2)
        file = evaluated_file(config.ckpt_path)
        checkpoint = load_checked(file)
        self.loaded = file, checkpoint
        config.ckpt_path, config.weights_only = str(file), True
        run, found = checkpoint.get(RUN, {}), {"model": checkpoint.get("hyper_parameters", {})}
        if value_of(given, "model.flip_at_test") is not None:  # how it is tested, not what was trained
            self.flip_at_test = config.model.flip_at_test
        if "variant" in run and value_of(given, "variant") is None:
            found["variant"] = run["variant"]
        if "dataset" in run and value_of(given, "data.dataset") is None:
            found["data"] = {"dataset": run["dataset"]}
        elif config.data.dataset != run.get("dataset", config.data.dataset):
            print(f"Note: trained on {run['dataset']}, evaluated on {config.data.dataset}.", file=sys.stderr)
        asked = {word.removeprefix("--model.").partition("=")[0] for word in given if word.startswith("--model.")}
        trained, network = dict(found["model"]), config.model.as_dict()
        others = sorted(asked & trained.keys() - {"flip_at_test"})
        unused = [f"--model.{name}" for name in others if _differ(network, trained, name)]
        if value_of(given, "variant") not in {None, run.get("variant")}:
            unused.append("--variant")
        if unused:
            print(f"Note: the network is the checkpoint's, whatever {', '.join(unused)} may say.", file=sys.stderr)
        self.config = parser.parse_object({command: found}, self.config)

    def before_instantiate_classes(self) -> None:
        """Refuse what cannot work, choose the run's folder, take the monitors out if asked."""
        config = self.config[self.subcommand]
        if self.flip_at_test is not None:  # Lightning puts the checkpoint's hyperparameters over the command line
            config.model.flip_at_test = self.flip_at_test
        self.quiet, config.quiet = config.quiet, False  # of this call, not of the run: a saved configuration is loud
        if config.trainer.max_epochs is not None and config.trainer.max_epochs < 1 and config.trainer.max_epochs != -1:
            raise UserError(f"--trainer.max_epochs must be at least 1, got {config.trainer.max_epochs}.", exit_code=2)
        if config.model.classes < len(CLASS_NAMES) or config.model.image_size != SIDE:
            made = f"{config.model.classes} classes and images of {config.model.image_size} pixels"
            raise UserError(f"The data have {len(CLASS_NAMES)} classes and images of {SIDE} pixels, not {made}.", 2)
        if config.monitors == "off":
            config.trainer.callbacks = [c for c in config.trainer.callbacks or [] if c.class_path not in MONITORS]
        self.identity = identity(config) if self.subcommand == "fit" else {}
        if self.resume is not None:
            with self._malformed_is_said():
                resume.check_identity(self.resume, self.identity)
            run_folder.reopen(config, self.resume.folder)
            config.resume = None  # the saved configuration is that of the run
        run_folder.choose(config, str(self.subcommand))

    def instantiate_classes(self) -> None:
        """Build model, data and trainer; what their constructors refuse is a wrong option."""
        try:
            super().instantiate_classes()
        except (MisconfigurationException, MemoryError, *resume.MALFORMED) as error:
            raise UserError(f"These options cannot be used: {error}", exit_code=2) from error

    def instantiate_trainer(self, **kwargs: Any) -> pl.Trainer:  # noqa: ANN401
        """Add the callbacks that belong to every run, whatever a variant's list says."""
        config = self.config[self.subcommand]
        settings = {
            "variant": variant_name(config.variant),
            "dataset": config.data.dataset,
            "seed": config.seed_everything,
            "batch_size": config.data.batch_size,
            **{name: value for name, value in config.model.as_dict().items() if value is not None},
        }
        self.record = RunRecord(settings, self.identity, config.test_checkpoint, self.overlay)
        always = [*self.callbacks, self.record]
        if config.trainer.enable_progress_bar is not False:
            always.append(Progress(self.record, self.quiet))
        if self.subcommand == "predict":
            always.append(PredictionsFile())
        always.append(LastCheckpoint())
        self.trainer_defaults = {**self.trainer_defaults, "callbacks": always}
        given = self.config_init[self.subcommand].trainer
        kwargs["plugins"] = [*(given.plugins or []), DurableCheckpointIO()]
        trainer = super().instantiate_trainer(profiler=given.profiler or _NoProfiler(), **kwargs)
        if self.resume is None:
            run_folder.refuse_used(trainer)
        return trainer

    def fit(self, **options: Any) -> None:  # noqa: ANN401
        """Train, from the start or from where the run stopped."""
        folder, steps = self.trainer.log_dir, 0
        first = self.trainer.is_global_zero
        if first and folder and isinstance(self.trainer.logger, TensorBoardLogger):
            self.lock = run_folder.claim(Path(folder))
        if self.resume is not None:
            with self._malformed_is_said():
                resume.check_network(self.resume, self.model, self.trainer)
            options["ckpt_path"], steps = self.resume.file, self.resume.checkpoint["global_step"]
            if first:
                (self.resume.folder / "summary.json").unlink(missing_ok=True)  # of fewer epochs
        if first and not self.config.fit.trainer.fast_dev_run:
            run_folder.void_later_curves(self.trainer.loggers, steps)
        with self._malformed_is_said():
            self.trainer.fit(**{**options, "weights_only": True})

    def validate(self, **options: Any) -> None:  # noqa: ANN401
        """Evaluate on the validation images."""
        self._evaluate(self.trainer.validate, "val", options)

    def test(self, **options: Any) -> None:  # noqa: ANN401
        """Evaluate on the test images."""
        self._evaluate(self.trainer.test, "test", options)

    def predict(self, **options: Any) -> None:  # noqa: ANN401
        """Predict the test images."""
        self._evaluate(self.trainer.predict, "predict", options)

    def _evaluate(self, function: Callable[..., object], stage: str, options: dict[str, Any]) -> None:
        assert self.loaded is not None
        file, checkpoint = self.loaded
        with self._malformed_is_said():
            resume.check_weights(file, checkpoint, self.model)
            function(**options)
        if self.trainer.is_global_zero:
            loader = getattr(self.datamodule, f"{stage}_dataloader")()
            (batches,) = getattr(self.trainer, f"num_{stage}_batches")
            n = min(len(loader.images), int(batches * self.trainer.world_size * loader.batch_size))
            images = f"{n:,} {'validation' if stage == 'val' else 'test'} images"
            of, epoch = data_label(self.config[self.subcommand].data.dataset), checkpoint.get("epoch")
            weights = f"weights of epoch {epoch + 1}" if isinstance(epoch, int) else "weights of an unknown epoch"
            print(f"On {of}: {images}, {weights}, {printable(file)}")

    @contextlib.contextmanager
    def _malformed_is_said(self) -> Iterator[None]:
        """Say in words what the content of a checkpoint breaks before the first batch."""
        try:
            yield
        except resume.MALFORMED as error:
            if self.loaded is None or (hasattr(self, "record") and self.record.began):
                raise
            raise resume.malformed(self.loaded[0], error) from error

    def after_fit(self) -> None:
        """Test what was asked to be tested, write the summary and print it."""
        if self.config.fit.trainer.fast_dev_run:
            return
        if self.trainer.is_global_zero:
            run_folder.wait_for_later_names(self.trainer.loggers, own=True)
        tested = "none" if self.record.test_checkpoint == "none" else self._test()
        folder = self.trainer.log_dir  # every rank must ask
        if self.trainer.is_global_zero:
            summary = self.record.summary(self.trainer, self.model, tested)
            self.record.write(self.trainer, summary)
            print_summary(summary, Path(folder) if folder and self.trainer.loggers else None, self.quiet)
            if not (self.trainer.loggers or self.quiet):
                where = self.trainer.default_root_dir
                print(f"Without a logger there is no run folder and no summary.json; what else the run left: {where}")
        if self.lock is not None:
            self.lock.release()

    def _test(self) -> str:
        """Test the checkpoint with the best validation loss, or where asked or without one the last weights: which."""
        saved = [c for c in self.trainer.checkpoint_callbacks if isinstance(c, ModelCheckpoint) and c.monitor]
        path = saved[0].best_model_path if saved and self.record.test_checkpoint == "best" else ""
        self.trainer.test(
            self.model, datamodule=self.datamodule, ckpt_path=path or None, weights_only=True, verbose=False
        )
        return "best" if path else "last"


def main(args: list[str] | None = None, callbacks: Sequence[pl.Callback] = ()) -> FashionCLI:
    """Run one of Lightning's subcommands.

    Args:
        args: The subcommand and its options. Default: the process's own.
        callbacks: Added to the run's.

    Returns:
        What ran, with its ``trainer`` and ``record``.

    Raises:
        UserError: For a mistake that the user can correct.
        SystemExit: With status 2 for options that do not parse, 130 after Ctrl-C, 143 after SIGTERM.
    """
    keep_freed_memory()
    skip_gpu_search()
    quiet_libraries()
    try:
        with stop_at_once(), ending_children():
            return FashionCLI(
                FashionClassifier,
                FashionMNISTDataModule,
                seed_everything_default=0,
                auto_configure_optimizers=False,
                save_config_callback=run_folder.SavedConfig,
                load_from_checkpoint_support=False,  # it would put names of code to call into the checkpoints
                parser_kwargs={"allow_abbrev": False},  # a misspelt option is an error, not a prefix of another
                args=sys.argv[1:] if args is None else list(args),
                callbacks=callbacks,
            )
    except MisconfigurationException as error:
        raise UserError(f"Lightning cannot run this configuration: {error}") from error
    except RuntimeError as error:
        if not str(error).startswith("Early stopping conditioned on metric"):
            raise
        raise UserError(f"{error}. What was saved is kept.") from error
    except OSError as error:  # a full disk, a limit, a folder that was deleted
        file = f"{error.filename}: " if error.filename else ""
        raise UserError(
            f"The system refuses what the run needs: {file}{error.strerror or error}. Make room, or correct "
            "folders and permissions; what was saved is kept: resume with --resume and the run's folder."
        ) from error


def configs_of(args: list[str]) -> list[str]:
    """The ``--config`` options that a command line implies: the base, and its variant's overlay if it names one.

    A variant named in one of the user's own ``--config`` files brings its overlay too, below that file.
    """
    if (variant := value_of(args, "variant")) is not None:
        overlays = [overlay_path(variant)]
        load_options(overlays[0])
    else:
        named = [load_options(Path(file)).get("variant") for file in values_of(args, "config")]
        # A file of the user's may be gone: what it said is in the configuration that was saved.
        names = [str(name) for name in named if name is not None and not str(name).endswith((".yaml", ".yml"))]
        overlays = [overlay_path(name) for name in names][-1:]
    return [word for path in (BASE, *overlays) for word in ("--config", str(path))]


def _differ(one: dict[str, Any], other: dict[str, Any], name: str) -> bool:
    """Whether two configurations have different values; a list is as good as a tuple."""
    values = (list(each[name]) if isinstance(each[name], tuple) else each[name] for each in (one, other))
    return next(values) != next(values)


class _ConfigReader(FashionCLI):
    """Stops after parsing: evaluates no checkpoint, makes no run folder, builds nothing."""

    def before_instantiate_classes(self) -> None: ...

    def instantiate_classes(self) -> None: ...


def fit_configuration(options: list[str]) -> Any:  # noqa: ANN401
    """Parse the options of ``fmnist fit`` into jsonargparse's namespace, its ``seed_everything`` to be filled in."""
    return _ConfigReader(
        FashionClassifier,
        FashionMNISTDataModule,
        run=False,
        auto_configure_optimizers=False,
        save_config_callback=None,
        parser_kwargs={"allow_abbrev": False},
        args=[*configs_of(options), *options, "--seed_everything=false"],  # seeds nothing in this process
    ).config
