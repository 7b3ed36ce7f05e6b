"""Resume from every moment that a run saves at, and compare everything it ends with."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

from fmnist_pl.checkpoints.checkpoint_file import load_checked
from tests.soak.toys import KeepAll, Toy, differences, train

TOYS = (
    Toy("augmentation, dropout, batch norm, one-cycle"),
    Toy("validation twice per epoch", trainer={"val_check_interval": 0.5}),
    Toy("validation after every batch", trainer={"val_check_interval": 1}),
    Toy("validation every second epoch", trainer={"check_val_every_n_epoch": 2}),
    Toy("two batches per step", trainer={"accumulate_grad_batches": 2}),
    Toy("a limit of 14 steps", trainer={"max_steps": 14}),
    Toy("monitors", monitors=True),
)


def check(toy: Toy, folder: Path, every: int = 1) -> tuple[int, list[str]]:
    """Train once, keeping all checkpoints, then once more from every ``every``-th of them.

    Returns:
        How many resumed runs there were, and every difference from the straight run.
    """
    straight = folder / "straight"
    train(toy, straight, saver=KeepAll(every_n_minutes=None, every_n_batches=1))
    moments = sorted((straight / "checkpoints").glob("e*b*.ckpt"), key=lambda path: path.stat().st_mtime_ns)
    expected = load_checked(moments[-1])
    found = []
    chosen: Sequence[Path] = moments[:-1][::every] + moments[-1:]
    for moment in chosen:
        resumed = folder / f"from-{moment.stem}"
        saver = KeepAll(every_n_minutes=None, every_n_batches=None)
        trainer, _ = train(toy, resumed, checkpoint=moment, saver=saver)
        end = resumed / "checkpoints" / moments[-1].name
        # From the very end there is nothing to save any more.
        differing = differences(expected, load_checked(end)) if moment != moments[-1] else []
        if trainer.global_step != expected["global_step"]:
            differing.append(f"ended after {trainer.global_step} steps instead of {expected['global_step']}")
        found += [f"{toy.name}, from {moment.stem}: {place}" for place in differing]
    return len(chosen), found


def soak() -> str:
    """All toys, all moments."""
    points, found = 0, []
    for toy in TOYS:
        with tempfile.TemporaryDirectory() as folder:
            count, differing = check(toy, Path(folder))
        points, found = points + count, found + differing
    assert not found, "\n".join(found)
    return f"{points} resume points on one rank: {len(found)} differences"
