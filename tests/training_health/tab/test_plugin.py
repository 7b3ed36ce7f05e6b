import base64
import json
import time

import numpy as np
import pytest

from tests.training_health.tab.health_log_writer import HealthLogWriter
from training_health.log_format import tensor_record
from training_health.tab import payloads
from training_health.tab.static_files import static_files


def test_the_overview_shows_what_was_logged(writer, open_tab):
    writer.text("run", {"variant": "baseline", "dataset": "synthetic", "seed": 7, "max_epochs": 5})
    for epoch in range(2):
        writer.activity(epoch, "conv1", 0, [0.5, 0.0, 0.004, 0.3])
        writer.gap(epoch, val_accuracy=0.8 + epoch / 100, accuracy_gap=0.1 - epoch / 100, accuracy_gap_se=0.02)
    writer.text("result", {"status": "finished", "test_accuracy": 0.75})
    writer.flush()
    row = open_tab().row("a")
    assert row["state"] == "ok"
    assert (row["variant"], row["dataset"], row["seed"]) == ("baseline", "synthetic", 7)
    assert (row["epochs"], row["max_epochs"], row["finished"]) == (2, 5, True)
    assert (row["dead"], row["units"], row["n"], row["dead_fraction"]) == (1, 4, 5000, 0.25)
    assert [row["gap"], row["gap_margin"], row["val_accuracy"]] == pytest.approx([0.09, 0.04, 0.81])
    assert row["test_accuracy"] == 0.75


def test_a_run_answers_its_series_with_sites_in_forward_order(writer, open_tab):
    writer.activity(0, "layer10", 1, [1.0, 0.0])
    writer.activity(0, "layer2", 0, [0.5, 0.25, 0.0, 0.0])
    writer.parameters("update_ratio", 0, {"w": 1e-3, "b": float("nan")})
    writer.parameters("nonfinite", 0, {"w": 0, "b": 3})
    writer.activity(1, "layer10", 1, [1.0, 0.5])
    writer.activity(1, "layer2", 0, [0.5, 0.0, 0.0, 0.0])
    writer.flush()
    run = open_tab().json("/run", run="a")
    assert [site["site"] for site in run["sites"]] == ["layer2", "layer10"]
    assert run["sites"][0]["dead"] == [2, 3]
    assert {name: run["total"][name] for name in ("dead", "deaths", "revivals")} == {
        "dead": [3, 3],
        "deaths": [0, 1],
        "revivals": [0, 1],
    }
    assert run["update_ratio"] == {"epochs": [0], "columns": {"w": [0.001], "b": [None]}}
    assert run["nonfinite"]["columns"] == {"w": [0.0], "b": [3.0]}
    assert run["nonfinite_gradients"]["epochs"] == []


@pytest.mark.parametrize(
    ("notes", "words"),
    [({}, "both in eval mode with"), ({"mode": "as validation"}, "both in the mode of validation with")],
)
def test_a_gap_says_in_which_mode_it_was_measured(notes, words, writer, open_tab):
    columns = ["accuracy_gap", "accuracy_gap_se", "val_accuracy", "train_eval_accuracy"]
    writer.numeric("gap", "gap", 0, [5000, 0.01, 0.02, 0.8, 0.81], columns=columns, n_train=5000, n_val=5000, **notes)
    writer.flush()
    (evidence,) = [
        finding["evidence"] for finding in open_tab().row("a")["findings"] if "both in" in finding["evidence"]
    ]
    assert words in evidence


@pytest.mark.parametrize(
    ("window", "title"), [("given", "Many dead units"), ("validation", "Many units dead from the start")]
)
def test_a_model_that_was_looked_at_once_has_no_start(window, title, writer, open_tab):
    writer.activity(0, "fc1", 0, [0.5, 0.0], window=window)
    writer.flush()
    assert open_tab().row("a")["verdict"]["words"] == title


def test_the_map_has_a_row_per_unit_dead_ones_first(writer, open_tab):
    for epoch, activity in enumerate([[0.5, 0.1, 0.0], [0.5, 0.0, 0.2]]):
        writer.activity(epoch, "fc1", 0, activity)
    writer.flush()
    units = open_tab().json("/units", run="a", site="fc1")
    assert units["order"] == [1, 2, 0]
    assert units["activity"] == [[0.1, 0.0], [0.0, 0.2], [0.5, 0.5]]
    assert units["deaths"] == [[1, 1]]
    assert units["revivals"] == [[2, 1]]
    assert units["n"] == [5000, 5000]


