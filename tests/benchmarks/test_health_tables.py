"""The tables of what the monitors measured, from a log with known content."""

from torch.utils.tensorboard import SummaryWriter

from benchmarks.health_tables import curves, dead_fraction_table, gap_table

RUN = {
    "dead_relu/total": [0.25, 0.125],
    "dead_relu/conv1": [0.5, 0.0],
    "dead_relu/deaths": [3.0, 1.0],
    "train/accuracy": [0.5, 0.9],
    "val/accuracy": [0.5, 0.91],
    "gap/train_eval_accuracy": [0.5, 0.935],
    "gap/accuracy": [0.0, 0.025],
    "gap/accuracy_se": [0.01, 0.0054],
    "gap/mode_effect": [0.0, 0.035],
}


def test_the_dead_fraction_has_a_row_per_site_and_a_column_per_epoch():
    assert dead_fraction_table({"baseline": RUN}).splitlines() == [
        "| run | site | 1 | 2 |",
        "| --- | --- | --- | --- |",
        "| baseline | total | 25.0 | 12.5 |",
        "| baseline | conv1 | 50.0 | 0.0 |",
    ]


def test_the_gap_is_of_the_last_epoch():
    assert gap_table({"baseline": RUN}).splitlines()[-1] == (
        "| baseline | 90.00 | 93.50 | 91.00 | +2.50 ± 0.54 | +3.50 |"
    )


def test_the_curves_are_read_from_the_runs_events(tmp_path):
    with SummaryWriter(str(tmp_path)) as writer:
        for step, value in enumerate([0.25, 0.125]):
            writer.add_scalar("dead_relu/total", value, step)

    assert curves(tmp_path) == {"dead_relu/total": [0.25, 0.125]}
