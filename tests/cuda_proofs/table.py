# SPDX-License-Identifier: Apache-2.0
"""What scripts/verify_cuda expects. Every launch that tests/cuda_proofs/*.cu make is race_free, but for EXCEPTIONS."""

from collections import namedtuple

# The words, in the order of docs/cuda.md; each has a file of launches.
WORDS = ["window_similarity", "attention_scores", "top_k", "random", "window_merge", "cls_topk", "dual_mask", "kv_evict", "gather",
         "merge_rows", "spread_rows", "compact", "positions", "rerotate"]

# Launches of which something else is expected: word, kernel and launch as patterns of file names, verdict, why.
Exception_ = namedtuple("Exception_", "word kernel launch verdict why")
EXCEPTIONS = []

# Kernels of the backend that no proof is of, and why.
WITHOUT_PROOF = {}

# Kernels that are compiled and that no call launches: kernel and type as patterns, why.
NEVER_LAUNCHED = {("rank_kernel", "dual_mask_job<*"): "dual_mask has no order by score"}

# For a short run: one launch of each kernel at which it crosses a boundary, cheap ones.
QUICK = [
    ("window_similarity", "a window of 1x2, 65 f32"),
    ("attention_scores", "2 heads, a row, 33 keys, 16 f32"),
    ("top_k", "33 scores, 12 stay*"),
    ("random", "257 tokens"),
    ("window_merge", "of 4 windows of 2x2 merge 2, 64 f32"),
    ("cls_topk", "2 heads, 34 tokens"),
    ("dual_mask", "33 tokens, by threshold"),
    ("kv_evict", "33 slots, by score, 12 stay"),
    ("gather", "9 of 20 rows, 256 f16"),
    ("gather", "5 of 9 rows, norm, 33 f16 to f32"),
    ("merge_rows", "6 tokens, 516 f32"),
    ("spread_rows", "9 tokens, 128 f32"),
    ("compact", "67 of 300 slots of 256 bytes stay"),
    ("positions", "257 of 600 stay, renumbered"),
    ("rerotate", "5 slots, 32 pairs"),
]