def test_dead_units_are_listed_with_since_when_how_often_they_came_back_and_why(writer, open_tab):
    nan = float("nan")
    fields = {"site": "fc1", "units": 4, "fields": ["cause", "depth"], "causes": ["unknown", "bias"]}
    writer.numeric("start/fc1", "start", 0, [5000, 0.0, 0.5, 0.5, 0.5], site="fc1", units=4)
    for epoch, activity in enumerate([[0.0, 0.0, 0.5, 0.5], [0.0, 0.2, 0.0, 0.5], [0.0, 0.0, 0.0, 0.5]]):
        writer.numeric("cause/fc1", "cause", epoch, [5000, 1, 0, 1, nan, 1.5, nan, 0.25, nan], **fields)
        writer.activity(epoch, "fc1", 0, activity)
    writer.flush()
    (site,) = open_tab().json("/run", run="a")["sites"]
    assert site["dead_units"] == {
        "unit": [0, 1, 2],
        "since": [-1, 2, 1],
        "first": [False, False, False],
        "revived": [0, 1, 0],
        "cause": ["bias", "unknown", "bias"],
        "depth": [1.5, None, 0.25],
    }
    assert site["sparsity"] == pytest.approx([0.75, 0.825, 0.875])


def test_a_site_of_thousands_of_dead_units_is_answered_at_once(writer, open_tab):
    units = 6000
    writer.activity(0, "fc1", 0, [0.0] * units)
    fields = {"site": "fc1", "units": units, "fields": ["cause"], "causes": ["unknown", "bias"]}
    writer.numeric("cause/fc1", "cause", 0, [5000, *[1] * units], **fields)
    writer.flush()
    tab, began = open_tab(), time.process_time()

    (site,) = tab.json("/run", run="a")["sites"]

    assert time.process_time() - began < 2
    assert site["dead_units"]["cause"] == ["bias"] * units


def test_without_causes_the_list_says_what_the_activity_does(writer, open_tab):
    writer.activity(0, "fc1", 0, [0.0, 0.5])
    writer.flush()
    tab = open_tab()
    assert tab.json("/run", run="a")["sites"][0]["dead_units"] == {
        "unit": [0], "since": [0], "first": [True], "revived": [0]
    }  # fmt: skip
    row = tab.row("a")
    assert (row["written"], row["seconds_per_epoch"]) == (1_700_000_001.0, None)


def test_filters_are_pictures_with_the_state_of_their_units(writer, open_tab):
    writer.activity(0, "conv1", 0, [0.0, 0.005, 0.5], positions=4)
    weights = [2.0, 0.0, -1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, -0.5]
    writer.numeric("filters/conv1", "filters", 0, [float("nan"), *weights], site="conv1", shape=[3, 1, 2, 2])
    writer.flush()
    filters = open_tab().json("/run", run="a")["sites"][0]["filters"]
    pixels = list(base64.b64decode(filters.pop("pixels")))
    assert pixels == [255, 128, 64, 128, *[128] * 4, 128, 128, 128, 1]  # 128 is 0
    assert filters == {
        "epoch": 0,
        "shape": [1, 2, 2],
        "state": ["dead", "rare", "alive"],
        "norm": [pytest.approx(5**0.5, rel=1e-4), 0.0, 0.5],
        "largest": [2.0, 0.0, 0.5],
    }


def test_examples_scales_and_classes_are_answered_as_they_were_recorded(writer, open_tab):
    pixels = base64.b64encode(bytes(range(8))).decode()
    unit = {"site": "fc1", "unit": 3, "activity": 0.002, "values": [1.5, 0.25], "pixels": pixels}
    writer.text("examples", {"epoch": 3, "n": 5000, "shape": [1, 2, 2], "units": [unit]})
    writer.numeric("activation_scale", "activation_scale", 3, [50, 2.0], sites=["fc1"])
    writer.parameters("gradient_scale", 3, {"fc1.weight": 1e-3})
    writer.numeric("class_accuracy", "class_accuracy", 3, [5000, 0.75], classes=["bag"])
    writer.flush()
    run = open_tab().json("/run", run="a")
    assert run["examples"] == {"epoch": 3, "n": 5000, "shape": [1, 2, 2], "units": [unit]}
    assert run["activation_scale"] == {"epochs": [3], "columns": {"fc1": [2.0]}, "n": [50]}
    assert run["gradient_scale"] == {"epochs": [3], "columns": {"fc1.weight": [0.001]}, "n": [1]}
    assert run["class_accuracy"] == {"epochs": [3], "columns": {"bag": [0.75]}, "n": [5000]}


