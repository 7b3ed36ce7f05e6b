"""Rules about the gap between training and validation, and about learning nothing at all."""

from collections.abc import Iterator
from functools import partial

import numpy as np

from training_health.health.finding import LOWER_RATE, Finding, Rule
from training_health.health.health_run import Gap, HealthRun

OVERFIT_GAP = 0.10
OVERFIT_GAP_WHEN_ACCURATE = 0.07
ACCURATE = 0.90
LOSS_RISE = 0.10
RISE_EPOCHS = 2
MILD_GAP = 0.03
FLAT_LOSS = 0.05
FLAT_EPOCHS = 3
INACCURATE = 0.50

KERAS_FAQ = 'Keras FAQ, "Why is my training loss much higher than my testing loss?"'
PRECHELT = "validation loss: Prechelt 1998, Early stopping - but when? (generalisation loss GL)"
AUTOTRAINER = "gap: AUTOTRAINER (Zhang et al., ICSE 2021): 0.1, or 0.07 above 90% training accuracy"
NOISE = "two binomial proportions: SE = sqrt(p(1-p)/n) each, added in quadrature"

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
            evidence=f"The {words} is not a number at the last epoch; the first such epoch is {first + 1}.",
            threshold="Critical when a loss that was finite is not at the last epoch.",
            source="no threshold: nothing can be learnt from a loss that is not a number",
            advice=(f"{LOWER_RATE}, from the last good checkpoint.",),
        )
        return


def not_learning(run: HealthRun) -> Iterator[Finding]:
    """The loss has hardly moved and the accuracy is poor."""
    loss, accuracy = run.gap.columns["val_loss"], run.gap.columns["val_accuracy"]
    known = loss[np.isfinite(loss)]
    if len(known) < FLAT_EPOCHS or not np.isfinite(accuracy).any():
        return
    start, best, best_accuracy = known[0], known.min(), np.nanmax(accuracy)
    if not start > 0 or best_accuracy >= INACCURATE or best < start * (1 - FLAT_LOSS):
        return
    yield _finding(
        rule="not_learning",
        severity="critical",
        title="Not learning",
        evidence=f"In {len(known)} epochs the validation loss has fallen by {max(0.0, 1 - best / start):.1%} (from "
        f"{start:.3f} to at best {best:.3f}) and validation accuracy never passed {best_accuracy:.1%} "
        f"({_n(run.gap)}).",
        threshold=f"Critical when validation loss has not fallen by {FLAT_LOSS:.0%} over {FLAT_EPOCHS} or more epochs "
        f"and accuracy is below {INACCURATE:.0%}.",
        source="the idea: Amazon SageMaker Debugger, LossNotDecreasing; the limits are this project's own",
        advice=(
            f"Dead layers or huge updates: see the other findings; then {LOWER_RATE[0].lower()}{LOWER_RATE[1:]}.",
            "No dead layer and tiny updates: a higher learning rate.",
            "Are labels and inputs still paired? A model must be able to learn 100 examples by heart.",
        ),
    )


