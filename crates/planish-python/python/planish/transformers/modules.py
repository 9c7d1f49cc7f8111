"""Modules whose weights stay packed.

While a model is loaded, and where a machine has no better kernels, a weight is three parameters, as in transformers' `MetalLinear`.
Once loaded, `fold` puts the three into one buffer, in the order that the device reads fastest; it takes the same memory. `weight`,
`scales` and `qbiases` of a folded module are made anew when asked for, and `state_dict` holds them as ever.
"""

import torch
from planish.transformers import cuda, kernels
from torch import nn
from transformers.integrations.metal_quantization import MetalLinear

PARTS = ("weight", "scales", "qbiases")


class Packed(nn.Module):
    """A packed weight of `rows` x `cols`."""

    #: Whether single rows of it are read too, which tiles of CUDA's tensor cores do not give.
    is_table = False

    def _declare(self, rows: int, cols: int, bits: int, group_size: int, scale_type: torch.dtype):
        self.rows, self.cols, self.bits, self.group_size = rows, cols, bits, group_size
        groups = cols // group_size
        shapes = [(rows, kernels.words(cols, bits)), (rows, groups), (rows, groups)]
        for name, shape, dtype in zip(PARTS, shapes, [torch.uint32, scale_type, scale_type]):
            self.register_parameter(name, nn.Parameter(torch.empty(shape, dtype=dtype), requires_grad=False))

    @property
    def scale_type(self) -> torch.dtype:
        """The type of the groups' scales and biases."""
        scales = self._parameters.get("scales")
        return self.folded_type if scales is None else scales.dtype

    @property
    def shape(self) -> tuple:
        return self.rows, self.cols, self.bits, self.group_size, self.scale_type

    @property
    def layout(self):
        return kernels.layout(*self.shape)

    @property
    def folded(self) -> bool:
        return "packed" in self.__dict__.get("_buffers", ())

    def _parts(self):
        packed = self._buffers.get("packed")
        if packed is not None:
            return [packed]
        return [self._parameters[name] for name in PARTS]

    def can_fold(self) -> bool:
        """Whether the device has kernels for the weight in one buffer."""
        parts = [] if self.folded else [self._parameters[name] for name in PARTS]
        if not parts or not all(part.is_contiguous() for part in parts):
            return False
        if all(part.is_cuda for part in parts):
            return not self.is_table and cuda.tiled_bytes(self.layout) is not None
        if kernels.exact or not all(part.is_cpu for part in parts):
            return False
        return self.layout.interleaves([part.data_ptr() for part in parts], torch.get_num_threads())

    def fold(self, into: torch.Tensor | None = None):
        """Puts the three parameters into one buffer, where that can be computed with; on the CPU of `layout.bytes` bytes."""
        if not self.can_fold():
            return
        parts = [self._parameters[name] for name in PARTS]
        if parts[0].is_cuda:
            into = cuda.tile(self.layout, parts)
        else:
            into = torch.empty(self.layout.bytes, dtype=torch.uint8) if into is None else into
            self.layout.interleave([part.data_ptr() for part in parts], into.data_ptr())
        self.folded_type, self.folded_layout = self.scale_type, self.layout
        for name in PARTS:
            del self._parameters[name]
        self.register_buffer("packed", into, persistent=False)

    def in_order(self) -> dict[str, torch.Tensor]:
        """Codes, scales and biases as files hold them."""
        if not self.folded:
            return {name: self._parameters[name] for name in PARTS}
        parts = kernels.in_order(self._buffers["packed"], *self.shape)
        return {name: nn.Parameter(part, requires_grad=False) for name, part in zip(PARTS, parts)}

    def unfold(self):
        """The three parameters again."""
        if self.folded:
            parts = self.in_order()
            del self._buffers["packed"]
            self._non_persistent_buffers_set.discard("packed")
            for name, part in parts.items():
                self.register_parameter(name, part)

    def dequantized(self, dtype: torch.dtype) -> torch.Tensor:
        """The weights as floats, rounded once. // (rows, cols)"""
        return kernels.dense(self._parts(), *self.shape, dtype)

    def __getattr__(self, name):
        if name in PARTS and self.folded:
            return self.in_order()[name]
        return super().__getattr__(name)

    def __setattr__(self, name, value):
        if name in PARTS and self.folded:
            self.unfold()
        super().__setattr__(name, value)

    def __getstate__(self):
        """For copies and pickles: this weight without the memory that it shares with others."""
        state = self.__dict__.copy()
        state.pop("folded_layout", None)
        if self.folded:
            state["_buffers"] = {**self._buffers, "packed": self._buffers["packed"].clone()}
        return state

    def __setstate__(self, state):
        super().__setstate__(state)
        if self.folded:
            self.folded_layout = self.layout

    def _apply(self, fn, recurse=True):
        """Scales and biases of groups keep their type: another would change the weights. Each kind of device has an order of its own."""
        first = self._parts()[0]
        moves = first.device.type != "meta" and fn(first.new_empty(0)).device.type != first.device.type
        if moves:
            self.unfold()
        kept = {id(self._parameters.get(name)) for name in PARTS[1:]}

        def moved(tensor):
            if id(tensor) in kept and tensor.device.type != "meta":
                return tensor.to(fn(tensor.new_empty(0)).device)
            return fn(tensor)

        super()._apply(moved, recurse)
        if moves:
            self.fold()
        return self

    def _save_to_state_dict(self, destination, prefix, keep_vars):
        if self.folded:
            for name, part in self.in_order().items():
                destination[prefix + name] = part if keep_vars else part.detach()
        super()._save_to_state_dict(destination, prefix, keep_vars)

    def _load_from_state_dict(self, state_dict, prefix, *arguments):
        self.unfold()
        super()._load_from_state_dict(state_dict, prefix, *arguments)
        self.fold()

    def _product(self, x, bias):
        if x.shape[-1] != self.cols:
            raise ValueError(f"a packed layer of {self.cols} inputs was given {x.shape[-1]}")
        if torch.compiler.is_compiling():
            operation = torch.ops.planish.linear
        elif torch.is_grad_enabled() and (x.requires_grad or (bias is not None and bias.requires_grad)):
            operation = torch.ops.planish.linear
        else:
            packed = self._buffers.get("packed")
            if packed is not None and bias is None and x.is_cpu and packed.is_cpu and x.is_contiguous():
                return kernels.folded_linear(x, packed, self.folded_layout, self.rows)
            operation = kernels.linear
        return operation(
            x, self._parts(), bias, self.rows, self.bits, self.group_size, self.scale_type, kernels.exact
        )


