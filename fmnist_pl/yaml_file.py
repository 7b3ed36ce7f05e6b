"""Reads configuration files. One names classes to import and call, so it is code: run only those that you trust."""

from pathlib import Path
from typing import Any

import yaml

from training_health.errors import UserError


def load_yaml(path: Path) -> Any:  # noqa: ANN401
    """Read a YAML file as plain values.

    Raises:
        UserError: If there is no such file, it cannot be read or it is not YAML; the message names the file.
    """
    try:
        with path.open(encoding="utf-8") as file:
            return yaml.safe_load(file)
    except FileNotFoundError:
        raise UserError(f"There is no configuration {path}. Give the path of a YAML file.", exit_code=2) from None
    except OSError as error:
        raise UserError(f"The configuration {path} cannot be read: {error.strerror}.", exit_code=2) from error
    # ValueError: text that is not UTF-8, and values such as 2024-13-45; RecursionError: nested without end.
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UserError(f"{path} is not valid YAML: {error}", exit_code=2) from None