def gap_verdict(run: HealthRun) -> Iterator[Finding]:
    """Overfitting: a gap that is large and real, while validation loss climbs. Without it, what the gap is."""
    last = run.gap.last
    gap, noise = last["accuracy_gap"], 2 * last["accuracy_gap_se"]
    if not np.isfinite([gap, noise]).all():
        return
    rise, best = _loss_rise(run.gap)
    epoch = int(run.gap.epochs[-1])
    limit = OVERFIT_GAP_WHEN_ACCURATE if last["train_eval_accuracy"] > ACCURATE else OVERFIT_GAP
    climbing = gap > noise and epoch - best >= RISE_EPOCHS
    severe = climbing and gap >= limit and rise >= LOSS_RISE
    if not severe and not (climbing and gap >= MILD_GAP and rise > 0):
        yield _harmless_gap(gap, noise, f"at epoch {epoch + 1} (2 SE, {_n(run.gap)})")
        return
    yield _finding(
        rule="overfitting" if severe else "mild_overfitting",
        severity="warning" if severe else "notice",
        title="Overfitting" if severe else "Mild overfitting",
        evidence=f"Training accuracy is {_points(gap)} ± {100 * noise:.1f} points above validation, both in eval mode "
        f"with the same weights ({_n(run.gap)}), and validation loss is {rise:.0%} above its minimum of epoch "
        f"{best + 1}.",
        threshold=f"Warning when the gap is beyond 2 SE and at least {100 * OVERFIT_GAP:.0f} points "
        f"({100 * OVERFIT_GAP_WHEN_ACCURATE:.0f} above {ACCURATE:.0%} training accuracy), and validation loss is "
        f"{LOSS_RISE:.0%} above its minimum, {RISE_EPOCHS} epochs or more ago; a notice from {100 * MILD_GAP:.0f} "
        "points with any rise.",
        source=f"{AUTOTRAINER}; {PRECHELT}",
        advice=(
            f"Use the checkpoint of epoch {best + 1}, or stop there (`EarlyStopping` on `val/loss`).",
            "Dropout, or more of it.",
            "Augmentation, weight decay, or a smaller network.",
        ),
    )


def _harmless_gap(gap: float, noise: float, when: str) -> Finding:
    """Says of a gap that is no alarm whether it is noise, real, or upside down."""
    if abs(gap) <= noise:
        title, meaning = "Gap is within noise", "which chance alone explains: no evidence of overfitting."
    elif gap > 0:
        title, meaning = "Gap is real, and no alarm", "more than chance, without the marks of harmful overfitting."
    else:
        title = "Validation is better than training"
        meaning = "more than chance, so the validation examples are easier than the training sample."
    return _finding(
        rule="gap_in_words",
        severity="info",
        title=title,
        evidence=f"Training minus validation accuracy is {_points(gap)} ± {100 * noise:.1f} points {when}, {meaning}",
        threshold="A gap within 2 standard errors is reported as noise.",
        source=NOISE,
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
        f"reach {train:.1%} on training examples: {_points(train - running)} points are the effect of dropout, "
        "augmentation and averaging over the epoch. They are not underfitting, and they hid the gap.",
        threshold="Said when running accuracy < validation accuracy <= eval-mode training accuracy.",
        source=KERAS_FAQ,
    )


def still_improving(run: HealthRun) -> Iterator[Finding]:
    """Validation loss is at its minimum at the last epoch: the run stopped, or is, while it was still learning."""
    loss = run.gap.columns["val_loss"]
    if len(loss) < FLAT_EPOCHS or not np.isfinite(loss).all() or int(np.argmin(loss)) != len(loss) - 1:
        return
    yield _finding(
        rule="still_improving",
        severity="info",
        title="Still improving",
        evidence=f"Validation loss is lowest at the last epoch ({loss[-1]:.4f}, {1 - loss[-1] / loss[-2]:.1%} below "
        "the one before).",
        threshold="Said when the lowest validation loss is the last one, after at least 3 epochs.",
        source=PRECHELT,
        advice=("More epochs (`Trainer(max_epochs=...)`).",),
    )


def _loss_rise(gap: Gap) -> tuple[float, int]:
    """Validation loss above its minimum, as a fraction of it, and the epoch of that minimum."""
    loss = gap.columns["val_loss"]
    if not np.isfinite(loss[-1]) or not np.nanmin(loss) > 0:
        return 0.0, int(gap.epochs[-1])
    return float(loss[-1] / np.nanmin(loss) - 1), int(gap.epochs[np.nanargmin(loss)])


def _n(gap: Gap) -> str:
    known = gap.n_train is not None and gap.n_val is not None
    return f"{gap.n_train:,} training and {gap.n_val:,} validation examples" if known else "n unknown"


def _points(difference: float) -> str:
    return f"{100 * difference:+.1f}"


RULES: tuple[Rule, ...] = (loss_not_finite, not_learning, gap_verdict, mode_effect, still_improving)
