"""transformers with packed weights, against weights that numpy decodes from the files and transformers multiplies as floats."""

import copy
import os
import pickle
import subprocess
import sys
import threading
from pathlib import Path

import gguf
import numpy as np
import peft
import planish.transformers
import pytest
import torch
from planish.transformers.modules import Packed, PackedEmbedding, PackedLinear, TiedHead
from safetensors.torch import load_file
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, GgufConfig, LlamaConfig, LlamaForCausalLM, MetalConfig

IDS = torch.tensor([[1, 17, 300, 42, 5, 6, 7, 250, 99, 3, 180, 181]])


def program(*arguments):
    done = subprocess.run(
        [sys.executable, "-m", "planish", *map(str, arguments)], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="session")
def floats(tmp_path_factory):
    """A Llama of two layers with random weights in bf16 and a tied head."""
    torch.manual_seed(20261129)
    config = LlamaConfig(
        vocab_size=320,
        hidden_size=128,
        intermediate_size=192,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        tie_word_embeddings=True,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
        initializer_range=0.09,
    )
    folder = tmp_path_factory.mktemp("models") / "floats"
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def metal(floats):
    """The same, packed as transformers does it."""
    folder = floats.with_name("metal")
    program("quantize", floats, "--out", folder, "--format", "metal", "--method", "transformers")
    return folder


@pytest.fixture(scope="session")
def mlx(floats):
    """The same as a folder of mlx-lm with two widths, embedding and head among them."""
    folder = floats.with_name("mlx")
    program("quantize", floats, "--out", folder, "--format", "mlx", "--recipe", "mixed_3_6")
    return folder


def load(folder, **options):
    return AutoModelForCausalLM.from_pretrained(folder, **options)


def packed(model):
    return {name: module for name, module in model.named_modules() if isinstance(module, Packed)}


def decoded(codes, scales, biases, cols):
    """`scale * code + bias` in f64; codes are a stream of bits, lowest first."""
    scales, biases = scales.double().numpy(), biases.double().numpy()
    rows, groups = scales.shape
    bits = np.unpackbits(codes.numpy().view(np.uint8).reshape(rows, -1), axis=1, bitorder="little")
    width = bits.shape[1] // cols
    values = bits.reshape(rows, cols, width) @ (1 << np.arange(width))
    values = values.reshape(rows, groups, -1)
    return torch.from_numpy((scales[:, :, None] * values + biases[:, :, None]).reshape(rows, cols))


def reference(floats, folder, biases):
    """The model in f32 with what numpy decodes from a packed folder."""
    state = load_file(folder / "model.safetensors")
    model = load(floats, dtype=torch.float32)
    for name, module in model.named_modules():
        if f"{name}.scales" in state:
            weight = decoded(*(state[f"{name}.{part}"] for part in ("weight", "scales", biases)), module.weight.shape[1])
            module.weight = nn.Parameter(weight.float())
        elif f"{name}.weight" in state and hasattr(module, "weight"):
            module.weight = nn.Parameter(state[f"{name}.weight"].float())
    model.tie_weights()
    return model


def logits(model, ids=IDS):
    with torch.no_grad():
        return model(ids).logits.float()


def divergence(expected, found):
    """Kullback-Leibler, in nats, the mean over tokens."""
    expected, found = expected.log_softmax(-1), found.log_softmax(-1)
    return (expected.exp() * (expected - found)).sum(-1).mean().item()


@pytest.fixture
def in_floats():
    planish.transformers.enable(exact=True)
    yield
    planish.transformers.enable()


@pytest.mark.parametrize("device_map", [None, "cpu", "auto", {"": "cpu"}])
def test_metal_folders_stay_packed(metal, floats, device_map):
    model = load(metal, device_map=device_map, dtype=torch.float32)
    assert len(packed(model)) == 14 and type(model.lm_head) is nn.Linear
    expected = logits(reference(floats, metal, "qbiases"))
    assert divergence(expected, logits(model)) < 1e-3


