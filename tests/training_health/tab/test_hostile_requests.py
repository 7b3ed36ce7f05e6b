"""Requests made up by hypothesis: none crashes the tab, none gets what is not in its table."""

from urllib.parse import quote, urlencode

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from training_health.tab.static_files import static_files

PREFIX = "/data/plugin/training_health"
PARTS = ["overview", "run", "units", "static", "index.js", "plugin.py", "", "..", "%2e%2e%2f", "..\\", "%00", "//evil"]
VALUES = st.sampled_from(["a", "fc1", "", "x" * 5000, "<script>", "a\r\nX: y", "%"]) | st.text(max_size=5)
segments = st.sampled_from(PARTS) | st.text(max_size=5).map(lambda text: quote(text.encode("utf-8", "replace")))
keys = st.sampled_from(["run", "site", "experiment", "run[]", "__proto__"])
methods = st.sampled_from(["GET", "GET", "GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "BREW"])


@pytest.fixture
def client(writer, open_tab):
    writer.activity(0, "fc1", 0, [0.0, 1.0])
    writer.flush()
    return open_tab().client


@settings(deadline=None, max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(methods, st.lists(segments, min_size=1, max_size=3), st.lists(st.tuples(keys, VALUES), max_size=3))
def test_made_up_requests_are_answered_or_declined(client, method, parts, query):
    address = f"{PREFIX}/{'/'.join(parts)}?{urlencode(query, errors='replace')}"
    response = client.open(address, method=method)
    assert response.status_code in (200, 301, 308, 400, 404, 405)
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    if response.status_code == 200 and method != "HEAD":
        allowed = {path.read_bytes() for path in static_files().values()}
        assert response.mimetype == "application/json" or response.data in allowed
