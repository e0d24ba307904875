"""Health check of the container: exits with 0 while the service is ready."""

from __future__ import annotations

import json
import os
import ssl
import sys
import urllib.error
import urllib.request

_LOOPBACK_OF = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104


def main() -> int:
    """Request /readyz at the address of the environment variables, and print the status or the error."""
    host = os.environ.get("SENOSCOPE_HOST", "127.0.0.1")
    host = _LOOPBACK_OF.get(host, host)
    scheme = "https" if os.environ.get("SENOSCOPE_TLS_CERT") else "http"
    port = os.environ.get("SENOSCOPE_PORT", "8750")
    url = f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}/readyz"
    # Not verified: the certificate is for the host name of clients, not for this address in the container.
    unverified = ssl._create_unverified_context()  # noqa: S323
    # A proxy of the container is not for this address.
    opener = urllib.request.build_opener(
        urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=unverified)
    )
    try:
        with opener.open(url, timeout=4) as answer:
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
