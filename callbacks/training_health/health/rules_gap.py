"""Rules about the gap between training and validation, and about learning nothing at all."""

from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

import numpy as np

from training_health.health.finding import CONVENTION, ENOUGH, LOWER_RATE, Finding, Rule, Severity, limit_of
from training_health.health.health_run import Gap, HealthRun
from training_health.health.rules_weights import nothing_has_moved

OVERFIT_GAP = 0.10
OVERFIT_GAP_WHEN_ACCURATE = 0.07
ACCURATE = 0.90
LOSS_RISE = 0.10
RISE_EPOCHS = 2
MILD_GAP = 0.03
FLAT_LOSS = 0.05
FLAT_EPOCHS = 3
INACCURATE = ("inaccurate", 0.50, CONVENTION)
LOSS_RATIO = 2.0  # validation loss over training loss

KERAS_FAQ = 'Keras FAQ, "Why is my training loss much higher than my testing loss?"'
PRECHELT = "validation loss: Prechelt 1998, Early stopping - but when? (generalisation loss GL)"
AUTOTRAINER = "gap: AUTOTRAINER (Zhang et al., ICSE 2021): 0.1, or 0.07 above 90% training accuracy"
NOISE = (
    "the log's own 95% interval, by Student's t (older logs: 2 standard errors of the difference); an accuracy's SE is "
    "binomial with one right and one wrong example added (Agresti and Caffo 2000)"
)
REGULARIZE = ("Dropout, or more of it{dropout}.", "Augmentation, weight decay, or a smaller network{regularization}.")

_finding = partial(Finding, section="gap")


def loss_not_finite(run: HealthRun) -> Iterator[Finding]:
    """A loss that was a number no longer is one."""
    for column, words in (("val_loss", "validation loss"), ("train_eval_loss", "training loss")):
        loss = run.gap.columns[column]
        bad = ~np.isfinite(loss)
        # NaN also means "not measured", so a run that never had a number is left alone
        if not len(loss) or not bad[-1] or (bad.all() and not np.isinf(loss).any()):
            continue
        first = int(run.gap.epochs[np.argmax(bad)])
        yield _finding(
            rule="loss_not_finite",
            severity="critical",
            title="Loss is NaN or infinite",
            evidence=f"The {run.gap.metric(column, words)} is not a number at the last epoch; the first such epoch is "
            f"{first + 1}.",
            threshold="Critical when a loss that was finite is not at the last epoch.",
            source="no threshold: nothing can be learnt from a loss that is not a number",
            advice=(f"{LOWER_RATE}, from the last good checkpoint.",),
        )
        return


def not_learning(run: HealthRun) -> Iterator[Finding]:
    """The loss has hardly moved on either side, and the accuracy is poor or unknown."""
    if not _is_flat(run):
        return
    loss, accuracy = (run.gap.columns[name] for name in ("val_loss", "val_accuracy"))
    limit, source = limit_of(run, INACCURATE)
    known = loss[np.isfinite(loss)]
    start, best, n = known[0], known.min(), run.gap.n_val or 0
    words = f"In {len(known)} epochs {run.gap.metric('val_loss', 'validation loss')} has fallen by "
    words += f"{max(0.0, 1 - best / start):.1%} (from {start:.3f} to at best {best:.3f})"
    if not np.isfinite(accuracy).any():
        severity: Severity = "notice"
        words += ", and no accuracy was recorded: trained out, or not learning, these numbers can't tell"
    else:
        best_accuracy = float(np.nanmax(accuracy))
        noise = 2 * np.sqrt(best_accuracy * (1 - best_accuracy) / n) if n and 0 <= best_accuracy <= 1 else 1.0
        severity = "critical" if n >= ENOUGH or best_accuracy + noise < limit else "notice"
        words += f" and {run.gap.metric('val_accuracy', 'validation accuracy')} never passed {best_accuracy:.1%}"
    yield _finding(
        rule="not_learning",
        severity=severity,
        title="Not learning" if severity == "critical" else "Loss has hardly moved",
        evidence=f"{words} ({_n(run.gap)}).",
        threshold=f"Critical when neither validation nor training loss has fallen by {FLAT_LOSS:.0%} over "
        f"{FLAT_EPOCHS} or more epochs and accuracy is below {limit:.0%}, with fewer than {ENOUGH} examples by 2 SE; "
        "else a notice.",
        source=f"the idea: Amazon SageMaker Debugger, LossNotDecreasing; {FLAT_LOSS:.0%}: {CONVENTION}; accuracy: "
        f"{source}",
        advice=(
            f"Dead layers or huge updates: see the other findings; then {LOWER_RATE[0].lower()}{LOWER_RATE[1:]}.",
            "No dead layer and tiny updates: a higher learning rate.",
            "Are labels and inputs still paired? A model must be able to learn 100 examples by heart.",
        ),
    )


