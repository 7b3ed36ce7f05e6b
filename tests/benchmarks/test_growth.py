"""What grows: the networks of each axis have the size that they say, and a picture is drawn of what was measured."""

import json

import pytest

from benchmarks.curves import draw, main
from benchmarks.interleave import summary
from benchmarks.results_table import Curve, Report
from benchmarks.subjects.foreign_networks import network
from benchmarks.workshop import Workshop

POINTS = [(3, summary("", [0.04, 0.05, 0.06])), (30, summary("", [0.1, 0.2, 0.3]))]


@pytest.mark.parametrize("millions", ["0.4", "1", "5", "25"])
def test_a_network_of_so_many_million_parameters_has_them(millions):
    net = network(f"{millions} million parameters")

    assert sum(p.numel() for p in net.parameters()) == pytest.approx(1e6 * float(millions), rel=0.005)


def test_a_network_of_so_many_sites_has_them():
    assert sum(type(module).__name__ == "ReLU" for module in network("30 ReLU sites").modules()) == 30


def test_only_the_parts_that_were_asked_for_are_measured(tmp_path):
    workshop = Workshop(tmp_path, 1, "cpu", None, tmp_path)
    assert workshop.parts({"a": 1, "b": 2}) == {"a": 1, "b": 2}

    workshop.only = ["b"]
    assert workshop.parts({"a": 1, "b": 2}) == {"b": 2}


def write(path, axis, points=POINTS):
    report = Report({})
    report.curves[axis] = [Curve("all monitors add", points), Curve("null", points)]
    report.write(path)


def test_the_picture_has_a_panel_for_each_axis_that_was_measured(tmp_path, monkeypatch):
    write(tmp_path / "growth_sites.json", "ReLU sites")
    write(tmp_path / "growth_width.json", "width")
    write(tmp_path / "foreign.json", "not of growth")
    drawn = {}
    monkeypatch.setattr("benchmarks.curves.draw", lambda axes, path: drawn.update(axes))

    main([f"--results={tmp_path}"])

    assert set(drawn) == {"ReLU sites", "width"}
    assert [curve["name"] for curve in drawn["width"]] == ["all monitors add", "null"]
    assert drawn["width"][0]["points"][0][1]["median"] == 0.05


def test_a_picture_is_written(tmp_path):
    write(tmp_path / "growth.json", "ReLU sites")

    draw(json.loads((tmp_path / "growth.json").read_text())["curves"], tmp_path / "new/growth.png")

    assert (tmp_path / "new/growth.png").read_bytes().startswith(b"\x89PNG")


def test_nothing_measured_is_said(tmp_path):
    with pytest.raises(SystemExit, match=r"has no growth\*\.json: `python -m benchmarks growth` writes it"):
        main([f"--results={tmp_path}"])
