"""The monitors in other people's projects: two epochs of tiny random data, compared with a count without them."""

from __future__ import annotations

from importlib import import_module

import darts
import lightning.pytorch
import monai.networks.nets
import numpy as np
import pandas as pd
import pytest
import pytorch_forecasting
import scvi
import segmentation_models_pytorch
import timm
import torch
import torch.nn.functional as F
import torch_geometric.nn
import torchvision.models
import transformers
from anndata import AnnData
from darts import models as darts_models
from torch import nn
from torch.utils.data import TensorDataset
from torch_geometric.data import Data
from torch_geometric.loader import DataLoader  # torch's own for anything but graphs

from tests.foreign.harness import EPOCHS, QUIET, Truth

# ---- networks without a trainer of their own: one module around each, in both packages


def task(package, net, measure):
    """A module of ``package`` around ``net``; ``measure(net, batch)`` gives the loss, or loss and accuracy."""

    class Task(package.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = net

        def training_step(self, batch):
            return self.measure(batch, "train")

        def validation_step(self, batch):
            self.measure(batch, "val")

        def measure(self, batch, side):
            values = measure(self.net, batch)
            logged = dict(zip((f"{side}/loss", f"{side}/accuracy"), values, strict=False))
            self.log_dict(logged, on_epoch=True, batch_size=getattr(batch, "num_graphs", None))
            return values[0]

        def configure_optimizers(self):
            return torch.optim.Adam(self.parameters(), lr=1e-3)

    return Task()


def classify(net, batch, chosen=slice(None)):
    inputs, labels = batch if isinstance(batch, list) else (batch, batch.y)
    logits, labels = net(inputs)[chosen], labels[chosen]
    return F.cross_entropy(logits, labels), (logits.argmax(1) == labels).float().mean()


def classify_nodes(net, batch):
    return classify(net, batch, chosen=batch.train if net.training else ~batch.train)


def images(*shape, labels=(), count=32):
    return TensorDataset(torch.randn(count, *shape), torch.randint(4, (count, *labels)))


def texts():
    return [{"input_ids": row, "labels": row} for row in torch.randint(3, 40, (32, 9))]


def ring(nodes, **values):
    around = torch.arange(nodes)
    return Data(x=torch.randn(nodes, 5), edge_index=torch.stack([around, around.roll(1)]), **values)


class GraphNetwork(nn.Module):
    def __init__(self, readout=lambda nodes, batch: nodes):
        super().__init__()
        self.first, self.second = torch_geometric.nn.GCNConv(5, 16), torch_geometric.nn.GCNConv(16, 16)
        self.out, self.readout = nn.Linear(16, 4), readout

    def forward(self, data):
        nodes = F.relu(self.first(data.x, data.edge_index))
        nodes = F.relu(self.second(nodes, data.edge_index))
        return F.relu(self.out(self.readout(nodes, data.batch)))


class Compiled(nn.Module):
    """A compiled child and a compiled function; what hides their calls is the capture, whatever code is made of it."""

    def __init__(self):
        super().__init__()
        self.hidden, self.out = nn.Linear(8 * 16, 32), nn.Linear(32, 4)
        parts = nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(inplace=True)
        self.child = torch.compile(nn.Sequential(*parts), backend="aot_eager")
        self.function = torch.compile(lambda inputs: F.relu(self.hidden(inputs)), backend="aot_eager")

    def forward(self, inputs):
        return self.out(self.function(self.child(inputs).flatten(1)))


def language_loss(net, batch):
    return [net(**batch).loss]


OPT = dict(
    vocab_size=40, hidden_size=16, word_embed_proj_dim=16, ffn_dim=32, num_hidden_layers=2, num_attention_heads=2
)
T5 = dict(vocab_size=40, d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2, decoder_start_token_id=0)
MONAI = dict(channels=(4, 8, 16), strides=(2, 2), num_res_units=2, act="relu", norm="batch")

# project: the network, its data, what it measures, what is true
NETWORKS = {
    "timm resnet10t": (
        lambda: timm.create_model("resnet10t", num_classes=4),
        lambda: images(3, 32, 32), classify, Truth(11, 1, 32, accuracy="val/accuracy"),
    ),
    "torchvision ResNet-18": (
        lambda: torchvision.models.resnet18(num_classes=4),
        lambda: images(3, 32, 32), classify, Truth(17, 1, 32, accuracy="val/accuracy"),
    ),
    "torchvision Swin": (
        lambda: torchvision.models.SwinTransformer([4, 4], 24, [1, 1], [2, 2], [4, 4], num_classes=4),
        lambda: images(3, 32, 32), classify, Truth(0, -1, 32, accuracy="val/accuracy"),
    ),
    "torch.compile": (Compiled, lambda: images(3, 8, 8), classify, Truth(3, 1, 32, accuracy="val/accuracy")),
    "smp Unet": (
        lambda: segmentation_models_pytorch.Unet("resnet18", encoder_weights=None, classes=4),
        lambda: images(3, 32, 32, labels=(32, 32)), classify, Truth(27, 1, 32, accuracy="val/accuracy"),
    ),
    "MONAI UNet 3-D": (
        lambda: monai.networks.nets.UNet(3, 1, 4, **MONAI),
        lambda: images(1, 16, 16, 16, labels=(16, 16, 16), count=8), classify, Truth(9, 1, 8, accuracy="val/accuracy"),
    ),
    "PyG graphs": (
        lambda: GraphNetwork(torch_geometric.nn.global_mean_pool),
        lambda: [ring(3 + i % 5, y=torch.randint(4, (1,))) for i in range(32)],
        classify, Truth(3, -1, 32, accuracy="val/accuracy"),
    ),
    "PyG full graph": (
        GraphNetwork,
        lambda: [ring(60, y=torch.randint(4, (60,)), train=torch.arange(60) < 30)],
        classify_nodes, Truth(3, -1, 1, no_gap="the same examples"),
    ),
    "transformers OPT": (
        lambda: transformers.OPTForCausalLM(transformers.OPTConfig(**OPT)), texts, language_loss, Truth(2, -1, 32),
    ),
    "transformers T5": (
        lambda: transformers.T5ForConditionalGeneration(transformers.T5Config(**T5)),
        texts, language_loss, Truth(4, -1, 32),
    ),
}  # fmt: skip


@pytest.mark.parametrize("package", ["lightning.pytorch", "pytorch_lightning"])
@pytest.mark.parametrize("name", NETWORKS)
def test_network(name, package, check):
    network, data, measure, truth = NETWORKS[name]
    torch.manual_seed(0)
    pl, train, val = import_module(package), data(), data()

    def fit(callbacks, folder):
        logger = (
            pl.loggers.CSVLogger(folder) if package == "pytorch_lightning" else pl.loggers.TensorBoardLogger(folder)
        )
        size = max(1, truth.examples // 2)
        loaders = DataLoader(train, size, shuffle=True), DataLoader(train if truth.no_gap else val, size)
        trainer = pl.Trainer(max_epochs=EPOCHS, callbacks=callbacks, logger=logger, default_root_dir=folder, **QUIET)
        trainer.fit(task(pl, network(), measure), *loaders)

    check(name, truth, fit)


# ---- projects that bring the module, or the trainer, or both; 88 steps in time are 64 examples of 25


def walk(length=200):
    return pd.DataFrame({"value": np.random.default_rng(0).normal(size=length).cumsum().astype("float32")})


TRANSFORMER = dict(d_model=8, nhead=2, num_encoder_layers=2, num_decoder_layers=2, dim_feedforward=16)
DARTS = {
    "NBEATS": (dict(num_stacks=1, num_blocks=1, num_layers=4, layer_widths=16), 4, -1),
    "TCN": (dict(num_layers=2, num_filters=4), 3, 1),
    "Transformer": (TRANSFORMER, 12, -1),  # two layers encode, two decode five steps
    "BlockRNN": (dict(hidden_dim=8, hidden_fc_sizes=[8]), 1, -1),
}


@pytest.mark.parametrize("name", DARTS)
def test_darts(name, check):
    options, sites, unit_dim = DARTS[name]
    series = darts.TimeSeries.from_dataframe(walk())

    def fit(callbacks, folder):
        quiet = {"pl_trainer_kwargs": {**QUIET, "callbacks": callbacks, "default_root_dir": folder}, "work_dir": folder}
        make = getattr(darts_models, f"{name}Model")
        model = make(20, output_chunk_length=5, n_epochs=EPOCHS, random_state=0, **options, **quiet)
        model.fit(series[:88], val_series=series[100:188], verbose=False)

    check(f"darts {name}", Truth(sites, unit_dim, 64, "val_loss"), fit, train_loss_key="train_loss")


@pytest.mark.parametrize(("name", "options", "sites"), [("NBeats", {"widths": [8, 16]}, 18), ("NHiTS", {}, 6)])
def test_pytorch_forecasting(name, options, sites, check):
    table, columns = walk().assign(time=range(200), group="one"), {"time_idx": "time", "group_ids": ["group"]}
    columns |= {"target": "value", "time_varying_unknown_reals": ["value"]}
    lengths = {"max_encoder_length": 20, "max_prediction_length": 5, "min_encoder_length": 20}
    train = pytorch_forecasting.TimeSeriesDataSet(table[:88], **columns, **lengths, min_prediction_length=5)
    val = pytorch_forecasting.TimeSeriesDataSet.from_dataset(train, table[100:188])

    def fit(callbacks, folder):
        model = getattr(pytorch_forecasting, name).from_dataset(train, learning_rate=1e-3, log_interval=-1, **options)
        trainer = lightning.pytorch.Trainer(max_epochs=EPOCHS, callbacks=callbacks, default_root_dir=folder, **QUIET)
        trainer.fit(model, train.to_dataloader(True, 32), val.to_dataloader(False, 32))

    check(f"pytorch-forecasting {name}", Truth(sites, -1, 64, "val_loss"), fit, train_loss_key="train_loss")


def test_scvi(check):
    cells = AnnData(np.random.default_rng(0).poisson(2, (128, 20)).astype("float32"))
    scvi.model.SCVI.setup_anndata(cells)

    def fit(callbacks, folder):
        scvi.settings.seed = 0  # or each model draws another split
        model = scvi.model.SCVI(cells, n_hidden=16, n_layers=2)
        halves = {"train_size": 0.5, "validation_size": 0.5, "batch_size": 32, "check_val_every_n_epoch": 1}
        constant = {"plan_kwargs": {"n_epochs_kl_warmup": None}}  # the loss's weights
        model.train(EPOCHS, callbacks=callbacks, default_root_dir=folder, **halves, **constant, **QUIET)

    check("scvi-tools", Truth(4, -1, 64, "validation_loss", random=True), fit, train_loss_key="train_loss")