def gap_verdict(run: HealthRun) -> Iterator[Finding]:
    """Overfitting: a gap that is large and real, while validation gets worse. Without it, what the gap is.

    In accuracy where there is one with its error, else in loss.
    """
    last = run.gap.last
    known = [metric for metric in ("accuracy", "loss") if np.isfinite(last[f"{metric}_gap"])]
    if not known:
        return
    metric = next((m for m in known if np.isfinite(last[f"{m}_gap_margin"])), known[0])
    gap, noise, train = (last[name] for name in (f"{metric}_gap", f"{metric}_gap_margin", f"train_eval_{metric}"))
    worse = _decline(run)
    se = last[f"{metric}_gap_se"]
    away = f"{abs(gap) / se:.1f} standard errors from 0, " if se > 0 else ""
    error = "unknown" if np.isnan(noise) else f"{100 * noise:.1f}" if metric == "accuracy" else f"{noise:.4g}"
    if metric == "accuracy":
        band = f"Training minus validation {run.gap.metric('val_accuracy', metric)} is {_points(gap)} ± {error} points"
        large, some = gap >= (OVERFIT_GAP_WHEN_ACCURATE if train > ACCURATE else OVERFIT_GAP), gap >= MILD_GAP
        far = False
    else:
        band = f"Validation minus training {run.gap.metric('val_loss', metric)} is {gap:+.4g} ± {error} "
        band += f"({last['val_loss']:.4g} and {train:.4g})"
        far = gap > 0 and 0 <= LOSS_RATIO * train <= last["val_loss"]
        large = some = far or (train < 0 and gap >= _fall(run.gap) / LOSS_RATIO)
    mode = "eval mode" if run.gap.in_eval_mode else "the mode of validation"
    band += f" at epoch {run.gap.epochs[-1] + 1}, both in {mode} with the same weights (95%, {_n(run.gap)})"
    lasting = run.gap.epochs[-1] - worse.best >= RISE_EPOCHS
    climbing = gap > noise and lasting
    severe = climbing and large and worse.part >= LOSS_RISE
    if not severe and not (climbing and some and worse.part > 0):
        if np.isnan(worse.part):
            course = "and whether validation gets worse can't be judged here"
        elif worse.part >= LOSS_RISE:
            course = f"and {worse.words}" if lasting else f"and {worse.words}, not for {RISE_EPOCHS} epochs yet"
        elif far:
            course = f"and validation loss has not climbed for {RISE_EPOCHS} epochs"
        else:
            course = "without the marks of harmful overfitting"
        verdicts = (  # the first that holds
            (np.isnan(noise), "Gap without an error", "whose error is unknown: no verdict"),
            (abs(gap) <= noise, "Gap is within noise", "a band that includes 0, which is noise"),
            (gap < 0, "Validation is better than training", f"{away}not chance: it is easier than the training sample"),
            (far, "Training fits far better than validation", f"{away}{course}"),
            (True, "Gap is real, and no alarm", f"{away}more than chance, {course}"),
        )
        title, meaning = next(words for holds, *words in verdicts if holds)
        notice = title.startswith("Training")
        yield _finding(
            rule="large_loss_gap" if notice else "gap_in_words",
            severity="notice" if notice else "info",
            title=title,
            evidence=f"{band}, {meaning}.",
            threshold="A gap whose 95% band, 2 standard errors unless the log has its own, includes 0 is noise; a "
            f"notice where there is no accuracy and validation loss is {LOSS_RATIO:.0f} times training's.",
            source=f"{NOISE}; {LOSS_RATIO:.0f} times: {CONVENTION}",
            advice=REGULARIZE if notice else (),
        )
        return
    yield _finding(
        rule="overfitting" if severe else "mild_overfitting",
        severity="warning" if severe else "notice",
        title="Overfitting" if severe else "Mild overfitting",
        evidence=f"{band}, and {worse.words}.",
        threshold=f"Warning when the gap's 95% band is above 0 and the gap at least {100 * OVERFIT_GAP:.0f} points "
        f"({100 * OVERFIT_GAP_WHEN_ACCURATE:.0f} above {ACCURATE:.0%} training accuracy; without an accuracy, "
        f"validation loss at least {LOSS_RATIO:.0f} times training's), and validation loss is {LOSS_RISE:.0%} above "
        f"its minimum, {RISE_EPOCHS} epochs or more ago; a notice from {100 * MILD_GAP:.0f} points with any rise. "
        f"A loss of 0 or below has no ratio: there the rise must be wider than the loss gap's band and {LOSS_RISE:.0%} "
        "of validation loss's fall from its first epoch to its minimum, and without an accuracy the gap "
        f"{1 / LOSS_RATIO:.0%} of that fall. Without such a loss, validation accuracy must be {LOSS_RISE:.0%} below "
        "its maximum, and further than the gap's band.",
        source=f"{AUTOTRAINER}; {PRECHELT}; {LOSS_RATIO:.0f} times, and what has no ratio or no loss: {CONVENTION}",
        advice=(
            f"Use the checkpoint of epoch {worse.best + 1}, or stop there (`EarlyStopping` on {worse.metric}).",
            *REGULARIZE,
        ),
    )


