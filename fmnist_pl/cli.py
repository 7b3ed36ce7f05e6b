"""The ``fmnist`` command: LightningCLI with variants, monitors on or off, and a test and summary after each fit."""

import sys
from pathlib import Path
from typing import Any, Literal

import pytorch_lightning as pl
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.cli import LightningArgumentParser, LightningCLI
from pytorch_lightning.utilities.exceptions import MisconfigurationException

from fmnist_pl import run_folder
from fmnist_pl.classifier import FashionClassifier
from fmnist_pl.data import FashionMNISTDataModule
from fmnist_pl.errors import UserError
from fmnist_pl.process import keep_freed_memory
from fmnist_pl.progress import Progress
from fmnist_pl.quiet import quiet_libraries
from fmnist_pl.run_identity import identity
from fmnist_pl.run_record import RunRecord, versions
from fmnist_pl.summary_table import print_summary
from fmnist_pl.variants import BASE, overlay_path, variant_name

MONITORS = ("callbacks.DeadReLUMonitor", "callbacks.WeightHistogramMonitor", "callbacks.TrainValGapMonitor")
LIGHTNING_COMMANDS = ("fit", "validate", "test", "predict")


class FashionCLI(LightningCLI):
    """LightningCLI for this package's module, data and run folders."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add this package's own options and tie the data's seed to the run's."""
        parser.add_argument("--variant", default="baseline", help="Packaged variant, or path of a YAML overlay.")
        parser.add_argument("--monitors", type=Literal["on", "off"], default="on", help="Train with the monitors.")
        parser.add_argument(
            "--test_checkpoint",
            type=Literal["best", "last"],
            default="best",
            help="Which weights fit tests at its end: those of the lowest validation loss, or of the last epoch.",
        )
        parser.link_arguments("seed_everything", "data.seed", compute_fn=int)

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:  # noqa: ANN401
        """Parse ``args``, never sys.argv; Lightning's own method warns where both hold something."""
        self.config = parser.parse_args(args)

    def before_instantiate_classes(self) -> None:
        """Refuse what cannot work, choose the run's folder, take the monitors out if asked."""
        config = self.config[self.subcommand]
        if config.trainer.max_epochs is not None and config.trainer.max_epochs < 1 and config.trainer.max_epochs != -1:
            raise UserError(f"--trainer.max_epochs must be at least 1, got {config.trainer.max_epochs}.", exit_code=2)
        self.identity = identity(config, versions()) if self.subcommand == "fit" else {}
        if config.monitors == "off":
            config.trainer.callbacks = [c for c in config.trainer.callbacks or [] if c.class_path not in MONITORS]
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
        )
        always: list[pl.Callback] = [self.record]
        if config.trainer.enable_progress_bar is not False:
            always.append(Progress())
        self.trainer_defaults = {**self.trainer_defaults, "callbacks": always}
        return super().instantiate_trainer(**kwargs)

    def after_fit(self) -> None:
        """Test the checkpoint with the best validation loss (or the last weights), write the summary and print it."""
        if self.config.fit.trainer.fast_dev_run:
            return
        best = next(
            (c for c in self.trainer.checkpoint_callbacks if isinstance(c, ModelCheckpoint) and c.monitor), None
        )
        path = best.best_model_path if best is not None and self.record.test_checkpoint == "best" else ""
        self.trainer.test(
            self.model, datamodule=self.datamodule, ckpt_path=path or None, weights_only=True, verbose=False
        )
        summary = self.record.summary(self.trainer, self.model)
        if self.trainer.is_global_zero and self.trainer.log_dir:
            self.record.write(self.trainer, summary)
            print_summary(summary, Path(self.trainer.log_dir))


def main(args: list[str] | None = None) -> None:
    """Run ``fmnist`` with ``args`` (default: the process's own).

    Raises:
        UserError: For a mistake that the user can mend.
        SystemExit: With status 2 for options that do not parse, 130 after Ctrl-C.
    """
    args = sys.argv[1:] if args is None else list(args)
    if args and args[0] == "compare":
        from fmnist_pl.compare.command import main as compare

        sys.exit(compare(args[1:]))
    keep_freed_memory()
    quiet_libraries()
    if args and args[0] in LIGHTNING_COMMANDS:
        args = [args[0], *configs_of(args[1:]), *args[1:]]
    try:
        FashionCLI(
            FashionClassifier,
            FashionMNISTDataModule,
            seed_everything_default=0,
            auto_configure_optimizers=False,
            save_config_kwargs={"overwrite": True},
            parser_kwargs={"allow_abbrev": False},  # a misspelt option is an error, not a prefix of another
            args=args,
        )
    except MisconfigurationException as error:
        raise UserError(f"Lightning cannot run this configuration: {error}") from error


def configs_of(args: list[str]) -> list[str]:
    """The ``--config`` options that a command line implies: the base, and its variant's overlay if it names one."""
    variant = None
    for position, argument in enumerate(args):
        if argument == "--variant" and position + 1 < len(args):
            variant = args[position + 1]
        elif argument.startswith("--variant="):
            variant = argument.removeprefix("--variant=")
    overlays = [BASE] if variant is None else [BASE, overlay_path(variant)]
    return [word for path in overlays for word in ("--config", str(path))]
