"""Counting a plain model's dead units, once, without a Trainer."""

import random
import subprocess
import sys
from collections import UserDict
from collections.abc import Iterator, Mapping, MutableMapping
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_sequence
from torch.utils.data import DataLoader

from tests.training_health.toys import dense_network, dropout_network, fingerprint, image_set, vectors
from training_health import inspect
from training_health.errors import UserError
from training_health.inspection import to_device


def planted() -> nn.Module:
    net = dense_network()
    with torch.no_grad():
        net[1].bias[:3] = -1000
    return net


IMAGES = torch.randn(13, 1, 6, 6)


@pytest.mark.parametrize(
    ("batches", "options"),
    [
        ([IMAGES[:8], IMAGES[8:]], {}),
        (DataLoader(image_set(13), batch_size=5), {}),  # images and labels
        ([{"input": IMAGES}], {}),
        (iter([[list(IMAGES)]]), {"forward": lambda net, batch: net(torch.stack(batch[0])), "count": lambda batch: 13}),
    ],
)
def test_dead_units_are_counted_over_any_batches(batches, options):
    found = inspect(planted(), batches, **options)

    counts = found.to_dict()
    assert (counts["n"], counts["units"], counts["dead"]) == (13, 8, 3)
    assert counts["sites"]["relu.2"]["dead_units"] == [0, 1, 2]
    assert "37.5 % of the network is dead (3 of 8 units, on 13 examples)" in str(found)
    assert [line.split()[:3] for line in str(found).splitlines()[1:]] == [
        ["site", "units", "dead"],
        ["relu.2", "8", "3"],
    ]


def test_a_loader_is_asked_how_many_examples_there_are():
    time_first = DataLoader(torch.randn(13, 7, 4), batch_size=5, collate_fn=lambda rows: torch.stack(rows, 1))

    assert inspect(nn.Sequential(nn.Linear(4, 6), nn.ReLU()), time_first).to_dict()["n"] == 13


class Fickle(nn.Module):
    """Draws random numbers, changes buffers and fails on request."""

    def __init__(self) -> None:
        super().__init__()
        self.net = dropout_network()
        self.register_buffer("calls", torch.zeros(()))
        self.register_buffer("sums", torch.zeros(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls = self.calls + 1
        self.sums += torch.rand(()) + random.random() + np.random.rand()
        if len(x) == 1:
            raise RuntimeError("planted")
        return self.net(x)


@pytest.mark.parametrize("fails", [False, True])
def test_model_and_random_state_are_as_before_also_after_an_exception(fails):
    def state():
        modes = [module.training for module in net.modules()]
        return (
            fingerprint(net),
            modes,
            torch.get_rng_state().tolist(),
            random.getstate(),
            np.random.get_state()[1].tolist(),
        )

    net = Fickle()
    net.net[1].eval()
    before, buffer = state(), net.calls
    if fails:
        with pytest.raises(RuntimeError, match="planted"):
            inspect(net, [IMAGES, IMAGES[:1]])
    else:
        inspect(net, [IMAGES])

    assert state() == before
    assert net.calls is buffer
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in net.modules())


def made_in_inference_mode() -> torch.Tensor:
    with torch.inference_mode():
        return torch.ones(4)


@pytest.mark.parametrize(
    "buffer",
    [torch.arange(4.0)[None].expand(3, 4), torch.eye(4).to_sparse(), made_in_inference_mode()],
    ids=["expanded", "sparse", "inference"],
)
def test_buffers_of_any_layout_are_put_back(buffer):
    class Growing(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("odd", buffer)

        def forward(self, x):
            self.odd = self.odd + 1 if self.odd.layout == torch.strided else self.odd * 2
            return F.relu(x)

    net, before = Growing(), buffer.to_dense().tolist()

    assert inspect(net, [torch.ones(5, 4)]).to_dict()["n"] == 5
    assert net.odd is buffer
    assert buffer.to_dense().tolist() == before


@pytest.mark.filterwarnings("ignore:Lazy modules are a new feature")
def test_a_lazy_normalisation_is_counted_on_its_first_batch():
    net = nn.Sequential(nn.LazyLinear(8), nn.LazyBatchNorm1d(), nn.ReLU())

    assert inspect(net, [torch.randn(5, 4)]).to_dict()["units"] == 8


class Frozen(Mapping):
    """Lets nobody write into it."""

    def __init__(self, values: dict) -> None:
        self._values = values

    def __getitem__(self, key: str) -> torch.Tensor:
        return self._values[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)


class Open(Frozen, MutableMapping):
    """Its copy shares what it holds."""

    def __setitem__(self, key: str, value: torch.Tensor) -> None:
        self._values[key] = value

    def __delitem__(self, key: str) -> None:
        del self._values[key]


@pytest.mark.parametrize("kind", [dict, UserDict, Frozen, Open])
def test_the_users_own_batch_stays_as_it_is(kind):
    values = torch.zeros(3)
    batch = kind({"input": values})

    moved = to_device(batch, torch.device("meta"))

    assert moved["input"].device.type == "meta"
    assert batch["input"] is values


class Pair(NamedTuple):
    images: torch.Tensor
    labels: torch.Tensor


@pytest.mark.parametrize(
    ("batch", "forward"),
    [
        (Pair(IMAGES, torch.zeros(13)), lambda net, batch: net(batch.images)),
        ((IMAGES, None), lambda net, batch: net(batch[0]) if isinstance(batch, tuple) else None),
        (UserDict(images=IMAGES), lambda net, batch: net(batch.data["images"])),
        (pack_sequence([IMAGES[:3], IMAGES[:2]]), lambda net, batch: net(batch.data)),
    ],
    ids=["namedtuple", "tuple", "mapping", "packed"],
)
def test_a_batch_keeps_its_type(batch, forward):
    assert inspect(planted(), [batch], forward=forward).to_dict()["units"] == 8


def test_the_event_file_holds_what_the_tab_reads(tmp_path):
    inspect(planted(), [IMAGES]).write(tmp_path)

    ((step, row),) = vectors(tmp_path, "activity/relu.2")
    assert (step, row[:5]) == (0, [0, 13, 0, 0, 0])
    assert len(vectors(tmp_path, "cannot_die")) == 1


def test_an_unknown_number_of_examples_and_a_guessed_dimension_are_said():
    found = inspect(nn.Sequential(nn.ReLU()), [torch.randn(4, 3, 7)], count=lambda batch: None)

    assert found.to_dict()["n"] is None
    assert "on an unknown number of examples" in str(found)
    assert "unit_dims): 0: 1" in str(found)
    assert inspect(nn.Sequential(nn.ReLU()), [torch.randn(4, 3, 7)], unit_dims={"0": 2}).to_dict()["units"] == 7


@pytest.mark.parametrize(
    ("batches", "options", "message"),
    [
        ([], {}, "There is no example to look at"),
        ([IMAGES], {"rare_below": 2}, "`rare_below` is a fraction above 0 and up to 1, not 2"),
        ([IMAGES], {"unit_dims": {"nomatch": 1}}, "`unit_dims` has 'nomatch', which matches no ReLU site: name one of"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(batches, options, message):
    with pytest.raises(UserError, match=message):
        inspect(planted(), batches, **options)


@pytest.mark.slow
def test_neither_lightning_nor_tensorboard_is_imported():
    code = (
        "import sys, torch; from training_health import inspect; inspect(torch.nn.ReLU(), [torch.ones(2, 3)]); "
        "print({'lightning', 'pytorch_lightning', 'torchmetrics', 'tensorboard'} & set(sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"