def mode_effect(run: HealthRun) -> Iterator[Finding]:
    """The usual curve shows validation above training, though in eval mode training is above: dropout, not magic."""
    last = run.gap.last
    running, train, val = last["running_accuracy"], last["train_eval_accuracy"], last["val_accuracy"]
    if not running < val <= train:
        return
    yield _finding(
        rule="mode_effect",
        severity="info",
        title="Training only looks worse than validation",
        evidence=f"Running accuracy is {running:.1%}, below validation ({val:.1%}), but the same weights in eval mode "
        f"reach {train:.1%} on training examples: {_points(train - running)} points come from training mode (dropout, "
        "augmentation) and averaging over the epoch, and say nothing about underfitting.",
        threshold="Said when running accuracy < validation accuracy <= eval-mode training accuracy.",
        source=KERAS_FAQ,
    )


def still_improving(run: HealthRun) -> Iterator[Finding]:
    """Validation loss is at its minimum at the last epoch: the run stopped, or is, while it was still learning."""
    loss = run.gap.columns["val_loss"]
    if len(loss) < FLAT_EPOCHS or not np.isfinite(loss).all() or int(np.argmin(loss)) != len(loss) - 1:
        return
    if _is_flat(run) or nothing_has_moved(run):  # where normalisation alone still changes, more epochs are no advice
        return
    fall = f", {1 - loss[-1] / loss[-2]:.1%} below the one before" if loss[-2] > 0 else ""
    yield _finding(
        rule="still_improving",
        severity="info",
        title="Still improving",
        evidence=f"{run.gap.metric('val_loss', 'Validation loss')} is lowest at the last epoch ({loss[-1]:.4f}{fall}).",
        threshold="Said when the lowest validation loss is the last one, after at least 3 epochs.",
        source=PRECHELT,
        advice=("More epochs (`Trainer(max_epochs=...)`).",),
    )


