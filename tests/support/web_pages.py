"""Headers of browsers' requests, for pages of this site and of others."""

from __future__ import annotations

PAGES = [
    ({"Origin": "http://evil.example"}, 403),
    ({"Origin": "null"}, 403),
    ({"Origin": "http://[::1"}, 403),
    ({"Host": "evil.example:8750"}, 403),
    ({"Host": "evil.example:8750", "Origin": "http://evil.example:8750"}, 403),
    ({"Host": "localhost:8750"}, 200),
    ({"Host": "[::1]:8750", "Origin": "http://[::1]:8750"}, 200),
    ({}, 200),
]