@pytest.mark.parametrize(
    ("shape", "words"),
    [([2, 1, 2, 2], "are not weights of the shape"), ([3, 2, 1, 2], "1 or 3 channels"), ([3, 4], "is not 4 sizes")],
)
def test_filters_of_another_shape_than_they_say_are_named(writer, open_tab, shape, words):
    writer.activity(0, "conv1", 0, [0.0, 0.5, 0.5])
    writer.numeric("filters/conv1", "filters", 0, [float("nan"), *[1.0] * 12], site="conv1", shape=shape)
    writer.flush()
    assert words in open_tab().row("a")["message"]


@pytest.mark.parametrize("activity", [1e-12, 1e-45, 1e-9])
def test_a_unit_that_fired_once_is_never_sent_as_dead(writer, open_tab, activity):
    writer.activity(0, "fc1", 0, [activity, 0.0])
    writer.flush()
    dead, (alive,) = open_tab().json("/units", run="a", site="fc1")["activity"]
    assert dead == [0.0]
    assert alive == pytest.approx(np.float32(activity), rel=1e-5)


def test_a_large_map_is_thinned_and_says_so(writer, open_tab, monkeypatch):
    monkeypatch.setattr(payloads, "MOST_CELLS", 300)
    for epoch in range(60):
        writer.activity(epoch, "fc1", 0, [0.0, 0.9, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6])
    writer.flush()
    units = open_tab().json("/units", run="a", site="fc1")
    assert len(units["epochs"]) == 50
    assert units["epochs"][-1] == 59
    assert units["order"] == [0, 2, 3, 4, 5, 6]
    assert "50 of 60 epochs" in units["note"]
    assert "6 of 8 units" in units["note"]


def test_a_resumed_run_shows_each_step_once(tmp_path, open_tab):
    with HealthLogWriter(tmp_path / "a") as log:
        for epoch in range(10):
            log.activity(epoch, "fc1", 0, [0.0, 1.0])
    with HealthLogWriter(tmp_path / "a", wall_time=1_800_000_000.0) as log:
        for epoch in range(5, 8):
            log.activity(epoch, "fc1", 0, [0.0, 0.0])
    run = open_tab().json("/run", run="a")
    assert run["total"]["epochs"] == [0, 1, 2, 3, 4, 5, 6, 7]
    assert run["total"]["dead"] == [1, 1, 1, 1, 1, 2, 2, 2]


def test_a_growing_log_is_read_again(writer, open_tab):
    writer.activity(0, "fc1", 0, [1.0])
    writer.flush()
    tab = open_tab()
    first = tab.row("a")
    writer.activity(1, "fc1", 0, [0.0])
    writer.flush()
    tab.reload()
    second = tab.row("a")
    assert (first["epochs"], first["dead"], second["epochs"], second["dead"]) == (1, 0, 2, 1)
    assert first["revision"] != second["revision"]


def test_a_newer_format_is_named_and_not_half_drawn(writer, open_tab):
    writer.activity(0, "fc1", 0, [1.0])
    writer.newer_format()
    writer.flush()
    tab = open_tab()
    assert tab.row("a")["state"] == "newer_format"
    assert "log format 2" in tab.row("a")["message"]
    assert tab.json("/run", run="a")["sites"] == []


def test_unknown_kinds_and_columns_are_ignored(writer, open_tab):
    writer.activity(0, "fc1", 0, [1.0], colour="blue")
    writer.numeric("new", "temperature", 0, [1, 1.0])
    writer.numeric("gap", "gap", 0, [1, 0.5, 7.0], columns=["val_accuracy", "invented"], n_train=1, n_val=None)
    writer.flush()
    tab = open_tab()
    assert tab.row("a")["message"] == ""
    columns = tab.json("/run", run="a")["gap"]["columns"]
    assert (columns["val_accuracy"], columns["accuracy_gap"], "invented" in columns) == ([0.5], [None], False)


def test_a_damaged_tag_is_named_and_the_rest_shown(writer, open_tab):
    writer.activity(0, "fc1", 0, [0.0, 1.0])
    writer.numeric("gap", "gap", 0, [1], columns="none")
    writer.add(99, tensor_record("activity/odd", "activity", [float("nan"), 1, 1.0], units=1, site="odd", index=1))
    writer.flush()
    row = open_tab().row("a")
    assert row["dead"] == 1
    assert "training_health/gap can't be shown: 'columns'" in row["message"]
    assert "training_health/activity/odd can't be shown: a record at step 99" in row["message"]


