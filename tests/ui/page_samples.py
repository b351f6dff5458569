"""Files of users, harmless and hostile."""

from __future__ import annotations

import base64

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
SVG = b'<svg xmlns="http://www.w3.org/2000/svg" onload="alert(1)"/>'

FILES = {
    "picture.png": PNG,
    "not-a-picture.png": b"<script>alert(1)</script>",
    "drawing.svg": SVG,
    "page.html": b"<script>alert(1)</script>",
    "large.bin": bytes(range(256)) * 8192,
    'odd "na\nme".txt': b"some text",
}
