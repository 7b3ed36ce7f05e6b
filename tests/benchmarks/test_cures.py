"""The table of cures, from runs with known content."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from benchmarks.cures import CureRun, cure_runs, cures_table, differences_table, lasting_revivals, main
from training_health.sinks import EventFile

NONE = [[0.0, 0.0, 0.5, 0.5], [0.0, 0.0, 0.5, 0.5], [0.0, 0.0, 0.5, 0.5], [0.0, 0.0, 0.5, 0.5]]
# Unit 0 gets new weights before epoch 1 and lives; unit 1 before epochs 1 and 2, and dies again; unit 3 dies.
CURED = [[0.0, 0.0, 0.5, 0.5], [0.5, 0.5, 0.5, 0.5], [0.5, 0.0, 0.5, 0.5], [0.5, 0.0, 0.5, 0.0]]
GIVEN = {1: [1, 1, 0, 0], 2: [0, 0, 0, 0], 3: [0, 1, 0, 0]}


def write_run(logdir, variant, seed, activity, accuracy, given=None, start=None, version=0) -> None:
    folder = logdir / variant / f"version_{version}"
    folder.mkdir(parents=True)
    known = {"last_epoch": {"val/accuracy": accuracy, "dead_relu/total": float(np.mean(np.array(activity[-1]) == 0))}}
    summary = {"variant": variant, "seed": seed, "epochs": len(activity), "seconds_per_epoch": 7.5}
    summary |= {"test": {"test/accuracy": accuracy - 0.01}, **known}
    (folder / "summary.json").write_text(json.dumps(summary))
    file, about = EventFile(folder), {"site": "fc1", "units": 4, "index": 0}
    for epoch, row in enumerate(activity):
        records = [("activity/fc1", "activity", [100, *row], about)]
        if start is not None and epoch == 0:
            records.append(("start/fc1", "start", [100, *start], about))
        if given and epoch in given:
            records.append(("revived/fc1", "revived", [100, *given[epoch]], {**about, "method": "redo"}))
        file.records(epoch * 10, epoch, records)


@pytest.fixture
def logdir(tmp_path):
    for seed, gain in enumerate((0.01, 0.02, 0.03)):
        write_run(tmp_path, "no_dropout", seed, NONE, 0.90, start=[0.0, 0.1, 0.5, 0.5], version=seed)
        write_run(tmp_path, "revive_redo", seed, CURED, 0.90 + gain, GIVEN, version=seed)
    return tmp_path


def test_a_run_is_read_from_its_summary_and_its_records(logdir):
    (runs, notes) = cure_runs(logdir)

    assert notes == []
    assert runs[0] == CureRun("no_dropout", 0, 0.25, 0.5, 0.0, 0.0, 0.90, 0.89, 7.5)
    assert runs[3] == CureRun("revive_redo", 0, None, 0.5, 1.0, 1.0, 0.91, 0.90, 7.5)


def test_the_table_has_a_row_per_variant_with_its_runs(logdir):
    assert cures_table(cure_runs(logdir)[0]).splitlines()[2:] == [
        "| no_dropout | 3 | 25.0 ± 0.0 | 50.0 ± 0.0 | 0.0 ± 0.0 | 0.0 ± 0.0 | 90.00 ± 0.00 | 89.00 ± 0.00 | 7.5 ± 0.0 "
        "|",
        "| revive_redo | 3 | unknown | 50.0 ± 0.0 | 1.0 ± 0.0 | 1.0 ± 0.0 | 92.00 ± 1.00 | 91.00 ± 1.00 | 7.5 ± 0.0 |",
    ]


def test_differences_are_paired_over_the_seeds_that_both_have(logdir):
    write_run(logdir, "revive_redo", 7, CURED, 0.5, version=7)  # no_dropout has no seed 7
    (row,) = differences_table(cure_runs(logdir)[0], "no_dropout").splitlines()[2:]

    # 1, 2 and 3 points: mean 2, sd 1, t(0.975, 2) = 4.303, so 4.303 / sqrt(3) = 2.48
    assert row == (
        "| revive_redo | 3 | unknown | +0.0 ± 0.0 | **+1.0 ± 0.0** | **+1.0 ± 0.0** | +2.00 ± 2.48 | +2.00 ± 2.48 | "
        "+0.0 ± 0.0 |"
    )


def test_a_start_that_was_measured_apart_counts_for_all_runs_that_start_so(logdir):
    write_run(logdir / "start", "no_dropout", 1, [[0.0, 0.0, 0.0, 0.5]], 0.1)
    found = {(run.variant, run.seed): run.dead_start for run in cure_runs(logdir)[0]}

    assert found["revive_redo", 1] == 0.75
    assert found["revive_redo", 2] is None
    assert found["no_dropout", 1] == 0.25  # its own record comes first


def test_a_reader_is_told_of_runs_that_differ_or_are_left_out(logdir):
    write_run(logdir, "no_dropout", 2, NONE[:2], 0.5, version=9)
    write_run(logdir, "revive_redo", 3, CURED[:2], 0.9, version=9)

    assert cure_runs(logdir)[1] == [
        f"{logdir / 'no_dropout' / 'version_9'} is left out: an earlier run has the same variant and seed.",
        "The runs are of 2 numbers of epochs.",
    ]


def test_a_folder_without_runs_is_said(tmp_path):
    with pytest.raises(SystemExit, match=r"There is no finished run in .* Train with"):
        main(["--logdir", str(tmp_path)])


@given(
    arrays(np.float64, st.tuples(st.integers(1, 6), st.integers(1, 3)), elements=st.sampled_from([0.0, 0.5, np.nan]))
)
@settings(deadline=None, max_examples=100)
def test_a_revival_lasts_if_the_unit_fires_in_three_rows_one_after_the_other(activity):
    expected = [
        [row > 0 and column[row - 1] == 0 and list(column[row : row + 3]) == [0.5] * 3 for column in activity.T]
        for row in range(len(activity))
    ]
    assert lasting_revivals(activity).tolist() == expected
