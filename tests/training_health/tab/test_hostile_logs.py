"""Logs made up by a seeded generator: whatever they hold, a page comes of it, in valid JSON."""

import json
import random
from types import SimpleNamespace

import numpy as np
import pytest

from training_health.health.findings import find_all
from training_health.health.health_run import GAP_COLUMNS, read_run
from training_health.tab.payloads import overview_row, run_payload, units_payload

NASTY = [None, True, -1, 0, 1, 2, 3, 10**18, 1.5, float("nan"), float("inf"), "", "x", "\ud800", "<b>", [], ["w"], {}]
NUMBERS = [0.0, -0.0, 1.0, 0.5, 1e-12, 1e-45, 3e38, -1.0, np.nan, np.inf, -np.inf]
KINDS = {
    "activity": {"site": "fc1", "index": 0, "units": 3, "positions": 1, "window": "validation", "rare_below": 0.01},
    "gap": {"columns": list(GAP_COLUMNS), "n_train": 5, "n_val": 5},
    "update_ratio": {"parameters": ["a.weight", "a.bias", "b.weight"]},
    "nonfinite": {"parameters": ["a.weight", "a.bias", "b.weight"]},
    "nonfinite_gradients": {"parameters": ["a.weight", "a.bias", "b.weight"]},
    "cannot_die": {"sites": [{"site": "s", "activation": "gelu"}], "unwatched": []},
    "run": {},
    "result": {},
    "of the future": {},
}


def made_up_content(rng: random.Random, kind: str) -> bytes:
    content = {"version": 1, "kind": kind} | KINDS[kind]
    if rng.random() < 0.5:
        content[rng.choice(list(content))] = rng.choice(NASTY)
    return json.dumps(content).encode() if rng.random() < 0.97 else rng.randbytes(9)


def made_up_records(rng: random.Random, kind: str) -> list[SimpleNamespace]:
    records = []
    for epoch in range(rng.randrange(6)):
        step = epoch * 10 if rng.random() < 0.9 else rng.randrange(-5, 60)
        if kind in ("run", "result") or rng.random() < 0.03:
            value = {"variant": rng.choice(NASTY), "seed": rng.choice(NASTY), "max_epochs": rng.choice(NASTY)}
            array = np.array(json.dumps(rng.choice([value, rng.choice(NASTY)])).encode(), dtype=object)
        else:
            width = {"gap": 11, "cannot_die": 0}.get(kind, 3) + (rng.random() < 0.05)
            head = [epoch, 5] if rng.random() < 0.95 else [rng.choice(NUMBERS), rng.choice(NUMBERS)]
            array = np.array([*head, *(rng.choice(NUMBERS) for _ in range(width))], dtype=np.float32)
        records.append(SimpleNamespace(step=step, numpy=array))
    return records


@pytest.mark.parametrize("seed", range(20))
def test_a_hundred_made_up_logs_become_pages(seed):
    rng = random.Random(seed)
    for _ in range(100):
        tags = {f"{rng.choice('abc')}/{kind}": kind for kind in rng.choices(list(KINDS), k=rng.randrange(1, 8))}
        contents = {tag: made_up_content(rng, kind) for tag, kind in tags.items()}
        data = {tag: made_up_records(rng, kind) for tag, kind in tags.items() if rng.random() < 0.95}
        run = read_run("a", contents, data)
        pages = [overview_row(run, find_all(run), "", {}), run_payload(run)]
        pages += [units_payload(run, site) for site in run.sites]
        json.dumps(pages, allow_nan=False)
