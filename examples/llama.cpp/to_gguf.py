#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""to_gguf.py MODEL_DIR OUT.gguf [--rope llama|sections]: the language model of a Hugging Face LLaVA, in f32, as a GGUF for llama.cpp.

No tokenizer goes in: token ids and embeddings are what llama_mustdrop feeds it.

--rope llama     architecture "llama": one number a token, and llama.cpp wants these numbers consecutive: dropped tokens leave no gap (default)
--rope sections  architecture "qwen2vl", whose layers are Llama's but for how RoPE is asked: three numbers a token, which may jump. All three
                 the same, this is the same rotation as Llama's, and tokens keep the positions that they had before others were dropped.
"""
import argparse
import json
import sys
from pathlib import Path

import gguf
import numpy as np
from safetensors.numpy import load_file


def fail(why):
    sys.exit(f"to_gguf.py: {why}")


def language_tensors(folder):
    """Name as in transformers' LlamaForCausalLM -> tensor."""
    single = folder / "model.safetensors"
    files = [single] if single.is_file() else sorted(folder.glob("model-*-of-*.safetensors"))
    if not files:
        fail(f"{folder}: no model.safetensors and no shards of it")
    tensors = {}
    for file in files:
        for name, tensor in load_file(file).items():
            for old, new in (("model.language_model.", "model."), ("language_model.model.", "model."), ("language_model.lm_head.", "lm_head.")):
                if name.startswith(old):
                    name = new + name[len(old):]
            tensors[name] = tensor
    return tensors


def pairs_apart(weight, heads):
    """Rows of a projection from the halves that transformers rotates together to the neighbours that llama.cpp's architecture "llama" does."""
    rows, width = weight.shape
    return weight.reshape(heads, 2, rows // heads // 2, width).swapaxes(1, 2).reshape(rows, width)


def write(folder, out, rope, add_words=lambda writer: writer.add_tokenizer_model("none")):
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    text = config.get("text_config", {})
    if text.get("model_type", "llama") != "llama":
        fail(f"{folder}/config.json: text_config is no Llama")
    defaults = {"hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32, "rms_norm_eps": 1e-6}  # transformers'
    width, inner, layers, heads, eps = (text.get(key, default) for key, default in defaults.items())
    kv_heads = text.get("num_key_value_heads", heads)
    head_dim = text.get("head_dim") or width // heads
    theta = text.get("rope_theta", 10000.0)
    if text.get("rope_scaling") or text.get("attention_bias") or text.get("mlp_bias"):
        fail("scaled RoPE and biases are not supported")
    tensors = language_tensors(folder)

    def take(name, *shape):
        if name not in tensors:
            fail(f"no tensor {name}")
        if tensors[name].shape != shape:
            fail(f"{name}: shape {tensors[name].shape} where the configuration says {shape}")
        return np.ascontiguousarray(tensors[name].astype(np.float32))

    vocabulary = tensors["model.embed_tokens.weight"].shape[0] if "model.embed_tokens.weight" in tensors else fail("no embeddings")
    sections = rope == "sections"
    w = gguf.GGUFWriter(out, "qwen2vl" if sections else "llama")
    w.add_context_length(text.get("max_position_embeddings", 2048))
    w.add_embedding_length(width)
    w.add_block_count(layers)
    w.add_feed_forward_length(inner)
    w.add_head_count(heads)
    w.add_head_count_kv(kv_heads)
    w.add_key_length(head_dim)
    w.add_value_length(head_dim)
    w.add_rope_dimension_count(head_dim)
    w.add_rope_freq_base(theta)
    w.add_layer_norm_rms_eps(eps)
    w.add_vocab_size(vocabulary)
    add_words(w)
    if sections:
        third = head_dim // 2 // 3
        w.add_rope_dimension_sections([head_dim // 2 - 2 * third, third, third, 0])
    w.add_tensor("token_embd.weight", take("model.embed_tokens.weight", vocabulary, width))
    w.add_tensor("output_norm.weight", take("model.norm.weight", width))
    head = "model.embed_tokens.weight" if text.get("tie_word_embeddings") else "lm_head.weight"
    w.add_tensor("output.weight", take(head, vocabulary, width))
    for i in range(layers):
        p, q = f"model.layers.{i}.", f"blk.{i}."
        order = (lambda weight, n: weight) if sections else pairs_apart
        w.add_tensor(q + "attn_norm.weight", take(p + "input_layernorm.weight", width))
        w.add_tensor(q + "attn_q.weight", order(take(p + "self_attn.q_proj.weight", heads * head_dim, width), heads))
        w.add_tensor(q + "attn_k.weight", order(take(p + "self_attn.k_proj.weight", kv_heads * head_dim, width), kv_heads))
        w.add_tensor(q + "attn_v.weight", take(p + "self_attn.v_proj.weight", kv_heads * head_dim, width))
        w.add_tensor(q + "attn_output.weight", take(p + "self_attn.o_proj.weight", width, heads * head_dim))
        w.add_tensor(q + "ffn_norm.weight", take(p + "post_attention_layernorm.weight", width))
        w.add_tensor(q + "ffn_gate.weight", take(p + "mlp.gate_proj.weight", inner, width))
        w.add_tensor(q + "ffn_up.weight", take(p + "mlp.up_proj.weight", inner, width))
        w.add_tensor(q + "ffn_down.weight", take(p + "mlp.down_proj.weight", width, inner))
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("model", type=Path)
    arguments.add_argument("out")
    arguments.add_argument("--rope", choices=("llama", "sections"), default="llama")
    given = arguments.parse_args()
    write(given.model, given.out, given.rope)


if __name__ == "__main__":
    main()
