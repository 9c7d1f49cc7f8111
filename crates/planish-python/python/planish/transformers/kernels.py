"""planish's products over PyTorch's tensors: one function for eager code, the same as operators for graphs and gradients.

A weight is a list of tensors: codes (uint32 words), scales and biases; or one of bytes that holds all three in the order that the device
reads fastest: on the CPU with 16 rows side by side, on CUDA as tiles of tensor cores.
"""

import ctypes
from functools import lru_cache

import torch
from planish._planish import PackedLayout, advise_huge, use_openmp
from planish.transformers import cuda

TYPES = {torch.float32: "float32", torch.float16: "float16", torch.bfloat16: "bfloat16"}

#: Whether products are computed in f32 throughout; else their inputs are rounded to 8 or 16 bits or bf16. See `enable`.
exact = False


def _share_threads():
    """Products run on the threads that PyTorch has already, where those are OpenMP's."""
    if torch.backends.openmp.is_available():
        parallel = getattr(ctypes.CDLL(None), "GOMP_parallel", None)
        if parallel is not None:
            use_openmp(ctypes.cast(parallel, ctypes.c_void_p).value)


@lru_cache(maxsize=None)
def layout(rows: int, cols: int, bits: int, group_size: int, scale_type: torch.dtype) -> PackedLayout:
    """The description of a weight by which Rust finds its way."""
    return PackedLayout(rows, cols, bits, group_size, TYPES.get(scale_type, str(scale_type)))


def words(cols: int, bits: int) -> int:
    """The uint32 words of a row of codes."""
    return cols * bits // 32


def _place(tensor: torch.Tensor) -> torch.Tensor:
    if not tensor.is_cpu:
        raise RuntimeError(
            f"expected packed weights and what they are multiplied with on one device, CPU or CUDA, found a tensor on {tensor.device}; for "
            "another device load the model with quantization_config=MetalConfig(dequantize=True)"
        )
    return tensor if tensor.is_contiguous() else tensor.contiguous()


def _described(x: torch.Tensor) -> str:
    name = TYPES.get(x.dtype)
    if name is None:
        raise TypeError(f"packed weights compute with float32, float16 and bfloat16, found {x.dtype}")
    return name


def _addresses(parts) -> list[int]:
    return [_place(part).data_ptr() for part in parts]


def linear(x, parts, bias, rows: int, bits: int, group_size: int, scale_type: torch.dtype, exact: bool):
    """`x @ weight.T + bias` in the type of x. // x (..., cols) -> (..., rows)"""
    *outer, cols = x.shape
    weight = layout(rows, cols, bits, group_size, scale_type)
    name = _described(x)
    if x.is_cuda:
        return cuda.linear(weight, name, x, parts, bias, rows, exact)
    x = _place(x)
    output = x.new_empty((*outer, rows))
    address, bias_type = 0, name
    if bias is not None:
        bias = _place(bias)
        address, bias_type = bias.data_ptr(), _described(bias)
    threads, m = torch.get_num_threads(), x.numel() // cols
    weight.linear(_addresses(parts), x.data_ptr(), name, m, output.data_ptr(), address, bias_type, exact, threads)
    return output


def folded_linear(x, packed, weight: PackedLayout, rows: int):
    """What `linear` does most often, with as little beside it as can be: x contiguous, the weight in one tensor, both on the CPU, no bias."""
    shape, dtype = x.shape, x.dtype
    name = TYPES.get(dtype) or _described(x)
    output = x.new_empty((*shape[:-1], rows))
    weight.linear(
        [packed.data_ptr()], x.data_ptr(), name, x.numel() // shape[-1], output.data_ptr(), 0, name, exact, torch.get_num_threads()
    )
    return output


def backward(grad, parts, cols: int, bits: int, group_size: int, scale_type: torch.dtype):
    """`grad @ weight` in f32, in the type of grad. // grad (..., rows) -> (..., cols)"""
    rows = grad.shape[-1]
    weight = layout(rows, cols, bits, group_size, scale_type)
    name = _described(grad)
    if grad.is_cuda:
        return grad @ dense(parts, rows, cols, bits, group_size, scale_type, grad.dtype)
    grad = _place(grad)
    output = torch.empty((*grad.shape[:-1], cols), dtype=grad.dtype)
    weight.backward(
        _addresses(parts), grad.data_ptr(), name, grad.numel() // rows, output.data_ptr(), torch.get_num_threads()
    )
    return output


