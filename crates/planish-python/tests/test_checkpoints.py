"""Whole checkpoints, loading them, and serving."""

import hashlib
import json
import signal
import subprocess
import sys
import urllib.request

import planish
import pytest


def program(*arguments):
    done = subprocess.run([sys.executable, "-m", "planish", *map(str, arguments)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


def weights(folder):
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def packed(plain_folder, tmp_path_factory):
    """The story model in 4 bits, by Python and by the program."""
    folder = tmp_path_factory.mktemp("packed")
    told = []
    report = planish.quantize(plain_folder, folder / "python", bits=4, progress=lambda *step: told.append(step))
    program("quantize", plain_folder, "--bits", 4, "--out", folder / "program")
    return folder, report, told


def test_quantize_is_the_programs(packed):
    folder, report, told = packed
    assert weights(folder / "python") == weights(folder / "program")
    config = json.loads((folder / "python" / "config.json").read_text())
    assert config["quantization_config"]["quant_method"] == "metal"
    assert 4 < report.bits_per_weight < 8 and report.packed > 10 and report.output_bytes < report.source_bytes
    done = [step[0] for step in told]
    assert done == sorted(done) and told[-1][0] <= told[-1][1] == report.source_bytes and isinstance(told[0][2], str)


def test_rules_of_peers_are_the_programs(packed, plain_folder, tmp_path):
    for method in ("transformers", "mlx", "mlx-cpu"):
        planish.quantize(plain_folder, tmp_path / method, format="mlx", method=method, progress=False)
        program("quantize", plain_folder, "--format", "mlx", "--method", method, "--out", tmp_path / f"program-{method}")
        assert weights(tmp_path / method) == weights(tmp_path / f"program-{method}")
    assert weights(tmp_path / "transformers") != weights(tmp_path / "mlx")


RECIPES = {
    "weighted": ({"method": "weighted", "text": "held-out", "text_tokens": 600}, "--method weighted --text held-out --text-tokens 600"),
    "calibrated": (
        {"method": "calibrated", "text": "held-out", "text_tokens": 600, "device": "cpu", "exclude": ["model.layers.[1-7]"]},
        "--method calibrated --text held-out --text-tokens 600 --device cpu --exclude model.layers.[1-7]",
    ),
    "mxfp4": ({"format": "mlx", "mode": "mxfp4"}, "--format mlx --mode mxfp4"),
    "nvfp4": ({"format": "mlx", "mode": "nvfp4"}, "--format mlx --mode nvfp4"),
    "mixed": ({"format": "mlx", "recipe": "mixed_3_6", "group_size": 32}, "--format mlx --recipe mixed_3_6 --group-size 32"),
    "budget": ({"format": "mlx", "budget": 4.5, "budget_tokens": 64}, "--format mlx --budget 4.5 --budget-tokens 64"),
}


@pytest.mark.parametrize("name", RECIPES)
def test_what_runs_the_model_first_is_the_programs(name, plain_folder, tmp_path):
    options, flags = RECIPES[name]
    options, flags = dict(options), flags.split()
    if "text" in options:
        path = plain_folder.parent / "demo" / "held-out.txt"
        options["text"] = path.read_text()
        flags[flags.index("held-out")] = path
    told = []
    report = planish.quantize(plain_folder, tmp_path / "python", progress=lambda *step: told.append(step), **options)
    program("quantize", plain_folder, *flags, "--out", tmp_path / "program")
    assert weights(tmp_path / "python") == weights(tmp_path / "program")
    first = {"weighted": "inputs of layers", "calibrated": "layers"}.get(name, "model.")
    assert told[0][2].startswith(first) and told[-1][0] == told[-1][1]
    notes = " ".join(report.notes)
    said = {"weighted": "tokens of a text", "budget": "in 4 bits", "mixed": "in 6 bits"}
    assert said.get(name, "") in notes, notes


def test_a_file_for_llama_cpp(packed, tmp_path):
    """What the gguf package reads in the file is what numpy decodes of the folder."""
    gguf = pytest.importorskip("gguf")
    np = pytest.importorskip("numpy")
    folder, _, _ = packed
    report = planish.convert(folder / "python", tmp_path / "story.gguf", to="gguf", progress=False)
    assert report.packed > 10
    planish.dequantize(folder / "python", tmp_path / "floats", dtype="float32", progress=False)
    floats = pytest.importorskip("safetensors.numpy").load_file(tmp_path / "floats" / "model.safetensors")
    found = {tensor.name: tensor for tensor in gguf.GGUFReader(tmp_path / "story.gguf").tensors}
    down = found["blk.3.ffn_down.weight"]
    values = gguf.quants.dequantize(down.data, down.tensor_type)
    expected = floats["model.layers.3.mlp.down_proj.weight"]
    assert values.shape == expected.shape and np.abs(values - expected).max() <= 2e-3 * np.abs(expected).max()


def test_converted_and_back(packed, tmp_path, plain_folder):
    folder, _, _ = packed
    planish.convert(folder / "python", tmp_path / "mlx", to="mlx", progress=False)
    planish.convert(tmp_path / "mlx", tmp_path / "metal", to="metal", progress=False)
    assert weights(tmp_path / "metal") == weights(folder / "python")
    planish.dequantize(tmp_path / "mlx", tmp_path / "floats", dtype="float32", progress=False)
    assert planish.inspect(tmp_path / "floats", progress=False).format == "plain"
    mixed = planish.quantize(
        plain_folder, tmp_path / "mixed", bits=4, format="mlx", overrides={"down_proj": 6, "v_proj": (8, 32), "embed": None}, progress=False
    )
    assert mixed.bits_per_weight > planish.inspect(tmp_path / "mlx", progress=False).bits_per_weight
    found = {tensor["name"]: (tensor["bits"], tensor["group_size"]) for tensor in planish.inspect(tmp_path / "mixed", progress=False).tensors}
    assert found["model.layers.0.mlp.down_proj.weight"] == (6, 64)
    assert found["model.layers.0.self_attn.v_proj.weight"] == (8, 32)
    assert found["model.embed_tokens.weight"] == (None, None)


def test_inspect_is_the_programs(packed, plain_folder):
    folder, _, _ = packed
    for source in (folder / "python", plain_folder):
        found = planish.inspect(source, progress=False)
        expected = json.loads(program("inspect", source, "--json"))
        assert vars(found) == {name: expected[name] for name in vars(found)}
        assert set(expected) - set(vars(found)) == {"architecture", "supported", "unsupported_because"}
    assert planish.inspect().format.startswith("metal")


def test_loading_packs_and_unpacks(packed, plain_folder):
    folder, _, _ = packed
    prompt = "Once upon a time"

    def text(**options):
        return planish.generate(*planish.load(options.pop("source", plain_folder), **options), prompt, temperature=0, max_tokens=16)

    by_transformers = text(bits=4)
    assert by_transformers == text(quantization_config=planish.MetalConfig(bits=4))
    assert by_transformers == text(quantization_config={"quant_method": "metal", "bits": 4})
    unpacked = planish.load(folder / "python", dequantize=True, exact=True)
    kept = planish.load(folder / "python", exact=True, cache="float32")
    assert planish.generate(*unpacked, prompt, temperature=0, max_tokens=16) == planish.generate(*kept, prompt, temperature=0, max_tokens=16)
    model = planish.AutoModelForCausalLM.from_pretrained(
        plain_folder, quantization_config=planish.MetalConfig(bits=4), device_map="cpu", dtype="auto"
    )
    tokenizer = planish.AutoTokenizer.from_pretrained(plain_folder)
    assert planish.generate(model, tokenizer, prompt, temperature=0, max_tokens=16) == by_transformers


def test_metal_config_is_transformers(plain_folder):
    ours = planish.MetalConfig(bits=8, group_size=32, modules_to_not_convert=["lm_head"])
    assert ours == planish.MetalConfig.from_dict(ours.to_dict())
    with pytest.raises(ValueError, match="bits is 3"):
        planish.MetalConfig(bits=3)
    transformers = pytest.importorskip("transformers")
    theirs = transformers.MetalConfig(bits=8, group_size=32, modules_to_not_convert=["lm_head"])
    # transformers' enumeration of methods is a str of Python.
    assert ours.to_dict() == json.loads(json.dumps(theirs.to_dict()))
    assert json.loads(ours.to_json_string()) == json.loads(theirs.to_json_string(use_diff=False))
    # The other package's class is taken, too.
    folder, prompt = plain_folder, "Once upon a time"

    def text(config):
        return planish.generate(*planish.load(folder, quantization_config=config), prompt, temperature=0, max_tokens=16)

    assert text(transformers.MetalConfig(bits=2)) == text(planish.MetalConfig(bits=2)) != text(None)
    assert text(transformers.MetalConfig(dequantize=True)) == text(planish.MetalConfig(dequantize=True)) == text(None)


@pytest.mark.parametrize(
    "call, error, words",
    [
        (lambda a, b: planish.quantize(a / "missing", b), FileNotFoundError, "missing"),
        (lambda a, b: planish.quantize(a, b, bits=7), ValueError, "not 7"),
        (lambda a, b: planish.quantize(a, b, bits=3), ValueError, "2, 4 and 8"),
        (lambda a, b: planish.quantize(a, b, format="gguf"), ValueError, "format is gguf"),
        (lambda a, b: planish.quantize(a, b, include=["embeddings"]), ValueError, "include"),
        (lambda a, b: planish.quantize(a, b, method="best"), ValueError, "method is best"),
        (lambda a, b: planish.quantize(a, b, imatrix="x"), ValueError, "imatrix is search"),
        (lambda a, b: planish.quantize(a, b, method="weighted", imatrix=a / "missing"), FileNotFoundError, "missing"),
        (lambda a, b: planish.quantize(a, b, method="weighted", text="short"), ValueError, "too few"),
        (lambda a, b: planish.quantize(a, b, text="a text"), ValueError, "text is given"),
        (lambda a, b: planish.quantize(a, b, mode="mxfp4"), ValueError, "format is metal"),
        (lambda a, b: planish.quantize(a, b, mode="fp4"), ValueError, "mode is fp4"),
        (lambda a, b: planish.quantize(a, b, mode="mxfp4", format="mlx", method="mlx"), ValueError, "method is mlx"),
        (lambda a, b: planish.quantize(a, b, mode="nvfp4", format="mlx", group_size=64), ValueError, "expected 16"),
        (lambda a, b: planish.quantize(a, b, budget=4.5), ValueError, "format is metal, expected mlx"),
        (lambda a, b: planish.quantize(a, b, budget=9, format="mlx"), ValueError, "2.500 to 8.500"),
        (lambda a, b: planish.quantize(a, b, budget=4, bits=4, format="mlx"), ValueError, "bits is 4"),
        (lambda a, b: planish.quantize(a, b, recipe="mixed_9", format="mlx"), ValueError, "neither one of mixed_2_6"),
        (lambda a, b: planish.quantize(a, b, device="tpu"), ValueError, "device is tpu"),
        (lambda a, b: planish.convert(a, b, to="awq"), ValueError, "to is awq"),
        (lambda a, b: planish.quantize(a, b, dtype="int8"), ValueError, "dtype is int8"),
        (lambda a, b: planish.quantize(a, b, progress=3), TypeError, "progress"),
        (lambda a, b: planish.quantize(a, a.parent), ValueError, "holds the source"),
        (lambda a, b: planish.quantize(a, a.parent / "demo"), OSError, "exists already"),
        (lambda a, b: planish.convert(a, b, to="mlx"), ValueError, "is not packed"),
        (lambda a, b: planish.load(a, device="tpu"), ValueError, "device is tpu"),
        (lambda a, b: planish.load(a, threads=0), ValueError, "threads"),
        (lambda a, b: planish.load(a, cache="int4"), ValueError, "cache is int4"),
        (lambda a, b: planish.load(a, bits=4, dequantize=True), TypeError, "bits"),
        (lambda a, b: planish.load(a, revision="main"), ValueError, "revision"),
        (lambda a, b: planish.load(3), TypeError, "path"),
        (lambda a, b: planish.AutoModelForCausalLM.from_pretrained(a, device_map={"a": 0, "b": "cpu"}), ValueError, "device_map"),
        (lambda a, b: planish.AutoModelForCausalLM.from_pretrained(a, dtype="float16"), ValueError, "dtype"),
        (lambda a, b: planish.AutoTokenizer.from_pretrained(a / "missing"), FileNotFoundError, "missing"),
    ],
)
def test_errors_are_pythons(call, error, words, plain_folder, tmp_path):
    with pytest.raises(error, match=words):
        call(plain_folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_unsupported_is_said(tmp_path, plain_folder):
    config = json.loads((plain_folder / "config.json").read_text())
    for path in plain_folder.iterdir():
        (tmp_path / path.name).symlink_to(path)
    (tmp_path / "config.json").unlink()
    (tmp_path / "config.json").write_text(json.dumps(config | {"architectures": ["NoSuchForCausalLM"], "model_type": "no_such"}))
    with pytest.raises(planish.UnsupportedError, match="NoSuchForCausalLM"):
        planish.load(tmp_path)


def test_what_progress_raises_ends_the_work(plain_folder, tmp_path):
    def stop(done, total, what):
        raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        planish.quantize(plain_folder, tmp_path / "out", progress=stop)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("method", ["search", "weighted", "calibrated"])
def test_ctrl_c_leaves_nothing_behind(method, plain_folder, tmp_path):
    code = f"""
import planish
def told(done, total, what):
    print("told", flush=True)
try:
    for bits in (8, 4, 2) * 50:
        planish.quantize({str(plain_folder)!r}, {str(tmp_path / "out")!r}, bits=bits, method={method!r}, force=True, progress=told)
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""
    running = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert running.stdout.readline() == "told\n"
    running.send_signal(signal.SIGINT)
    said, _ = running.communicate(timeout=60)
    assert said.endswith("interrupted\n")
    assert {path.name for path in tmp_path.iterdir()} <= {"out"}


def test_a_server_answers_until_ctrl_c():
    code = """
import planish
model, _ = planish.load()
try:
    planish.serve(model, port=0, model_name="story", on_listen=lambda url: print(url, flush=True))
except KeyboardInterrupt:
    print("stopped", flush=True)
"""
    running = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    try:
        url = running.stdout.readline().strip()
        body = {"model": "story", "prompt": "Once upon a time", "max_tokens": 8, "temperature": 0}
        request = urllib.request.Request(
            f"{url}/v1/completions", json.dumps(body).encode(), {"content-type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            text = json.load(answer)["choices"][0]["text"]
        assert text == planish.generate(*planish.load(), "Once upon a time", temperature=0, max_tokens=8)
        running.send_signal(signal.SIGINT)
        assert running.communicate(timeout=60)[0] == "stopped\n"
    finally:
        running.kill()
