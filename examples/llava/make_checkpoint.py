#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""make_checkpoint.py OUT_DIR: a LLaVA checkpoint with the 686 tensors of llava-1.5-7b-hf, at toy widths, without any package.

    --layout old|new|v5   names as before transformers 4.52 (language_model.model.…, vision_tower.vision_model.…), as since then
                          (model.language_model.…, model.vision_tower.vision_model.…), or as transformers 5 writes them (vision_tower.embeddings.…)
    --type f32|f16|bf16   of every weight
    --shards N            N > 1: N files and model.safetensors.index.json
    --image-size N        multiple of 14, which is the patch; 336 gives 576 visual tokens

Values are pseudo-random multiples of 1/512 in [-1/8, 1/8] (norms' weights: of 1/64 in [1/2, 1]), which every type holds exactly. They depend
on a tensor's name in the old layout and on the element's index alone: see values(). An answer of this model means nothing.
"""

import argparse
import json
import struct
from pathlib import Path

VISION_LAYERS, TEXT_LAYERS = 24, 32
VISION, VISION_MLP, TEXT, TEXT_MLP, HEADS, VOCAB, PATCH = 32, 48, 32, 64, 4, 128, 14


def shapes(image_size):
    """Names of the old layout, in the order of the model, with their shapes: 686 of them."""
    patches = (image_size // PATCH) ** 2
    vision, text = "vision_tower.vision_model.", "language_model.model."
    yield vision + "embeddings.class_embedding", [VISION]
    yield vision + "embeddings.patch_embedding.weight", [VISION, 3, PATCH, PATCH]
    yield vision + "embeddings.position_embedding.weight", [1 + patches, VISION]
    for norm in ("pre_layrnorm", "post_layernorm"):
        yield from affine(vision + norm, [VISION])
    for layer in range(VISION_LAYERS):
        at = f"{vision}encoder.layers.{layer}."
        for norm in ("layer_norm1", "layer_norm2"):
            yield from affine(at + norm, [VISION])
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            yield from affine(f"{at}self_attn.{name}", [VISION, VISION])
        yield from affine(at + "mlp.fc1", [VISION_MLP, VISION])
        yield from affine(at + "mlp.fc2", [VISION, VISION_MLP])
    yield from affine("multi_modal_projector.linear_1", [TEXT, VISION])
    yield from affine("multi_modal_projector.linear_2", [TEXT, TEXT])
    yield text + "embed_tokens.weight", [VOCAB, TEXT]
    for layer in range(TEXT_LAYERS):
        at = f"{text}layers.{layer}."
        for norm in ("input_layernorm", "post_attention_layernorm"):
            yield f"{at}{norm}.weight", [TEXT]
        for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
            yield f"{at}self_attn.{name}.weight", [TEXT, TEXT]
        yield at + "mlp.gate_proj.weight", [TEXT_MLP, TEXT]
        yield at + "mlp.up_proj.weight", [TEXT_MLP, TEXT]
        yield at + "mlp.down_proj.weight", [TEXT, TEXT_MLP]
    yield text + "norm.weight", [TEXT]
    yield "language_model.lm_head.weight", [VOCAB, TEXT]


def affine(name, shape):
    yield name + ".weight", shape
    yield name + ".bias", shape[:1]


def renamed(name, layout):
    if layout == "old":
        return name
    if layout == "v5":
        return name.replace("vision_tower.vision_model.", "vision_tower.")
    if name.startswith("language_model.lm_head."):
        return name[len("language_model."):]
    return "model." + name.replace("language_model.model.", "language_model.")


def values(name, count):
    h = 2166136261  # FNV-1a of the name, then a step for each element
    for byte in name.encode():
        h = (h ^ byte) * 16777619 & 0xFFFFFFFF
    ks = [((h + index * 2654435761 & 0xFFFFFFFF) >> 16) % 129 - 64 for index in range(count)]
    if "norm" in name and name.endswith(".weight"):
        return [(48 + k // 4) / 64 for k in ks]
    return [k / 512 for k in ks]


def packed(numbers, dtype):
    if dtype == "F32":
        return struct.pack(f"<{len(numbers)}f", *numbers)
    if dtype == "F16":
        return struct.pack(f"<{len(numbers)}e", *numbers)
    return b"".join(struct.pack("<f", number)[2:] for number in numbers)  # BF16: the upper half, exact for these


def write_shard(path, tensors):
    """tensors: list of (name, dtype, shape, bytes)."""
    header, end = {"__metadata__": {"format": "pt"}}, 0
    for name, dtype, shape, data in tensors:
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [end, end + len(data)]}
        end += len(data)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for *_, data in tensors:
            file.write(data)


def config(image_size, dtype):
    """As llava-1.5-7b-hf has it: what is left out is the library's default."""
    return {
        "architectures": ["LlavaForConditionalGeneration"], "ignore_index": -100, "image_token_index": VOCAB - 1, "model_type": "llava",
        "projector_hidden_act": "gelu", "tie_word_embeddings": False, "torch_dtype": dtype,
        "text_config": {"model_type": "llama", "hidden_size": TEXT, "intermediate_size": TEXT_MLP, "num_attention_heads": HEADS,
                        "max_position_embeddings": 4096, "rms_norm_eps": 1e-05, "vocab_size": VOCAB},
        "vision_config": {"model_type": "clip_vision_model", "hidden_size": VISION, "image_size": image_size, "intermediate_size": VISION_MLP,
                          "num_attention_heads": HEADS, "num_hidden_layers": VISION_LAYERS, "patch_size": PATCH, "projection_dim": 16},
        "vision_feature_layer": -2, "vision_feature_select_strategy": "default",
    }


def preprocessor(size):
    return {
        "crop_size": {"height": size, "width": size}, "do_center_crop": True, "do_convert_rgb": True, "do_normalize": True,
        "do_rescale": True, "do_resize": True, "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_processor_type": "CLIPImageProcessor", "image_std": [0.26862954, 0.26130258, 0.27577711], "resample": 3,
        "rescale_factor": 0.00392156862745098, "size": {"shortest_edge": size},
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--layout", choices=("old", "new", "v5"), default="old")
    parser.add_argument("--type", choices=("f32", "f16", "bf16"), default="f16")
    parser.add_argument("--shards", type=int, default=3)
    parser.add_argument("--image-size", type=int, default=336)
    asked = parser.parse_args()
    if asked.shards < 1 or asked.image_size < PATCH or asked.image_size % PATCH:
        parser.error(f"at least one shard, and a multiple of {PATCH} as image size")

    dtype, tensors = asked.type.upper(), []
    for name, shape in shapes(asked.image_size):
        count = 1
        for size in shape:
            count *= size
        tensors.append((renamed(name, asked.layout), dtype, shape, packed(values(name, count), dtype)))

    asked.out.mkdir(parents=True, exist_ok=True)
    files = ["model.safetensors"] if asked.shards == 1 else [
        f"model-{i + 1:05}-of-{asked.shards:05}.safetensors" for i in range(asked.shards)]
    per_file, weight_map = -(-len(tensors) // asked.shards), {}
    for i, file in enumerate(files):
        part = tensors[i * per_file:(i + 1) * per_file]
        write_shard(asked.out / file, part)
        weight_map.update({name: file for name, *_ in part})

    def write_json(name, value):
        (asked.out / name).write_text(json.dumps(value, indent=2) + "\n")

    if asked.shards > 1:
        write_json("model.safetensors.index.json",
                   {"metadata": {"total_size": sum(len(data) for *_, data in tensors)}, "weight_map": weight_map})
    write_json("config.json", config(asked.image_size, {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}[dtype]))
    write_json("preprocessor_config.json", preprocessor(asked.image_size))
    write_json("generation_config.json", {"bos_token_id": 1, "eos_token_id": 2, "max_new_tokens": 8})
    # The tiny model's words fit this vocabulary.
    (asked.out / "tokenizer.model").write_bytes((Path(__file__).parent / "tiny/model/tokenizer.model").read_bytes())


if __name__ == "__main__":
    main()
