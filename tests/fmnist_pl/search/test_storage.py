"""Storages that cannot be used."""

import socket
import sys
import time

import pytest

from fmnist_pl.search.storage import StudyStorage
from tests.fmnist_pl.search.toy_search import search
from training_health.errors import UserError


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("postgres//host", None),  # a path, and its folder does not exist
        ("://", "is not a URL. Give sqlite:///FILE, postgresql://USER@HOST/NAME"),
        ("oracle://host/name", "is of an unknown kind. Give sqlite:///FILE"),
        ("nonsense://host/name", "is of an unknown kind. Give sqlite:///FILE"),
        ("sqlite://", "is kept nowhere"),
        ("sqlite:///:memory:", "is kept nowhere"),
        ("sqlite:////nowhere/at/all/study.db", "cannot be used: unable to open database file. Check that its folder"),
    ],
)
def test_a_wrong_storage_is_refused(where, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=None if message is None else message.replace(".", r"\.")):
        StudyStorage(where)


def test_a_file_that_is_no_database_is_refused(tmp_path):
    path = tmp_path / "study.db"
    path.write_text("These are not the bytes of a database, and there are more than a hundred of them here. " * 20)

    with pytest.raises(UserError, match="cannot be used: file is not a database"):
        StudyStorage(f"sqlite:///{path}")


def test_a_file_that_is_no_journal_is_refused(tmp_path):
    path = tmp_path / "study.journal"
    path.write_text("no journal\nat all\n")

    with pytest.raises(UserError, match=r"cannot be used: .*Check that its folder exists"):
        StudyStorage(str(path))


@pytest.mark.parametrize("kind", ["postgresql", "mysql"])
def test_a_server_that_is_not_there_is_named_without_its_password(kind):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    pytest.importorskip({"postgresql": "psycopg", "mysql": "pymysql"}[kind])

    with pytest.raises(UserError) as raised:
        StudyStorage(f"{kind}://me:secret@127.0.0.1:{port}/studies")

    assert f"me:***@127.0.0.1:{port}/studies cannot be used: " in str(raised.value)
    assert "Check that the server runs" in str(raised.value)
    assert "secret" not in str(raised.value)


def test_a_server_that_never_answers_is_given_up_within_seconds():
    pytest.importorskip("psycopg")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        started = time.monotonic()
        with pytest.raises(UserError, match="cannot be used"):
            StudyStorage(f"postgresql://me@127.0.0.1:{listener.getsockname()[1]}/studies")

    assert time.monotonic() - started < 20


def test_a_driver_that_is_missing_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "pymysql", None)

    with pytest.raises(UserError, match=r"needs a driver that is not installed.*pip install 'fmnist_pl\[postgresql\]'"):
        StudyStorage("mysql://me@127.0.0.1/studies")


def test_a_journal_file_keeps_a_study(tmp_path):
    search(tmp_path, str(tmp_path / "study.journal"), 2)
    book, _ = search(tmp_path, str(tmp_path / "study.journal"), 3)

    assert book.tally().finished == 3


def test_a_database_that_breaks_in_mid_search_ends_it_with_a_message(tmp_path, monkeypatch):
    from optuna.exceptions import StorageInternalError

    from fmnist_pl.search.ledger import Ledger

    def broken(self):
        raise StorageInternalError("the connection was lost")

    monkeypatch.setattr(Ledger, "beat", broken)

    with pytest.raises(UserError, match=r"study.db cannot be used: the connection was lost"):
        search(tmp_path, f"sqlite:///{tmp_path / 'study.db'}", 2)
