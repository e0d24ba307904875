"""Whether the service may be where strangers can reach it."""

from __future__ import annotations

from typing import Any, NamedTuple

from senoscope.settings import Settings
from senoscope_client.security.loopback import is_local_endpoint, is_loopback


class ExposureWarning(NamedTuple):
    """A line for the log, and its facts."""

    event: str
    facts: dict[str, Any]


def check_exposure(settings: Settings, host: str) -> list[ExposureWarning]:
    """Refuse to serve beyond this machine without knowing whom.

    Parameters
    ----------
    settings : Settings
    host : str
        The address that is really listened on.

    Returns
    -------
    list of ExposureWarning
        What is allowed, and should be known to whoever runs the service.

    Raises
    ------
    PermissionError
        With both ways out.
    """
    keyed = settings.api_keys is not None or settings.api_key is not None
    exposed = not is_loopback(host)
    warnings: list[ExposureWarning] = []
    if exposed and not keyed:
        warnings += _allow_or_refuse(
            settings,
            f"{host} lets anybody on the network use the service: configure API keys (`senoscope keys new`, "
            "then --api-keys FILE), or say --insecure",
        )
    if settings.results and not settings.results_allowed_keys and not is_local_endpoint(settings.results):
        warnings += _allow_or_refuse(
            settings,
            f"{settings.results} lets anybody on the network see the results: name who may with "
            "--results-allowed-keys and --curve-keypair (`senoscope keys curve`), or say --insecure",
        )
    if exposed and keyed and settings.tls_cert is None:
        event = "API keys travel unencrypted: give --tls-cert and --tls-key"
        warnings.append(ExposureWarning(event, {"host": host}))
    return warnings


def _allow_or_refuse(settings: Settings, why: str) -> list[ExposureWarning]:
    if not settings.insecure:
        raise PermissionError(why)
    return [ExposureWarning("insecure, as told", {"reason": why})]
