"""What a worker answers."""

import io
import json
import subprocess
import sys

import pytest

from fmnist_pl.search.workers import trial_run
from fmnist_pl.search.workers.job import TrialJob, decode_job, encode
from fmnist_pl.search.workers.worker import Conversation, outcome
from training_health.errors import UserError

JOB = TrialJob(3, "trial.yaml", "search", 2, 0, ("--monitors=off",))


def conversation(*answers):
    return Conversation(io.BytesIO(b"".join(encode(answer) for answer in answers)), io.BytesIO())


def test_a_job_survives_the_way():
    assert decode_job(encode(JOB)) == JOB


def test_an_epoch_is_reported_and_the_answer_obeyed():
    talk = conversation({"prune": False}, {"prune": True})

    assert [talk.is_hopeless(0, 0.5), talk.is_hopeless(1, 0.4)] == [False, True]
    assert json.loads(talk.says.getvalue().splitlines()[1]) == {"kind": "epoch", "epoch": 1, "accuracy": 0.4}


def test_where_nobody_answers_it_ends():
    with pytest.raises(SystemExit):
        conversation().is_hopeless(0, 0.5)


def test_a_users_mistake_is_mendable(monkeypatch):
    def refuse(job, is_hopeless):
        raise UserError("There is no data.")

    monkeypatch.setattr(trial_run, "run_trial", refuse)

    assert outcome(JOB, conversation()) == {"kind": "error", "reason": "There is no data.", "mendable": True}


def test_after_anything_else_the_process_ends(monkeypatch, capsys):
    def fail(job, is_hopeless):
        raise MemoryError("CUDA out of\n memory")

    monkeypatch.setattr(trial_run, "run_trial", fail)
    talk = conversation()

    with pytest.raises(SystemExit):
        outcome(JOB, talk)

    said = json.loads(talk.says.getvalue())
    assert said == {"kind": "error", "reason": "MemoryError: CUDA out of memory", "mendable": False}
    assert "Traceback" in capsys.readouterr().err


def test_a_worker_whose_search_is_gone_ends():
    command = [sys.executable, "-m", "fmnist_pl.search.workers.worker"]

    assert subprocess.run(command, input=b"", capture_output=True, timeout=60).returncode == 0
