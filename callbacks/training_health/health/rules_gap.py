"""Rules about the gap between training and validation, and about learning nothing at all."""

from collections.abc import Iterator

import numpy as np

from training_health.health.finding import Finding, Rule
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


def loss_not_finite(run: HealthRun) -> Iterator[Finding]:
    """A loss that was a number no longer is one."""
    for column, words in (("val_loss", "validation loss"), ("train_eval_loss", "training loss")):
        loss = run.gap.columns[column] if run.gap else np.empty(0)
        bad = ~np.isfinite(loss)
        # NaN also means "not measured", so a run that never had a number is left alone
        if not len(loss) or not bad[-1] or (bad.all() and not np.isinf(loss).any()):
            continue
        first = int(run.gap.epochs[np.flatnonzero(bad)[0]]) if run.gap else 0
        yield Finding(
            rule="loss_not_finite",
            severity="critical",
            title="Loss is NaN or infinite",
            evidence=f"The {words} is not a number at the last epoch; the first such epoch is {first + 1}.",
            threshold="Critical when a loss that was finite is not at the last epoch.",
            source="no threshold: nothing can be learnt from a loss that is not a number",
            advice=("A learning rate 3 to 10 times lower (`--model.learning_rate`), from the last good checkpoint.",),
            section="gap",
        )
        return


def not_learning(run: HealthRun) -> Iterator[Finding]:
    """The loss has hardly moved and the accuracy is poor."""
    if run.gap is None or len(run.gap.epochs) < FLAT_EPOCHS:
        return
    loss, accuracy = run.gap.columns["val_loss"], run.gap.columns["val_accuracy"]
    known = np.isfinite(loss)
    if known.sum() < FLAT_EPOCHS or not np.isfinite(accuracy).any():
        return
    start, best, best_accuracy = loss[known][0], loss[known].min(), np.nanmax(accuracy)
    if not start > 0 or best_accuracy >= INACCURATE or best < start * (1 - FLAT_LOSS):
        return
    yield Finding(
        rule="not_learning",
        severity="critical",
        title="Not learning",
        evidence=f"In {known.sum()} epochs the validation loss has fallen by {max(0.0, 1 - best / start):.1%} (from "
        f"{start:.3f} to at best {best:.3f}) and validation accuracy never passed {best_accuracy:.1%} "
        f"({_n(run.gap)}).",
        threshold=f"Critical when validation loss has not fallen by {FLAT_LOSS:.0%} over {FLAT_EPOCHS} or more epochs "
        f"and accuracy is below {INACCURATE:.0%}.",
        source="the idea: Amazon SageMaker Debugger, LossNotDecreasing; the limits are this project's own",
        advice=(
            "Dead layers or huge updates: see the other findings; then `--model.learning_rate` 3 to 10 times lower.",
            "No dead layer and tiny updates: a higher `--model.learning_rate`.",
            "Are labels and images still paired? A model must be able to learn 100 images by heart.",
        ),
        section="gap",
    )


def overfitting(run: HealthRun) -> Iterator[Finding]:
    """The gap is large and real, and validation loss climbs away from its minimum."""
    last = _last(run.gap)
    if run.gap is None or last is None:
        return
    gap, noise, train = last["accuracy_gap"], 2 * last["accuracy_gap_se"], last["train_eval_accuracy"]
    rise, since = _loss_rise(run.gap)
    limit = OVERFIT_GAP_WHEN_ACCURATE if train > ACCURATE else OVERFIT_GAP
    severe = gap > noise and gap >= limit and rise >= LOSS_RISE and since >= RISE_EPOCHS
    mild = gap > noise and gap >= MILD_GAP and rise > 0 and since >= RISE_EPOCHS
    if not (severe or mild):
        return
    best = int(run.gap.epochs[-1]) - since + 1
    yield Finding(
        rule="overfitting" if severe else "mild_overfitting",
        severity="warning" if severe else "notice",
        title="Overfitting" if severe else "Mild overfitting",
        evidence=f"Training accuracy is {_points(gap)} ± {100 * noise:.1f} points above validation, both in eval mode "
        f"with the same weights ({_n(run.gap)}), and validation loss is {rise:.0%} above its minimum of epoch {best}.",
        threshold=f"Warning when the gap is beyond 2 SE and at least {100 * OVERFIT_GAP:.0f} points "
        f"({100 * OVERFIT_GAP_WHEN_ACCURATE:.0f} above {ACCURATE:.0%} training accuracy), and validation loss is "
        f"{LOSS_RISE:.0%} above its minimum, {RISE_EPOCHS} epochs or more ago; a notice from {100 * MILD_GAP:.0f} "
        "points with any rise.",
        source=f"{AUTOTRAINER}; {PRECHELT}",
        advice=(
            f"Use the checkpoint of epoch {best}, or stop there (`EarlyStopping` on `val/loss`).",
            "Dropout: `--variant baseline`, or higher `--model.conv_dropout` and `--model.hidden_dropout`.",
            "Augmentation, weight decay, or a smaller network.",
        ),
        section="gap",
    )


