"""Read a file of another format as a whole, write one in one step, and import the package that a format needs."""

import importlib
import os
import secrets
from pathlib import Path
from typing import Any

from jax_lstm import checks

Source = str | os.PathLike[str] | bytes | bytearray | memoryview
# What a file of another kind starts with.
KINDS = {
    b"PK\x03\x04": "a zip archive, as torch.save writes; use interop.torch.load(torch.load(path, weights_only=True))",
    b"\x80": "a pickle, as torch.save writes; use interop.torch.load(torch.load(path, weights_only=True))",
    b"\x89HDF": "an HDF5 file; use interop.keras.load",
}


def package(caller: str, name: str) -> Any:
    """Import a package of the extra `interop`."""
    try:
        return importlib.import_module(name)
    except ImportError:
        missing = name.partition(".")[0]
        raise ImportError(
            f'{caller}: the package {missing} is missing; install it with pip install "jax_lstm[interop]"'
        ) from None


def read(caller: str, source: Any) -> tuple[str, bytes]:
    """What a message calls the file, and its bytes."""
    if isinstance(source, bytes | bytearray | memoryview):
        file, data = "source", bytes(source)
    elif isinstance(source, str | os.PathLike):
        path = Path(source)
        file = path.name or str(path)
        if path.is_dir():
            raise IsADirectoryError(f"{caller}: {file} is a directory; pass the path of a file in it")
        if not path.exists():
            raise FileNotFoundError(f"{caller}: there is no file {path}; pass a path that exists")
        data = path.read_bytes()
    else:
        raise TypeError(
            f"{caller}: source must be a path or the bytes of a file, but is {checks.shown(source)}"
            f"{checks.of_type(source)}; pass what dump wrote"
        )
    if not data:
        raise ValueError(f"{caller}: {file} is empty; write it again with dump")
    return file, data


def kind_of(data: bytes, otherwise: str) -> str:
    """What a file of the wrong kind is, and what to do with it."""
    return next((text for start, text in KINDS.items() if data.startswith(start)), otherwise)


def write(caller: str, path: Any, data: bytes) -> None:
    """Write a file in one step: if the process stops before the end, an old file of that name stays as it was.

    A pipe or a device, such as /dev/stdout, is written to, and not replaced.
    """
    if not isinstance(path, str | os.PathLike):
        raise TypeError(f"{caller}: path must be a path or None, but is {checks.shown(path)}{checks.of_type(path)}")
    target = Path(path).resolve()  # a link stays a link
    if target.is_dir():
        raise IsADirectoryError(f"{caller}: {target.name} is a directory; add the name of a file")
    if not target.parent.is_dir():
        raise FileNotFoundError(f"{caller}: {target.name} needs the folder {target.parent}; make it first")
    if target.exists() and not target.is_file():  # a device or a pipe: not to be replaced by a file
        target.write_bytes(data)
        return
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
    try:
        with open(temporary, "xb") as f:
            f.write(data)
            f.flush()
            os.fsync(f.fileno())
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)
