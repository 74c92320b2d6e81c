"""From an entry point `module:Class` to a NetworkService object."""

from __future__ import annotations

import importlib
import inspect
import sys

from packetcloud.services.errors import ServiceConfigError
from packetcloud.services.sdk import NetworkService


def load_service(entry_point: str, search_path: str | None = None) -> NetworkService:
    """Import the module and make the service; nothing of it has been started yet.

    `search_path` goes to the end of `sys.path`, so that an author's `queue.py` never hides the
    standard library's from the runtime.

    Raises:
        ServiceConfigError: the module cannot be imported, or has no such NetworkService.
    """
    module_name, _, class_name = entry_point.partition(":")
    if search_path is not None and search_path not in sys.path:
        sys.path.append(search_path)
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # whatever an author's module raises while it is imported
        raise ServiceConfigError(
            f"cannot import {module_name} (entry point {entry_point}): "
            f"{type(error).__name__}: {error}"
        ) from error
    found = getattr(module, class_name, None)
    origin = getattr(module, "__file__", None) or module_name
    if not (inspect.isclass(found) and issubclass(found, NetworkService)):
        named = sorted(_services_in(vars(module)))
        raise ServiceConfigError(
            f"{origin} has no NetworkService {class_name!r} (entry point {entry_point}); "
            f"it has: {', '.join(named) or 'none'}"
        )
    try:
        return found()
    except TypeError as error:
        raise ServiceConfigError(f"{entry_point} needs arguments to be made: {error}") from error


def _services_in(names: dict[str, object]) -> list[str]:
    classes = {name: value for name, value in names.items() if inspect.isclass(value)}
    return [
        name
        for name, value in classes.items()
        if issubclass(value, NetworkService) and value is not NetworkService
    ]
