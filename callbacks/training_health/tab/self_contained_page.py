"""The frame of a report that is one HTML file and fetches nothing."""

import base64
import html
import re
import zlib

# Nothing may be fetched, whatever a log says; a page's own scripts are inline, its modules data: addresses,
# and what it unpacks are blobs.
_POLICY = "default-src 'none'; script-src 'unsafe-inline' data: blob:; style-src 'unsafe-inline'; img-src data: blob:"
_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<title>{title}</title>
<link rel="icon" href="data:,">
<style>
{style}
</style>
</head>
<body>
{body}
</body>
</html>
"""


def page(title: str, style: str, body: str) -> str:
    """The whole file: ``title`` is plain text, escaped here; ``body`` is HTML, ``style`` is CSS."""
    return _PAGE.format(policy=_POLICY, title=html.escape(title), style=style, body=body)


def inline_script(code: str) -> str:
    """JavaScript that may stand in a script element: nothing in it ends the element."""
    return re.sub("</(?=script)", r"<\\/", code, flags=re.IGNORECASE)


def packed(content: str | bytes) -> str:
    """Text or bytes at a third of their size or less, in letters that no HTML can end; ``packed.js`` reads them."""
    return base64.b64encode(zlib.compress(content.encode() if isinstance(content, str) else content, 9)).decode()


def packed_plotly(code: str) -> str:
    """An element that holds plotly.js; ``addPlotly`` of ``packed.js`` runs it, once the text stands."""
    return f'<script type="text/plain" id="plotly">{packed(code)}</script>'
