"""The findings on logs of real runs: healthy ones raise no alarm, each planted fault is found. See real_logs/README."""

import shutil
from pathlib import Path

import pytest

LOGS = Path(__file__).parent / "real_logs"
ALARMS = {"critical", "warning"}

# every alarm that the run must raise, and there may be no other
FAULTS = {
    "torch_init": {"dead_from_the_start"},
    "adam_learning_rate_0.05": {"dead_from_the_start", "not_learning"},
    "sgd_learning_rate_3": {"whole_layer_dead", "not_learning", "frozen_layer"},
    "nan_weights": {"nonfinite_weights", "nonfinite_gradients"},
    "frozen": {"frozen_layer"},
    "overfit": {"overfitting"},
}


@pytest.fixture
def tab_on(tmp_path, open_tab):
    """Opens the tab on one of the real logs."""

    def open_on(name: str):
        shutil.copytree(LOGS / name, tmp_path / name)
        return open_tab()

    return open_on


def alarms(tab, name: str) -> set[str]:
    findings = tab.row(name)["findings"]
    return {finding["rule"] for finding in findings if finding["severity"] in ALARMS}


@pytest.mark.parametrize("name", ["baseline", "no_dropout", "sgd"])
def test_a_real_healthy_run_raises_no_alarm(tab_on, name):
    tab = tab_on(name)
    row = tab.row(name)
    assert (row["state"], row["epochs"], row["finished"]) == ("ok", 10, True)  # there was something to judge
    assert alarms(tab, name) == set()


@pytest.mark.parametrize("name", FAULTS)
def test_a_real_faulty_run_raises_the_alarms_of_its_fault(tab_on, name):
    assert alarms(tab_on(name), name) == FAULTS[name]


def test_a_run_killed_in_mid_epoch_is_served_up_to_its_last_epoch(tab_on):
    tab = tab_on("killed")
    row = tab.row("killed")
    assert (row["state"], row["message"], row["epochs"], row["max_epochs"]) == ("ok", "", 2, 10)
    assert not row["finished"]
    run = tab.json("/run", run="killed")
    assert run["total"]["epochs"] == [0, 1]
    assert run["gap"]["epochs"] == [0, 1]


def test_no_log_is_missing_or_unjudged():
    folders = {path.name for path in LOGS.iterdir() if path.is_dir()}
    assert folders == {"baseline", "no_dropout", "sgd", "killed", *FAULTS}
