"""Services: given to an app, found by its routes, and kept apart from those of another app."""

from dataclasses import fields

import pytest
from quart_trio import QuartTrio

from server.services import Services, services, use_services


def build_services() -> Services:
    """Told apart by identity alone: nothing in them is used."""
    return Services(**{field.name: object() for field in fields(Services)})  # type: ignore[arg-type] # stand-ins


async def test_each_app_has_its_own() -> None:
    apps = [(QuartTrio("one"), build_services()), (QuartTrio("two"), build_services())]
    for app, given in apps:
        use_services(given, app.extensions)
    for app, given in apps:
        async with app.app_context():
            assert services() is given


async def test_outside_of_a_request_there_are_none() -> None:
    with pytest.raises(RuntimeError):
        services()
