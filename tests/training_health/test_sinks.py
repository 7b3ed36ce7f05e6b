"""Where the monitors' numbers go under each logger: the same numbers everywhere, on disk when the epoch is over."""

import json
import logging
import os
import sys
import time
from types import SimpleNamespace
from unittest.mock import MagicMock

import pytest
import torch
from lightning_utilities.core import rank_zero
from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader
from tensorboard.summary.writer import record_writer
from torch import nn

from tests.training_health.tab.test_one_file import data_in, unpacked
from tests.training_health.test_packages import python
from tests.training_health.toys import FEW_EXAMPLES, Toy, events, fit, loader, make_trainer, pl, vectors
from training_health import DeadReLUMonitor, TrainValGapMonitor, WeightHistogramMonitor
from training_health.sinks import EventFile, WandbSink, write_text
from training_health.tab.one_file import write_report
from training_health.tensor_statistics import TensorStatistics

pytestmark = FEW_EXAMPLES
loggers = pl.loggers


def monitors() -> list:
    return [DeadReLUMonitor(), WeightHistogramMonitor(), TrainValGapMonitor()]


def seeded_fit(folder, logger=False, callbacks=(), **options):
    pl.seed_everything(0)
    return fit(Toy(), [*callbacks, *(options.pop("monitors", None) or monitors())], folder, logger=logger, **options)


def files(folder) -> list[str]:
    return sorted(str(path.parent.relative_to(folder)) for path in folder.rglob("events.out.tfevents.*"))


def shown(folder, tmp_path) -> str:
    """What the report shows of the folder's one run, without its name."""
    write_report(folder, tmp_path / "report.html")
    data = data_in((tmp_path / "report.html").read_text())
    (row,) = data["overview"]["runs"]
    for times in ("revision", "written", "seconds_per_epoch"):
        row.pop(times)
    data["run"] = {name: json.loads(unpacked(text)) for name, text in data["run"].items()}
    data["units"] = {
        name: {site: (json.loads(unpacked(units)), activity) for site, (units, activity) in sites.items()}
        for name, sites in data["units"].items()
    }
    return json.dumps(data).replace(row["run"], "RUN")


def opened_files() -> list[str]:
    links = [f"/proc/self/fd/{number}" for number in os.listdir("/proc/self/fd")]
    return [os.readlink(link) for link in links if os.path.islink(link)]  # the listing's own is gone


def make_logger(kind, folder):
    if kind == "mlflow":
        pytest.importorskip("mlflow")
        return loggers.MLFlowLogger(save_dir=str(folder / "mlruns"))
    if kind == "wandb":
        pytest.importorskip("wandb.sdk")  # a folder `wandb` of logs can be imported too
        return loggers.WandbLogger(save_dir=folder, offline=True)
    return {"csv": loggers.CSVLogger, "tensorboard": loggers.TensorBoardLogger}[kind](folder)


@pytest.fixture(scope="module")
def expected(tmp_path_factory) -> str:
    """The report of a run under a `TensorBoardLogger`."""
    folder = tmp_path_factory.mktemp("tensorboard")
    seeded_fit(folder, make_logger("tensorboard", folder))
    return shown(folder, folder)


@pytest.mark.parametrize(
    "kinds",
    [
        [], ["csv"], ["csv", "tensorboard"], pytest.param(["mlflow"], marks=pytest.mark.slow),
        pytest.param(["wandb"], marks=pytest.mark.slow), pytest.param(["csv", "wandb"], marks=pytest.mark.slow),
    ],
    ids=lambda kinds: "+".join(kinds) or "none",
)  # fmt: skip
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:.*[Uu]nclosed:ResourceWarning")  # W&B's and MLflow's
def test_the_report_shows_the_same_under_every_logger(kinds, expected, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("WANDB_SILENT", "true")
    log = tmp_path / "log"
    found = [make_logger(kind, log) for kind in kinds]

    seeded_fit(log, found or False)

    assert len(files(log)) == 1
    assert shown(log, tmp_path) == expected
    if "wandb" in kinds:
        summary = found[-1].experiment.summary
        assert summary["dead_units"]["nrows"] == 2
        assert sum(summary["weights/net.7.bias"]["values"]) == 4
        found[-1].experiment.finish()


@pytest.mark.parametrize("options", [{}, {"check_val_every_n_epoch": 2, "epochs": 3}], ids=["each epoch", "every 2nd"])
def test_an_event_file_holds_every_scalar_histogram_and_record_that_tensorboard_gets(options, tmp_path):
    seeded_fit(tmp_path / "board", "tensorboard", **options)
    seeded_fit(tmp_path / "none", **options)

    board, none = (
        {(tag, step): value.SerializeToString() for tag, step, value in events(tmp_path / name) if tag != "epoch"}
        for name in ("board", "none")
    )
    assert none == board


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="asks Linux what is open")
@pytest.mark.parametrize("logger", ["tensorboard", False])
def test_what_an_epoch_recorded_can_be_read_before_the_next_and_no_file_stays_open(logger, tmp_path):
    def read(trainer, *_):
        found.append({tag.split("/")[0] for tag, _, _ in events(tmp_path)})

    found: list[set[str]] = []
    seeded_fit(tmp_path, logger, [pl.callbacks.LambdaCallback(on_train_epoch_start=read)])

    assert {"training_health", "weights", "gap", "val"} - found[1] <= ({"gap", "val"} if logger else set())
    assert not [path for path in opened_files() if str(tmp_path) in path]