# Bugs that must be found. In a copy of the header, `old`, which must be there once, becomes `new`; the launch of the kernel is the
# shipped one's. `quick`: also in a short run.
Bug = namedtuple("Bug", "what header old new word kernel launch verdict quick", defaults=(False,))
RACE, SYNC = "potential_race", "not_wellsynced"
PLANTED = [
    Bug("no barrier between the warps' counts and their sum", "selection.cuh",
        "{ of_warps[turn][warp_of_thread()] = own; }\n    __syncthreads();", "{ of_warps[turn][warp_of_thread()] = own; }",
        "top_k", "select_kernel", "33 scores, 12 stay", RACE, True),
    Bug("one buffer of counts instead of two", "selection.cuh", "turn ^= 1;", "",
        "top_k", "select_kernel", "33 scores, 12 stay", RACE),
    Bug("tiles of keys overlap by one", "selection.cuh", "i < n; i += blockDim.x) { keys[i] = job.key(s, i); }",
        "i < n; i += blockDim.x - 1) { keys[i] = job.key(s, i); }",
        "top_k", "select_kernel", "257 scores, 86 stay", RACE),
    Bug("every warp notes the cutoff", "selection.cuh", "if (threadIdx.x == 0) { memory.cuts[s] = cut; }",
        "if (lane_of_thread() == 0) { memory.cuts[s] = cut; }", "top_k", "select_kernel", "33 scores, 12 stay", RACE),
    Bug("one tie too many", "selection.cuh", "(tie && ties_before < cut.ties)", "(tie && ties_before <= cut.ties)",
        "top_k", "keep_kernel", "64 scores, 22 stay", RACE, True),
    Bug("blocks overlap by a warp", "selection.cuh",
        "i = part * select_threads + threadIdx.x;\n  if (part == 0 && threadIdx.x == 0)",
        "i = part * (select_threads - 32) + threadIdx.x;\n  if (part == 0 && threadIdx.x == 0)",
        "top_k", "keep_kernel", "257 scores, 86 stay", RACE),
    Bug("equal keys have one place", "selection.cuh", "better += ordered(keys[u], u) > own;", "better += keys[u] > keys[i];",
        "top_k", "rank_kernel", "33 scores, 12 stay, best first", RACE),
    Bug("a random score is written by two blocks", "random.cuh", "part * random_threads + threadIdx.x",
        "part * (random_threads - 1) + threadIdx.x", "random", "random_scores_kernel", "257 tokens", RACE),
    Bug("no barrier before the sum is read", "dual_mask.cuh",
        "{ share = options.global * total; }\n  }\n  __syncthreads();", "{ share = options.global * total; }\n  }",
        "dual_mask", "dual_keys_kernel", "33 tokens, by threshold", RACE),
    Bug("a barrier for the first warp alone", "dual_mask.cuh",
        "{ share = options.global * total; }\n  }\n  __syncthreads();",
        "{ share = options.global * total; }\n    __syncthreads();\n  }",
        "dual_mask", "dual_keys_kernel", "33 tokens, by threshold", SYNC, True),
    Bug("no barrier before the keys of protected tokens", "dual_mask.cuh",
        "  __syncthreads();\n  index_t const shielded", "  index_t const shielded",
        "dual_mask", "dual_keys_kernel", "33 tokens, by threshold", RACE),
    Bug("a block of slots reaches into the next", "kv_evict.cuh", "lesser(slots(s), (block + 1) * options.block)",
        "lesser(slots(s), (block + 1) * options.block + 1)",
        "kv_evict", "keep_blocks_kernel", "257 slots in blocks of 8, 96 stay", RACE),
    Bug("blocks of rows overlap by one", "rows.cuh", "part * blockDim.y + threadIdx.y", "part * (blockDim.y - 1) + threadIdx.y",
        "gather", "copy_rows_kernel", "9 of 20 rows, 256 f16", RACE),
    Bug("a row more than there are", "rows.cuh", "if (i >= job.count(s)) { return; }", "if (i > job.count(s)) { return; }",
        "gather", "copy_rows_kernel", "segments of 33 0 257 31, packed", RACE),
    Bug("threads of a row overlap", "rows.cuh", "w < rows.size; w += blockDim.x)", "w < rows.size; w += blockDim.x - 1)",
        "gather", "copy_rows_kernel", "5 of 9 rows, 1028 f32", RACE),
    Bug("two warps share a row", "gather.cuh", "part * transform_warps + warp_of_thread()",
        "part * (transform_warps - 1) + warp_of_thread()", "gather", "transform_kernel", "5 of 9 rows, norm, 64 f32", RACE),
    Bug("tiles of features overlap", "merge_rows.cuh", "base < dim; base += merge_threads * Count",
        "base < dim; base += (merge_threads - 1) * Count", "merge_rows", "merge_rows_kernel", "6 tokens, 516 f32", RACE),
    Bug("slots are stored while others load", "compact.cuh", "    __syncthreads();\n", "",
        "compact", "compact_kernel", "66 of 300 slots of 256 bytes stay", RACE, True),
    Bug("tiles of slots overlap", "compact.cuh", "slot_word const step{compact_threads / words, compact_threads % words};",
        "slot_word const step{compact_threads / words - 1, compact_threads % words};",
        "compact", "compact_kernel", "67 of 300 slots of 256 bytes stay", RACE),
    Bug("blocks of positions overlap by one", "positions.cuh", "part * position_threads + threadIdx.x",
        "part * (position_threads - 1) + threadIdx.x", "positions", "positions_kernel", "257 of 600 stay, renumbered", RACE),
    Bug("every lane writes the delta", "positions.cuh", "if (lane_of_thread() == 0) { delta(s) = moved; }", "delta(s) = moved;",
        "positions", "delta_kernel", "33 of 600 stay, renumbered", RACE),
    Bug("two pairs share a feature", "rerotate.cuh", "? f + frequencies : 2 * f + 1", "? f + frequencies - 1 : 2 * f + 1",
        "rerotate", "rerotate_kernel", "5 slots, 32 pairs", RACE),
    Bug("no barrier between the norms and their use", "window_similarity.cuh", "  __syncthreads();\n\n  float const whole",
        "  float const whole",
        "window_similarity", "window_similarity_kernel", "a window of 1x2, 33 f32", RACE),
    Bug("no barrier between the sums and their squares", "window_similarity.cuh",
        "    __syncthreads();\n    if (warp_of_thread() == 0) {", "    if (warp_of_thread() == 0) {",
        "window_similarity", "window_similarity_kernel", "a window of 1x2, 65 f32", RACE),
    Bug("no barrier before the sums of the next tile", "window_similarity.cuh", "    __syncthreads();\n  }\n  return lane;",
        "  }\n  return lane;",
        "window_similarity", "window_similarity_kernel", "a window of 1x2, 65 f32", RACE),
    Bug("the last thread of a row reaches into the next", "window_merge.cuh", "d < dim; d += merged_row_threads * Count",
        "d <= dim; d += merged_row_threads * Count", "window_merge", "merged_rows_kernel", "of 4 windows of 2x2 merge 2, 64 f32", RACE),
    Bug("members that are no anchors get a row", "window_merge.cuh", "  if (w >= 0 && t != job.anchor(s, w)) { return; }\n", "",
        "window_merge", "assign_rows_kernel", "of 4 windows of 2x2 merge 2, 64 f32", RACE),
    Bug("blocks of windows overlap", "window_merge.cuh", "w = part * select_threads + threadIdx.x",
        "w = part * (select_threads - 32) + threadIdx.x",
        "window_merge", "place_windows_kernel", "of 257 windows of 1x2 merge 10, 4 f32", RACE),
    Bug("no barrier between a tile and its use", "attention_scores.cuh", "    __syncthreads();\n    add_features", "    add_features",
        "attention_scores", "dots_kernel", "2 heads, a row, 33 keys, 16 f32", RACE),
    Bug("no barrier before the next tile", "attention_scores.cuh", "    __syncthreads();\n  }\n  int const j =", "  }\n  int const j =",
        "attention_scores", "dots_kernel", "2 heads, a row, 33 keys, 40 f32", RACE),
    Bug("every lane writes the total", "attention_rows.cuh", "if (threadIdx.x == 0) { pass.total(h, t)", "{ pass.total(h, t)",
        "attention_scores", "exponentials_kernel", "2 heads, a row, 33 keys, 16 f32", RACE),
    Bug("every lane notes the highest of its warp", "attention_rows.cuh", "if (lane_of_thread() == 0) { tops[", "{ tops[",
        "attention_scores", "exponentials_kernel", "2 heads, a row, 33 keys, 16 f32", RACE),
    Bug("no barrier between the exponentials and their sum", "attention_rows.cuh",
        "    __syncthreads();\n    for (index_t i = lane_of_thread();",
        "    for (index_t i = lane_of_thread();", "attention_scores", "exponentials_kernel", "a head, a row, 1024 keys, 4 f32", RACE),
    Bug("one buffer of exponentials instead of two", "attention_rows.cuh", "base / exponential_block::tile % 2]", "0]",
        "attention_scores", "exponentials_kernel", "a head, a row, 2049 keys, 4 f32", RACE),
    Bug("blocks of keys overlap, over heads", "attention_rows.cuh",
        "part * attention_threads + threadIdx.x;\n  if (j >= pass.written_to(s)) { return; }\n  index_t const seen_heads",
        "part * (attention_threads - 1) + threadIdx.x;\n  if (j >= pass.written_to(s)) { return; }\n  index_t const seen_heads",
        "attention_scores", "over_heads_kernel", "a map of 2 heads, 3 rows, 257 keys, f32", RACE),
    Bug("blocks of keys overlap, over rows", "attention_rows.cuh", "part * attention_threads + threadIdx.x, at =",
        "part * (attention_threads - 1) + threadIdx.x, at =",
        "attention_scores", "add_rows_kernel", "a map of 2 heads, 3 rows, 257 keys, f32", RACE),
]

