"""Opens the storage of a study: an SQLite file, a journal file, or a database that several machines share."""

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy.exc
from filelock import FileLock
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from sqlalchemy.engine import URL, make_url

from training_health.errors import UserError

SECONDS_TO_CONNECT, SECONDS_TO_ANSWER = 5, 20
_SECONDS_LOCKED = 60  # SQLite: how long a writer waits for another
_DRIVERS = {"postgresql": "psycopg", "mysql": "pymysql"}
_FORMS = "sqlite:///FILE, postgresql://USER@HOST/NAME, mysql://USER@HOST/NAME, or the path of a journal file"
_DATABASE_ERRORS = (sqlalchemy.exc.SQLAlchemyError, optuna.exceptions.StorageInternalError)


class StudyStorage:
    """A storage that answers.

    Args:
        where: A database's URL, or the path of a journal file (for disks that SQLite cannot lock, such as NFS).

    Attributes:
        backend: What Optuna works with.
        shown: ``where`` without a password.
        local: Whether it is a file, which the processes of one machine share.

    Raises:
        UserError: It cannot be opened; within seconds also where nothing answers.
    """

    def __init__(self, where: str) -> None:
        url = _url(where) if "://" in where else None
        self.shown = where if url is None else url.render_as_string(hide_password=True)
        path = Path(where) if url is None else _sqlite_file(url, self.shown)
        self.local = path is not None
        self._lock = None if path is None else FileLock(f"{path}.turn")  # Optuna locks a journal with .lock
        self.backend: BaseStorage
        with self._opening():
            self.backend = JournalStorage(JournalFileBackend(where)) if url is None else _database(_driven(url))

    def close(self) -> None:
        """Close the connections; whoever goes on using the storage opens new ones."""
        if isinstance(self.backend, RDBStorage):
            self.backend.remove_session()
            self.backend.engine.dispose()

    @contextlib.contextmanager
    def one_at_a_time(self) -> Iterator[None]:
        """Keep the other processes of this machine from deciding about trials meanwhile.

        SQLite and the journal have no row locks. A real database has, and what is left to chance there is put right
        afterwards (see `fmnist_pl.search.ledger`).
        """
        with self._lock or contextlib.nullcontext():
            yield

    @contextlib.contextmanager
    def explained(self) -> Iterator[None]:
        """Turn what a database that fails raises into one message."""
        try:
            yield
        except _DATABASE_ERRORS as error:
            reason = _reason(error.__cause__ if isinstance(error.__cause__, Exception) else error)
            raise UserError(f"The storage {self.shown} cannot be used: {reason} {self._advice()}") from error

    @contextlib.contextmanager
    def _opening(self) -> Iterator[None]:
        """Likewise for a driver that is missing, and for a file that cannot be opened or is no study's."""
        try:
            with self.explained():
                yield
        except ImportError as error:
            raise UserError(
                f"The storage {self.shown} needs a driver that is not installed: {_reason(error)} Install it: "
                "pip install 'fmnist_pl[postgresql]' or 'fmnist_pl[mysql]'.",
                exit_code=2,
            ) from error
        except (OSError, ValueError, KeyError, RuntimeError) as error:  # damaged, or of another version
            raise UserError(f"The storage {self.shown} cannot be used: {_reason(error)} {self._advice()}") from error

    def _advice(self) -> str:
        if self.local:
            return "Check that its folder exists and can be written, and that the file is a study's."
        return "Check that the server runs, and its name, user and password. Trials that are finished are kept."


def _url(where: str) -> URL:
    try:
        url = make_url(where)
    except (sqlalchemy.exc.ArgumentError, ValueError):
        raise UserError(f"The storage {where!r} is not a URL. Give {_FORMS}.", exit_code=2) from None
    if url.get_backend_name() not in {"sqlite", *_DRIVERS}:
        raise UserError(f"The storage {where!r} is of an unknown kind. Give {_FORMS}.", exit_code=2)
    return url


def _driven(url: URL) -> URL:
    """With the driver that this package's extras install, unless it names one; SQLAlchemy's own default has changed."""
    driver = _DRIVERS.get(url.drivername)
    return url if driver is None else url.set(drivername=f"{url.drivername}+{driver}")


def _sqlite_file(url: URL, shown: str) -> Path | None:
    if url.get_backend_name() != "sqlite":
        return None
    if url.database in {None, "", ":memory:"}:
        raise UserError(f"The storage {shown} is kept nowhere. Give {_FORMS}.", exit_code=2)
    return Path(str(url.database))


def _database(url: URL) -> RDBStorage:
    sqlite = url.get_backend_name() == "sqlite"
    arguments: dict[str, Any] = {"timeout": _SECONDS_LOCKED} if sqlite else {"connect_timeout": SECONDS_TO_CONNECT}
    if url.get_driver_name() == "pymysql":  # its time limit for connecting does not cover the server's first words
        arguments["read_timeout"] = SECONDS_TO_ANSWER
    options = {"connect_args": arguments, **({} if sqlite else {"pool_pre_ping": True})}
    text = url.render_as_string(hide_password=False).replace("{", "{{").replace("}", "}}")  # Optuna fills in a template
    for _ in range(10):
        with contextlib.suppress(_AlreadyMadeError):
            return _open(text, options)
        time.sleep(0.2)
    return _open(text, options)


class _AlreadyMadeError(Exception):
    """Another process made the tables at the same moment."""


def _open(url: str, options: dict[str, Any]) -> RDBStorage:
    try:
        return RDBStorage(url, engine_kwargs=dict(options))
    except (sqlalchemy.exc.OperationalError, sqlalchemy.exc.ProgrammingError, sqlalchemy.exc.IntegrityError) as error:
        text = str(error.orig).lower()
        if "already exists" in text or "unique" in text or "duplicate" in text:
            raise _AlreadyMadeError from error
        raise


def _reason(error: BaseException) -> str:
    """The first line of what went wrong, as a sentence."""
    original = getattr(error, "orig", None) or error
    lines = str(original).strip().splitlines() or [type(original).__name__]
    return lines[0].strip().rstrip(".") + "."
