"""The configuration that ``fmnist fit`` would run with, parsed but not run."""

from typing import Any

from fmnist_pl.classifier import FashionClassifier
from fmnist_pl.cli import FashionCLI, configs_of
from fmnist_pl.data import FashionMNISTDataModule


class _ConfigReader(FashionCLI):
    """Stops after parsing: evaluates no checkpoint, makes no run folder, builds nothing."""

    def _parse_ckpt_path(self) -> None: ...

    def before_instantiate_classes(self) -> None: ...

    def instantiate_classes(self) -> None: ...


def fit_configuration(options: list[str]) -> Any:  # noqa: ANN401
    """Parse the options of ``fmnist fit`` into jsonargparse's namespace, its ``seed_everything`` to be filled in.

    Raises:
        SystemExit: With status 2 and a message on stderr, for options that ``fit`` would not take.
        UserError: For an unknown variant.
    """
    return _ConfigReader(
        FashionClassifier,
        FashionMNISTDataModule,
        run=False,
        auto_configure_optimizers=False,
        save_config_callback=None,
        parser_kwargs={"allow_abbrev": False},
        args=[*configs_of(options), *options, "--seed_everything=false"],  # seeds nothing in this process
    ).config
