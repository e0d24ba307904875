"""Limit on the number of connected clients."""

from __future__ import annotations


def max_connections(most: int, share: float) -> int:
    """Return how many connections one listening socket may have.

    Parameters
    ----------
    most : int
        Upper limit.
    share : float
        Fraction of the files that the process may open; the run log, the archive and other sockets use the
        rest.
    """
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return most
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return most if soft == resource.RLIM_INFINITY else max(8, min(most, int(share * soft)))