def test_exact_products_are_those_of_floats(metal, floats, in_floats):
    model = load(metal, dtype=torch.float32)
    expected, found = logits(reference(floats, metal, "qbiases")), logits(model)
    assert (found - expected).abs().max() <= 2e-5 * expected.abs().max()


def test_sixteen_bits_are_no_worse_than_transformers(metal, floats):
    expected = logits(reference(floats, metal, "qbiases"))
    for dtype in (torch.bfloat16, torch.float16):
        theirs = load(metal, dtype=dtype, device_map="cpu", quantization_config=MetalConfig(dequantize=True))
        ours = load(metal, dtype=dtype)
        assert len(packed(ours)) == 14 and not packed(theirs)
        assert divergence(expected, logits(ours)) <= 1.05 * divergence(expected, logits(theirs)) + 1e-5


def test_one_token_at_a_time(metal, floats):
    expected = logits(reference(floats, metal, "qbiases"))
    model = load(metal, dtype=torch.float32)
    cache, found = None, []
    with torch.no_grad():
        for token in IDS[0]:
            step = model(token.reshape(1, 1), past_key_values=cache, use_cache=True)
            cache = step.past_key_values
            found.append(step.logits)
    assert divergence(expected, torch.cat(found, 1)) < 1e-3


def test_packing_while_loading_chooses_the_codes_of_planish_quantize(metal, floats, tmp_path):
    model = load(floats, quantization_config=MetalConfig(bits=4, group_size=64))
    assert len(packed(model)) == 14
    model.save_pretrained(tmp_path)
    same_tensors(tmp_path, metal)


def same_tensors(left, right):
    left, right = load_file(Path(left) / "model.safetensors"), load_file(Path(right) / "model.safetensors")
    assert left.keys() == right.keys()
    for name, tensor in left.items():
        other = right[name]
        assert (tensor.dtype, tensor.shape) == (other.dtype, other.shape), name
        assert torch.equal(tensor.view(torch.uint8), other.view(torch.uint8)), name


def test_saving_writes_what_was_loaded(metal, tmp_path):
    load(metal).save_pretrained(tmp_path)
    same_tensors(tmp_path, metal)
    saved = AutoConfig.from_pretrained(tmp_path).quantization_config
    assert saved == {"quant_method": "metal", "bits": 4, "group_size": 64, "modules_to_not_convert": None}
    assert torch.equal(logits(load(tmp_path)), logits(load(metal)))


def test_dequantizing_gives_the_type_that_was_asked_for(metal, floats):
    for device_map in (None, "cpu"):
        model = load(metal, dtype=torch.float32, device_map=device_map, quantization_config=MetalConfig(dequantize=True))
        assert not packed(model) and {parameter.dtype for parameter in model.parameters()} == {torch.float32}
        expected = reference(floats, metal, "qbiases").state_dict()
        for name, weight in model.state_dict().items():
            assert torch.allclose(weight, expected[name], rtol=1e-6, atol=1e-7), name


def test_a_packed_model_becomes_plain(metal, mlx):
    for folder in (metal, mlx):
        model = load(folder, dtype=torch.float32)
        before = logits(model)
        model.dequantize()
        assert not packed(model) and not any(isinstance(module, TiedHead) for module in model.modules())
        assert divergence(before, logits(model)) < 1e-3


def test_mlx_folders_have_packed_tables_and_mixed_widths(mlx, floats):
    model = load(mlx, dtype=torch.float32)
    widths = {module.bits for module in packed(model).values()}
    assert widths == {3, 6} and len(packed(model)) == 15
    assert isinstance(model.model.embed_tokens, PackedEmbedding) and isinstance(model.lm_head, TiedHead)
    expected = logits(reference(floats, mlx, "biases"))
    assert divergence(expected, logits(model)) < 1e-3
    with pytest.raises(ValueError, match="not serializable"):
        model.save_pretrained("nowhere")


