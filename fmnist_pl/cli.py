"""The ``fmnist`` command: LightningCLI with variants, monitors on or off, and a test and summary after each fit."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytorch_lightning as pl
import yaml
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.cli import LightningArgumentParser, LightningCLI
from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.utilities.exceptions import MisconfigurationException

from fmnist_pl.arguments import option, options
from fmnist_pl.checkpoints import resume
from fmnist_pl.checkpoints.checkpoint_file import load_checked
from fmnist_pl.checkpoints.durable_io import DurableCheckpointIO
from fmnist_pl.checkpoints.last_checkpoint import LastCheckpoint
from fmnist_pl.checkpoints.resume import ResumePoint
from fmnist_pl.checkpoints.resume_command import resume_point
from fmnist_pl.checkpoints.stop_request import STOP_REQUEST
from fmnist_pl.classifier import FashionClassifier
from fmnist_pl.data import FashionMNISTDataModule
from fmnist_pl.process import keep_freed_memory, skip_gpu_search
from fmnist_pl.quiet import quiet_libraries
from fmnist_pl.runs import folder as run_folder
from fmnist_pl.runs.identity import identity
from fmnist_pl.runs.no_profiler import NoProfiler
from fmnist_pl.runs.predictions_file import PredictionsFile
from fmnist_pl.runs.progress import Progress
from fmnist_pl.runs.record import RUN, RunRecord, versions
from fmnist_pl.runs.saved_config import SavedConfig
from fmnist_pl.runs.summary_table import print_summary
from fmnist_pl.variants import BASE, overlay_digest, overlay_path, packaged_variants, variant_name
from fmnist_pl.yaml_file import load_yaml
from training_health.errors import UserError

MONITORS = (
    "training_health.DeadReLUMonitor",
    "training_health.WeightHistogramMonitor",
    "training_health.TrainValGapMonitor",
)
LIGHTNING_COMMANDS = ("fit", "validate", "test", "predict")


class FashionCLI(LightningCLI):
    """LightningCLI for this package's module, data and run folders.

    Args:
        resume_from: Where a run goes on; None for a new run.
        **options: Those of LightningCLI.
    """

    def __init__(self, *args: Any, resume_from: ResumePoint | None = None, **options: Any) -> None:  # noqa: ANN401
        self.resume = resume_from
        self.arguments: list[str] = options.get("args") or []
        self.requested = self.arguments[0] if self.arguments else ""
        super().__init__(*args, **options)

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]  # static there
        """LightningCLI's; of those only the requested one, for each costs 0.1 s of introspection at the start."""
        known = super().subcommands()
        return {self.requested: known[self.requested]} if self.requested in known else known

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add this package's own options and tie the data's seed to the run's."""
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
            help="Go on with a run: last (the variant's newest unfinished one), a run's folder, or a checkpoint.",
        )
        parser.add_lightning_class_args(LastCheckpoint, "checkpoint")
        parser.link_arguments("seed_everything", "data.seed", compute_fn=int)

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:  # noqa: ANN401
        """Parse ``args``, never sys.argv; Lightning's own method warns where both hold something."""
        self.config = parser.parse_args(args)

    def _parse_ckpt_path(self) -> None:
        """Check the checkpoint to be evaluated, and take the network's arguments from it."""
        config = self.config[self.config.subcommand]
        if self.config.subcommand == "fit":
            if config.ckpt_path is not None:
                raise UserError("fit takes --resume last, --resume RUN_FOLDER or --resume CHECKPOINT.", exit_code=2)
            return
        file = evaluated_file(config.ckpt_path, self.config.subcommand)
        checkpoint = load_checked(file)
        config.ckpt_path, config.weights_only = str(file), True
        found = {"model": checkpoint.get("hyper_parameters", {}), **self._labels_of(checkpoint.get(RUN, {}))}
        self.config = self.parser.parse_object({self.config.subcommand: found}, self.config)

    def _labels_of(self, run: dict[str, Any]) -> dict[str, Any]:
        """Variant, seed and data set of the run that a checkpoint is of, but for what the command line says itself."""
        config = self.config[self.config.subcommand]
        asked = config.data.dataset
        given = {name: option(self.arguments, name) is not None for name in ("variant", "data.dataset")}
        if given["data.dataset"] and asked != run.get("dataset", asked):
            print(f"Note: trained on {run['dataset']}, evaluated on {asked}.", file=sys.stderr)
        labels: dict[str, Any] = {}
        if "variant" in run and not given["variant"]:
            labels["variant"] = run["variant"]
        if "dataset" in run and not given["data.dataset"]:
            labels["data"] = {"dataset": run["dataset"]}
        return labels

    def _plain_config(self) -> dict[str, Any]:
        """The subcommand's configuration as it will be saved."""
        text = self._parser(self.subcommand).dump(self.config[self.subcommand], skip_none=False)
        return yaml.safe_load(text)

    def before_instantiate_classes(self) -> None:
        """Refuse what cannot work, choose the run's folder, take the monitors out if asked."""
        config = self.config[self.subcommand]
        if config.trainer.max_epochs is not None and config.trainer.max_epochs < 1 and config.trainer.max_epochs != -1:
            raise UserError(f"--trainer.max_epochs must be at least 1, got {config.trainer.max_epochs}.", exit_code=2)
        if config.monitors == "off":
            config.trainer.callbacks = [c for c in config.trainer.callbacks or [] if c.class_path not in MONITORS]
        self.identity = identity(config, versions()) if self.subcommand == "fit" else {}
        if config.resume is not None and self.resume is None:
            raise UserError(
                f"`resume: {config.resume}` in a configuration file resumes nothing: give --resume {config.resume} on "
                "the command line.",
                exit_code=2,
            )
        if self.resume is not None:
            resume.check_options(self.resume.config, self._plain_config())
            resume.check_identity(self.resume, self.identity)
            run_folder.reopen(config, self.resume.folder)
            config.resume = None  # the saved configuration is that of the run
        run_folder.choose(config, str(self.subcommand))

    def instantiate_classes(self) -> None:
        """Build model, data and trainer; what their constructors refuse is a wrong option."""
        try:
            super().instantiate_classes()
        except (MisconfigurationException, ValueError) as error:
            raise UserError(f"These options do not go together: {error}", exit_code=2) from error

    def instantiate_trainer(self, **kwargs: Any) -> pl.Trainer:  # noqa: ANN401
        """Add the callbacks that belong to every run, whatever a variant's list says."""
        config = self.config[self.subcommand]
        settings = {
            "batch_size": config.data.batch_size,
            **{name: value for name, value in config.model.as_dict().items() if value is not None},
        }
        self.record = RunRecord(
            variant_name(config.variant),
            config.data.dataset,
            config.seed_everything,
            settings,
            identity=self.identity,
            test_checkpoint=config.test_checkpoint,
            overlay=self._overlay(config.variant),
        )
        always: list[pl.Callback] = [self.record]
        if config.trainer.enable_progress_bar is not False:
            always.append(Progress())
        if self.subcommand == "predict":
            always.append(PredictionsFile())
        self.trainer_defaults = {**self.trainer_defaults, "callbacks": always}
        plugins = [*(self.config_init[self.subcommand].trainer.plugins or []), DurableCheckpointIO()]
        profiler = self.config_init[self.subcommand].trainer.profiler or NoProfiler()
        trainer = super().instantiate_trainer(plugins=plugins, profiler=profiler, **kwargs)
        if not config.trainer.fast_dev_run:
            run_folder.follow_curves(trainer.loggers, 0 if self.resume is None else self.resume.steps)
        return trainer

    def _overlay(self, variant: str) -> str:
        """Digest of what the run's variant says; that of its beginning for a run that goes on."""
        if self.resume is not None:
            return str(self.resume.run["overlay"])
        return overlay_digest(variant) if self.subcommand == "fit" else ""

    def fit(self, **options: Any) -> None:  # noqa: ANN401
        """Train, from the start or from where the run stopped."""
        folder = self.trainer.log_dir
        if self.trainer.is_global_zero and folder and isinstance(self.trainer.logger, TensorBoardLogger):
            self._lock = run_folder.claim(Path(folder))
        if self.resume is not None:
            resume.check_network(self.resume, self.model.state_dict(), self.trainer.world_size)
            options["ckpt_path"] = self.resume.file
            if self.trainer.is_global_zero:
                (self.resume.folder / "summary.json").unlink(missing_ok=True)  # of fewer epochs
        self.trainer.fit(**{**options, "weights_only": True})

    def after_fit(self) -> None:
        """Test what was asked to be tested, write the summary and print it."""
        if self.config.fit.trainer.fast_dev_run:
            return
        tested = "none" if self.record.test_checkpoint == "none" else self._test()
        folder = self.trainer.log_dir  # every rank must ask
        if self.trainer.is_global_zero:
            summary = self.record.summary(self.trainer, self.model, tested)
            self.record.write(self.trainer, summary)
            print_summary(summary, Path(folder) if folder and self.trainer.loggers else None)

    def _test(self) -> str:
        """Test the checkpoint with the best validation loss, or where asked or without one the last weights: which."""
        best = next(
            (c for c in self.trainer.checkpoint_callbacks if isinstance(c, ModelCheckpoint) and c.monitor), None
        )
        path = best.best_model_path if best is not None and self.record.test_checkpoint == "best" else ""
        self.trainer.test(
            self.model, datamodule=self.datamodule, ckpt_path=path or None, weights_only=True, verbose=False
        )
        return "best" if path else "last"


