#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""make_goldens.py MODEL_DIR CASES.json OUT_DIR: what Hugging Face transformers makes of a LLaVA model, a prompt and pictures.

CASES.json is a list of {"name": …, "images": [file, …], "prompt": …}, with files relative to it. For each case OUT_DIR/NAME.safetensors is written;
tests/llava/golden/README.md says what it holds. Needs torch, transformers, pillow and safetensors from PyPI.
"""

import json
import sys
from pathlib import Path

import torch
import transformers
from PIL import Image
from safetensors.torch import save_file
from transformers import AutoProcessor, LlavaForConditionalGeneration


def make(model, processor, case, folder):
    images = [Image.open(folder / name).convert("RGB") for name in case["images"]]
    batch = processor(text=case["prompt"], images=images, return_tensors="pt")
    tower = model.model.vision_tower
    with torch.no_grad():
        logits = model(**batch).logits[0, -1]
        ids = model.generate(**batch, max_new_tokens=24, do_sample=False)[0, batch["input_ids"].shape[1]:]
        before = tower.config._attn_implementation
        tower.set_attn_implementation("eager")  # the only one that returns attention weights
        seen = tower(batch["pixel_values"], output_hidden_states=True, output_attentions=True)
        tower.set_attn_implementation(before)
    tensors = {"input_ids": batch["input_ids"][0], "logits": logits, "answer_ids": ids}
    if case.get("vision", 1) != 0:
        tensors["pixel_values"] = batch["pixel_values"]
        tensors["vision_features"] = seen.hidden_states[-2][:, 1:]
        tensors["cls_attention"] = seen.attentions[-1][:, :, 0, 1:]
    metadata = {
        "name": case["name"],
        "prompt": case["prompt"],
        "images": json.dumps(case["images"]),
        "answer": processor.tokenizer.decode(ids, skip_special_tokens=True),
        "transformers": transformers.__version__,
        "torch": torch.__version__,
    }
    return {name: tensor.contiguous().clone() for name, tensor in tensors.items()}, metadata


def main():
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    model_dir, cases, out = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    model = LlavaForConditionalGeneration.from_pretrained(model_dir, dtype=torch.float32).eval()
    processor = AutoProcessor.from_pretrained(model_dir)
    out.mkdir(parents=True, exist_ok=True)
    for case in json.loads(cases.read_text()):
        tensors, metadata = make(model, processor, case, cases.parent)
        save_file(tensors, out / (case["name"] + ".safetensors"), metadata)
        print(case["name"], repr(metadata["answer"]), float(tensors["logits"].max()))


if __name__ == "__main__":
    main()
