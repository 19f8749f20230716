"""The rules, by component: importing this package fills the catalogue."""

from importlib import import_module
from pkgutil import iter_modules

from checks.check import CATALOGUE

for _module in iter_modules(__path__, f"{__name__}."):
    import_module(_module.name)

__all__ = ["CATALOGUE"]