def described(folder) -> list[list[bool]]:
    """For each event file, in the order of their names, of which gap records the metadata are there."""
    found = {path.name: events(path.parent, path.name) for path in folder.rglob("events.out.tfevents.*")}
    of_gaps = {name: [value for tag, _, value in read if tag == "training_health/gap"] for name, read in found.items()}
    return [[bool(v.metadata.plugin_data.content) for v in values] for _, values in sorted(of_gaps.items()) if values]


@pytest.mark.parametrize("logger", ["tensorboard", False])
def test_each_event_file_describes_a_tag_once(logger, tmp_path):
    trainer = seeded_fit(tmp_path, logger, epochs=2)
    if logger:
        trainer.logger.experiment.close()  # so that what comes next begins another file
    trainer.fit_loop.max_epochs = 4
    trainer.fit(Toy(), loader(23), loader(13, seed=1))

    assert described(tmp_path) == ([[True, False], [True, False]] if logger else [[True, False, False, False]])


def test_a_file_that_was_deleted_is_begun_again(tmp_path):
    file = EventFile(tmp_path)
    record = ("gap", "gap", [1, 0.5], {"columns": ["val_accuracy"]})
    file.records(0, 0, [record])
    (path,) = tmp_path.iterdir()
    path.unlink()
    file.records(1, 1, [record])
    file.records(2, 2, [record])

    assert described(tmp_path) == [[True, False]]


def test_what_follows_in_a_new_file_after_a_failed_write_is_described_again(tmp_path, monkeypatch):
    file = EventFile(tmp_path)
    record = ("gap", "gap", [1, 0.5], {"columns": ["val_accuracy"]})
    file.records(0, 0, [record])
    with monkeypatch.context() as patch:
        patch.setattr(type(tmp_path), "open", MagicMock(side_effect=OSError("disk full")))
        with pytest.raises(OSError, match="disk full"):
            file.records(1, 1, [record])
    file.records(2, 2, [record])
    file.records(3, 3, [record])

    assert described(tmp_path) == [[True], [True, False]]


def test_a_resumed_fit_records_in_the_same_folder_and_another_in_the_next(tmp_path):
    seeded_fit(tmp_path, epochs=1).save_checkpoint(tmp_path / "1.ckpt")
    resumed = make_trainer(monitors(), tmp_path, epochs=2)
    resumed.fit(Toy(), loader(23), loader(13, seed=1), ckpt_path=tmp_path / "1.ckpt")
    seeded_fit(tmp_path, epochs=1)

    runs = tmp_path / "training_health"
    assert files(runs) == ["version_0", "version_0", "version_1"]
    assert [vector[0] for _, vector in vectors(runs / "version_0", "gap")] == [0, 1]


def test_a_run_that_resumes_leaves_a_later_runs_folder_alone(tmp_path):
    seeded_fit(tmp_path, epochs=1).save_checkpoint(tmp_path / "1.ckpt")
    time.sleep(1.1)  # the names of event files have whole seconds
    seeded_fit(tmp_path, epochs=3)
    resumed = make_trainer(monitors(), tmp_path, epochs=2)
    resumed.fit(Toy(), loader(23), loader(13, seed=1), ckpt_path=tmp_path / "1.ckpt")
    os.utime(tmp_path / "1.ckpt", (0, 0))  # of another project, long before
    another = make_trainer(monitors(), tmp_path, epochs=2)
    another.fit(Toy(), loader(23), loader(13, seed=1), ckpt_path=tmp_path / "1.ckpt")

    runs = tmp_path / "training_health"
    assert files(runs) == ["version_0", "version_0", "version_1", "version_2"]
    assert [vector[0] for _, vector in vectors(runs / "version_1", "gap")] == [0, 1, 2]