def gap_in_words(run: HealthRun) -> Iterator[Finding]:
    """Says of a gap that is no alarm whether it is noise, real, or upside down."""
    last = _last(run.gap)
    if run.gap is None or last is None or any(overfitting(run)):
        return
    gap, noise = last["accuracy_gap"], 2 * last["accuracy_gap_se"]
    if abs(gap) <= noise:
        title, meaning = "Gap is within noise", "which chance alone explains: no evidence of overfitting."
    elif gap > 0:
        title, meaning = "Gap is real, and no alarm", "more than chance, without the marks of harmful overfitting."
    else:
        title = "Validation is better than training"
        meaning = "more than chance, so the validation images are easier than the training sample."
    yield Finding(
        rule="gap_in_words",
        severity="info",
        title=title,
        evidence=f"Training minus validation accuracy is {_points(gap)} ± {100 * noise:.1f} points at epoch "
        f"{run.gap.epochs[-1] + 1} (2 SE, {_n(run.gap)}), {meaning}",
        threshold="A gap within 2 standard errors is reported as noise.",
        source=NOISE,
        section="gap",
    )


def mode_effect(run: HealthRun) -> Iterator[Finding]:
    """The usual curve shows validation above training, though in eval mode training is above: dropout, not magic."""
    last = _last(run.gap)
    if run.gap is None or last is None:
        return
    running, train, val = last["running_accuracy"], last["train_eval_accuracy"], last["val_accuracy"]
    if not running < val <= train:
        return
    yield Finding(
        rule="mode_effect",
        severity="info",
        title="Training only looks worse than validation",
        evidence=f"Running accuracy is {running:.1%}, below validation ({val:.1%}), but the same weights in eval mode "
        f"reach {train:.1%} on training images: {_points(train - running)} points are the effect of dropout, "
        "augmentation and averaging over the epoch. They are not underfitting, and they hid the gap.",
        threshold="Said when running accuracy < validation accuracy <= eval-mode training accuracy.",
        source=KERAS_FAQ,
        section="gap",
    )


def still_improving(run: HealthRun) -> Iterator[Finding]:
    """Validation loss is at its minimum at the last epoch: the run stopped, or stands, while it was still learning."""
    if run.gap is None:
        return
    loss = run.gap.columns["val_loss"]
    if len(loss) < FLAT_EPOCHS or not np.isfinite(loss).all() or int(np.argmin(loss)) != len(loss) - 1:
        return
    yield Finding(
        rule="still_improving",
        severity="info",
        title="Still improving",
        evidence=f"Validation loss is lowest at the last epoch ({loss[-1]:.4f}, {1 - loss[-1] / loss[-2]:.1%} below "
        "the one before).",
        threshold="Said when the lowest validation loss is the last one, after at least 3 epochs.",
        source=PRECHELT,
        advice=("More epochs (`--trainer.max_epochs`).",),
        section="gap",
    )


def _last(gap: Gap | None) -> dict[str, float] | None:
    if gap is None or not len(gap.epochs):
        return None
    last = {name: float(column[-1]) for name, column in gap.columns.items()}
    return last if np.isfinite(last["accuracy_gap"]) and np.isfinite(last["accuracy_gap_se"]) else None


def _loss_rise(gap: Gap) -> tuple[float, int]:
    """Validation loss above its minimum, as a share of it, and how many records ago that minimum was."""
    loss = gap.columns["val_loss"]
    if not np.isfinite(loss[-1]) or not np.nanmin(loss) > 0:
        return 0.0, 0
    return float(loss[-1] / np.nanmin(loss) - 1), int(gap.epochs[-1] - gap.epochs[int(np.nanargmin(loss))])


def _n(gap: Gap) -> str:
    if gap.n_train is None or gap.n_val is None:
        return "n unknown"
    return f"{gap.n_train:,} training and {gap.n_val:,} validation images"


def _points(share: float) -> str:
    return f"{100 * share:+.1f}"


RULES: tuple[Rule, ...] = (loss_not_finite, not_learning, overfitting, gap_in_words, mode_effect, still_improving)