def write_gguf(floats, file):
    """The same Llama as a GGUF file: 4 bits, 8 bits for the table."""
    writer, state = gguf.GGUFWriter(file, "llama"), load_file(floats / "model.safetensors")
    writer.add_vocab_size(320)
    writer.add_context_length(256)
    writer.add_embedding_length(128)
    writer.add_block_count(2)
    writer.add_feed_forward_length(192)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_rope_dimension_count(32)
    writer.add_layer_norm_rms_eps(1e-6)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, 2)
    for name, weight in state.items():
        values = weight.float().numpy()
        kind = gguf.GGMLQuantizationType.F32
        if values.ndim == 2:
            kind = gguf.GGMLQuantizationType.Q8_0 if "embed" in name else gguf.GGMLQuantizationType.Q4_0
            values = gguf.quants.quantize(values, kind)
        writer.add_tensor(names.get_name(name, try_suffixes=(".weight",)), values, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_gguf_files_stay_packed(floats, tmp_path):
    write_gguf(floats, tmp_path / "model.gguf")
    options = {"gguf_file": "model.gguf", "dtype": torch.float32}
    model = load(tmp_path, **options)
    plain = load(tmp_path, quantization_config=GgufConfig(dequantize=True), **options)
    assert {module.bits for module in packed(model).values()} == {4, 8} and not packed(plain)
    assert len(packed(model)) == 15 and isinstance(model.lm_head, TiedHead)
    assert divergence(logits(plain), logits(model)) < 1e-3


def test_copies_pickles_and_states(metal):
    model = load(metal)
    expected = logits(model)
    assert torch.equal(logits(copy.deepcopy(model)), expected)
    data = pickle.dumps(model)
    assert torch.equal(logits(pickle.loads(data)), expected)
    size = sum(tensor.numel() * tensor.element_size() for tensor in model.state_dict().values())
    assert len(data) < 1.5 * size
    other = load(metal)
    with torch.no_grad():
        for module in packed(other).values():
            module.weight = nn.Parameter(torch.zeros_like(module.weight), requires_grad=False)
    assert not torch.equal(logits(other), expected)
    assert not other.load_state_dict(model.state_dict()).missing_keys
    assert torch.equal(logits(other), expected)
    assert torch.equal(logits(other.to("cpu")), expected)
    with pytest.raises(ValueError, match="not supported for quantized"):
        other.float()
    with pytest.raises(RuntimeError, match="q_proj.scales"):
        state = {name: tensor for name, tensor in model.state_dict().items() if not name.endswith("q_proj.scales")}
        other.load_state_dict(state)


def test_threads_take_turns(metal):
    model, found = load(metal), [None] * 3
    expected = logits(model)

    def work(index):
        for _ in range(5):
            found[index] = logits(model)

    threads = [threading.Thread(target=work, args=(index,)) for index in range(3)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert all(torch.equal(each, expected) for each in found)


def test_a_forked_process_computes(metal):
    model = load(metal)
    module = next(iter(packed(model).values()))
    x = torch.ones(1, module.cols, dtype=torch.bfloat16)
    expected = module(x)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writing, b"same" if torch.equal(module(x), expected) else b"else")
        os._exit(0)
    assert os.read(reading, 4) == b"same"
    os.waitpid(child, 0)


def test_left_padded_batches(metal):
    model = load(metal, dtype=torch.float32)
    short = IDS[:, :7]
    alone = logits(model, short)
    ids = torch.cat([torch.cat([torch.zeros(1, 5, dtype=torch.int64), short], 1), IDS])
    mask = (ids != 0).long()
    with torch.no_grad():
        both = model(ids, attention_mask=mask, position_ids=(mask.cumsum(-1) - 1).clamp(min=0)).logits
    assert divergence(alone, both[:1, 5:]) < 1e-3
    assert model.generate(ids, attention_mask=mask, max_new_tokens=4, do_sample=False).shape == (2, 16)


def test_static_caches_and_graphs(metal):
    model = load(metal, dtype=torch.float32)
    options = {"max_new_tokens": 8, "do_sample": False, "min_new_tokens": 8}
    expected = model.generate(IDS, **options)
    assert torch.equal(model.generate(IDS, cache_implementation="static", **options), expected)
    graph = torch.compile(model, fullgraph=True, backend="aot_eager")
    assert torch.allclose(logits(graph), logits(model), atol=1e-4)


def test_operators_are_well_formed(metal):
    module = packed(load(metal))["model.layers.0.mlp.down_proj"]
    x = torch.randn(3, module.cols, requires_grad=True)
    weight = (module.rows, module.bits, module.group_size, module.scale_type)
    arguments = (x, module._parts(), None, *weight, True)
    tests = ("test_schema", "test_faketensor", "test_autograd_registration")
    torch.library.opcheck(torch.ops.planish.linear.default, arguments, test_utils=tests)


def test_gradients_of_inputs(metal, in_floats):
    for dtype, tolerance in [(torch.float32, 1e-5), (torch.bfloat16, 1e-2)]:
        module = packed(load(metal))["model.layers.1.mlp.gate_proj"]
        weight = decoded(*module.in_order().values(), module.cols)
        torch.manual_seed(3)
        x = torch.randn(2, 5, module.cols, dtype=dtype, requires_grad=True)
        into = torch.randn(2, 5, module.rows, dtype=dtype)
        module(x).backward(into)
        expected = into.double() @ weight
        assert (x.grad.double() - expected).abs().max() <= tolerance * expected.abs().max()


def test_adapters_of_peft_train(metal, floats):
    model = load(metal, dtype=torch.float32)
    plain = load(metal, dtype=torch.float32, quantization_config=MetalConfig(dequantize=True))
    losses = []
    for each in (model, plain):
        torch.manual_seed(5)
        adapted = peft.get_peft_model(each, peft.LoraConfig(r=4, target_modules=["q_proj", "down_proj"], task_type="CAUSAL_LM"))
        steps = torch.optim.AdamW([each for each in adapted.parameters() if each.requires_grad], lr=1e-2)
        adapted.train()
        for _ in range(6):
            loss = adapted(IDS, labels=IDS).loss
            loss.backward()
            steps.step()
            steps.zero_grad()
            losses.append(loss.item())
    ours, theirs = losses[:6], losses[6:]
    assert ours[-1] < 0.9 * ours[0]
    assert np.allclose(ours, theirs, rtol=5e-3), (ours, theirs)


def test_layers_with_biases_and_odd_groups(tmp_path):
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(8)
    config = Qwen2Config(
        vocab_size=64, hidden_size=96, intermediate_size=160, num_hidden_layers=1, num_attention_heads=3, num_key_value_heads=3
    )
    plain = Qwen2ForCausalLM(config)
    nn.init.normal_(plain.model.layers[0].self_attn.q_proj.bias)
    plain.save_pretrained(tmp_path / "plain")
    model = load(tmp_path / "plain", quantization_config=MetalConfig(bits=8, group_size=32))
    assert len(packed(model)) == 7
    ids = IDS % 64
    assert divergence(logits(plain, ids), logits(model, ids)) < 1e-3
    # Rows of 96 weights hold no whole groups of 64, rows of 160 neither.
    assert not packed(load(tmp_path / "plain", quantization_config=MetalConfig(bits=8, group_size=64)))


@pytest.mark.parametrize("device_map", [{"device_map": "cpu"}, {}], ids=["cpu", "none"])
def test_a_program_of_transformers_needs_no_other_line(plain_folder, tmp_path, device_map):
    """What the documents of transformers do for Apple machines: pack while loading, load what is packed, unpack, exclude layers."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(plain_folder)
    inputs = tokenizer("Once upon a time", return_tensors="pt").to("cpu")

    def text(model):
        output = model.generate(**inputs, max_new_tokens=16, do_sample=False)
        return tokenizer.decode(output[0], skip_special_tokens=True)

    model = load(plain_folder, quantization_config=MetalConfig(bits=4, group_size=64), **device_map)
    layers = 7 * model.config.num_hidden_layers
    assert len(packed(model)) == layers
    said = text(model)
    assert said.startswith("Once upon a time") and len(said) > 40
    model.save_pretrained(tmp_path)
    again = load(tmp_path, **device_map)
    assert len(packed(again)) == layers and text(again) == said
    plain = load(tmp_path, quantization_config=MetalConfig(dequantize=True), **device_map)
    assert not packed(plain) and text(plain).startswith("Once upon a time")
    partly = MetalConfig(bits=4, group_size=64, modules_to_not_convert=["lm_head", "down_proj"])
    assert len(packed(load(plain_folder, quantization_config=partly, **device_map))) == layers * 6 // 7


def test_what_cannot_be_is_refused_in_words(metal, mlx, floats, tmp_path):
    with pytest.raises(ValueError, match="cuda"):
        load(floats, device_map="cuda", quantization_config=MetalConfig())
    with pytest.raises(ValueError, match="MLX folders.*cuda"):
        load(mlx, device_map="cuda")
    with pytest.raises(ValueError, match="disk"):
        load(metal, device_map={"model": "cpu", "lm_head": "disk"}, offload_folder=tmp_path)
    module = packed(load(metal))["model.layers.0.self_attn.q_proj"]
    with pytest.raises(TypeError, match="float64"):
        module(torch.zeros(1, 128, dtype=torch.float64))
    with pytest.raises(ValueError, match="128 inputs was given 64"):
        module(torch.zeros(1, 64))
    with pytest.raises(RuntimeError, match="on one device, CPU or CUDA, found a tensor on meta"):
        module(torch.zeros(1, 128, device="meta"))


def test_cuda_refuses_what_would_not_fit():
    """What is said before anything reaches a GPU; scripts/gpu/hook.py compares what one computes."""
    from planish import _planish

    tiled = _planish.PackedLayout(192, 256, 4, 64, "bfloat16")
    assert _planish.cuda_bytes(tiled) == 192 * 256 // 2 + 192 * (256 // 64 + 1) * 4
    stored = _planish.PackedLayout(200, 288, 6, 16, "float16")
    assert _planish.cuda_bytes(stored) is None

    def linear(layout=tiled, parts=(16,), x=16, name="bfloat16", m=1):
        _planish.cuda_linear(layout, (0, 0), list(parts), x, name, m, 16, 0, 0)

    with pytest.raises(ValueError, match="expected the addresses of codes, scales and biases, or of one tensor, found 2"):
        linear(parts=(16, 16))
    with pytest.raises(ValueError, match="0x18: expected a multiple of 16 bytes"):
        linear(x=24)
    with pytest.raises(ValueError, match="no tensor of .* at 0x0"):
        linear(parts=(16, 16, 0))
    with pytest.raises(ValueError, match="order of tensor cores"):
        linear(layout=stored)
    with pytest.raises(TypeError, match="found int8"):
        linear(name="int8")
    with pytest.raises(ValueError, match="less than 2.31"):
        linear(m=1 << 31)
    with pytest.raises(ValueError, match="5 rows of 192"):
        _planish.cuda_rows(tiled, (0, 0), [16, 16, 16], 0, 5, 16, "bfloat16")
    if not torch.cuda.is_available():
        with pytest.raises(RuntimeError, match="driver|device"):
            linear()


def test_disabling_gives_transformers_back(metal):
    from transformers.quantizers import auto
    from transformers.quantizers.quantizer_metal import MetalHfQuantizer

    planish.transformers.disable()
    try:
        assert auto.AUTO_QUANTIZER_MAPPING["metal"] is MetalHfQuantizer and "mlx" not in auto.AUTO_QUANTIZER_MAPPING
        assert not packed(load(metal, device_map="cpu"))
    finally:
        assert planish.transformers.enable()
    assert packed(load(metal))


def python(code, **environment):
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, env={**os.environ, **environment}
    )


def test_the_environment_forbids():
    code = "import planish.transformers as hook; print(hook.enabled())"
    assert python(code, PLANISH_TRANSFORMERS="0").stdout == "False\n"


def test_an_unknown_transformers_is_told_once_and_left_alone():
    code = """
import transformers.quantizers.auto as auto
del auto.AUTO_QUANTIZER_MAPPING["metal"]
import planish.transformers as hook
print(hook.enabled(), "mlx" in auto.AUTO_QUANTIZER_MAPPING)
"""
    done = python(code)
    assert done.stdout == "False False\n", done.stderr
    assert done.stderr.count("does not know its way into transformers 5") == 1 and "with torch 2" in done.stderr
