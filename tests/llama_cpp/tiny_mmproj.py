#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""tiny_mmproj.py MODEL_DIR WORDS.gguf MMPROJ.gguf: the tiny LLaVA as libmtmd wants it, for test_llama_mtmd: its language model with a tokenizer, and its
vision tower.

llama.cpp has no tokenizer of whole words; its Unigram one finds them if each piece is a word with a space in front. "user" and "assistant" get
capitals, as the template writes them. A line feed is an unknown word, and takes the word behind it along.

llama.cpp 0.5 puts CLS behind the patches, so the position embeddings are written in that order; it still loses the first patch.
"""
import json
import sys
from pathlib import Path

import gguf
import numpy as np
from safetensors.numpy import load_file

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "examples/llama.cpp"))
import to_gguf  # noqa: E402


def words_of(folder):
    vocabulary = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))["model"]["vocab"]

    def add(writer):
        pieces, kinds = [], []
        for word, _ in sorted(vocabulary.items(), key=lambda item: item[1]):
            special = word.startswith("<")
            pieces.append(word if special or not word[0].isalnum() else "\u2581" + (word.upper() if word in ("user", "assistant") else word))
            kinds.append(gguf.TokenType.UNKNOWN if word == "<unk>" else gguf.TokenType.CONTROL if special else gguf.TokenType.NORMAL)
        writer.add_tokenizer_model("t5")
        writer.add_token_list(pieces)
        writer.add_token_scores([-1.0] * len(pieces))
        writer.add_token_types(kinds)
        writer.add_bos_token_id(vocabulary["<s>"])
        writer.add_eos_token_id(vocabulary["</s>"])
        writer.add_unk_token_id(vocabulary["<unk>"])
        writer.add_pad_token_id(vocabulary["<pad>"])
        writer.add_add_bos_token(True)
        writer.add_add_eos_token(False)
        writer.add_add_space_prefix(True)
        writer.add_remove_extra_whitespaces(False)
    return add


def write_tower(folder, out):
    vision = json.loads((folder / "config.json").read_text(encoding="utf-8"))["vision_config"]
    picture = json.loads((folder / "preprocessor_config.json").read_text(encoding="utf-8"))
    tensors = {name.replace("model.", "", 1) if name.startswith("model.") else name: tensor.astype(np.float32)
               for name, tensor in load_file(folder / "model.safetensors").items()}
    w = gguf.GGUFWriter(out, "clip")
    w.add_bool("clip.has_vision_encoder", True)
    w.add_string("clip.projector_type", "mlp")
    for key, value in (("image_size", vision["image_size"]), ("patch_size", vision["patch_size"]), ("embedding_length", vision["hidden_size"]),
                       ("feed_forward_length", vision["intermediate_size"]), ("block_count", vision["num_hidden_layers"]),
                       ("projection_dim", vision["projection_dim"]), ("attention.head_count", vision["num_attention_heads"])):
        w.add_uint32(f"clip.vision.{key}", value)
    w.add_float32("clip.vision.attention.layer_norm_epsilon", vision["layer_norm_eps"])
    w.add_array("clip.vision.image_mean", picture["image_mean"])
    w.add_array("clip.vision.image_std", picture["image_std"])

    def add(name, source):
        w.add_tensor(name, np.ascontiguousarray(tensors[source]))

    def affine(name, source):
        add(f"{name}.weight", f"{source}.weight"), add(f"{name}.bias", f"{source}.bias")

    root = "vision_tower.vision_model." if any(name.startswith("vision_tower.vision_model.") for name in tensors) else "vision_tower."
    add("v.class_embd", root + "embeddings.class_embedding")
    add("v.patch_embd.weight", root + "embeddings.patch_embedding.weight")
    w.add_tensor("v.position_embd.weight", np.roll(tensors[root + "embeddings.position_embedding.weight"], -1, axis=0))
    affine("v.pre_ln", root + "pre_layrnorm")
    for i in range(vision["num_hidden_layers"]):
        at, to = f"{root}encoder.layers.{i}.", f"v.blk.{i}."
        for name, source in (("attn_q", "self_attn.q_proj"), ("attn_k", "self_attn.k_proj"), ("attn_v", "self_attn.v_proj"),
                             ("attn_out", "self_attn.out_proj"), ("ln1", "layer_norm1"), ("ln2", "layer_norm2"), ("ffn_up", "mlp.fc1"), ("ffn_down", "mlp.fc2")):
            affine(to + name, at + source)
    affine("mm.0", "multi_modal_projector.linear_1")
    affine("mm.2", "multi_modal_projector.linear_2")
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


if __name__ == "__main__":
    model, words, tower = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
    to_gguf.write(model, words, "llama", words_of(model))
    write_tower(model, tower)
