"""Products over CUDA tensors, on PyTorch's current stream and in its memory; nothing waits, so that CUDA graphs of PyTorch capture them.

A weight is codes, scales and biases; or one tensor of bytes that holds them in the order of tensor cores, see `tiled_bytes`.
"""

import ctypes
import os
from functools import lru_cache
from pathlib import Path

import torch
from planish import _planish

#: Kernels read as many bytes at once.
ALIGNMENT = 16

_raw_stream = getattr(torch._C, "_cuda_getCurrentRawStream", None)


def is_there() -> bool:
    """Whether this machine has a device of NVIDIA: PyTorch calls those of AMD CUDA, too."""
    return bool(torch.version.cuda) and torch.cuda.is_available() and hasattr(_planish, "cuda_linear")


@lru_cache(maxsize=None)
def _load_compiler():
    """Makes the NVRTC that came with PyTorch known to the loader by its name."""
    major = torch.version.cuda.partition(".")[0]
    beside_torch = Path(torch.__file__).parents[1] / "nvidia"
    for path in beside_torch.glob(f"*/lib/libnvrtc.so.{major}"):
        ctypes.CDLL(os.fspath(path), mode=ctypes.RTLD_GLOBAL)


def _place(device: int) -> tuple[int, int]:
    _load_compiler()
    return device, _raw_stream(device) if _raw_stream else torch.cuda.current_stream(device).cuda_stream


def _aligned(tensor: torch.Tensor) -> torch.Tensor:
    if tensor.is_contiguous() and tensor.data_ptr() % ALIGNMENT == 0:
        return tensor
    return tensor.clone(memory_format=torch.contiguous_format)


def _addresses(parts, device: int) -> list[int]:
    for part in parts:
        if part.get_device() != device or not part.is_contiguous():
            raise RuntimeError(f"expected a packed weight on cuda:{device} like what it is multiplied with, found one on {part.device}")
    return [part.data_ptr() for part in parts]


@lru_cache(maxsize=1 << 14)
def _scratch_bytes(weight, device: int, tiled: bool, name: str, m: int, added: bool) -> int:
    return _planish.cuda_scratch(weight, device, tiled, name, m, added)


def linear(weight, name: str, x, parts, bias, rows: int, exact: bool):
    """`x @ weight.T + bias` in the type of x, which has that name. // x (..., cols) -> (..., rows)"""
    if exact and x.dtype != torch.float32:
        return linear(weight, "float32", x.float(), parts, bias, rows, exact).to(x.dtype)
    device, x = x.get_device(), _aligned(x)
    addresses, place = _addresses(parts, device), _place(device)
    output = x.new_empty((*x.shape[:-1], rows))
    m = output.numel() // rows
    if m == 0:
        return output
    added, scratch = None if bias is None else _aligned(bias.float()), None
    size = _scratch_bytes(weight, device, len(addresses) == 1, name, m, added is not None)
    if size:
        scratch = torch.empty(size, dtype=torch.uint8, device=x.device)
    _planish.cuda_linear(
        weight,
        place,
        addresses,
        x.data_ptr(),
        name,
        m,
        output.data_ptr(),
        0 if added is None else added.data_ptr(),
        0 if scratch is None else scratch.data_ptr(),
    )
    return output


def tiled_bytes(weight) -> int | None:
    """Bytes of a weight in the order of tensor cores; `None` where products read it as it is stored."""
    return _planish.cuda_bytes(weight) if is_there() else None


def tile(weight, parts) -> torch.Tensor:
    """Codes, scales and biases in the order of tensor cores."""
    device = parts[0].get_device()
    into = torch.empty(tiled_bytes(weight), dtype=torch.uint8, device=parts[0].device)
    _planish.cuda_repack(weight, _place(device), _addresses(parts, device), into.data_ptr())
    return into


def restore(weight, packed, into):
    """Codes, scales and biases out of that order again."""
    device = packed.get_device()
    (address,) = _addresses([packed], device)
    _planish.cuda_restore(weight, _place(device), address, _addresses(into, device))


def lookup(weight, name: str, ids, parts, output):
    """Fills the output with rows of a weight as it is stored; of all rows in order if ids is None."""
    device = output.get_device()
    if ids is not None:
        ids = ids.to(torch.int32).contiguous()
        if ids.get_device() != device:
            raise RuntimeError(f"expected ids on cuda:{device} like the table, found them on {ids.device}")
    count = output.shape[0] if ids is None else ids.numel()
    _planish.cuda_rows(
        weight,
        _place(device),
        _addresses(parts, device),
        0 if ids is None else ids.data_ptr(),
        count,
        output.data_ptr(),
        name,
    )