@pytest.mark.parametrize("tag", ["val/accuracy", "val_accuracy", "val_acc"])
def test_a_run_without_monitors_is_listed_with_its_accuracy(writer, open_tab, tag):
    writer.scalar(tag, 9, 0.5)
    writer.scalar(tag, 19, 0.625)
    writer.flush()
    row = open_tab().row("a")
    assert (row["state"], row["val_accuracy"], row["findings"]) == ("no_monitors", 0.625, [])


def test_a_run_without_records_has_the_time_of_its_beginning_and_of_its_newest_scalar(tmp_path, open_tab):
    with HealthLogWriter(tmp_path / "a", wall_time=1000.0) as log:
        log.scalar("train/loss", 9, 0.5)
        log.scalar("hp_metric", 0, -1.0)  # Lightning's own: before the first step
    with HealthLogWriter(tmp_path / "b", wall_time=2000.0) as log:
        log.scalar("hp_metric", 0, -1.0)
    tab = open_tab()
    rows = [tab.row(run) for run in "ab"]
    assert [(row["state"], row["began"], row["written"]) for row in rows] == [
        ("no_monitors", 1000.0, 1001.0),
        ("no_monitors", 2000.0, None),
    ]


def test_a_run_that_has_only_measured_its_units_before_the_first_step_is_not_one_without_monitors(writer, open_tab):
    writer.numeric("start/fc1", "start", 0, [5000, 0.5, 0.0], site="fc1", units=2)
    writer.flush()
    row = open_tab().row("a")
    assert (row["state"], row["verdict"]["words"], row["message"]) == ("ok", "No epoch yet", "")


def test_of_two_runs_in_one_folder_the_later_one_is_shown_with_a_word(tmp_path, open_tab):
    with HealthLogWriter(tmp_path / "a") as log:
        for epoch in range(4):
            log.activity(epoch, "conv1", 0, [0.0, 0.0])
            log.activity(epoch, "fc1", 1, [0.5] * 8)
            log.parameters("update_ratio", epoch, {"w": 1e-3})
        log.text("result", {"status": "finished"}, step=1000)
    with HealthLogWriter(tmp_path / "a", wall_time=1_800_000_000.0) as log:
        for epoch in range(2):
            log.activity(epoch, "fc1", 0, [0.0, *[0.5] * 11])
            log.parameters("update_ratio", epoch, {"w": 1e-3, "v": 1e-2})
    tab = open_tab()
    row = tab.row("a")
    assert (row["epochs"], row["dead"], row["units"], row["finished"]) == (2, 1, 12, False)
    assert [site["site"] for site in tab.json("/run", run="a")["sites"]] == ["fc1"]
    (word,) = [finding["evidence"] for finding in row["findings"] if finding["rule"] == "two_runs_in_a_folder"]
    assert "fc1 has 12 units, and 8 in its first record" in word
    assert "conv1 is not in the later one" in word
    assert row["message"] == ""
    assert tab.json("/run", run="a")["update_ratio"]["epochs"] == [0, 1]


def test_of_two_runs_of_the_same_shape_the_later_ones_metadata_are_shown_with_a_word(tmp_path, open_tab):
    for start, epochs, n, name in [(1_700_000_000.0, 3, 64, "net"), (1_800_000_000.0, 2, 640, "stem")]:
        with HealthLogWriter(tmp_path / "a", wall_time=start) as log:
            for epoch in range(epochs):
                log.gap(epoch, n=n, val_loss=1.0)
                log.parameters("nonfinite", epoch, {name: 1.0})
    tab = open_tab()
    row = tab.row("a")
    gap = tab.json("/run", run="a")["gap"]
    words = [finding["evidence"] for finding in row["findings"] if finding["rule"] == "two_runs_in_a_folder"]
    assert (row["epochs"], gap["n_train"]) == (2, 640)
    assert any("stem" in finding["evidence"] for finding in row["findings"])
    assert words == [
        "The later of the runs in this folder is shown: epoch 1 was recorded again, by a fit that resumed from no "
        "checkpoint."
    ]


def test_a_run_that_resumed_within_its_first_epoch_is_no_other_run(tmp_path, open_tab):
    for start, more in [(1_700_000_000.0, {}), (1_800_000_000.0, {"resumed": True})]:
        with HealthLogWriter(tmp_path / "a", wall_time=start) as log:
            log.activity(0, "fc1", 0, [0.5], **more)
    assert open_tab().row("a")["findings"] == []


def test_a_resumed_run_after_the_clock_was_set_back_loses_nothing(tmp_path, open_tab):
    with HealthLogWriter(tmp_path / "a") as log:
        log.activity(0, "fc1", 0, [0.5])
        log.activity(1, "fc1", 0, [0.5])
    with HealthLogWriter(tmp_path / "a", wall_time=1_600_000_000.0) as log:
        log.activity(2, "fc1", 0, [0.0])
    assert open_tab().json("/run", run="a")["total"]["dead"] == [0, 0, 1]


