"""Storages that cannot be used."""

import importlib.util
import socket
import time
from pathlib import Path

import pytest
from optuna.exceptions import StorageInternalError

from fmnist_pl.search.storage import file_url, opened
from training_health.errors import UserError


def open_it(where):
    with opened(where, 1, 2):
        pass


@pytest.mark.parametrize(
    "where",
    ["study.journal", "://", "postgresql://host:port/name", "oracle://host/name", "sqlite://", "sqlite:///:memory:"],
)
def test_what_cannot_keep_a_study_is_refused_with_what_can(where):
    with pytest.raises(UserError, match="sqlite:///FILE, postgresql://USER@HOST/NAME") as raised:
        open_it(where)

    assert raised.value.exit_code == 2


@pytest.mark.parametrize("name", ["what?", "50% done", "a#b", "pct%41", "x y", "{brace}", "at@home", "k=v&z"])
def test_the_study_lies_in_the_folder_that_was_asked_for_whatever_its_name(tmp_path, name):
    (tmp_path / name).mkdir()
    open_it(file_url(tmp_path / name / "study.db"))

    assert [path.name for path in (tmp_path / name).iterdir()] == ["study.db"]


def test_a_name_that_is_no_text_is_refused(tmp_path):
    with pytest.raises(UserError, match="Choose another --output"):
        file_url(tmp_path / "f\udcfc")


def test_a_file_that_is_no_database_is_refused(tmp_path):
    path = tmp_path / "study.db"
    path.write_text("These are not the bytes of a database, and there are more than a hundred of them here. " * 20)

    with pytest.raises(UserError, match="file is not a database"):
        open_it(f"sqlite:///{path}")
    with pytest.raises(UserError, match="unable to open database file"):
        open_it(f"sqlite:///{tmp_path}/absent/study.db")


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="asks Linux what is open")
def test_a_file_that_was_refused_is_open_no_longer(tmp_path):
    path = tmp_path / "study.db"
    path.write_text("These are not the bytes of a database, and there are more than a hundred of them here. " * 20)

    with pytest.raises(UserError) as raised:  # held: what it refers to is not collected
        open_it(f"sqlite:///{path}")

    assert "file is not a database" in str(raised.value)
    assert path not in {link.readlink() for link in Path("/proc/self/fd").iterdir() if link.is_symlink()}


@pytest.mark.parametrize(("kind", "driver"), [("postgresql", "psycopg"), ("mysql", "pymysql")])
def test_a_server_that_is_not_there_is_named_without_its_password(kind, driver):
    pytest.importorskip(driver)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

    with pytest.raises(UserError, match="the server runs") as raised:
        open_it(f"{kind}://me:secret@127.0.0.1:{port}/studies")

    assert f"{kind}://me:***@127.0.0.1:{port}/studies" in str(raised.value)
    assert "secret" not in str(raised.value)


@pytest.mark.slow
def test_a_server_that_never_answers_is_given_up_within_seconds():
    pytest.importorskip("psycopg")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        started = time.monotonic()
        with pytest.raises(UserError, match="cannot be used"):
            open_it(f"postgresql://me@127.0.0.1:{listener.getsockname()[1]}/studies")

    assert time.monotonic() - started < 60


def test_a_driver_that_is_missing_is_named_with_its_extra(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)

    with pytest.raises(UserError, match=r'pip install -e "\.\[mysql\]" in the repository'):
        open_it("mysql://me@127.0.0.1/studies")


def test_a_database_that_breaks_later_is_one_message_whatever_hides_it(tmp_path):
    def fail():
        try:
            raise StorageInternalError("the connection was lost")
        finally:
            raise UnboundLocalError("updated_state")  # as Optuna does

    where = f"sqlite:///{tmp_path / 'study.db'}"
    with pytest.raises(UserError, match="cannot be used: the connection was lost"), opened(where, 1, 2):
        fail()


def test_other_errors_pass(tmp_path):
    with pytest.raises(ZeroDivisionError), opened(f"sqlite:///{tmp_path / 'study.db'}", 1, 2):
        raise ZeroDivisionError
