"""One base, so that whoever needs the stores can catch what they raise."""

import importlib
import inspect
import pkgutil

import storage
from storage.errors import StorageError


def test_every_error_of_the_package_has_its_base() -> None:
    modules = [importlib.import_module(f"storage.{found.name}") for found in pkgutil.iter_modules(storage.__path__)]
    ours = {
        class_
        for module in modules
        for _, class_ in inspect.getmembers(module, inspect.isclass)
        if issubclass(class_, Exception) and class_.__module__.startswith("storage.")
    }
    assert len(ours) > 5
    assert {class_ for class_ in ours if not issubclass(class_, StorageError)} == set()
