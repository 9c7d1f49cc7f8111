"""What the package is: its imports, its stubs, its program."""

import ast
import os
import signal
import subprocess
import sys
from pathlib import Path

import planish
import pytest
from planish import _planish

PACKAGE = Path(planish.__file__).parent


def python(*arguments, **options):
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, timeout=60, **options)


def test_import_brings_nothing_heavy():
    code = "import sys, planish; print([n for n in ('numpy', 'torch', 'transformers', 'asyncio') if n in sys.modules])"
    assert python("-c", code).stdout.strip() == "[]"


def test_import_takes_no_time():
    """Of the processor's, so that a busy machine counts for nothing."""
    code = "import time; begun = time.process_time(); import planish; print(time.process_time() - begun)"
    assert min(float(python("-c", code).stdout) for _ in range(5)) < 0.05


def public(names):
    return {name for name in names if not name.startswith("_") or name == "__version__"}


def test_the_stubs_name_what_the_module_has():
    tree = ast.parse((PACKAGE / "_planish.pyi").read_text())
    declared, classes = set(), {}
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            members = [item.name for item in node.body if isinstance(item, ast.FunctionDef)]
            members += [item.target.id for item in node.body if isinstance(item, ast.AnnAssign)]
            declared.add(node.name)
            classes[node.name] = public(members)
        elif isinstance(node, ast.FunctionDef):
            declared.add(node.name)
        elif isinstance(node, ast.AnnAssign):
            declared.add(node.target.id)
    assert public(declared) == public(dir(_planish))
    for name, members in classes.items():
        assert members == public(vars(getattr(_planish, name))), name


def test_the_package_is_typed():
    assert (PACKAGE / "py.typed").exists()
    assert set(planish.__all__) <= set(dir(planish))


def test_python_m_planish_is_the_program():
    version = python("-m", "planish", "--version")
    assert (version.returncode, version.stdout) == (0, f"planish {planish.__version__}\n")
    assert python("-m", "planish", "no-such-command").returncode == 2
    missing = python("-m", "planish", "inspect", "./no/such/folder")
    assert missing.returncode == 1 and missing.stderr.startswith("error: ./no/such/folder: no such file")
    script = Path(sys.executable).with_name("planish")
    shown = subprocess.run([script, "--help"], capture_output=True, text=True, timeout=60)
    assert shown.returncode == 0 and "Usage: planish" in shown.stdout


def test_a_signal_ends_the_program_by_its_code():
    command = [sys.executable, "-m", "planish", "generate", "--prompt", "Once", "--temperature", "1", "-n", "100000"]
    for number, code in [(signal.SIGINT, 130), (signal.SIGTERM, 143)]:
        running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        assert running.stdout.read(1)
        running.send_signal(number)
        running.communicate(timeout=30)
        assert running.returncode == code, number


def test_a_closed_pipe_is_no_error():
    command = f"{sys.executable} -m planish models | head -n 1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and done.stderr == ""


def test_errors_are_pythons():
    with pytest.raises(FileNotFoundError, match="./no/such/folder"):
        planish.load_tokenizer("./no/such/folder")
    with pytest.raises(TypeError):
        planish.load_tokenizer(3)
    assert issubclass(planish.HubError, OSError) and issubclass(planish.UnsupportedError, NotImplementedError)
    os.environ["HF_HUB_OFFLINE"] = "1"
    try:
        with pytest.raises(planish.HubError, match="org/name"):
            planish.load_tokenizer("org/name")
    finally:
        del os.environ["HF_HUB_OFFLINE"]