def main(args: list[str] | None = None, cli: Callable[..., FashionCLI] = FashionCLI) -> None:
    """Run one of Lightning's subcommands with ``args`` (default: the process's own).

    Args:
        args: The subcommand and its options.
        cli: Parses and runs them.

    Raises:
        UserError: For a mistake that the user can mend.
        SystemExit: With status 2 for options that do not parse, 130 after Ctrl-C, 143 after SIGTERM.
    """
    args = sys.argv[1:] if args is None else list(args)
    keep_freed_memory()
    skip_gpu_search()
    quiet_libraries()
    point = None
    if args and args[0] in LIGHTNING_COMMANDS:
        point = resume_point(args[1:]) if args[0] == "fit" else None
        configs = configs_of(args[1:]) if point is None else ["--config", str(point.config_file)]
        args = [args[0], *configs, *args[1:]]
    try:
        with STOP_REQUEST.listening():
            cli(
                FashionClassifier,
                FashionMNISTDataModule,
                seed_everything_default=0,
                auto_configure_optimizers=False,
                save_config_callback=SavedConfig,
                load_from_checkpoint_support=False,  # it would put names of code to call into the checkpoints
                parser_kwargs={"allow_abbrev": False},  # a misspelt option is an error, not a prefix of another
                args=args,
                resume_from=point,
            )
    except MisconfigurationException as error:
        raise UserError(f"Lightning cannot run this configuration: {error}") from error


def configs_of(args: list[str]) -> list[str]:
    """The ``--config`` options that a command line implies: the base, and its variant's overlay if it names one.

    A variant named in one of the user's own ``--config`` files brings its overlay too, below that file.
    """
    variant = option(args, "variant")
    overlays = [BASE] if variant is None else [BASE, overlay_path(variant)]
    if variant is None:
        named = [
            config.get("variant")
            for file in options(args, "config")
            if isinstance(config := load_yaml(Path(file)), dict)
        ]
        packaged = [name for name in named if name in packaged_variants()]
        overlays += [overlay_path(name) for name in packaged[-1:]]
    return [word for path in overlays for word in ("--config", str(path))]


def evaluated_file(ckpt_path: str | None, command: str) -> Path:
    """The checkpoint that ``--ckpt_path`` means: a file, or the best one of a run's folder."""
    if ckpt_path is None:
        raise UserError(f"{command} needs weights: give --ckpt_path a checkpoint or a run's folder.", exit_code=2)
    path = Path(ckpt_path)
    return path / "checkpoints" / "best.ckpt" if path.is_dir() else path
