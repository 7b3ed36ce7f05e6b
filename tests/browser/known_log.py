"""Runs with known content, one of each sort that the tab must serve."""

import base64
from pathlib import Path

from tests.training_health.tab.health_log_writer import HealthLogWriter

HOSTILE = "<img src=x onerror=alert(1)>"
STEADY, DYING, BROKEN = "steady/version_0", "dying/version_0", "broken/version_0"

FILTERS = [1.0, 0.0, -0.5, 0.0, 0.0, 0.0, 0.0, 0.0]  # of conv1: two units, 2 x 2
# (epoch, unit): "dying" loses unit 2 at its second epoch and gets it back at its third; unit 3 is born dead
DYING_FC1 = [[0.5, 0.4, 0.3, 0.0], [0.5, 0.005, 0.0, 0.0], [0.5, 0.0, 0.3, 0.0]]


def write_known_logs(root: Path) -> None:
    """Six runs: steady, dying (still going), broken (a regression, NaN outputs, n unknown), one with a hostile name,
    one foreign, one of a newer format.
    """
    with HealthLogWriter(root / STEADY) as log:
        log.text("run", {"variant": "baseline", "dataset": "synthetic", "seed": 3, "max_epochs": 3})
        for epoch in range(3):
            write_epoch(log, epoch, [0.5, 0.4, 0.3, 0.2])
        write_examples(log)
        log.text("result", {"status": "finished", "test_accuracy": 0.875}, step=1000)
    with HealthLogWriter(root / DYING) as log:
        log.text("run", {"variant": "no_dropout", "dataset": "synthetic", "seed": 4, "max_epochs": 9})
        log.numeric("start/fc1", "start", 0, [5000, 0.5, 0.5, 0.5, 0.0], site="fc1", units=4)
        for epoch, fc1 in enumerate(DYING_FC1):
            log.numeric(
                "revived/fc1", "revived", epoch, [5000, 0, epoch == 1, 0, 0], site="fc1", units=4, method="redo"
            )
            causes = [float("nan"), 1.0, float("nan"), 0.0], [float("nan"), 0.25, float("nan"), 0.5]
            fields = {"fields": ["cause", "depth"], "causes": ["mean shift", "killed"]}
            log.numeric("cause/fc1", "cause", epoch, [5000, *causes[0], *causes[1]], site="fc1", units=4, **fields)
            write_epoch(log, epoch, fc1)
    (path,) = (root / DYING).iterdir()
    path.write_bytes(path.read_bytes()[:-40])  # killed in the middle of a write: its last gap is half there
    with HealthLogWriter(root / BROKEN) as log:
        log.activity(0, "fc1", 1, [0.0, 0.5, float("nan"), float("nan")], n=float("nan"))
        log.gap(0, train_eval_loss=0.5, val_loss=0.75, loss_gap=0.25, loss_gap_se=0.1)
    with HealthLogWriter(root / HOSTILE) as log:
        log.activity(0, "<b>bold</b>", 0, [0.0, 0.5])
        log.parameters("update_ratio", 0, {"<i>weight</i>": 1e-3})
    with HealthLogWriter(root / "foreign") as log:
        log.scalar("val/accuracy", 9, 0.625)
    with HealthLogWriter(root / "future") as log:
        log.newer_format()


def write_examples(log: HealthLogWriter) -> None:
    """The two examples, of 1 x 2 pixels, on which unit 3 of fc1 fires most."""
    pixels = base64.b64encode(bytes([0, 255, 128, 0])).decode()
    unit = {"site": "fc1", "unit": 3, "activity": 0.2, "values": [1.5, 0.25], "pixels": pixels}
    log.text("examples", {"epoch": 2, "n": 5000, "shape": [1, 1, 2], "units": [unit]}, step=300)


def write_epoch(log: HealthLogWriter, epoch: int, fc1: list[float]) -> None:
    """Everything that the monitors log of an epoch; the gap last."""
    log.activity(epoch, "conv1", 0, [0.25, 0.75], positions=784)
    log.activity(epoch, "fc1", 1, fc1)
    log.parameters("update_ratio", epoch, {"conv1.weight": 1e-3, "fc1.weight": 1e-4 if epoch else 0.0})
    log.parameters("nonfinite", epoch, {"conv1.weight": 0, "fc1.weight": 0})
    log.parameters("gradient_scale", epoch, {"conv1.weight": 1e-3, "fc1.weight": 0.0})
    log.numeric("activation_scale", "activation_scale", epoch, [50, 2.0, 0.5 / (epoch + 1)], sites=["conv1", "fc1"])
    log.numeric("class_accuracy", "class_accuracy", epoch, [5000, 0.9, 0.6], classes=["shirt", "bag"])
    log.numeric("filters/conv1", "filters", epoch, [float("nan"), *FILTERS], site="conv1", shape=[2, 1, 2, 2])
    accuracy = {"running_accuracy": 0.70, "train_eval_accuracy": 0.80 + epoch / 100, "val_accuracy": 0.75}
    loss = {"running_loss": 0.9, "train_eval_loss": 0.6, "val_loss": 0.7, "loss_gap": 0.1, "loss_gap_se": 0.01}
    log.gap(epoch, **accuracy, **loss, accuracy_gap=0.05 + epoch / 100, accuracy_gap_se=0.008)