def _is_flat(run: HealthRun) -> bool:
    """Whether neither side's loss has fallen, nor an accuracy is good, nor training is better than validation."""
    gap, columns, limit = run.gap, run.gap.columns, limit_of(run, INACCURATE)[0]
    losses = [columns[name][np.isfinite(columns[name])] for name in ("val_loss", "train_eval_loss")]
    if len(losses[0]) < FLAT_EPOCHS:
        return False
    if any(len(loss) and not (loss[0] > 0 and loss.min() >= loss[0] * (1 - FLAT_LOSS)) for loss in losses):
        return False
    accuracies = np.concatenate([columns[f"{side}_accuracy"] for side in ("val", "train_eval", "running")])
    if (accuracies >= limit).any():
        return False
    return not any(gap.last[f"{metric}_gap"] > gap.last[f"{metric}_gap_margin"] for metric in ("accuracy", "loss"))


class _Decline(NamedTuple):
    """How far validation is from its best: as a part that `LOSS_RISE` limits, NaN where that can't be judged."""

    part: float
    best: int  # the epoch, 0-based
    metric: str
    words: str


def _decline(run: HealthRun) -> _Decline:
    """By validation loss; by accuracy where the loss was not measured, or there is no scale for its rise."""
    gap, last, fall = run.gap, run.gap.last, _fall(run.gap)
    columns = (gap.columns[name] for name in ("val_loss", "val_accuracy"))
    loss, accuracy = (np.where(np.isfinite(column), column, np.nan) for column in columns)
    if np.isfinite(last["val_loss"]):
        lowest, best = np.nanmin(loss), int(gap.epochs[np.nanargmin(loss)])
        rise, metric = last["val_loss"] - lowest, gap.metric("val_loss", "validation loss")
        words = f"above its minimum of epoch {best + 1}"
        if lowest > 0:
            return _Decline(rise / lowest, best, metric, f"{metric} is {rise / lowest:.0%} {words}")
        if fall > 0 and np.isfinite(last["loss_gap_margin"]):
            part = rise / fall if rise > last["loss_gap_margin"] else 0.0
            words += f" ({lowest:.4g}), {part:.0%} of its fall until then"
            return _Decline(part, best, metric, f"{metric} is {rise:.4g} {words}")
    if np.isfinite(last["accuracy_gap_margin"]) and last["val_accuracy"] >= 0 and np.nanmax(accuracy) > 0:
        highest, best = np.nanmax(accuracy), int(gap.epochs[np.nanargmax(accuracy)])
        lost, metric = highest - last["val_accuracy"], gap.metric("val_accuracy", "validation accuracy")
        part = lost / highest if lost > last["accuracy_gap_margin"] else 0.0
        words = f"{metric} is {100 * lost:.1f} points below its maximum of epoch {best + 1}"
        return _Decline(part, best, metric, words)
    return _Decline(np.nan, int(gap.epochs[-1]), "", "")


def _fall(gap: Gap) -> float:
    """How far validation loss came down from its first record, the scale where there is no ratio; NaN without one."""
    loss = gap.columns["val_loss"]
    known = loss[np.isfinite(loss)]
    return float(known[0] - known.min()) if len(known) else np.nan


def _n(gap: Gap) -> str:
    if gap.n_train is None or gap.n_val is None:
        return "n unknown"
    few = "only " if min(gap.n_train, gap.n_val) < ENOUGH else ""
    return f"{few}{gap.n_train:,} training and {gap.n_val:,} validation examples"


def _points(difference: float) -> str:
    return f"{round(100 * difference, 1) + 0.0:+.1f}"  # no -0.0


RULES: tuple[Rule, ...] = (loss_not_finite, not_learning, gap_verdict, mode_effect, still_improving)
