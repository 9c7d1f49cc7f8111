"""Cases of models.py, one module per group of families, each with a dict CASES: name -> Case."""

import importlib
import pathlib
from dataclasses import dataclass, field

import torch


@dataclass
class Case:
    """A tiny random checkpoint."""

    kind: str  # model type, or the name of a configuration class of transformers
    settings: dict = field(default_factory=dict)  # over SMALL; a value of None leaves a key of SMALL out
    tokens: int = 24  # prompt and steps
    group: int = 16  # of the 4-bit version
    stored: torch.dtype = torch.bfloat16
    spread: float = 0.2  # standard deviation of the weights
    published: dict = field(default_factory=dict)  # keys of config.json that published checkpoints write otherwise, or, where None, not at all
    whole: bool = False  # steps by whole passes: those of transformers' cache differ from its own whole passes
    wrapper: bool = False  # the class with images, where transformers has one without for the same model type, too
    module_layout: bool = False  # 4-bit version as in the modules of transformers (fused experts), not as on the Hub
    text_only: bool = False  # without the tensors of towers, which no text model reads
    unpacked: tuple = ()  # layers that the 4-bit version keeps plain: no group divides their columns
    plain_module_layout: bool = False  # the same of the plain version, where transformers writes what no published one has


def all_cases():
    folder = pathlib.Path(__file__).parent
    modules = [importlib.import_module(f"cases.{path.stem}") for path in sorted(folder.glob("[a-z]*.py"))]
    return {name: case for module in modules for name, case in module.CASES.items()}
