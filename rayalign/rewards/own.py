"""A user's own scorer: where its module is looked for, and what of it must travel to other machines."""

from __future__ import annotations

import importlib
import os
import sys
import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING

from rayalign.errors import ConfigError

if TYPE_CHECKING:
    from types import ModuleType


def is_own(name: str) -> bool:
    """Whether `name` is a user's class, `my_package.my_module:MyScorer`, and none from the table."""
    return ":" in name


def load_module(name: str, module: str = "") -> ModuleType:
    """The module of scorer `name`, or another, from the working folder too, where scripts do not look by themselves.

    Raises:
        ConfigError: it cannot be found or imported.
    """
    module = module or name.partition(":")[0]
    here = os.getcwd()
    if here not in sys.path:
        sys.path.append(here)  # last, so that it hides nothing that is installed
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if not f"{module}.".startswith(f"{error.name}."):  # something that it imports
            raise _failed(name, module, error) from error
        package, _, missing = str(error.name).rpartition(".")
        if package:
            raise ConfigError("rewards.scorer", name, f"{package} has no module {missing!r}") from error
        fix = f"no module {missing} in {here} or on PYTHONPATH; start from the folder that holds {missing}"
        raise ConfigError("rewards.scorer", name, f"{fix}, or set PYTHONPATH to that folder") from error
    except Exception as error:  # a user's module can raise anything while it is imported
        raise _failed(name, module, error) from error


def _failed(name: str, module: str, error: Exception) -> ConfigError:
    fix = f"importing {module or 'nothing'} failed with {type(error).__name__}: {error}"
    more = "correct it; what only its own runtime_env has, import inside the class"
    return ConfigError("rewards.scorer", name, f"{fix}; {more}")


def code_of(name: str) -> Path | None:
    """What a machine needs to import scorer `name`: its top-level package's folder, or its one file.

    None for a scorer of this package, and for one that is installed: nodes have what is installed.
    """
    if not is_own(name):
        return None
    module = load_module(name, name.partition(":")[0].partition(".")[0])
    # A package without __init__.py has no file.
    folders = list(getattr(module, "__path__", []))
    if not folders and module.__file__ is None:
        return None
    path = Path(folders[0] if folders else str(module.__file__)).resolve()
    installed = [Path(sysconfig.get_path(kind)).resolve() for kind in ("purelib", "platlib", "stdlib")]
    ours = Path(__file__).resolve().parents[1]
    return None if path == ours or any(path.is_relative_to(folder) for folder in installed) else path