class PackedLinear(Packed, MetalLinear):
    """`nn.Linear` over a packed weight."""

    def __init__(self, in_features, out_features, bias, *, bits, group_size, scale_type=torch.bfloat16, plain=None):
        nn.Module.__init__(self)
        self.in_features, self.out_features = in_features, out_features
        self._declare(out_features, in_features, bits, group_size, scale_type)
        if plain is not None:
            # What will be packed while it is loaded.
            self.weight = nn.Parameter(torch.empty((out_features, in_features), dtype=plain), requires_grad=False)
        self.register_parameter("bias", nn.Parameter(torch.empty(out_features)) if bias else None)

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return self._product(input, self._parameters["bias"])

    def extra_repr(self) -> str:
        shape = f"in_features={self.in_features}, out_features={self.out_features}"
        return f"{shape}, bias={self.bias is not None}, bits={self.bits}, group_size={self.group_size}"


class PackedEmbedding(Packed, nn.Embedding):
    """`nn.Embedding` over a packed table; its rows come in the model's type."""

    is_table = True

    def __init__(self, module: nn.Embedding, dtype, *, bits, group_size, scale_type):
        nn.Module.__init__(self)
        self.num_embeddings, self.embedding_dim = module.num_embeddings, module.embedding_dim
        self.padding_idx, self.dtype = module.padding_idx, dtype
        self._declare(self.num_embeddings, self.embedding_dim, bits, group_size, scale_type)

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        operation = torch.ops.planish.lookup if torch.compiler.is_compiling() else kernels.lookup
        return operation(input, self._parts(), *self.shape, self.dtype)

    def _apply(self, fn, recurse=True):
        self.dtype = fn(torch.empty(0, dtype=self.dtype)).dtype
        return super()._apply(fn, recurse)

    def extra_repr(self) -> str:
        return f"{self.num_embeddings}, {self.embedding_dim}, bits={self.bits}, group_size={self.group_size}"


class TiedHead(nn.Module):
    """A head that multiplies with the table of a packed embedding and has no weights of its own."""

    def __init__(self, table: PackedEmbedding):
        super().__init__()
        # Not a submodule: its tensors belong to the embedding. Copies of a model keep the two together.
        self.__dict__["table"] = table
        self.in_features, self.out_features, self.bias = table.embedding_dim, table.num_embeddings, None

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return self.table._product(input, None)


def fold_all(model: nn.Module):
    """Ends the loading of a model: folds every packed module that can be, into one piece of memory in the order of use."""
    packed = [module for module in model.modules() if isinstance(module, Packed)]
    for module in packed:
        for name in PARTS:
            module._parameters[name].requires_grad_(False)
    foldable = [module for module in packed if module.can_fold()]
    on_cpu = [module for module in foldable if module.weight.is_cpu]
    for module in foldable:
        if module.weight.is_cuda:
            module.fold()
    sizes = [-(-module.layout.bytes // 64) * 64 for module in on_cpu]
    if not on_cpu:
        return
    memory = torch.empty(sum(sizes), dtype=torch.uint8)
    kernels.advise_huge(memory.data_ptr(), memory.numel())
    start = 0
    for module, size in zip(on_cpu, sizes):
        module.fold(memory[start : start + module.layout.bytes])
        start += size
