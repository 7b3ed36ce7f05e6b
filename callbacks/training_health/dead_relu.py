"""Which ReLU units are dead, after every epoch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from typing_extensions import override

from training_health import lightning as pl
from training_health.batches import BatchSize, ExampleCounter
from training_health.garbage import no_collection
from training_health.relu.causes import History
from training_health.relu.sites import ReLUSites
from training_health.relu.snapshot import Snapshot, SnapshotTaker, rarest
from training_health.relu.unit_counts import UnitCounter, WindowCounts
from training_health.relu.window import RESERVED, DeadReLUReport, Start, WindowPart, sentence
from training_health.sinks import log_scalars, warn_without_tensorboard, write_metrics, write_records, write_text
from training_health.training_sample.evaluation import SampleObserver, TrainingSampleEvaluation
from training_health.training_sample.isolation import LoggedValues


class DeadReLUMonitor(pl.Callback, SampleObserver):
    r"""Count dead ReLU units exactly, over a stated set of examples, at the end of every epoch.

    It answers: how much of the network outputs nothing, which units are it, and do they come back?

    A *site* is one call of a ReLU in the forward pass: ``nn.ReLU``, ``F.relu``, ``torch.relu``, in-place or not, and
    what is one by its numbers, such as ``clamp(min=0)``, ``maximum(x, 0)``, ``where(x > 0, x, 0)`` or a leaky ReLU of
    slope 0; a module called twice is two sites. A *unit* is a channel of a convolution's output (N, C, H, W), a feature
    of a dense layer's (N, F), followed to where later views and transpositions put it. A unit's *activity* is the
    fraction of (example, position) pairs with :math:`h > 0`. The *window* is the set of examples that is counted: by
    default the validation pass that ends the epoch, in eval mode with fixed weights.

    =========================  ====================================================================  ==================
    key                        meaning                                                               range
    =========================  ====================================================================  ==================
    ``dead_relu/total``        fraction of the network's units that are dead: activity exactly 0     0 to 1
    ``dead_relu/<site>``       the same for one site                                                 0 to 1
    ``rare_relu/total``        fraction of units with activity above 0 and below ``rare_below``      0 to 1
    ``rare_relu/<site>``       the same for one site                                                 0 to 1
    ``sparsity/<site>``        fraction of zero outputs; not death: about 0.5 in a healthy layer     0 to 1
    ``dead_relu/n``            size of the window                                                    examples
    ``dead_relu/deaths``       units dead now and not in the window before; from the second on       units
    ``dead_relu/revivals``     units dead in the window before and not now; from the second on       units
    =========================  ====================================================================  ==================

    All are logged after every window. The records hold each site's activity per unit; W&B gets a table of dead units.
    A unit that gave NaN or infinity is neither dead nor alive: its activity is NaN, and the fractions are of the other
    units. Every value is in ``trainer.callback_metrics``.

    With n examples the 95 % upper bound on a dead unit's true activity is about 3/n (rule of three; Hanley and
    Lippman-Hand, JAMA 1983). Can a dead unit come back? In the *first* layer its inputs never change, and as its
    gradient is zero its weights do not either: on the window's examples it stays dead, but for what momentum or weight
    decay still move. In a *deeper* layer the inputs change with the layers before it, so it can revive.

    Why is a unit dead? Each has a *depth*, how far below zero its largest pre-activation of the window lies in standard
    deviations of its pre-activation, and a *cause*: not a number, dead inputs, killed between two epochs, dead for any
    input in the range of its layer's inputs, mean shift, or bias; "unknown" where none of these can be shown. The rules
    with their formulas and sources stand in `training_health.relu.causes`. The sanity check's window, where there is
    one (``Trainer(num_sanity_val_steps=...)``), tells units that were born dead from those that died in an epoch; on
    its two batches, the default, "dead" says little. What dies in an epoch without a validation is said to have died in
    the next one that has one. From 100 examples on `summary` also has the dead units on a tenth, a fifth and half of
    the window, the loader's first examples, and how many to expect on ten times as many, with a 95 % interval. An order
    sorted by class makes these parts unlike the whole, and the prediction wrong.

    A site is named after the module it was called for, ``<module>.relu`` for a functional call in a module's forward,
    with ``:2`` for the second call in a pass; what all names have in common is dropped. LeakyReLU, GELU and their like
    are listed as "cannot die"; what cannot be counted (scripted parts, modules that run in another thread, a
    transform of ``torch.func``, a number of units that changes) is named in one warning and never ends the run. So is
    a ReLU of a loss: one in a step that leads to no layer, or in a module without weights that gives one number. Where
    the network's own ``forward`` computes the loss, its ReLU counts as a layer's.

    The fused evaluation of `nn.TransformerEncoder` stays on, so that validation gives the same values to the last bit:
    each such layer with a ReLU runs a second time for its counts.

    Units are judged by what goes into the ReLU: above zero there is above zero behind it. A module that is called for
    one part of the batch after another, as in a loop over images, is one site.

    Cost: nothing in training steps; in the validation pass two comparisons and an addition over each site's outputs,
    under a millisecond per million of them on a CPU core, some twenty microseconds per call of a torch function, and a
    copy of the values of units that have not fired so far; three transfers per epoch. In the window's first batch each
    ReLU's input is read once more; in the epochs named below each first layer takes one more transfer, and each of six
    units two.

    For the tab the records also hold, after epochs 1, 2, 4, 8, ... and ``max_epochs``, the filters of first layers that
    are convolutions of 1 or 3 channels (up to 32,768 weights), and where a batch's first tensor holds pictures
    (N, 1 or 3, H, W) the nine examples on which each of the six units that fire least has its highest pre-activation,
    at most 28 pixels wide and high: see ``example_pictures``. After every epoch they hold the root mean square of what
    goes into each ReLU, over the window's first batch: with several processes over the first of each.

    Args:
        window: "validation" counts in the validation pass that runs anyway. "train" counts in the eval-mode pass over a
            fixed sample of training examples that `TrainValGapMonitor` makes, or makes that pass itself without it.
        rare_below: Activity below which a unit that is not dead is rare.
        unit_dims: Overrides which dimension of a site's output holds its units, as ``{pattern: dimension}`` over
            qualified names. By default it is where the features of the last layer with weights are, followed through
            all views; a warning names the sites where they are lost.
        count_examples: Gives the number of examples in a batch, where the loader and the batch do not show it.
        event_file: Without a `TensorBoardLogger`, write the records to an event file in the run's folder. False on any
            monitor turns it off for the run.
        eager: Whether what was compiled by ``torch.compile`` runs eagerly in the window, so that its ReLUs are seen.
            Training stays compiled; the window's values may differ in the last digits. Needs torch 2.6; without it,
            or if off, compiled parts are named instead.
        example_pictures: Whether small copies of validation examples are written into the log, and so into reports made
            of it. The window "train" has none.

    Raises:
        pl.MisconfigurationException: For a window or threshold that does not exist.
        RuntimeError: By Lightning, for two of these in one trainer.

    Example::

        >>> import torch
        >>> from pytorch_lightning import Trainer
        >>> from pytorch_lightning.demos.boring_classes import BoringModel
        >>> class Model(BoringModel):
        ...     def forward(self, x):
        ...         return torch.relu(self.layer(x) - torch.tensor([999.0, 0.0]))  # its first unit never fires
        ...     def validation_step(self, batch, batch_idx):
        ...         self(batch)
        >>> monitor = DeadReLUMonitor()
        >>> trainer = Trainer(accelerator="cpu", callbacks=[monitor], logger=False, enable_progress_bar=False)
        >>> _ = trainer.validate(Model(), verbose=False)
        >>> print(monitor.sentence().replace(". ", ".\n"))
        50.0 % of the network is dead (1 of 2 units, on 64 validation examples): relu 1/2.
        1 of 2 units of relu is dead: 1 for an unknown cause.
    """

    def __init__(
        self,
        window: Literal["validation", "train"] = "validation",
        rare_below: float = 0.01,
        unit_dims: Mapping[str, int] | None = None,
        count_examples: ExampleCounter | None = None,
        event_file: bool = True,
        eager: bool = True,
        example_pictures: bool = True,
    ) -> None:
        if window not in ("validation", "train"):
            raise pl.MisconfigurationException(
                f'`DeadReLUMonitor(window={window!r})` is not known: choose "validation" or "train".'
            )
        if not 0 < rare_below <= 1:
            raise pl.MisconfigurationException(f"`rare_below` is a fraction above 0 and up to 1, not {rare_below!r}.")
        self.window, self.rare_below, self.unit_dims, self.eager = window, rare_below, dict(unit_dims or {}), eager
        self.count_examples, self.event_file, self.example_pictures = count_examples, event_file, example_pictures
        self._evaluation = TrainingSampleEvaluation()
        self._start_again()

    def _start_again(self) -> None:
        self._snapshots, self._snapshot = SnapshotTaker(), Snapshot()
        self._rarest: list[tuple[str, int]] = []  # units of the last window, by qualified name of the site
        self._draws = False  # this epoch's window keeps pictures
        self._counter = UnitCounter(self.unit_dims, self._snapshots.add)
        self._sites = ReLUSites(self._counter.add, self.eager)
        self._watching = False  # a window is open
        self._names: dict[str, str] = {}  # qualified: short; fixed after the first complete window
        self._dead: dict[str, list[int]] = {}  # short name: dead units of the last window
        self._history = History()
        self._at_start = False  # the open window is the sanity check's
        self._start_part: WindowCounts | None = None  # this rank's of it
        self._start: Start | None = None  # all ranks', until the first window of an epoch ends
        self._report: DeadReLUReport | None = None
        self._said: set[str] = set()
        self._pending = False  # a window over the training sample is to be logged at the epoch's end
        self._listed = False  # the coverage record, written once
        self._waits = self._counted = False  # for the epoch's end, where ranks without validation meet the others

    def summary(self) -> dict[str, Any]:
        """The last window in plain values; empty before the first."""
        return {} if self._report is None else self._report.as_dict()

    def sentence(self) -> str:
        """The last window in words."""
        return sentence(self._report)

    @override
    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        pl.require_only_one(trainer, DeadReLUMonitor)
        if stage == "fit":  # what a checkpoint holds comes after this
            self._start_again()
            warn_without_tensorboard(trainer)
        self._evaluation = TrainingSampleEvaluation.of(trainer)
        self._evaluation.count_examples = self.count_examples or self._evaluation.count_examples
        if self.window == "train":
            self._evaluation.register(self)

    # ---- the validation pass

    @override
    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._evaluation.on_train_epoch_start(trainer)
        # A rank without a validation batch reaches no hook of the validation: the others would wait there for ever.
        self._waits, self._counted = self._evaluation.some_do_not_validate, False
        number = trainer.current_epoch + 1
        self._draws = number.bit_count() == 1 or number == trainer.max_epochs  # 1, 2, 4, 8, ... and the last

    @override
    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._evaluation.on_validation_start()
        in_time = trainer.state.fn != "fit" or pl.is_epochs_last_validation(trainer)
        self._at_start = trainer.sanity_checking and trainer.global_step == 0  # a fit that resumes has a check too
        if self._at_start or (self.window == "validation" and in_time and not trainer.sanity_checking):
            self.on_sample_start(pl_module)

    @override
    def on_validation_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        size = self._evaluation.validation_batch(trainer, batch, batch_idx, dataloader_idx)
        if self._watching:
            self._begin_batch(size, batch)

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
        size = self._evaluation.validation.batch_end(trainer, batch)
        if self._watching:
            self.on_sample_batch_end(outputs, size)

    @override
    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._watching and self._at_start:  # the ranks meet later: one may have no batch in this check
            self._stop_watching()
            self._start_part, self._at_start = self._counter.take(), False
        elif self._watching and self._waits:
            self._stop_watching()
        elif self._watching:
            self._close(trainer)
            self._publish(trainer, pl_module)

    @override
    def on_sanity_check_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.global_step == 0:
            self._start = Start.of(pl.every_rank(trainer, self._start_part))

    @override
    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.window == "train":
            self._evaluation.on_validation_end(trainer, pl_module)

    # ---- the pass over the training sample, and what both have in common

    @override
    def on_sample_start(self, pl_module: pl.LightningModule) -> None:
        self._counter.clear()
        draws = self._draws and self.example_pictures
        self._snapshots.start(self._draws, self._rarest if draws else ())
        self._sites.attach(pl_module)
        self._watching = True

    @override
    def on_sample_batch_start(self, size: BatchSize) -> None:
        self._begin_batch(size, None)

    def _begin_batch(self, size: BatchSize, batch: Any) -> None:  # noqa: ANN401
        self._snapshots.begin_batch(batch, size.counted)
        self._counter.begin_batch(size)
        self._sites.begin_pass()

    @override
    def on_sample_batch_end(self, outputs: Any, size: BatchSize) -> None:
        self._sites.end_pass()
        self._counter.end_batch(size)

    @override
    def on_sample_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, logged: LoggedValues | None) -> None:
        self._pending = logged is not None
        if logged is None:
            self._abandon()
        elif self._waits:
            self._stop_watching()
        else:
            self._close(trainer)

    @override
    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        write_metrics(trainer)
        if self._waits and any(pl.every_rank(trainer, self._counted)):
            self._close(trainer)
            self._pending = True
        if self._pending:  # the pass ran in a hook that cannot log
            self._pending = False
            self._publish(trainer, pl_module)

    @override
    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        self._abandon()  # the only hook Lightning calls after an exception or Ctrl-C

    @override
    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self._abandon()

    @override
    def state_dict(self) -> dict[str, Any]:
        history = self._history.state_dict()
        start = self._start and self._start.state_dict()
        return {"names": self._names, "dead": self._dead, "history": history, "rarest": self._rarest, "start": start}

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._names, self._dead = state_dict["names"], state_dict["dead"]
        self._history = History(**state_dict.get("history", {}))
        self._rarest = [(site, unit) for site, unit in state_dict.get("rarest", ())]
        start = state_dict.get("start")
        self._start = None if start is None else Start.of_state(start)

    def _abandon(self) -> None:
        self._evaluation.validation.stop_listening()
        self._watching = False
        self._sites.detach()
        self._sites.origins.clear()
        self._counter.clear()
        self._snapshots.start(False, ())

    def _stop_watching(self) -> None:
        self._watching, self._counted = False, True
        self._sites.detach()
        self._sites.origins.clear()  # weights that a parametrization computed

    @no_collection()
    def _close(self, trainer: pl.Trainer) -> None:
        """Remove the hooks and make the report, from every rank's counts."""
        self._stop_watching()
        counts = self._counter.take()
        part = WindowPart(counts, self._sites.never_zero, self._sites.unwatched, self._snapshots.take())
        parts = pl.every_rank(trainer, part)
        self._snapshot = Snapshot.joined(part.snapshot for part in parts if part.snapshot is not None)
        history = self._history if trainer.state.fn == "fit" else None  # a validation on its own belongs to no epoch
        self._report = DeadReLUReport.of(
            parts, self._names, self.window, self.rare_below, self._dead, history, trainer.current_epoch, self._start
        )
        self._start = None
        self._dead = {site: counts.dead for site, counts in self._report.sites.items()}
        named = {short: site for site, short in self._names.items()}
        self._rarest = [(named[site], unit) for site, unit in rarest(self._report.sites)]

    @no_collection()
    def _publish(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        report = self._report
        assert report is not None
        self._warn(report, pl_module)
        if report.sites:
            values = report.scalars()
            totals = {key: values.pop(key) for key in list(values) if key.partition("/")[2] in RESERVED}
            log_scalars(trainer, pl_module, totals, values)
        if trainer.state.fn == "fit":  # a validation on its own belongs to no epoch
            write_records(trainer, [*report.records(), *self._snapshot.records(self._names)])
            if self._snapshot.shape:
                epoch, n = trainer.current_epoch, report.examples
                write_text(trainer, "examples", self._snapshot.example_text(self._names, epoch, n, report.sites))
            if not self._listed:
                self._listed = True
                write_records(trainer, [*report.coverage_records(), *report.start_records()])

    def _warn(self, report: DeadReLUReport, pl_module: pl.LightningModule) -> None:
        if self._sites.opaque:
            parts = ", ".join(f"{name} ({reason})" for name, reason in self._sites.opaque.items())
            pl.warn_once(self._said, "opaque", f"`DeadReLUMonitor` cannot see into: {parts}. It misses their ReLUs.")
        others = {name: reason for name, reason in report.unwatched.items() if name not in self._sites.opaque}
        if others:
            parts = "; ".join(f"{name}: {reason}" for name, reason in others.items())
            pl.warn_once(self._said, "uncounted", f"`DeadReLUMonitor` does not count {parts}.")
        assumed = {site: dim for site, dim in self._counter.assumed.items() if site not in report.unwatched}
        if assumed:
            parts = ", ".join(f"{site} (dimension {dim})" for site, dim in assumed.items())
            message = (
                f"`DeadReLUMonitor` cannot tell which dimension holds the units of {parts}, and took the one named."
            )
            pl.warn_once(self._said, "assumed", f"{message} Name it: `unit_dims={{pattern: dimension}}`.")
        if not report.sites and not report.never_zero and not report.unwatched:
            pl.warn_once(self._said, "none", "`DeadReLUMonitor` saw no ReLU in the validation step: nothing to count.")
        if report.not_a_number and "nan" not in self._said:
            broken = [name for name, p in pl_module.named_parameters() if not bool(p.isfinite().all())]
            sites = ", ".join(name for name, counts in report.sites.items() if counts.not_a_number)
            message = f"{report.not_a_number} units gave NaN or infinity, at {sites}: neither dead nor alive."
            cause = f" {len(broken)} parameters, {broken[0]} first, hold NaN or infinity." if broken else ""
            pl.warn_once(self._said, "nan", message + cause)
