"""Command lines of valid options with hostile values: no traceback, and no file that is there is changed."""

import os
import sys
import tempfile
from pathlib import Path

import hypothesis
from hypothesis import given, settings
from hypothesis import strategies as st

from fmnist_pl.commands import main
from tests.soak.command import TINY, fit
from tests.soak.sigkill import in_a_process
from training_health.errors import UserError

NUMBERS = (
    *("seed_everything", "data.batch_size", "data.training_images", "model.learning_rate", "model.momentum"),
    *("model.weight_decay", "model.adam_epsilon", "model.label_smoothing", "model.kernel_size", "model.stride"),
    *("model.convs_per_pool", "model.conv_dropout", "model.hidden_dropout", "model.image_size", "model.classes"),
    *("trainer.max_epochs", "trainer.min_epochs", "trainer.max_steps", "trainer.limit_train_batches"),
    *("trainer.limit_val_batches", "trainer.accumulate_grad_batches", "trainer.gradient_clip_val"),
    *("trainer.val_check_interval", "trainer.check_val_every_n_epoch", "trainer.overfit_batches"),
    *("trainer.fast_dev_run", "trainer.log_every_n_steps", "trainer.num_sanity_val_steps"),
)
PATHS = (
    *("config", "variant", "resume", "ckpt_path", "data.root", "trainer.default_root_dir", "trainer.logger"),
    *("trainer.logger.init_args.save_dir", "trainer.logger.init_args.name", "trainer.logger.init_args.version"),
)
OTHERS = (
    *("monitors", "test_checkpoint", "data.dataset", "data.augmentation", "model.optimizer", "model.schedule"),
    *("model.conv_channels", "model.hidden_units", "model.activation", "model.normalization", "model.initialization"),
    *("trainer.precision", "trainer.callbacks+", "trainer.profiler", "trainer.gradient_clip_algorithm"),
)
RUN = "{run}"
NUMERIC = ("0", "-1", "1", "2", "3", "7", "0.5", "1.0", "1e-300", ".nan", ".inf", "1e309", "9" * 20, "9" * 5000, "true")
NAMES = (
    "", "null", "false", "..", "/dev/null", "/dev/full", "/dev/null/at/all", "a b'c\"d", "%s{}[/x]", "\x1b[31m",
    "f\udcfc", "x" * 300, "x" * 5000, "0", "last", "sgd", RUN, f"{RUN}/config.yaml", f"{RUN}/summary.json",
    f"{RUN}/checkpoints", f"{RUN}/checkpoints/last.ckpt", f"{RUN}/checkpoints/best.ckpt", f"{RUN}/..",
)  # fmt: skip
WORDS = (
    "[]", "{}", "[1, 2", "[-1]", "[0]", "[3]", "[1, 2, 3]", "- x", "best", "none", "off", "EarlyStopping", "simple",
    "norm", "bf16-mixed", "16-true", "64-true", "cosine", "one_cycle", "adamw", "sgd", "batch",
    "StochasticWeightAveraging",
)  # fmt: skip
TEXT = st.text(st.characters(exclude_characters="\0", codec="utf-8"), max_size=20)
OPTION = st.one_of(
    st.tuples(st.sampled_from(NUMBERS), st.sampled_from(NUMERIC)),
    st.tuples(st.sampled_from(PATHS), st.sampled_from(NAMES)),
    st.tuples(st.sampled_from(OTHERS), st.sampled_from(WORDS)),
    st.tuples(st.sampled_from(NUMBERS + PATHS + OTHERS), TEXT),
)
ENDS = ("--trainer.max_time=00:00:00:05", "--trainer.enable_progress_bar=false")  # whatever the number of epochs


def check(count: int, seed: int) -> list[str]:
    """Run ``count`` command lines; those that ended in a traceback or a signal, or changed a file of a finished run."""
    found = []
    with tempfile.TemporaryDirectory() as name:
        run = fit(Path(name) / "logs", "--trainer.max_epochs=1", "--monitors=off")
        before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}

        def attempt(words: list[str]) -> None:
            os.chdir(name)
            try:
                main(words)
            except UserError:
                pass
            except SystemExit as end:
                if end.code not in (0, 2):
                    raise

        @settings(max_examples=count, deadline=None, database=None, phases=[hypothesis.Phase.generate])
        @given(
            st.sampled_from(["fit", "fit", "test", "validate", "predict"]),
            st.lists(OPTION, min_size=1, max_size=2),
        )
        def line(command: str, options: list[tuple[str, str]]) -> None:
            given_first = [*TINY, f"--trainer.logger.init_args.save_dir={Path(name) / 'others'}"]
            if command != "fit":
                given_first.append(f"--ckpt_path={run}")
            words = [f"--{option}={value.replace(RUN, str(run))}" for option, value in options]
            status = in_a_process(lambda: attempt([command, *given_first, *words, *ENDS]))
            now = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
            if status or any(now.get(path) != content for path, content in before.items()):
                found.append(f"{command} {words}: status {status}")
                print(found[-1], file=sys.stderr, flush=True)
                for path, content in before.items():
                    path.write_bytes(content)

        hypothesis.seed(seed)(line)()
    return found


def soak() -> str:
    """Two thousand."""
    found = check(2000, 0)
    assert not found, "\n".join(found)
    return "2,000 command lines: 0 tracebacks, 0 changed files"
