"""Opens the storage of a study: an SQLite file, or a database that several machines share."""

import contextlib
import importlib.util
import re
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import sqlalchemy.exc
from optuna import Study
from optuna.exceptions import ExperimentalWarning, StorageInternalError
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial
from sqlalchemy import event
from sqlalchemy.engine import Engine, make_url

from training_health.errors import UserError

_DRIVERS = {"sqlite": "pysqlite", "postgresql": "psycopg", "mysql": "pymysql"}
_FORMS = "sqlite:///FILE, postgresql://USER@HOST/NAME or mysql://USER@HOST/NAME"
_SECONDS_TO_CONNECT, _SECONDS_TO_ANSWER, _SECONDS_LOCKED = 5, 20, 60  # the last: how long SQLite's writers wait


def open_storage(where: str, heartbeat: int, grace: int, on_stale: Callable[[Study, FrozenTrial], None]) -> RDBStorage:
    """Open a storage, with its tables made.

    Args:
        where: Its URL.
        heartbeat: Seconds between two signs of life of a running trial.
        grace: Seconds without one after which a trial is taken for lost.
        on_stale: Called with such a trial.

    Raises:
        UserError: It cannot be opened; within seconds also where nothing answers.
    """
    try:
        url = make_url(where)
        kind = url.get_backend_name()
        driver = _DRIVERS[kind]
        if kind == "sqlite" and url.database in {None, "", ":memory:"}:
            raise ValueError("It is kept nowhere.")
    except (sqlalchemy.exc.ArgumentError, KeyError, ValueError):
        raise UserError(f"The storage {shown(where)} cannot keep a study. Give {_FORMS}.", exit_code=2) from None
    if kind != "sqlite" and importlib.util.find_spec(driver) is None:
        raise UserError(f"{shown(where)} needs {driver}: pip install 'fmnist_pl[{kind}]'", exit_code=2)
    connect: dict[str, Any] = {"timeout": _SECONDS_LOCKED} if kind == "sqlite" else {}
    connect |= {"connect_timeout": _SECONDS_TO_CONNECT} if kind != "sqlite" else {}
    if kind == "mysql":  # its time limit for connecting does not cover the server's first words
        connect["read_timeout"] = _SECONDS_TO_ANSWER
    engine = {"connect_args": connect, **({} if kind == "sqlite" else {"pool_pre_ping": True})}
    with explained(where), experimental():
        text = url.set(drivername=f"{kind}+{driver}").render_as_string(hide_password=False)
        text = text.replace("{", "{{").replace("}", "}}")  # Optuna fills in a template
        beats = {"heartbeat_interval": heartbeat, "grace_period": grace, "heartbeat_stale_trial_callback": on_stale}
        try:
            storage = RDBStorage(text, engine, **beats)  # type: ignore[arg-type]
        except sqlalchemy.exc.DBAPIError as error:
            if not re.search("already exists|unique|duplicate", str(error.orig), re.IGNORECASE):
                raise
            time.sleep(1)  # another process made the tables at the same moment
            storage = RDBStorage(text, engine, **beats)  # type: ignore[arg-type]
        if kind == "sqlite":
            _one_at_a_time(storage.engine)
        return storage


def _one_at_a_time(engine: Engine) -> None:
    """Lock an SQLite file from each transaction's begin: without row locks, two workers could begin the same trial."""
    engine.dispose()  # what is connected already would not be told
    event.listen(engine, "connect", lambda connection, _: setattr(connection, "isolation_level", None))
    event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN IMMEDIATE"))


@contextlib.contextmanager
def explained(where: str) -> Iterator[None]:
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
        reason = (str(getattr(cause, "orig", None) or cause).strip().splitlines() or [type(cause).__name__])[0]
        advice = "the server runs, and its name, user and password"
        if where.startswith("sqlite"):
            advice = "its folder can be written and the file is a study"
        raise UserError(
            f"The storage {shown(where)} cannot be used: {reason.rstrip('. ')}. Check that {advice}. Finished trials "
            "are kept."
        ) from error


def shown(where: str) -> str:
    """A storage's URL without its password."""
    return re.sub(r"://([^/@]*?):[^/]*@", r"://\1:***@", where)


@contextlib.contextmanager
def experimental() -> Iterator[None]:
    """Hide that Optuna calls its heartbeats and retries experimental; that is what its version's upper bound is for."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        yield
