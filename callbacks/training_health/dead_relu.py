"""Which ReLU units are dead, after every epoch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import pytorch_lightning as pl
from pytorch_lightning.utilities import rank_zero_warn
from pytorch_lightning.utilities.exceptions import MisconfigurationException
from typing_extensions import override

from training_health.epoch_clock import is_epochs_last_validation
from training_health.ranks import count_images, ends_in_a_repeat, every_rank, loader_at
from training_health.relu.site_names import shorten
from training_health.relu.sites import ReLUSites
from training_health.relu.unit_counts import SiteCounts, UnitCounter, combined
from training_health.relu.window import DeadReLUReport, sentence
from training_health.scalars import log_scalars
from training_health.sinks import write_records
from training_health.training_sample.evaluation import TrainingSampleObserver
from training_health.training_sample.isolation import LoggedValues


class DeadReLUMonitor(TrainingSampleObserver):
    r"""Count dead ReLU units exactly, over a stated set of images, at the end of every epoch.

    A *site* is one call of a ReLU in the forward pass: ``nn.ReLU``, ``nn.ReLU6``, ``F.relu``, ``torch.relu``,
    ``Tensor.relu``, in-place or not; a module called twice is two sites. A *unit* is a channel of a convolution's
    output, a feature of a dense layer's. A unit's *activity* is the share of (image, position) pairs with
    :math:`h > 0`:

    * **dead**: activity exactly 0 over the window. With n images the 95 % upper bound on the true share is about 3/n.
    * **rare**: activity above 0 and below ``rare_below``.
    * **sparsity**: share of zero outputs. Not death: a healthy ReLU layer is near one half.

    Can a dead unit come back? In the *first* layer its inputs, the images, never change, and as its gradient is zero
    its weights do not either: on the window's images it stays dead, but for what momentum or weight decay still move
    and for images outside the window that reach it. In a *deeper* layer the inputs change with the layers before it,
    so it can revive: deaths and revivals are logged.

    Logged after every measured window: ``dead_relu/total`` and ``dead_relu/<site>``, ``rare_relu/total`` and
    ``rare_relu/<site>`` (shares of units), ``sparsity/<site>``, ``dead_relu/n`` (images), from the second window on
    ``dead_relu/deaths`` and ``dead_relu/revivals`` (units dead now and alive in the last window, and the reverse); with
    ``dormancy_tau`` ``dormant_relu/<site>``. Each site's activity per unit goes to TensorBoard as a tensor summary.

    A site is named after the module it was called for, ``<module>.relu`` for a functional call in a module's forward,
    with ``:2`` for the second call in a pass; what all names have in common is dropped. LeakyReLU, GELU and their like
    are listed as "cannot die"; compiled, scripted and fused parts, which hide their calls, are named in one warning.

    Cost: nothing in training steps; in the validation pass one comparison and one addition over each site's outputs,
    about half a millisecond per million of them on a CPU core; one transfer per epoch.

    Args:
        window: "validation" counts in the validation pass that runs anyway. "train" counts in the eval-mode pass over a
            fixed sample of training images that `TrainValGapMonitor` makes, or makes that pass itself without it.
        rare_below: Activity below which a unit that is not dead is rare.
        dormancy_tau: Also log the share of tau-dormant units, :math:`s_i \le \tau` with :math:`s_i = E|h_i| \,/\,
            \frac1H \sum_k E|h_k|` over images and positions (Sokar et al., ICML 2023, equation 1; there 0.025 or 0.1).
        unit_dims: Overrides which dimension of a site's output holds its units, as ``{pattern: dimension}`` over
            qualified names. By default: the second, but for three and more dimensions the last where the latest
            operation with weights was a matrix product, as in a transformer's (N, T, F).

    Raises:
        MisconfigurationException: For a window or threshold that does not exist.
    """

    def __init__(
        self,
        window: Literal["validation", "train"] = "validation",
        rare_below: float = 0.01,
        dormancy_tau: float | None = None,
        unit_dims: Mapping[str, int] | None = None,
    ) -> None:
        if window not in ("validation", "train"):
            raise MisconfigurationException(
                f'`DeadReLUMonitor(window={window!r})` is not known: choose "validation" or "train".'
            )
        if not 0 < rare_below <= 1:
            raise MisconfigurationException(f"`rare_below` is a share above 0 and up to 1, not {rare_below!r}.")
        if dormancy_tau is not None and dormancy_tau < 0:
            raise MisconfigurationException(f"`dormancy_tau` is a score of at least 0, not {dormancy_tau!r}.")
        self.window, self.rare_below, self.dormancy_tau = window, rare_below, dormancy_tau
        self.unit_dims = dict(unit_dims or {})
        self._counter = UnitCounter(self.unit_dims, dormancy_tau is not None)
        self._sites = ReLUSites(self._counter.add)
        self._watching = False
        self._names: dict[str, str] = {}  # qualified: short; fixed after the first complete window
        self._dead: dict[str, list[int]] = {}  # short name: dead units of the last window
        self._report: DeadReLUReport | None = None
        self._said: set[str] = set()
        self._pending = False  # a training-sample window to be logged at the epoch's end
        self._listed = False  # what cannot die and what is not watched, written once

    @property
    @override
    def observes_training_sample(self) -> bool:
        """Whether the pass over the training sample is wanted."""
        return self.window == "train"

    def summary(self) -> dict[str, Any]:
        """The last window in plain values; empty before the first."""
        return {} if self._report is None else self._report.as_dict()

    def sentence(self) -> str:
        """The last window in words."""
        return sentence(self._report)

    # ---- the validation window

    @override
    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        super().on_validation_start(trainer, pl_module)
        if self.window != "validation" or trainer.sanity_checking:
            return
        if trainer.state.fn != "fit" or is_epochs_last_validation(trainer):
            self._open(pl_module)

    @override
    def on_validation_batch_start(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if self._watching:
            images = count_images(batch)
            loader = loader_at(trainer.val_dataloaders, dataloader_idx)
            self._begin_batch(images, images - ends_in_a_repeat(loader, batch_idx))

    @override
    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        super().on_validation_batch_end(trainer, pl_module, outputs, batch, batch_idx, dataloader_idx)
        self._sites.end_pass()

    @override
    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._watching:
            self._close(trainer)
            self._publish(trainer, pl_module)

    # ---- the training-sample window

    @override
    def on_sample_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._open(pl_module)

    @override
    def on_sample_batch_start(self, images: int) -> None:
        self._begin_batch(images, images)

    @override
    def on_sample_batch_end(self, outputs: Any, images: int) -> None:
        self._sites.end_pass()

    @override
    def on_sample_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, logged: LoggedValues | None) -> None:
        self._pending = logged is not None
        if logged is None:
            self._abandon()
        else:
            self._close(trainer)

    @override
    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # The pass ran in a hook that cannot log.
        if self._pending:
            self._pending = False
            self._publish(trainer, pl_module)

    # ---- nothing stays behind

    @override
    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        self._abandon()  # the only hook Lightning calls after an exception or Ctrl-C

    @override
    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self._abandon()

    @override
    def state_dict(self) -> dict[str, Any]:
        return {"names": dict(self._names), "dead": {site: list(units) for site, units in self._dead.items()}}

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._names = dict(state_dict["names"])
        self._dead = {site: list(units) for site, units in state_dict["dead"].items()}

    # ---- one window

    def _open(self, pl_module: pl.LightningModule) -> None:
        self._counter.clear()
        self._sites.attach(pl_module)
        self._watching = True

    def _begin_batch(self, images: int, keep: int) -> None:
        self._counter.begin_batch(images, keep)
        self._sites.begin_pass()

    def _abandon(self) -> None:
        self._watching = False
        self._sites.detach()
        self._counter.clear()

    def _close(self, trainer: pl.Trainer) -> None:
        """Remove the hooks and make the report, from every rank's counts."""
        self._watching = False
        self._sites.detach()
        parts = every_rank(trainer, (self._counter.take(), self._sites.cannot_die, self._sites.unwatched))
        window = combined(part for part, _, _ in parts)
        cannot_die = {site: kind for _, kinds, _ in parts for site, kind in kinds.items()}
        unwatched = {name: reason for _, _, reasons in parts for name, reason in reasons.items()}
        self._name_new(window.sites)
        self._report = DeadReLUReport(
            window=self.window,
            images=window.images,
            rare_below=self.rare_below,
            sites={self._names[site]: counts for site, counts in window.sites.items()},
            previously_dead=self._dead,
            cannot_die=dict(zip(shorten(list(cannot_die)), cannot_die.values(), strict=True)),
            unwatched=unwatched,
        )
        self._dead = {site: counts.dead for site, counts in self._report.sites.items()}

    def _name_new(self, sites: Mapping[str, SiteCounts]) -> None:
        """Keep the names of known sites; a later newcomer keeps its qualified name, so that no other has to change."""
        if not self._names:
            self._names = dict(zip(sites, shorten(list(sites)), strict=True))
        for site in sites:
            self._names.setdefault(site, site)

    def _publish(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        report = self._report
        assert report is not None
        self._warn_once(pl_module)
        if report.sites:
            log_scalars(trainer, pl_module, report.scalars(self.dormancy_tau))
        if trainer.state.fn == "fit":  # a validation on its own belongs to no epoch
            write_records(trainer, report.records())
            if not self._listed:
                self._listed = True
                write_records(trainer, report.coverage_records())

    def _warn_once(self, pl_module: pl.LightningModule) -> None:
        report = self._report
        assert report is not None
        if self._sites.opaque and "opaque" not in self._said:
            self._said.add("opaque")
            parts = ", ".join(f"{name} ({reason})" for name, reason in self._sites.opaque.items())
            rank_zero_warn(f"`DeadReLUMonitor` cannot see into: {parts}. ReLUs in there are not counted.")
        if not report.sites and not report.cannot_die and "none" not in self._said:
            self._said.add("none")
            rank_zero_warn("`DeadReLUMonitor` saw no ReLU in the validation step: nothing to count.")
        if any(len(counts.dead) == counts.units for counts in report.sites.values()) and "nan" not in self._said:
            broken = [name for name, p in pl_module.named_parameters() if not bool(p.isfinite().all())]
            if broken:
                self._said.add("nan")
                rank_zero_warn(
                    f"{len(broken)} parameters, {broken[0]} first, hold NaN or infinity. A NaN output is not above "
                    "zero, so the units behind them are counted as dead."
                )
