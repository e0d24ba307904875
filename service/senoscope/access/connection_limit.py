"""How many clients may be connected at once."""

from __future__ import annotations


def max_connections(most: int, share: float) -> int:
    """How many connections one listening socket may have.

    Parameters
    ----------
    most : int
    share : float
        Of the files that the process may open: the rest is for the run log, the archive, and other sockets.
    """
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return most
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return most if soft == resource.RLIM_INFINITY else max(8, min(most, int(share * soft)))
