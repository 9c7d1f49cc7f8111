"""What the tests share: the story model, packed and plain, and the folder of the repository."""

from pathlib import Path

import planish
import pytest

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="session")
def root():
    return ROOT


@pytest.fixture(scope="session")
def story():
    """The story model inside planish and its tokenizer."""
    return planish.load()


@pytest.fixture(scope="session")
def plain_folder():
    return ROOT / "models" / "demo-float"


@pytest.fixture(scope="session")
def exact(plain_folder):
    """The bf16 original, computed in float32 throughout."""
    return planish.load(plain_folder, device="cpu", exact=True)
