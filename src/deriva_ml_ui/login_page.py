"""The form for the token, as one page without scripts."""

from __future__ import annotations

from html import escape

__all__ = ["render_login_page"]

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
<title>deriva-ml: enter the token</title>
<style>
:root {{ color-scheme: light dark; }}
body {{ font: 1rem/1.5 system-ui, sans-serif; max-width: 28rem; margin: 12vh auto; padding: 0 1rem; }}
h1 {{ font-size: 1.4rem; }}
input, button {{ font: inherit; padding: .5rem .6rem; width: 100%; box-sizing: border-box; margin-top: .4rem; }}
.wrong {{ border-left: .25rem solid #b3261e; padding-left: .6rem; }}
code {{ font-size: .95em; }}
</style>
</head>
<body>
<main>
<h1>deriva-ml</h1>
{notice}<p>Enter the token that <code>deriva-ml ui</code> printed when it started.</p>
<form method="post" action="/login">
<label for="token">Token</label>
<input id="token" name="token" type="password" autocomplete="off" spellcheck="false" required autofocus>
<input type="hidden" name="next" value="{next_path}">
<button type="submit">Open the page</button>
</form>
</main>
</body>
</html>
"""


def render_login_page(next_path: str, *, is_wrong: bool = False, may_have_cookie: bool = False) -> str:
    """Return the form as HTML.

    Args:
        next_path: The path to open afterwards.
        is_wrong: Whether the entered token was wrong.
        may_have_cookie: Whether the browser may have the cookie and did not send it, as for a link on another site.
    """
    notice = ""
    if is_wrong:
        notice = '<p class="wrong" role="alert">That is not the token of this server. Each start has a new one.</p>\n'
    elif may_have_cookie:
        notice = f'<p>Already logged in? <a href="{escape(next_path)}">Continue</a></p>\n'
    return _PAGE.format(notice=notice, next_path=escape(next_path))
