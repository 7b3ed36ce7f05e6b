"""A thousand requests made up by a seeded generator: none crashes the tab, none gets what is not in its table."""

import random
from urllib.parse import quote

from training_health.tab.static_files import static_files

PREFIX = "/data/plugin/training_health"
PATHS = [
    "/overview",
    "/run",
    "/units",
    "/static/index.js",
    "/static/",
    "/static",
    "",
    "/",
    "/nowhere",
    "/run/",
    "/static/plugin.py",
]
TRAVERSALS = [
    "..",
    "%2e%2e",
    "..%2f",
    "%2e%2e%2f",
    "....//",
    "..\\",
    "%00",
    "/etc/passwd",
    "C:\\",
    "%c0%ae",
    "~",
    "//evil",
    "\ufffe",
]
VALUES = [
    "a",
    "fc1",
    "",
    "NaN",
    "-1",
    "9" * 400,
    "x" * 5000,
    "<script>",
    "\x00",
    "\ud7ff\U0001f600",
    "a\r\nX: y",
    "../a",
    "%",
    "[]",
    "{}",
]
KEYS = ["run", "site", "tag", "experiment", "run[]", "RUN", "__proto__", "v"]
METHODS = ["GET"] * 8 + ["HEAD", "POST", "PUT", "DELETE", "OPTIONS", "BREW"]


def made_up(rng: random.Random) -> tuple[str, str]:
    path = rng.choice(PATHS)
    for _ in range(rng.choice([0, 0, 1, 2])):
        path += rng.choice(["/", ""]) + rng.choice([*TRAVERSALS, "plugin.py", "static_files.py", "index.js"])
    pairs = [f"{rng.choice(KEYS)}={quote(rng.choice(VALUES), safe='')}" for _ in range(rng.randrange(4))]
    if rng.random() < 0.1:
        pairs.append("%ff%fe=%ff&&=;")
    return rng.choice(METHODS), PREFIX + path + ("?" + "&".join(pairs) if pairs else "")


def test_a_thousand_made_up_requests(writer, open_tab):
    writer.activity(0, "fc1", 0, [0.0, 1.0])
    writer.flush()
    client, rng = open_tab().client, random.Random(4)
    allowed = {file.path.read_bytes() for file in static_files().values()}
    codes = set()
    for _ in range(1000):
        method, address = made_up(rng)
        response = client.open(address, method=method)
        codes.add(response.status_code)
        assert response.status_code in (200, 301, 308, 400, 404, 405), (method, address)
        assert response.headers.get("X-Content-Type-Options") == "nosniff", (method, address)
        if response.status_code == 200 and method != "HEAD":
            known = response.mimetype == "application/json" or response.data in allowed
            assert known, (method, address)
    assert {200, 400, 404, 405} <= codes
