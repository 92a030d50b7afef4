"""Tensors on disk, as safetensors with a format number and a checksum in the header.

**In:** tensors by name, plain values about them.
**Out:** the same, later, as torch's or as NumPy's; a file that is damaged or newer is a RunError.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmcli.storage import FORMAT, check_format, check_regular, reading, write_bytes

if TYPE_CHECKING:
    import numpy.typing as npt
    from torch import Tensor


def write_tensors(path: Path, tensors: Mapping[str, Tensor], about: dict[str, Any]) -> None:
    """Tensors as safetensors, with `about` and a checksum in the header."""
    from safetensors.torch import save

    plain = {k: v.detach().cpu().contiguous() for k, v in tensors.items()}
    written = json.dumps(about)
    header = {"about": written, "format": FORMAT, "checksum": _digest(plain, written)}
    # one entry only: safetensors writes several in random order, and equal runs are equal files
    write_bytes(path, save(plain, metadata={"lmcli": json.dumps(header)}))


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What `write_tensors` wrote; anything else is a RunError."""
    from safetensors.torch import load

    return _read(path, load)


def read_arrays(path: Path) -> tuple[dict[str, npt.NDArray[Any]], dict[str, Any]]:
    """The same as NumPy arrays, without torch; bfloat16, which NumPy lacks, is a RunError."""
    from safetensors.numpy import load

    return _read(path, load)


def _read(
    path: Path, load: Callable[[bytes], dict[str, Any]]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Not through a map of the file: what is mapped ends the process once the file is shorter."""
    from safetensors import SafetensorError

    with reading(path):
        check_regular(path)
        data = path.read_bytes()
        try:
            tensors = load(data)
        except SafetensorError as error:
            raise ValueError(error) from None
        begins = 8 + int.from_bytes(data[:8], "little")
        header = json.loads((json.loads(data[8:begins]).get("__metadata__") or {})["lmcli"])
        check_format(path, int(header["format"]))
        about: dict[str, Any] = json.loads(header["about"])
        if header["checksum"] != _digest(tensors, header["about"]):
            raise ValueError("its checksum does not match")
        if not isinstance(about, dict):
            raise TypeError("its header is no object")
    return tensors, about


def read_header(path: Path) -> tuple[dict[str, tuple[int, ...]], dict[str, Any]]:
    """The sizes of the tensors in a file, and what is said about them; the checksum waits."""
    from safetensors import safe_open

    with reading(path):
        check_regular(path)
        with safe_open(path, framework="numpy") as file:
            names = list(file.keys())
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in names}
            header = json.loads((file.metadata() or {})["lmcli"])
        check_format(path, int(header["format"]))
        return shapes, dict(json.loads(header["about"]))


def check_finite(tensors: Mapping[str, Any]) -> None:
    """A ValueError if a tensor, torch's or NumPy's, holds nan or an infinite number."""
    import numpy as np

    for name, tensor in tensors.items():
        values = tensor.float().numpy() if hasattr(tensor, "float") else tensor
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            raise ValueError(f"tensor {name} holds a number that is not finite")


def _digest(tensors: Mapping[str, Any], about: str) -> str:
    """A checksum of tensors, whether they are torch's or NumPy's."""
    digest = hashlib.sha256(about.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        kind = str(tensor.dtype).removeprefix("torch.")
        digest.update(f"{name} torch.{kind} {tuple(tensor.shape)}".encode())
        if kind == "bfloat16":  # numpy has no such type; float32 holds all its values
            tensor = tensor.float()
        digest.update(tensor.tobytes() if hasattr(tensor, "tobytes") else tensor.numpy().tobytes())
    return digest.hexdigest()