def lookup(ids, parts, rows: int, cols: int, bits: int, group_size: int, scale_type: torch.dtype, dtype: torch.dtype):
    """Rows of a packed table in a type. // ids (...) -> (..., cols)"""
    weight = layout(rows, cols, bits, group_size, scale_type)
    if ids.is_cuda:
        output = torch.empty((*ids.shape, cols), dtype=dtype, device=ids.device)
        cuda.lookup(weight, _described(output), ids, parts, output)
        return output
    ids = _place(ids.to(torch.int64))
    output = torch.empty((*ids.shape, cols), dtype=dtype)
    weight.rows(
        _addresses(parts), ids.data_ptr(), ids.numel(), output.data_ptr(), _described(output), torch.get_num_threads()
    )
    return output


def in_order(packed, rows: int, cols: int, bits: int, group_size: int, scale_type: torch.dtype) -> list[torch.Tensor]:
    """Codes, scales and biases, as files hold them, of a weight in one tensor."""
    weight, groups = layout(rows, cols, bits, group_size, scale_type), cols // group_size
    shapes = [((rows, words(cols, bits)), torch.uint32), *[((rows, groups), scale_type)] * 2]
    parts = [torch.empty(shape, dtype=dtype, device=packed.device) for shape, dtype in shapes]
    if packed.is_cuda:
        cuda.restore(weight, packed, parts)
    else:
        weight.deinterleave(_addresses([packed]), _addresses(parts))
    return parts


def dense(parts, rows: int, cols: int, bits: int, group_size: int, scale_type: torch.dtype, dtype: torch.dtype):
    """A weight as floats, rounded once. // (rows, cols)"""
    shape = (rows, cols, bits, group_size, scale_type)
    if not parts[0].is_cuda:
        return lookup(torch.arange(rows), parts, *shape, dtype)
    if len(parts) == 1:
        parts = in_order(parts[0], *shape)
    output = torch.empty((rows, cols), dtype=dtype, device=parts[0].device)
    cuda.lookup(layout(*shape), _described(output), None, parts, output)
    return output


_share_threads()

_library = torch.library.Library("planish", "DEF")
_library.define(
    "linear(Tensor x, Tensor[] parts, Tensor? bias, int rows, int bits, int group_size, ScalarType scale_type, bool exact) -> Tensor"
)
_library.define(
    "backward(Tensor grad, Tensor[] parts, int cols, int bits, int group_size, ScalarType scale_type) -> Tensor"
)
_library.define(
    "lookup(Tensor ids, Tensor[] parts, int rows, int cols, int bits, int group_size, ScalarType scale_type, ScalarType dtype) -> Tensor"
)
for _key in ("CPU", "CUDA"):
    _library.impl("linear", linear, _key)
    _library.impl("backward", backward, _key)
    _library.impl("lookup", lookup, _key)


@torch.library.register_fake("planish::linear", lib=_library)
def _(x, parts, bias, rows, bits, group_size, scale_type, exact):
    return x.new_empty((*x.shape[:-1], rows))


@torch.library.register_fake("planish::backward", lib=_library)
def _(grad, parts, cols, bits, group_size, scale_type):
    return grad.new_empty((*grad.shape[:-1], cols))


@torch.library.register_fake("planish::lookup", lib=_library)
def _(ids, parts, rows, cols, bits, group_size, scale_type, dtype):
    return ids.new_empty((*ids.shape, cols), dtype=dtype)


def _keep(ctx, inputs, output):
    x, parts, bias, _, bits, group_size, scale_type, _ = inputs
    ctx.save_for_backward(*parts)
    ctx.weight = (x.shape[-1], bits, group_size, scale_type)
    ctx.bias_type = None if bias is None else bias.dtype


def _gradients(ctx, grad):
    of_x = of_bias = None
    if ctx.needs_input_grad[0]:
        of_x = torch.ops.planish.backward(grad, list(ctx.saved_tensors), *ctx.weight)
    if ctx.bias_type is not None and ctx.needs_input_grad[2]:
        of_bias = grad.reshape(-1, grad.shape[-1]).sum(0).to(ctx.bias_type)
    return of_x, [None] * len(ctx.saved_tensors), of_bias, None, None, None, None, None


torch.library.register_autograd("planish::linear", _gradients, setup_context=_keep, lib=_library)