def test_one_line_says_where_the_records_are(tmp_path, caplog):
    with caplog.at_level(logging.INFO, logger=rank_zero.log.name):  # Lightning's, whichever package's it is
        seeded_fit(tmp_path)

    (line,) = [record.getMessage() for record in caplog.records if "The monitors write" in record.getMessage()]
    assert str(tmp_path / "training_health" / "version_0") in line
    assert "tensorboard --logdir" in line


@pytest.mark.filterwarnings("ignore:You are trying to `self.log")
def test_a_barebones_trainer_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pl.Trainer(barebones=True, max_epochs=1, accelerator="cpu", devices=1, callbacks=monitors()).fit(
        Toy(), loader(23), loader(13, seed=1)
    )

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("off", [0, 1, 2])
def test_no_record_is_written_where_one_monitor_forbids_it(off, tmp_path):
    kinds = [DeadReLUMonitor, WeightHistogramMonitor, TrainValGapMonitor]

    seeded_fit(tmp_path, monitors=[kind(event_file=index != off) for index, kind in enumerate(kinds)])

    assert list(tmp_path.iterdir()) == []


def test_without_tensorboards_package_one_line_names_what_to_install_for_records(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard", None)

    with pytest.warns(UserWarning, match="pip install tensorboard") as caught:
        trainer = seeded_fit(tmp_path)

    assert len([warning for warning in caught if "pip install" in str(warning.message)]) == 1
    assert "dead_relu/total" in trainer.callback_metrics
    assert list(tmp_path.iterdir()) == []


def test_records_that_cannot_be_written_end_no_run_and_are_told_once(tmp_path):
    (tmp_path / "training_health").write_text("in the way")

    with pytest.warns(UserWarning, match="nowhere to go") as caught:
        trainer = seeded_fit(tmp_path)

    assert trainer.state.finished
    assert len([warning for warning in caught if "nowhere" in str(warning.message)]) == 1


def test_records_of_a_run_with_a_remote_folder_stay_here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    seeded_fit("memory://away")

    assert files(tmp_path) == ["training_health/version_0"]


def test_a_writer_that_takes_no_records_leaves_them_to_an_event_file(tmp_path):
    class Renamed(loggers.TensorBoardLogger):
        experiment = MagicMock(spec=["add_scalar", "add_scalars", "add_histogram_raw", "flush", "close"])

    trainer = seeded_fit(tmp_path, Renamed(tmp_path, name=None, version="run"))
    write_text(trainer, "run", {"variant": "mine"})

    assert Renamed.experiment.add_histogram_raw.called
    assert {"training_health/gap", "training_health/run"} <= {tag for tag, _, _ in events(tmp_path / "run")}


def test_wandb_gets_histograms_and_a_table_of_the_records_of_dead_units():
    pytest.importorskip("wandb.sdk")  # a folder `wandb` of logs can be imported too
    logged: dict = {}
    sink = WandbSink(SimpleNamespace(log_metrics=lambda values, step: logged.update(values)))

    sink.histograms(3, {"weights/w": TensorStatistics(0, 4, 6, 9, 19, [1.0, 2.0, 3.0, 4.0], [1, 2, 0, 3])})
    sink.histograms(3, {"wide": TensorStatistics(0, 600, 600, 0, 0, [float(i + 1) for i in range(600)], [1] * 600)})
    content = {"site": "conv1", "rare_below": 0.01}
    sink.records(3, 0, [("activity/conv1", "activity", [13, 0.0, 0.5, 0.001, float("nan"), 0.0], content)])

    assert logged["weights/w"].histogram == [1, 2, 0, 3]
    assert logged["weights/w"].bins == [0.0, 1.0, 2.0, 3.0, 4.0]
    assert (len(logged["wide"].histogram), sum(logged["wide"].histogram)) == (300, 600)
    assert (logged["wide"].bins[0], logged["wide"].bins[-1]) == (0.0, 600.0)
    assert logged["dead_units"].data == [["conv1", 5, 2, 1, 1, "0, 4"]]


@pytest.mark.slow
def test_of_two_processes_the_first_alone_writes_records(tmp_path):
    done = python(
        "from tests.training_health.test_sinks import *; "
        "strategy = pl.strategies.DDPStrategy(start_method='fork', process_group_backend='gloo'); "
        f"seeded_fit({str(tmp_path)!r}, devices=2, strategy=strategy)",
        LIGHTNING=pl.__name__,
    )

    assert done.returncode == 0, done.stderr[-3000:]
    assert files(tmp_path) == ["training_health/version_0"]
    assert len(vectors(tmp_path, "gap")) == 2


def test_event_files_of_one_second_are_named_in_the_order_in_which_they_were_made(tmp_path, monkeypatch):
    monkeypatch.setattr("time.time", lambda: 1_700_000_000.0)
    made = []
    for _ in range(11):
        EventFile(tmp_path).scalars(0, {"a": 1.0})
        made += [path.name for path in tmp_path.iterdir() if path.name not in made]

    assert made == sorted(made)
    assert [len(name.rpartition(".")[2]) for name in made] == [6] * 11


def test_the_values_of_many_sites_can_stop_a_run_early_and_are_logged(tmp_path):
    layers = [layer for _ in range(20) for layer in (nn.Linear(8, 8), nn.ReLU())]  # 60 values of single sites
    net = nn.Sequential(nn.Flatten(), nn.Linear(36, 8), *layers, nn.Linear(8, 4))
    with torch.no_grad():
        net[2].bias.fill_(-100)  # all units of the first site
    stopping = pl.callbacks.EarlyStopping("dead_relu/net.3", stopping_threshold=0.5, mode="max")

    trainer = fit(Toy(net), [DeadReLUMonitor(), stopping], tmp_path, logger="tensorboard", epochs=4)

    assert trainer.current_epoch == 1
    assert trainer.callback_metrics["dead_relu/net.3"].item() == 1
    logged = [value for tag, _, value in events(tmp_path) if tag == "dead_relu/net.3"]
    assert [value.tensor.float_val[0] for value in logged] == [1.0]


def many_sites(folder, logger):
    """A fit of a network with so many sites that their values go past Lightning."""
    pl.seed_everything(0)
    layers = [layer for _ in range(20) for layer in (nn.Linear(8, 8), nn.ReLU())]  # 60 values of single sites
    fit(
        Toy(nn.Sequential(nn.Flatten(), nn.Linear(36, 8), *layers, nn.Linear(8, 4))),
        [DeadReLUMonitor()],
        folder,
        logger=logger,
    )


def scalars(folder) -> list[tuple[str, int, float]]:
    return sorted((tag, step, v.tensor.float_val[0]) for tag, step, v in events(folder) if v.tensor.float_val)


def values_of_an_event(folder) -> list[int]:
    """How many scalars each event with any holds."""
    (path,) = folder.rglob("events.out.tfevents.*")
    counts = [sum(v.HasField("simple_value") for v in e.summary.value) for e in LegacyEventFileLoader(str(path)).Load()]
    return [count for count in counts if count]


class OneByOne(loggers.TensorBoardLogger):
    """A user's own, which writes as Lightning's does."""

    def log_metrics(self, metrics, step=None):
        super().log_metrics(metrics, step)


def test_the_values_of_many_sites_are_those_that_the_logger_would_write(tmp_path):
    many_sites(tmp_path / "together", loggers.TensorBoardLogger(tmp_path / "together"))
    many_sites(tmp_path / "one by one", OneByOne(tmp_path / "one by one"))

    assert scalars(tmp_path / "together") == scalars(tmp_path / "one by one")
    assert max(values_of_an_event(tmp_path / "together")) > 50
    assert max(values_of_an_event(tmp_path / "one by one")) == 1
    assert len(scalars(tmp_path / "together")) > 120


def test_a_logger_with_a_prefix_puts_it_before_the_values_of_many_sites(tmp_path):
    many_sites(tmp_path, loggers.TensorBoardLogger(tmp_path, prefix="mine"))

    sites = {tag for tag, _, _ in scalars(tmp_path) if "dead_relu/net." in tag}
    assert len(sites) == 20
    assert all(tag.startswith("mine-dead_relu/") for tag in sites)


def test_a_writer_that_does_more_with_a_value_gets_those_of_many_sites(tmp_path):
    logger, seen = loggers.TensorBoardLogger(tmp_path), []
    write = logger.experiment.add_scalar
    logger.experiment.add_scalar = lambda tag, value, step=None: (seen.append(tag), write(tag, value, step))
    many_sites(tmp_path, logger)

    assert {tag for tag, _, _ in scalars(tmp_path)} == set(seen)
    assert len([tag for tag in set(seen) if tag.startswith("dead_relu/net.")]) == 20


@pytest.mark.parametrize("tensorboard", [True, False])
def test_what_the_monitors_write_needs_no_checksum_of_tensorboards(tensorboard, tmp_path, monkeypatch):
    sizes, own = [], record_writer.masked_crc32c
    monkeypatch.setattr(record_writer, "masked_crc32c", lambda data: sizes.append(len(data)) or own(data))

    seeded_fit(tmp_path, loggers.TensorBoardLogger(tmp_path) if tensorboard else False, epochs=1)

    assert max(value.ByteSize() for _, _, value in events(tmp_path)) > 512
    assert max(sizes, default=0) < 512
