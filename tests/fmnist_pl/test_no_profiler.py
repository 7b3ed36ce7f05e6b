"""The profiler that is no profiler."""

from pytorch_lightning.profilers import PassThroughProfiler

from fmnist_pl.runs.no_profiler import NoProfiler


def test_it_is_one_context_for_every_action_and_may_be_nested():
    profiler = NoProfiler()
    entered = []

    with profiler.profile("a"), profiler.profile("b"):
        entered.append(True)

    assert entered == [True]
    assert profiler.profile("a") is profiler.profile("b")


def test_lightning_takes_it_for_no_profiler():
    assert isinstance(NoProfiler(), PassThroughProfiler)
