"""Variants by name: one YAML overlay each, beside base.yaml; or a user's own file by its path."""

import difflib
from pathlib import Path

from training_health.errors import UserError

CONFIGS = Path(__file__).parent / "configs"
BASE = CONFIGS / "base.yaml"


def packaged_variants() -> list[str]:
    """The names of the packaged variants, sorted."""
    return sorted(path.stem for path in CONFIGS.glob("*.yaml") if path != BASE)


def overlay_path(variant: str) -> Path:
    """The overlay of a packaged variant, or the path itself if it is a user's own YAML file.

    Raises:
        UserError: If there is no such variant or file; the message lists the names and the nearest one.
    """
    if variant in packaged_variants():
        return CONFIGS / f"{variant}.yaml"
    path = Path(variant).expanduser()
    if path.suffix in {".yaml", ".yml"} and path.is_file():
        return path
    if path.suffix in {".yaml", ".yml"}:
        raise UserError(f"There is no variant file {path}. Give the path of an existing YAML file.", exit_code=2)
    names = packaged_variants()
    nearest = difflib.get_close_matches(variant, names, n=1, cutoff=0.5)
    hint = f" Did you mean {nearest[0]}?" if nearest else ""
    raise UserError(
        f"There is no variant named {variant!r}.{hint} Packaged variants: {', '.join(names)}. "
        "Or give the path of your own YAML file.",
        exit_code=2,
    )


def variant_name(variant: str) -> str:
    """What runs of a variant are called: the packaged name, or the stem of the user's file."""
    return Path(variant).stem if variant.endswith((".yaml", ".yml")) else variant
