# SPDX-License-Identifier: Apache-2.0
"""Each step as PyTorch says it. `released` has the structure of the methods' released code (which tensors it forms, in which type and
order), written from its description; `rewritten` is what somebody who knows PyTorch would write for the same result."""

import torch
import torch.nn.functional as F


def windows_of(patches, side):
    """[B, side², D] → [B, windows, 9, D]: 3×3 windows and their members in raster order."""
    batch, _, dim = patches.shape
    grid = patches.view(batch, side // 3, 3, side // 3, 3, dim)
    return grid.permute(0, 1, 3, 2, 4, 5).reshape(batch, -1, 9, dim)


# ---- window_similarity + window_merge: features [B, 1 + side², D], CLS first


def merge_released(features, threshold=0.8):
    """All pairs of a window by broadcasting, r of the whole batch, scatter_reduce of what merges. Returns rows [B, 1 + N − 8r, D]."""
    batch, tokens, dim = features.shape
    side = int((tokens - 1)**0.5)
    cls, patches = features[:, :1], features[:, 1:]
    grid = patches.transpose(1, 2).reshape(batch, dim, side // 3, 3, side // 3, 3)
    window = grid.permute(0, 2, 4, 1, 3, 5).reshape(batch, side // 3, side // 3, dim, 9)
    cosines = F.cosine_similarity(window.unsqueeze(-1), window.unsqueeze(-2), dim=-3)  # [B, rows, cols, 9, 9]
    others = 1 - torch.eye(9, device=features.device)
    score = (cosines * others).sum((-1, -2)).div(9 * 8).view(batch, -1)
    count = int((score >= threshold).sum(1).min())
    chosen = score.topk(count, dim=1).indices

    index = torch.arange(side * side).view(1, side * side, 1).expand(batch, -1, 1)
    members = windows_of(index, side).squeeze(-1)  # [B, windows, 9]: patch numbers
    merged = members.gather(1, chosen.unsqueeze(-1).expand(-1, -1, 9))
    source, target = merged[..., :8].reshape(batch, -1), merged[..., 8]
    alone = torch.ones(batch, side * side, dtype=torch.bool).scatter(1, merged.reshape(batch, -1), False)
    unmerged = patches[alone].view(batch, -1, dim)
    size = torch.ones(batch, side * side, 1, dtype=features.dtype)

    def collapse(x):
        width = x.shape[-1]
        into = x.gather(1, target.unsqueeze(-1).expand(-1, -1, width))
        what = x.gather(1, source.unsqueeze(-1).expand(-1, -1, width))
        where = torch.arange(count).repeat_interleave(8).view(1, -1, 1).expand(batch, -1, width)
        return into.scatter_reduce(1, where, what, reduce="sum")

    return torch.cat([cls, collapse(patches * size) / collapse(size), unmerged], dim=1)


def similarity_of_pairs(window):
    """The pairs as one matrix product for each window: what comes to mind first."""
    unit = F.normalize(window, dim=-1, eps=1e-8)
    pairs = torch.matmul(unit, unit.transpose(-1, -2)).float()
    return (pairs.sum((-1, -2)) - pairs.diagonal(dim1=-2, dim2=-1).sum(-1)) / 72


def similarity_of_sum(window):
    """mustdrop's formula: (‖Σu‖² − Σ‖u‖²) / 72. Nothing is written but the sum; Σ‖u‖² counts the tokens that are not zero."""
    norm = torch.linalg.vector_norm(window, dim=-1, dtype=torch.float32)
    weight = norm.clamp_min(1e-8).reciprocal()
    total = torch.matmul(weight.to(window.dtype).unsqueeze(-2), window).squeeze(-2).float()
    return (total.square().sum(-1) - (norm > 1e-8).sum(-1)) / 72


def merge_rewritten(features, similarity=similarity_of_sum, threshold=0.8):
    """Every sample by itself; rows in place, packed over the batch. Returns (rows [kept, D], token of each row)."""
    batch, tokens, dim = features.shape
    side = int((tokens - 1)**0.5)
    window = windows_of(features[:, 1:], side)
    score = similarity(window)
    merged = score >= threshold  # [B, windows]
    means = window[merged].mean(1)

    middle = torch.zeros(3, 1, 3, dtype=torch.bool)
    middle[1, 0, 1] = True
    grid = merged.view(batch, side // 3, 1, side // 3, 1)
    stays = F.pad((~grid | middle).reshape(batch, -1), (1, 0), value=True).view(-1)
    is_mean = F.pad((grid & middle).reshape(batch, -1), (1, 0)).view(-1)
    keep = stays.nonzero().squeeze(1)
    rows = features.view(-1, dim).index_select(0, keep)
    rows[is_mean[keep]] = means
    return rows, keep


# ---- cls_topk: attention [B, heads, patches]


def cls_topk(attention, k):
    return attention.mean(1).topk(k, dim=-1).indices.sort(-1).values


# ---- dual_mask: map [heads, rows, tokens], from a softmax


def dual_mask_released(weights, key_set, global_share, individual):
    mean = weights.mean(0)
    total, most = mean.sum(0), mean.max(0).values
    drop = (total < global_share * total.sum()) & (most < individual)
    stays = torch.nonzero(~drop).squeeze(1)
    return torch.unique(torch.cat([stays, key_set]))


def dual_mask_rewritten(weights, key_set, global_share, individual):
    mean = weights.mean(0)
    total, most = mean.sum(0), mean.amax(0)
    stays = (total >= global_share * total.sum()).logical_or_(most >= individual)
    stays[key_set] = True
    return stays.nonzero().squeeze(1)


# ---- attention_scores: query [heads, rows, dim], keys [kv_heads, seen, dim]; the last row sees all keys


def causal(rows, seen, dtype):
    return torch.full((rows, seen), float("-inf"), dtype=dtype).triu_(seen - rows + 1)


def reduced(weights):
    mean = weights.mean(0)
    return mean.sum(0), mean.amax(0)


def repeated(keys, heads):
    """Each head of keys as often as heads of queries share it."""
    return keys if keys.shape[0] == heads else keys.repeat_interleave(heads // keys.shape[0], dim=0)


def full_map(all_queries, keys, rows):
    """Eager attention of all rows, as code that asks a model for its map makes the model compute; then the rows that count."""
    logits = torch.matmul(all_queries, repeated(keys, all_queries.shape[0]).transpose(1, 2)) / keys.shape[-1]**0.5
    logits = logits + causal(logits.shape[1], logits.shape[2], logits.dtype)
    weights = F.softmax(logits, dim=-1, dtype=torch.float32).to(all_queries.dtype)
    return reduced(weights[:, -rows:])


def rows_only(query, keys):
    """The same from the rows that count."""
    heads, rows, dim = query.shape
    scaled = query * dim**-0.5
    if keys.shape[0] != heads:  # rows of the heads that share keys, side by side
        logits = torch.bmm(scaled.view(keys.shape[0], -1, dim), keys.transpose(1, 2)).view(heads, rows, -1)
    else:
        logits = torch.bmm(scaled, keys.transpose(1, 2))
    if rows > 1:
        logits += causal(rows, keys.shape[1], logits.dtype)
    return reduced(F.softmax(logits, dim=-1, dtype=torch.float32))


def sdpa_identity(query, keys, identity, mask):
    """The fused attention returns no weights, but with the identity for V its output is the weights."""
    weights = F.scaled_dot_product_attention(query[None], repeated(keys, query.shape[0])[None], identity, attn_mask=mask)[0]
    return reduced(weights.float())


def sdpa_layer(all_queries, keys, values):
    """What the layer computes anyway. No scores come out of it: a yardstick, not a rival."""
    return F.scaled_dot_product_attention(all_queries[None], keys[None], values[None], is_causal=True)


# ---- gather, RMSNorm


def rms_norm_released(rows, weight, epsilon):
    """Llama's: in float, rounded, then times the weight."""
    wide = rows.to(torch.float32)
    wide = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + epsilon)
    return weight * wide.to(rows.dtype)


# ---- KV caches


def compact(caches, keep):
    return [cache.index_select(2, keep) for cache in caches]


def h2o_keep(scores, budget, recent):
    """scores [sets, slots] → kept slots [sets, budget]: the best of the older ones and the recent ones."""
    slots = scores.shape[-1]
    best = scores[:, :slots - recent].topk(budget - recent, dim=-1).indices.sort(-1).values
    latest = torch.arange(slots - recent, slots).expand(scores.shape[0], -1)
    return torch.cat([best, latest], dim=-1)


def h2o_step(query, keys, values, total, budget, recent):
    """One decode step: the row's attention adds to the scores, one set for all heads is chosen, K and V follow it."""
    weights = F.softmax(torch.bmm(query * query.shape[-1]**-0.5, keys.transpose(1, 2)), dim=-1, dtype=torch.float32)
    total = total + weights.mean(0).squeeze(0)
    keep = h2o_keep(total[None], budget, recent)[0]
    return keep, total[keep], keys.index_select(1, keep), values.index_select(1, keep)


def turn(angle):
    return torch.cat([angle.cos()] * 2, -1), torch.cat([angle.sin()] * 2, -1)


def rerotate_released(keys, old, updated, inv_freq):
    """keys [heads, slots, dim]: cosines and sines of the difference, then x·cos + rotate_half(x)·sin, as new tensors."""
    cos, sin = turn((updated - old).float()[:, None] * inv_freq)
    cos, sin = cos.to(keys.dtype), sin.to(keys.dtype)
    left, right = keys.chunk(2, dim=-1)
    return keys * cos + torch.cat([-right, left], dim=-1) * sin


def rerotate_rewritten(keys, old, updated, inv_freq):
    """In place, half by half: no tensor of the halves put together again."""
    angle = (updated - old).float()[:, None] * inv_freq
    cos, sin = angle.cos().to(keys.dtype), angle.sin().to(keys.dtype)
    left, right = keys.chunk(2, dim=-1)
    turned = left * cos - right * sin
    right.mul_(cos).addcmul_(left, sin)
    left.copy_(turned)
    return keys
