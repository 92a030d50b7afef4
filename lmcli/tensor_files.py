"""Tensors on disk, as safetensors with a format number and a checksum in the header.

**In:** tensors by name, plain values about them.
**Out:** the same, later, as torch's or as NumPy's; a file that is damaged or newer is a RunError.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
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
    return _read(path, "pt")


def read_arrays(path: Path) -> tuple[dict[str, npt.NDArray[Any]], dict[str, Any]]:
    """The same as NumPy arrays, without torch; bfloat16, which NumPy lacks, is a RunError."""
    return _read(path, "numpy")


def _read(path: Path, framework: str) -> tuple[dict[str, Any], dict[str, Any]]:
    from safetensors import SafetensorError, safe_open

    with reading(path):
        check_regular(path)
        try:
            with safe_open(path, framework=framework) as file:
                header = json.loads((file.metadata() or {})["lmcli"])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except SafetensorError as error:
            raise ValueError(error) from None
        check_format(path, int(header["format"]))
        about: dict[str, Any] = json.loads(header["about"])
        if header["checksum"] != _digest(tensors, header["about"]):
            raise ValueError("its checksum does not match")
        if not isinstance(about, dict):
            raise TypeError("its header is no object")
    return tensors, about


def tensor_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """The sizes of the tensors in a file, none of which is read."""
    from safetensors import safe_open

    with reading(path):
        check_regular(path)
        with safe_open(path, framework="numpy") as file:
            names = list(file.keys())
            return {name: tuple(file.get_slice(name).get_shape()) for name in names}


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
