"""Whether the service may be where strangers can reach it."""

from __future__ import annotations

import structlog

from senoscope.settings import Settings
from senoscope_client.exposure import is_local_endpoint, is_loopback

_log = structlog.get_logger(__name__)


def check_exposure(settings: Settings, host: str) -> None:
    """Refuse to serve beyond this machine without knowing whom.

    Parameters
    ----------
    settings : Settings
    host : str
        The address that is really listened on.

    Raises
    ------
    PermissionError
        With both ways out.
    """
    keyed = settings.api_keys is not None or settings.api_key is not None
    exposed = not is_loopback(host)
    if exposed and not keyed:
        _allow_or_refuse(
            settings,
            f"{host} lets anybody on the network use the service: configure API keys (`senoscope keys new`, "
            "then --api-keys FILE), or say --insecure",
        )
    if settings.results and not settings.results_allowed_keys and not is_local_endpoint(settings.results):
        _allow_or_refuse(
            settings,
            f"{settings.results} lets anybody on the network see the results: name who may with "
            "--results-allowed-keys and --curve-keypair (`senoscope keys curve`), or say --insecure",
        )
    if exposed and keyed and settings.tls_cert is None:
        _log.warning("API keys travel unencrypted: give --tls-cert and --tls-key", host=host)


def _allow_or_refuse(settings: Settings, why: str) -> None:
    if not settings.insecure:
        raise PermissionError(why)
    _log.warning("insecure, as told", reason=why)