def test_a_unit_that_is_not_a_number_is_neither_dead_nor_alive(writer, open_tab):
    nan = float("nan")
    writer.activity(0, "fc1", 0, [0.0, 0.5, nan, nan], n=nan)
    writer.activity(0, "fc2", 1, [nan, nan], n=nan)
    writer.flush()
    tab = open_tab()
    row = tab.row("a")
    assert (row["dead"], row["nan"], row["dead_fraction"], row["n"]) == (1, 4, 0.5, None)
    fc1, fc2 = tab.json("/run", run="a")["sites"]
    assert (fc1["dead"], fc1["nan"], fc1["n"]) == ([1], [2], [None])
    assert (fc2["dead"], fc2["nan"]) == ([0], [2])
    assert tab.json("/units", run="a", site="fc1")["activity"] == [[0.0], [0.5], [None], [None]]


def test_half_of_the_gaps_band_is_two_standard_errors_unless_the_log_has_its_own(tmp_path, open_tab):
    with HealthLogWriter(tmp_path / "a") as log:
        log.gap(0, loss_gap=1.0, loss_gap_se=0.25)
    with HealthLogWriter(tmp_path / "b") as log:
        columns = ["loss_gap", "loss_gap_se", "loss_gap_margin"]
        log.numeric("gap", "gap", 0, [8, 1.0, 0.25, 3.0], columns=columns, n_train=8, n_val=8)
    tab = open_tab()
    assert [tab.row(run)["loss_gap_margin"] for run in "ab"] == [0.5, 3.0]
    assert tab.json("/run", run="b")["gap"]["columns"]["loss_gap_margin"] == [3.0]


def test_runs_are_sorted_as_people_count(tmp_path, open_tab):
    for name in ["v10", "v9", "v1"]:
        with HealthLogWriter(tmp_path / name) as log:
            log.activity(0, "fc1", 0, [1.0])
    assert [row["run"] for row in open_tab().json("/overview")["runs"]] == ["v1", "v9", "v10"]


def test_nan_and_infinity_are_null_in_json(writer, open_tab):
    writer.gap(0, val_accuracy=float("inf"))
    writer.activity(0, "fc1", 0, [float("nan"), 0.5])
    writer.flush()
    tab = open_tab()
    assert tab.json("/run", run="a")["gap"]["columns"]["val_accuracy"] == [None]
    assert tab.json("/units", run="a", site="fc1")["activity"] == [[0.5], [None]]
    json.loads(tab.get("/overview").text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))


@pytest.mark.parametrize(
    ("route", "query", "code", "words"),
    [
        ("/run", {}, 400, "'run'"),
        ("/run", {"run": "b"}, 404, "No run named 'b'"),
        ("/units", {"run": "a"}, 400, "'site'"),
        ("/units", {"run": "a", "site": "x"}, 404, "Run 'a' has no site 'x'"),
    ],
)
def test_wrong_questions_are_answered_in_words(writer, open_tab, route, query, code, words):
    writer.activity(0, "fc1", 0, [1.0])
    writer.flush()
    response = open_tab().get(route, **query)
    assert (response.status_code, response.mimetype) == (code, "text/plain")
    assert words in response.text


@pytest.mark.parametrize("route", ["/overview", "/run", "/units", "/static/index.js"])
def test_only_get_and_head_are_answered(open_tab, route):
    client = open_tab().client
    for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS"):
        response = client.open("/data/plugin/training_health" + route, method=method)
        assert (response.status_code, response.headers["Allow"]) == (405, "GET, HEAD")
    assert client.head("/data/plugin/training_health/overview").data == b""


def test_each_static_file_is_served_as_what_it_is(open_tab):
    tab = open_tab()
    for name, path in static_files().items():
        response = tab.get(f"/static/{name}")
        assert response.status_code == 200
        assert response.mimetype == ("text/css" if name.endswith(".css") else "text/javascript")
        assert response.data == path.read_bytes()


def test_tensorboard_lists_the_tab_as_active_when_there_is_data(tmp_path, open_tab):
    tab = open_tab()
    assert tab.json("/overview")["runs"] == []
    assert tab.client.get("/data/plugins_listing").json["training_health"]["enabled"] is False
    with HealthLogWriter(tmp_path / "a") as log:
        log.activity(0, "fc1", 0, [1.0])
    listed = open_tab().client.get("/data/plugins_listing").json["training_health"]
    assert (listed["enabled"], listed["tab_name"]) == (True, "Training Health")
