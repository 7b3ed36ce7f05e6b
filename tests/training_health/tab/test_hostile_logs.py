"""Logs made up by hypothesis: whatever they hold, a page comes of it, in valid JSON."""

import json
from types import SimpleNamespace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from training_health.health.findings import find_all
from training_health.health.health_run import GAP_COLUMNS, read_run
from training_health.tab.payloads import overview_row, run_payload, units_payload

PARAMETERS = ["a.weight", "a.bias", "b.weight"]
KINDS = {
    "activity": {"site": "fc1", "index": 0, "units": 3, "positions": 1, "window": "validation", "rare_below": 0.01},
    "gap": {"columns": list(GAP_COLUMNS), "n_train": 5, "n_val": 5, "metrics": {"val_loss": "loss"}},
    "update_ratio": {"parameters": PARAMETERS},
    "nonfinite": {"parameters": PARAMETERS},
    "nonfinite_gradients": {"parameters": PARAMETERS},
    "cannot_die": {"sites": [{"site": "s", "activation": "gelu"}], "unwatched": []},
    "run": {},
    "result": {},
    "of the future": {},
}
INFO = ["advice", "limits", "variant", "seed", "max_epochs", "learning_rate", "test_accuracy", "status"]
nasty = st.sampled_from(
    [None, True, -1, 0, 2, 10**18, 10**400, 1.5, float("nan"), float("inf"), "", "\ud800", "<b>", [], ["w"], {}]
) | st.just({"learning_rate": 1, "val_loss": "{0.a}"})


@st.composite
def contents(draw, kind: str) -> bytes:
    content = {"version": 1, "kind": kind} | KINDS[kind]
    if draw(st.booleans()):
        content[draw(st.sampled_from(sorted(content)))] = draw(nasty)
    return draw(st.just(json.dumps(content).encode()) | st.binary(max_size=9))


@st.composite
def records(draw, kind: str) -> list[SimpleNamespace]:
    if kind in ("run", "result"):
        values = st.dictionaries(st.sampled_from(INFO), nasty) | nasty
        return [SimpleNamespace(step=0, wall_time=1.0, numpy=np.array(json.dumps(draw(values)).encode(), dtype=object))]
    width = len(GAP_COLUMNS) if kind == "gap" else 3
    rows = draw(
        st.lists(arrays(np.float32, width, elements=st.floats(0, 1, width=32) | st.floats(width=32)), max_size=5)
    )
    heads = [
        draw(st.just([epoch, 5]) | st.tuples(st.floats(width=32), st.floats(width=32))) for epoch in range(len(rows))
    ]
    steps = [draw(st.just(10 * epoch) | st.integers(-5, 60)) for epoch in range(len(rows))]
    return [
        SimpleNamespace(step=step, wall_time=draw(st.floats(0, 9)), numpy=np.array([*head, *row], dtype=np.float32))
        for step, head, row in zip(steps, heads, rows, strict=True)
    ]


@settings(deadline=None, max_examples=100)
@given(st.data())
def test_made_up_logs_become_pages(data):
    tags = data.draw(st.dictionaries(st.sampled_from("abcdef"), st.sampled_from(list(KINDS))))
    metadata = {tag: data.draw(contents(kind)) for tag, kind in tags.items()}
    logged = {tag: data.draw(records(kind)) for tag, kind in tags.items()}
    run = read_run("a", metadata, logged)
    pages = [overview_row(run, find_all(run), "", {}), run_payload(run)]
    pages += [units_payload(run, site) for site in run.sites]
    json.dumps(pages, allow_nan=False)