# Launches that are compared with a function of references.py, in real arithmetic: inputs and outputs are tensors, each behind a pointer at
# a byte of a parameter of the kernel, maybe some bytes behind it and a part of a larger one. An input of two numbers, parameter and byte,
# is a number. To wrong functions nothing may be equal: NOT_PROVED.
Equal = namedtuple("Equal", "word kernel launch reference inputs outputs verdict")
PROVED, NOT_PROVED, UNSUPPORTED = "verified", "equivalence_not_proven", "unsupported"


def stride(keys):
    """Of a row in the scratch of attention_scores."""
    return (keys + 3) // 4 * 4


def exponentials_over_heads(keys, of="weights_of_two_heads({})", verdict=PROVED):
    """A row of each head, a row for the sum, what divides each head's."""
    return Equal("attention_scores", "over_heads_kernel", f"2 heads, a row, {keys} keys, 16 f32", of.format(keys),
                 {"scratch": (1, 200, [3 * stride(keys) + 2], "float32")}, [(1, 200, [keys], "float32", 8 * stride(keys))], verdict)


def map_over_heads(heads, rows, keys, of="mean_of_heads", verdict=PROVED):
    return Equal("attention_scores", "over_heads_kernel", f"a map of {heads} heads, {rows} rows, {keys} keys, f32", of,
                 {"weights": (2, 0, [heads, rows, keys], "float32")}, [(1, 200, [rows, keys], "float32", 0, [rows, stride(keys)])], verdict)


