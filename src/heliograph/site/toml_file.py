"""Read a configuration as TOML; what stands for no such file says what a person has to name."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any, Final

from heliograph.errors import ConfigurationError

__all__ = ["read_toml"]

_BYTES_MAX: Final = 1 << 20


def read_toml(path: Path, name: str, of: str, made_by: str) -> dict[str, Any]:
    """Return the tables of ``path``. Raises ConfigurationError with the remedy.

    ``name``: what such a file is called, ``of``: whose it is, ``made_by``: the command that writes a first one.
    """
    try:
        with path.open("rb") as handle:
            text = handle.read(_BYTES_MAX + 1)
        if len(text) > _BYTES_MAX:
            raise ConfigurationError(f"{path}: more than {_BYTES_MAX} bytes: no {of}'s configuration; name {name}")
        document = tomllib.loads(text.decode())
    except IsADirectoryError:
        there = f"name {path / name}" if (path / name).exists() else f"name a {name}, made with `{made_by}`"
        raise ConfigurationError(f"{path}: a directory; {there}") from None
    except PermissionError as error:
        raise ConfigurationError(f"{path}: {error.strerror}; run this as the user whose file it is") from None
    except OSError as error:
        raise ConfigurationError(f"{path}: {error.strerror}; correct the path, or make one with `{made_by}`") from None
    except UnicodeDecodeError as error:
        raise ConfigurationError(
            f"{path}: not valid TOML: no text in UTF-8 at byte {error.start}; name {name}"
        ) from None
    except (ValueError, RecursionError) as error:  # a number of 5000 digits is a ValueError of Python's own
        told = "nested too deep" if isinstance(error, RecursionError) else str(error).partition(";")[0]
        raise ConfigurationError(f"{path}: not valid TOML: {told}; correct it there, or name {name}") from None
    if not document:
        raise ConfigurationError(f"{path}: no entry is in it; restore it, or make one with `{made_by}`")
    return document
