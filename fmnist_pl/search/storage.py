"""Opens the storage of a study: an SQLite file, or a database that several machines share."""

import contextlib
import importlib.util
import re
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import sqlalchemy.exc
from optuna.exceptions import ExperimentalWarning, StorageInternalError
from optuna.storages import RDBStorage
from sqlalchemy import event
from sqlalchemy.engine import URL, Engine, make_url

from fmnist_pl.search.study import retry
from training_health.errors import UserError

# By kind of database its driver, and for how many seconds it waits. MySQL's limit for connecting does not cover the
# server's first words; SQLite's is for a file that others write.
_DRIVERS: dict[str, tuple[str, dict[str, Any]]] = {
    "sqlite": ("pysqlite", {"timeout": 60}),
    "postgresql": ("psycopg", {"connect_timeout": 5}),
    "mysql": ("pymysql", {"connect_timeout": 5, "read_timeout": 20}),
}
PATIENCE = 600.0  # seconds for a server to come back
_FORMS = "sqlite:///FILE, postgresql://USER@HOST/NAME or mysql://USER@HOST/NAME"


def to_stderr(text: str) -> None:
    """Print a message."""
    print(text, file=sys.stderr)


class StorageError(UserError):
    """A storage that cannot be used, or not any more."""


def file_url(path: Path) -> str:
    """The URL of a study's file, whatever characters are in its name; UserError if they are none."""
    try:
        return URL.create("sqlite", database=str(path)).render_as_string()
    except UnicodeEncodeError:
        raise UserError(f"The name of {path} is no text, as databases need. Choose another --output.") from None


class _Storage(RDBStorage):
    """Closes its connections also where it cannot be opened: nobody else then holds the engine that would."""

    def __init__(self, **options: Any) -> None:  # noqa: ANN401
        try:
            super().__init__(**options)
        except BaseException:
            if hasattr(self, "engine"):
                self.engine.dispose()
            raise


@contextlib.contextmanager
def opened(where: str, heartbeat: int, grace: int, say: Callable[[str], object] = to_stderr) -> Iterator[RDBStorage]:
    """Open a storage, with its tables made.

    Args:
        where: Its URL.
        heartbeat: Seconds between two signs of life of a running trial.
        grace: Seconds without one after which a trial is taken for lost, and queued again.
        say: Gets a sentence when a server that did answer is waited for.

    Raises:
        UserError: It cannot be opened, within seconds also where nothing answers; or it fails later.
    """
    try:
        url = make_url(where)
        kind = url.get_backend_name()
        driver, seconds = _DRIVERS[kind]
        if kind == "sqlite" and url.database in {None, "", ":memory:"}:
            raise ValueError("It is kept nowhere.")
    except (sqlalchemy.exc.ArgumentError, KeyError, ValueError):
        raise UserError(f"The storage {shown(where)} cannot keep a study. Give {_FORMS}.", exit_code=2) from None
    if kind != "sqlite" and importlib.util.find_spec(driver) is None:
        raise UserError(f'{shown(where)} needs {driver}: pip install -e ".[{kind}]" in the repository', exit_code=2)
    text = url.set(drivername=f"{kind}+{driver}").render_as_string(hide_password=False)
    options: dict[str, Any] = {
        "url": text.replace("{", "{{").replace("}", "}}"),  # Optuna fills in a template
        "engine_kwargs": {"connect_args": seconds, "pool_pre_ping": True},
        "heartbeat_interval": heartbeat,
        "grace_period": grace,
        "heartbeat_stale_trial_callback": retry,
    }
    with _explained(where):
        # Optuna calls its heartbeats experimental; that is what its version's upper bound is for.
        with warnings.catch_warnings(action="ignore", category=ExperimentalWarning):
            try:
                storage = _Storage(**options)
            except sqlalchemy.exc.DBAPIError as error:
                if not re.search("already exists|unique|duplicate", str(error.orig), re.IGNORECASE):
                    raise
                time.sleep(1)  # another process made the tables at the same moment
                storage = _Storage(**options)
        try:
            if kind == "sqlite":
                _one_at_a_time(storage.engine)
            else:
                _wait_for_restart(storage.engine, where, say)
            yield storage
        finally:
            storage.remove_session()
            storage.engine.dispose()


def _wait_for_restart(engine: Engine, where: str, say: Callable[[str], object]) -> None:
    """Have new connections wait for a server that is restarted; ``pool_pre_ping`` asks for one where it was lost."""

    def connect(dialect: Any, _record: object, args: Any, options: Any) -> Any:  # noqa: ANN401
        until, said = time.monotonic() + PATIENCE, False
        while True:
            try:
                return dialect.connect(*args, **options)
            except dialect.loaded_dbapi.OperationalError:
                if time.monotonic() > until:
                    raise
                if not said:
                    say(
                        f"The storage {shown(where)} does not answer; waiting up to {PATIENCE / 60:.0f} minutes for it."
                    )
                said = True
                time.sleep(1)

    event.listen(engine, "do_connect", connect)


def _one_at_a_time(engine: Engine) -> None:
    """Lock an SQLite file from each transaction's begin: without row locks, two workers could begin the same trial."""
    engine.dispose()  # what is connected already would not be told
    event.listen(engine, "connect", lambda connection, _: setattr(connection, "isolation_level", None))
    event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN IMMEDIATE"))


@contextlib.contextmanager
def _explained(where: str) -> Iterator[None]:
    """Turn what a database that fails raises into one message, which shows no password."""
    try:
        yield
    except Exception as error:
        cause: BaseException | None = error
        while cause and not isinstance(cause, sqlalchemy.exc.SQLAlchemyError | StorageInternalError):
            cause = cause.__context__  # Optuna's own errors about a failing database hide it
        if cause is None:
            raise
        cause = cause.__cause__ or cause
        reason = str(getattr(cause, "orig", None) or cause).strip().partition("\n")[0] or type(cause).__name__
        sqlite = where.startswith("sqlite")
        check = (
            "its folder can be written and the file is a study" if sqlite else "the server runs, and name and password"
        )
        text = f"The storage {shown(where)} cannot be used: {reason.rstrip('. ')}. Check that {check}."
        raise StorageError(f"{text} Finished trials are kept.") from error


def shown(where: str) -> str:
    """A storage's URL without its password."""
    return re.sub(r"://([^/@]*?):[^/]*@", r"://\1:***@", where)
