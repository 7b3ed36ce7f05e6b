"""Keras 3 on TensorFlow beside ours, at the best of its settings."""

from benchmarks.groups import Workshop, run_group
from benchmarks.interleave import best_of, ratio
from benchmarks.report import Report


def against_keras(workshop: Workshop, report: Report, rounds: int, python: str, steps: int = 200) -> None:
    """Every Keras setting and ours, interleaved; the ratio is that of the setting with the lowest median.

    Args:
        workshop: Where contenders run.
        report: Receives the results.
        rounds: Interleaved rounds.
        python: An interpreter that has Keras and TensorFlow.
        steps: Training steps per round.
    """
    size = f"--steps={steps}"
    settings = {
        "Keras, default": [size],
        "Keras, 50 steps per execution": [size, "--steps-per-execution=50"],
        "Keras, tf.data": [size, "--dataset"],
        "Keras, tf.data, 50 steps per execution": [size, "--dataset", "--steps-per-execution=50"],
        "Keras, XLA": ["--steps=5", "--jit"],  # a step takes seconds
    }
    wanted = {
        "ours, fmnist fit": ["our_lightning", size],
        "ours again, fmnist fit": ["our_lightning", size],
        **{name: ["keras_fit", *arguments] for name, arguments in settings.items()},
    }
    result = run_group(workshop, report, "peers", wanted, rounds, python=dict.fromkeys(settings, python))
    best = best_of(result, list(settings))
    others = [name for name in settings if name != best]
    report.ratios += [
        (ratio("A/A null: ours again / ours", result, "ours again, fmnist fit", "ours, fmnist fit"), "1"),
        (ratio(f"{best} / ours", result, best, "ours, fmnist fit"), "at least 1.10, aim 1.25"),
        *((ratio(f"{name} / ours", result, name, "ours, fmnist fit"), "none") for name in others),
    ]
