"""Begin again with units that are dead or dormant, after every few epochs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from typing_extensions import override

from training_health import lightning as pl
from training_health.relu.pre_activations import summed
from training_health.relu.sites import ReLUCall, ReLUSites
from training_health.relu.window import shorten
from training_health.revive.gradients import gradient_sums
from training_health.revive.reset import Resetter, weight_scales
from training_health.revive.scores import FiringHistory, SiteSums, SumCounter, added, as_many_others, dormant
from training_health.revive.wiring import Wires, wires_of
from training_health.sinks import log_scalars, write_records
from training_health.training_sample.evaluation import TrainingSampleEvaluation

Method = Literal["redo", "snr", "grama", "random"]

_THRESHOLDS = {"redo": 0.025, "snr": 0.01, "grama": 0.01, "random": 0.025}
_LASTING = 3  # windows


class _Part(NamedTuple):
    """What one rank saw."""

    sums: dict[str, SiteSums]
    wires: dict[str, Wires]
    examples: float
    gradients: tuple[dict[str, np.ndarray], float] | str | None  # or why there are none


class ReviveUnits(pl.Callback):
    r"""Give dead or dormant ReLU units new weights, after every few epochs: a cure to be compared with none.

    This callback changes the training. At the end of an epoch it chooses units, on the validation pass that runs then
    (the *window*: eval mode, fixed weights); before the first step of the next epoch it gives them new weights. So a
    checkpoint of an epoch's end holds the weights that were evaluated, and the last epoch's choice is not carried out.

    =============  ==========================================================================================  =========
    ``method``     units that begin again                                                                      threshold
    =============  ==========================================================================================  =========
    ``"redo"``     :math:`E|h| \le \tau \cdot` mean over the site of :math:`E|h|` (Sokar et al. 2023,          0.025
                   arXiv 2302.12902); 0: the dead ones alone
    ``"snr"``      silent for so many examples m that at the unit's own firing rate p the probability          0.01
                   :math:`(1 - p)^m \le \eta` (self-normalized resets, Farias and Jozefiak 2024,
                   arXiv 2410.20098)
    ``"grama"``    mean :math:`|\partial L / \partial z| \le \tau \cdot` mean over the site (Liu et al. 2025,  0.01
                   arXiv 2505.24061), on ``examples`` training examples
    ``"random"``   as many *live* units of each site as ``"redo"`` would choose: the control                   0.025
    =============  ==========================================================================================  =========

    h is a unit's output, z the ReLU's input, both over examples and positions. SNR's published estimate counts a unit
    as firing if any example of a batch makes it fire; here the batch is the window, and the rate is that of the windows
    since the unit began. A unit that has never fired is judged by the median rate of its site.

    What a unit gets: incoming weights drawn from a uniform distribution with the root mean square that the layer's
    weights had when the fit began (the layer's own distribution where that was PyTorch's or Keras's default, its
    variance otherwise), bias 0; a batch normalisation in between as at its start (weight 1, bias 0, mean 0, variance
    1); outgoing weights zero, so that what the network computes does not jump, or drawn in the same way. The
    optimiser's state is set to zero at exactly these entries, where it has the parameter's shape (``exp_avg``,
    ``exp_avg_sq``, ``max_exp_avg_sq``, ``momentum_buffer``). Its ``step`` belongs to the whole tensor and stays: Adam's
    bias correction is over, so that the first steps of such an entry are up to
    :math:`(1 - \beta_1) / \sqrt{1 - \beta_2}`, 3.2 times, the learning rate.

    A unit has at least ``every_n_epochs`` epochs to learn before it is judged again.

    Which layer feeds a site and which take its units in is followed through one validation batch of each window, never
    guessed: convolutions and linear layers, with views, pools, dropout, padding with zeros and batch normalisation in
    between. Left alone, and named in one warning, are units that anything else takes (a residual addition, a
    concatenation, a channel shuffle), layers that are used twice, layers of which anything that would change is frozen
    (``requires_grad=False``), and layers whose parameters are not the module's own (FSDP, weight normalisation). What
    is no function of torch, and what happens in ``training_step`` alone, is not seen.

    =================  ====================================================================  =====
    key                meaning                                                               range
    =================  ====================================================================  =====
    ``revive/total``   units that began again before this epoch, in the network              units
    ``revive/<site>``  the same for one site                                                 units
    =================  ====================================================================  =====

    Logged at the end of every epoch that could begin so. The records say which units.

    On N processes the same units get the same weights as on one. The draws come from a generator of its own, seeded by
    ``seed`` and the epoch; the training's random state is not touched. State is kept in checkpoints: a resumed run is
    the same as one that never stopped. With mixed precision the 32-bit weights are changed. Averages of weights that
    another callback holds (EMA, SWA) are not: they forget the old weights as fast as any.

    Cost: nothing in training steps. In the validation pass one sum over each site's outputs, and
    what `DeadReLUMonitor` needs for watching; "grama" makes a forward and backward pass over ``examples`` examples.

    Args:
        method: Which units; see the table.
        every_n_epochs: At least so many epochs lie between two times.
        threshold: :math:`\tau` or :math:`\eta`; None: the table's.
        outgoing: "zero" or "drawn".
        seed: Of the draws.
        examples: Training examples for "grama", over all processes.
        eager: As for `DeadReLUMonitor`.

    Raises:
        pl.MisconfigurationException: For an argument out of range.
        RuntimeError: By Lightning, for two of these in one trainer.

    Example::

        >>> import torch
        >>> from pytorch_lightning import Trainer
        >>> from pytorch_lightning.demos.boring_classes import BoringModel
        >>> class Model(BoringModel):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.layer = torch.nn.Sequential(torch.nn.Linear(32, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2))
        ...         torch.nn.init.constant_(self.layer[0].bias[:2], -999.0)  # two units never fire
        >>> revive = ReviveUnits("redo", threshold=0.0)
        >>> quiet = {f"enable_{part}": False for part in ("progress_bar", "model_summary", "checkpointing")}
        >>> trainer = Trainer(max_epochs=2, accelerator="cpu", callbacks=[revive], logger=False, **quiet)
        >>> trainer.fit(Model())
        >>> revive.summary()["units"], trainer.callback_metrics["revive/total"].item()
        (2, 2.0)
    """

    def __init__(
        self,
        method: Method = "redo",
        every_n_epochs: int = 1,
        threshold: float | None = None,
        outgoing: Literal["zero", "drawn"] = "zero",
        seed: int = 0,
        examples: int = 512,
        eager: bool = True,
    ) -> None:
        if method not in _THRESHOLDS:
            raise pl.MisconfigurationException(
                f"`ReviveUnits(method={method!r})` is not known: choose one of {', '.join(_THRESHOLDS)}."
            )
        if outgoing not in ("zero", "drawn"):
            raise pl.MisconfigurationException(f'`outgoing` is "zero" or "drawn", not {outgoing!r}.')
        if threshold is not None and not 0 <= threshold < 1:
            raise pl.MisconfigurationException(f"`threshold` is a fraction from 0 to below 1, not {threshold!r}.")
        for name, count in {"every_n_epochs": every_n_epochs, "examples": examples}.items():
            if count < 1:
                raise pl.MisconfigurationException(f"`{name}` must be at least 1, not {count!r}.")
        if seed < 0:
            raise pl.MisconfigurationException(f"`seed` must not be negative, got {seed!r}.")
        self.method, self.every_n_epochs, self.outgoing, self.seed = method, every_n_epochs, outgoing, seed
        self.threshold = _THRESHOLDS[method] if threshold is None else threshold
        self.examples, self.eager = examples, eager
        self._evaluation = TrainingSampleEvaluation()
        self._start_again()

    def _start_again(self) -> None:
        self._scales: dict[str, float] = {}  # of `weight_scales`, when the fit began
        self._history: dict[str, FiringHistory] = {}
        self._pending: dict[str, Any] | None = None  # chosen at the end of an epoch: see `_choose`
        self._begun: dict[str, Any] | None = None  # the same, carried out before the running epoch
        self._last_epoch = -1  # that a choice was carried out after
        self._units = self._dead = self._lasting = self._died = 0  # all told
        self._streaks: dict[str, list[int]] = {}  # per unit, windows alive since it was revived; -1: not followed
        self._left_alone: dict[str, str] = {}  # site: why
        self._said: set[str] = set()
        self._waits = False
        self._sites = ReLUSites(eager=self.eager, done=self._count)
        self._counter: SumCounter | None = None  # of a window that is open
        self._seen: dict[str, Wires] = {}  # of that window, by qualified name
        self._failed: dict[str, Wires] = {}  # of sites that could not be counted

    def summary(self) -> dict[str, Any]:
        """What has been done so far, in plain values.

        ``units`` began again, ``dead`` of them were dead; of these ``lasting`` fired in each of the next three windows
        or have since, and ``died_again`` were dead in one of those. The rest is too young to tell.
        """
        return {
            "method": self.method,
            "every_n_epochs": self.every_n_epochs,
            "threshold": self.threshold,
            "outgoing": self.outgoing,
            "units": self._units,
            "dead": self._dead,
            "lasting": self._lasting,
            "died_again": self._died,
            "left_alone": dict(self._left_alone),
        }

    def sentence(self) -> str:
        """What has been done so far, in words."""
        if not self._units:
            return f"ReviveUnits ({self.method}) gave no unit new weights."
        text = (
            f"ReviveUnits ({self.method}) gave new weights to {self._units:,} unit{'s' * (self._units != 1)}, "
            f"counting each time; {self._dead:,} of them {'was' if self._dead == 1 else 'were'} dead"
        )
        return text + (
            f", and of these {self._lasting:,} fired in each of the next three windows and {self._died:,} did not."
            if self._dead
            else "."
        )

    @override
    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        pl.require_only_one(trainer, ReviveUnits)
        if stage == "fit":
            self._start_again()
        self._evaluation = TrainingSampleEvaluation.of(trainer)

    @override
    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._scales = self._scales or weight_scales(pl_module)  # a resumed run has those of its start

    # ---- the window

    @override
    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._evaluation.on_validation_start()
        if self._evaluation.is_due(trainer):
            self._counter = SumCounter(self.method == "snr")
            self._sites.attach(pl_module)

    @override
    def on_validation_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        if self._counter is not None:
            size = self._evaluation.validation_batch(trainer, batch, batch_idx, dataloader_idx)
            self._counter.begin_batch(size)
            self._sites.begin_pass()

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
        if self._counter is not None:
            self._sites.end_pass()
            self._counter.end_batch(self._evaluation.validation.batch_end(trainer, batch))
            self._seen = self._seen or wires_of(pl_module, self._sites.origins)  # one batch is enough

    def _count(self, call: ReLUCall) -> None:
        try:
            if self._counter is not None:
                self._counter.add(call)
        except Exception as error:  # an exotic tensor must not end the run
            self._failed[call.site] = Wires(obstacle=f"it could not be counted: {error}")

    @override
    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._counter is not None and not self._waits:
            self._close(trainer, pl_module)

    @override
    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._waits and any(pl.every_rank(trainer, self._counter is not None)):
            self._close(trainer, pl_module)
        if self._begun is not None:
            self._log(trainer, pl_module, self._begun)
            self._begun = None

    # ---- the choice, and what follows from it

    @override
    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._evaluation.on_train_epoch_start(trainer)
        # A rank without a validation batch reaches no hook of the validation: the others would wait there for ever.
        self._waits = self._evaluation.some_do_not_validate
        pending, self._pending = self._pending, None
        if pending is None:
            return
        self._begun, self._last_epoch = pending, trainer.current_epoch - 1
        wires = {site: Wires.of_plain(content) for site, content in pending["wires"].items()}
        resetter = Resetter(pl_module, trainer.optimizers, self._scales, self._generator(trainer.current_epoch, 1))
        chosen = {site: found["units"] for site, found in pending["sites"].items() if found["units"]}
        for site, units in chosen.items():
            resetter.incoming(wires[site], units)
        for site, units in chosen.items():  # after all that are drawn: what leads from a unit may lead to one
            resetter.outgoing(wires[site], units, self.outgoing == "drawn")
        for site, found in pending["sites"].items():
            streaks = self._streaks.setdefault(site, [-1] * found["of"])
            for unit in found["dead"]:
                streaks[unit] = 0
            self._units, self._dead = self._units + len(found["units"]), self._dead + len(found["dead"])
            if site in self._history:
                self._history[site].forget(found["units"])

    def _generator(self, epoch: int, use: int) -> torch.Generator:
        words = np.random.SeedSequence([self.seed, epoch, use]).generate_state(1, np.uint64)
        return torch.Generator().manual_seed(int(words[0]) >> 1)

    def _close(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Put the ranks' windows together and choose."""
        counter, seen = self._counter or SumCounter(False), self._seen | self._failed  # empty without validation
        self._stop_watching()
        due = trainer.current_epoch - self._last_epoch >= self.every_n_epochs
        gradients = self._gradients(trainer, pl_module) if due and self.method == "grama" else None
        part = _Part(counter.take(), seen, counter.examples, gradients)
        parts: list[_Part] = pl.every_rank(trainer, part)
        qualified: dict[str, Wires] = {}
        for each in parts:
            qualified = each.wires | qualified
        sums = summed(each.sums for each in parts)
        names = dict(zip(sums, shorten(list(sums)), strict=True))
        window = {names[site]: found for site, found in sums.items()}
        unknown = Wires(obstacle="it is not called for the first batch")
        wires_by_name = dict.fromkeys(window, unknown) | {names.get(s, s): wires for s, wires in qualified.items()}
        examples = sum(each.examples for each in parts)
        self._follow(window)
        failures = [each.gradients for each in parts if isinstance(each.gradients, str)]
        if failures:
            pl.warn_once(self._said, "gradients", f"`ReviveUnits` has no gradients to judge by: {failures[0]}")
        elif self.method == "grama":
            found = [each.gradients for each in parts if isinstance(each.gradients, tuple)]
            for gradients_by_site, _ in found:
                for site in sums.keys() & gradients_by_site.keys():
                    sums[site].gradient = added(sums[site].gradient, gradients_by_site[site])
            examples = sum(count for _, count in found)
        if due and not failures:
            self._pending = self._choose(trainer, window, wires_by_name, examples)

    def _gradients(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule
    ) -> tuple[dict[str, np.ndarray], float] | str:
        if not pl_module.automatic_optimization:
            return "with manual optimisation `training_step` gives no loss."
        try:
            return gradient_sums(trainer, pl_module, self.examples, self.seed, self.eager)
        except Exception as error:
            return str(error) or repr(error)

    def _follow(self, window: Mapping[str, SiteSums]) -> None:
        """Note which revived units fired in this window, and how often."""
        for site, found in window.items():
            if self.method == "snr":
                history = self._history.setdefault(site, FiringHistory.of(len(found.output)))
                if len(history.age) == len(found.fired):
                    history.add(found.fired, found.examples)
            streaks = self._streaks.get(site, [])
            for unit, (dead, streak) in enumerate(zip(found.dead.tolist(), streaks, strict=False)):
                if streak < 0:
                    continue
                streaks[unit] = -1 if dead else streak + 1
                self._died += dead and streak < _LASTING
                self._lasting += not dead and streak + 1 == _LASTING

    def _choose(
        self, trainer: pl.Trainer, window: Mapping[str, SiteSums], wires: Mapping[str, Wires], examples: float
    ) -> dict[str, Any]:
        """Choose units of every site that could be followed; gives plain values, for a checkpoint."""
        self._left_alone = {site: found.obstacle for site, found in wires.items() if found.obstacle}
        if not window:
            pl.warn_once(self._said, "none", "`ReviveUnits` saw no ReLU in the validation step: it changes nothing.")
        elif self._left_alone:
            parts = "; ".join(f"{site}: {reason}" for site, reason in self._left_alone.items())
            pl.warn_once(self._said, "alone", f"`ReviveUnits` leaves units alone: {parts}.")
        generator, sites = self._generator(trainer.current_epoch, 0), {}
        for site, found in window.items():
            if site in self._left_alone:
                continue
            chosen = self._chosen(site, found, generator)
            units, dead = np.flatnonzero(chosen).tolist(), np.flatnonzero(chosen & found.dead).tolist()
            sites[site] = {"units": units, "dead": dead, "of": len(chosen)}
        plain = {site: wires[site].as_plain() for site, found in sites.items() if found["units"]}
        return {"sites": sites, "wires": plain, "examples": float(examples)}

    def _chosen(self, site: str, found: SiteSums, generator: torch.Generator) -> np.ndarray:
        if self.method == "snr":
            return self._history[site].silent(self.threshold) & np.isfinite(found.output)
        if self.method == "grama":
            known = len(found.gradient) == len(found.output)
            return dormant(found.gradient, self.threshold) if known else np.zeros(len(found.output), bool)
        chosen = dormant(found.output, self.threshold)
        return chosen if self.method == "redo" else as_many_others(chosen, found.output, generator)

    def _log(self, trainer: pl.Trainer, pl_module: pl.LightningModule, begun: Mapping[str, Any]) -> None:
        sites = begun["sites"]
        counts = {site: len(found["units"]) for site, found in sites.items()}
        of_sites = {f"revive/{site}": float(count) for site, count in counts.items()}
        log_scalars(trainer, pl_module, {"revive/total": float(sum(counts.values()))}, of_sites)
        records = []
        for site, found in sites.items():
            flags = np.zeros(found["of"])
            flags[found["units"]] = 1
            content = {"site": site, "units": found["of"], "method": self.method}
            records.append((f"revived/{site}", "revived", [begun["examples"], *flags], content))
        write_records(trainer, records)

    # ---- around it

    @override
    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        self._abandon()

    @override
    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self._abandon()

    def _abandon(self) -> None:
        self._evaluation.validation.stop_listening()
        self._stop_watching()

    def _stop_watching(self) -> None:
        self._sites.detach()
        self._sites.origins.clear()  # weights that a parametrization computed
        self._counter, self._seen, self._failed = None, {}, {}

    @override
    def state_dict(self) -> dict[str, Any]:
        return {
            "scales": self._scales,
            "history": {site: history.as_lists() for site, history in self._history.items()},
            "pending": self._pending,
            "begun": self._begun,
            "last_epoch": self._last_epoch,
            "counts": [self._units, self._dead, self._lasting, self._died],
            "streaks": self._streaks,
            "left_alone": self._left_alone,
        }

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._scales, self._streaks = state_dict["scales"], state_dict["streaks"]
        self._history = {site: FiringHistory(*map(np.array, lists)) for site, lists in state_dict["history"].items()}
        self._pending, self._begun = state_dict["pending"], state_dict["begun"]
        self._last_epoch, self._left_alone = state_dict["last_epoch"], state_dict["left_alone"]
        self._units, self._dead, self._lasting, self._died = state_dict["counts"]
