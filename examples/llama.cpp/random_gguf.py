#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""random_gguf.py OUT.gguf: a language model of LLaVA-1.5-7B's shape with random q4_0 weights, for llama_scale: 3.8 GB whose answers mean nothing.

A layer at a time is in memory. Weights have LLaMA's spread (0.02), so that numbers stay in range through all layers.
"""
import argparse

import gguf
import numpy as np

BLOCK, BLOCK_BYTES = 32, 18  # q4_0: an f16 scale, then 32 numbers of 4 bits, from -8 to 7
SPREAD = 4.61                # standard deviation of these numbers, drawn evenly


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("out")
    for name, value in (("layers", 32), ("hidden", 4096), ("intermediate", 11008), ("heads", 32), ("kv-heads", 32), ("vocabulary", 32064), ("seed", 1)):
        arguments.add_argument(f"--{name}", type=int, default=value)
    given = arguments.parse_args()
    width, kv_width = given.hidden, given.hidden // given.heads * given.kv_heads
    if width % given.heads or given.heads % given.kv_heads or width % BLOCK or given.intermediate % BLOCK:
        arguments.error("heads must divide the hidden size, KV heads the heads, and 32 both widths")

    tensors = [("token_embd.weight", given.vocabulary, width), ("output_norm.weight", 1, width), ("output.weight", given.vocabulary, width)]
    for i in range(given.layers):
        for name, rows, columns in (("attn_norm", 1, width), ("attn_q", width, width), ("attn_k", kv_width, width), ("attn_v", kv_width, width),
                                    ("attn_output", width, width), ("ffn_norm", 1, width), ("ffn_gate", given.intermediate, width),
                                    ("ffn_up", given.intermediate, width), ("ffn_down", width, given.intermediate)):
            tensors.append((f"blk.{i}.{name}.weight", rows, columns))

    w = gguf.GGUFWriter(given.out, "llama")
    w.add_context_length(4096)
    w.add_embedding_length(width)
    w.add_block_count(given.layers)
    w.add_feed_forward_length(given.intermediate)
    w.add_head_count(given.heads)
    w.add_head_count_kv(given.kv_heads)
    w.add_rope_dimension_count(width // given.heads)
    w.add_rope_freq_base(10000.0)
    w.add_layer_norm_rms_eps(1e-5)
    w.add_vocab_size(given.vocabulary)
    w.add_tokenizer_model("none")
    q4_0 = gguf.GGMLQuantizationType.Q4_0
    for name, rows, columns in tensors:
        if rows == 1:
            w.add_tensor_info(name, (columns,), np.dtype(np.float32), 4 * columns)
        else:
            packed = (rows, columns // BLOCK * BLOCK_BYTES)
            w.add_tensor_info(name, packed, np.dtype(np.uint8), packed[0] * packed[1], raw_dtype=q4_0)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_ti_data_to_file()
    draw = np.random.default_rng(given.seed)
    scale = np.frombuffer(np.float16(0.02 / SPREAD).tobytes(), np.uint8)
    for name, rows, columns in tensors:
        if rows == 1:
            w.write_tensor_data(np.ones(columns, np.float32))
            continue
        blocks = draw.integers(0, 256, (rows, columns // BLOCK, BLOCK_BYTES), np.uint8)
        blocks[:, :, :2] = scale
        w.write_tensor_data(blocks.reshape(rows, -1))
    w.close()


if __name__ == "__main__":
    main()