EQUAL = [
    *[exponentials_over_heads(keys) for keys in (31, 32, 33, 127, 128, 129)],
    exponentials_over_heads(33, of="weights_of_two_heads({}, wrong=True)", verdict=NOT_PROVED),
    *[map_over_heads(2, 3, keys) for keys in (1, 127, 128, 129, 257)],
    map_over_heads(4, 5, 33), map_over_heads(5, 5, 33),
    map_over_heads(2, 3, 257, of="one_head", verdict=NOT_PROVED),
    Equal("random", "random_scores_kernel", "1 tokens", "first_random_score", {}, [(3, 0, [1], "float32")], PROVED),
    Equal("random", "random_scores_kernel", "1 tokens", "second_random_score", {}, [(3, 0, [1], "float32")], NOT_PROVED),
    # What it says of others; WITHOUT_EQUALITY has the reasons.
    Equal("attention_scores", "dots_kernel", "2 heads, a row, 32 keys, 16 f32", "dots",
          {"query": (2, 0, [2, 1, 16], "float32"), "keys": (3, 0, [2, 32, 16], "float32")}, [(1, 200, [2, 1, 32], "float32")], UNSUPPORTED),
    Equal("attention_scores", "exponentials_kernel", "2 heads, a row, 33 keys, 16 f32", "exponentials_of_two_rows",
          {"dots": (1, 200, [2, 33], "float32", 0, [2, 36]), "scale": (1, 0)},
          [(1, 200, [2, 33], "float32", 0, [2, 36]), (1, 200, [2], "float32", 4 * 3 * 36)], UNSUPPORTED),
    Equal("attention_scores", "add_rows_kernel", "a map of 2 heads, 3 rows, 257 keys, f32", "sum_and_most_of_three_rows",
          {"rows": (1, 200, [3, 257], "float32", 0, [3, 260]), "total": (2, 0, [257], "float32"), "most": (3, 0, [257], "float32"),
           "decay": (1, 24)}, [(2, 0, [257], "float32"), (3, 0, [257], "float32")], UNSUPPORTED),
    Equal("dual_mask", "dual_keys_kernel", "33 tokens, by threshold, none protected", "both_below",
          {"total": (1, 32, [33], "float32"), "most": (3, 0, [33], "float32"), "share": (2, 0), "individual": (2, 4)},
          [(4, 0, [33], "int32")], UNSUPPORTED),
    Equal("spread_rows", "copy_rows_kernel", "9 tokens, 128 f32", "spread",
          {"merged": (2, 0, [9, 128], "float32"), "source": (1, 32, [9], "int32")}, [(2, 8, [9, 128], "float32")], UNSUPPORTED),
    Equal("positions", "positions_kernel", "33 of 600 stay, renumbered", "counted_from_the_first",
          {"old": (3, 0, [1, 600], "int32")}, [(4, 0, [1, 33], "int32")], UNSUPPORTED),
    Equal("merge_rows", "merge_rows_kernel", "6 tokens, 4 f32", "means_of_every_second",
          {"rows": (1, 32, [6, 4], "float32")}, [(1, 120, [2, 4], "float32")], UNSUPPORTED),
]

# Kernels of which nothing is proved but that they do not race, and why.
CONTENTS = "contents of memory are given (a list, counts, a grid or keys), and with any sentryward compares nothing"
WITHOUT_EQUALITY = {
    "add_rows_kernel": "a maximum that takes NaN is a branch to the compiler, which sentryward has no expression for",
    "assign_rows_kernel": CONTENTS,
    "compact_kernel": CONTENTS,
    "copy_rows_kernel": "an address that depends on a list is no expression to sentryward; of gather, contents are given as well",
    "delta_kernel": CONTENTS,
    "dots_kernel": "addresses of rows pass through shared memory, and sentryward has no expression for what is read there",
    "dual_keys_kernel": "comparisons that NaN fails have no expression in it",
    "exponentials_kernel": "the exponential is a polynomial and bits of an exponent, with branches",
    "keep_blocks_kernel": CONTENTS,
    "keep_kernel": CONTENTS,
    "merge_rows_kernel": "votes of a warp, by which it finds the tokens of a row, have no values",
    "merged_rows_kernel": CONTENTS,
    "place_windows_kernel": CONTENTS,
    "positions_kernel": CONTENTS,
    "rank_kernel": CONTENTS,
    "rerotate_kernel": CONTENTS,
    "select_kernel": "votes of a warp have no values, and keys are bits of numbers",
    "transform_kernel": CONTENTS,
    "window_similarity_kernel": CONTENTS,
}
