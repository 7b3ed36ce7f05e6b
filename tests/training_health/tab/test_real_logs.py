"""The findings on logs of real runs, which earlier versions of the monitors wrote. See real_logs/README.md."""

import json
from pathlib import Path

LOGS = Path(__file__).parent / "real_logs"


def test_logs_of_earlier_versions_open_with_the_same_findings(open_tab):
    rows = open_tab(LOGS).json("/overview")["runs"]
    found = {row["run"]: [[f["severity"], f["rule"], f["title"]] for f in row["findings"]] for row in rows}
    assert found == json.loads((LOGS / "findings.json").read_text())
    assert {(row["state"], row["message"]) for row in rows} == {("ok", "")}
    assert {row["run"]: row["epochs"] for row in rows if not row["finished"]} == {"killed": 2}


def test_a_run_killed_in_mid_epoch_is_served_up_to_its_last_epoch(open_tab):
    run = open_tab(LOGS).json("/run", run="killed")
    assert run["total"]["epochs"] == [0, 1]
    assert run["gap"]["epochs"] == [0, 1]
