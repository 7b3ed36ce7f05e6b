"""One file over HTTP: complete, or refused with its reason and in time."""

import time

import pytest

from fmnist_pl.dataset.download import DownloadError, fetch
from tests.fmnist_pl.small_dataset import PACKED, refusing_url, serve, serve_bytes

NAME = "t10k-images-idx3-ubyte.gz"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")


def test_returns_the_body():
    with serve() as mirror:
        assert fetch(mirror.url + NAME, 100_000) == PACKED[NAME]


def test_says_what_it_downloads(capsys):
    with serve_bytes(OK + b"hello") as url:
        fetch(url + NAME, 100)
    assert capsys.readouterr().err == f"Downloading {url}{NAME}\n"


def test_a_body_without_a_length_ends_with_the_connection():
    with serve_bytes(b"HTTP/1.0 200 OK\r\n\r\nhello", then_close=True) as url:
        assert fetch(url, 100) == b"hello"


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", "HTTP 404 Not Found"),
        (b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n", "HTTP 503 Busy"),
        (OK + b"hel", "cut short after 3 of 5 bytes"),
        (b"garbage that is no HTTP\r\n\r\n", "not a valid HTTP answer"),
        (b"", "connection reset after 0 bytes"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n123456789", "more than the 8 bytes"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel", "cut short after"),
        (b"HTTP/1.1 302 Found\r\nLocation: file:///etc/passwd\r\n\r\n", "redirect"),
    ],
)
def test_names_what_is_wrong_with_an_answer(answer, reason):
    with serve_bytes(answer, then_close=True) as url, pytest.raises(DownloadError) as caught:
        fetch(url, 8, patience=2.0)
    assert reason in str(caught.value).lower() or reason in str(caught.value)


def test_a_cut_transfer_is_marked_as_worth_another_try():
    with serve_bytes(OK + b"hel", then_close=True) as url, pytest.raises(DownloadError) as caught:
        fetch(url, 8)
    assert caught.value.damaged


def test_nothing_listens_there():
    with pytest.raises(DownloadError, match="Connection refused"):
        fetch(refusing_url(), 8)


def test_an_unknown_host_is_named_as_such():
    # resolvers say "Name or service not known" or "failure in name resolution"; one that hangs is given up
    with pytest.raises(DownloadError, match=r"[Nn]ame|no answer within 3 s"):
        fetch("http://no-such-host.invalid/", 8, patience=3.0)


@pytest.mark.parametrize(
    ("pieces", "reason"),
    [
        pytest.param((), "no answer", id="accepts and says nothing"),
        pytest.param((b"HTTP/1.1 200 OK\r\n",), "no answer", id="headers that never end"),
        pytest.param((OK,), "no answer", id="headers and no body"),
        pytest.param((OK + b"he",), "stalled after 2 bytes", id="a body that stalls"),
        pytest.param((b"HTTP/1.1 200 OK\r\n", *[b"A: b\r\n"] * 99), "no answer", id="headers that trickle"),
        pytest.param(
            (b"HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\n", *[b"x"] * 99), "stalled", id="a body that trickles"
        ),
    ],
)
def test_a_silent_server_is_given_up(pieces, reason):
    started = time.monotonic()
    with serve_bytes(*pieces, pause=0.1) as url, pytest.raises(DownloadError, match=rf"{reason}.* within 0.5 s"):
        fetch(url, 8, patience=0.5)
    assert time.monotonic() - started < 2.0
