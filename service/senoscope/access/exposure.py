"""Check whether the service may be reachable from other machines."""

from __future__ import annotations

from typing import NamedTuple

from senoscope.settings import Settings
from senoscope_client.security.loopback import is_local_endpoint, is_loopback


class ExposureWarning(NamedTuple):
    """A warning to be logged, with its fields."""

    event: str
    facts: dict[str, str]


def check_exposure(settings: Settings, host: str) -> list[ExposureWarning]:
    """Refuse to serve other machines without access control.

    Parameters
    ----------
    host : str
        The address of the listening socket.

    Returns
    -------
    list of ExposureWarning
        Risks that the settings allow.

    Raises
    ------
    PermissionError
        If other machines could use the service, or see results, without keys. The message names the settings
        that would add keys or allow it.
    """
    keyed = settings.api_keys is not None or settings.api_key is not None
    exposed = not is_loopback(host)
    warnings: list[ExposureWarning] = []
    if exposed and not keyed:
        warnings += _allow_or_refuse(
            settings,
            f"{host} can be used by other machines without a key: configure API keys (`senoscope keys new`, "
            "then --api-keys FILE), or use --insecure",
        )
    if settings.results and not settings.results_allowed_keys and not is_local_endpoint(settings.results):
        warnings += _allow_or_refuse(
            settings,
            f"{settings.results} sends results to any machine that connects: restrict subscribers with "
            "--results-allowed-keys and --curve-keypair (`senoscope keys curve`), or use --insecure",
        )
    if exposed and keyed and settings.tls_cert is None:
        event = "API keys are sent unencrypted: configure --tls-cert and --tls-key"
        warnings.append(ExposureWarning(event, {"host": host}))
    return warnings


def _allow_or_refuse(settings: Settings, risk: str) -> list[ExposureWarning]:
    if not settings.insecure:
        raise PermissionError(risk)
    return [ExposureWarning("insecure settings, allowed by --insecure", {"reason": risk})]
