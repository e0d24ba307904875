"""Health check of a container: exit 0 while the service is ready."""

from __future__ import annotations

import json
import os
import ssl
import sys
import urllib.error
import urllib.request

_EVERYWHERE = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104


def main() -> int:
    """Request /readyz at the address that the variables set, and print the reason if it is not ready."""
    host = os.environ.get("SENOSCOPE_HOST", "127.0.0.1")
    host = _EVERYWHERE.get(host, host)
    scheme = "https" if os.environ.get("SENOSCOPE_TLS_CERT") else "http"
    port = os.environ.get("SENOSCOPE_PORT", "8750")
    url = f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}/readyz"
    # The certificate is valid for the host that clients use, not for this address inside the container.
    unchecked = ssl._create_unverified_context()  # noqa: S323
    # Do not use a proxy that is configured for the container.
    ask = urllib.request.build_opener(
        urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=unchecked)
    )
    try:
        with ask.open(url, timeout=4) as answer:
            print(json.load(answer)["status"])
    except urllib.error.HTTPError as error:
        print(error.read(2000).decode(errors="replace"))
        return 1
    except (OSError, ValueError, KeyError) as error:
        print(f"{url}: {error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
