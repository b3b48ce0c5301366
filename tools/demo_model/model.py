"""The network in plain PyTorch: a small Qwen3-style decoder that llama.cpp runs as architecture "qwen3".

RMSNorm before each block, grouped-query attention with RMSNorm on every query and key head, rotary positions that turn
the two halves of a head (not neighbouring pairs), SwiGLU, and one matrix for the embedding and the output.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SHORT_ROW = 256  # tokens
INIT_STD = 0.03


@dataclass(frozen=True)
class Shape:
    """Sizes of the network; every row length is a multiple of 32, the block of Q8_0."""

    vocab: int = 4096
    width: int = 256
    feed_forward: int = 704
    layers: int = 4
    heads: int = 4
    kv_heads: int = 2
    context: int = 2048
    rope_base: float = 10000.0
    norm_eps: float = 1e-6
    dropout: float = 0.1

    @property
    def head_width(self) -> int:
        """Return the length of one attention head."""
        return self.width // self.heads


def rotary(shape: Shape) -> tuple[Tensor, Tensor]:
    """Return cos and sin, each [context, head_width / 2]."""
    half = shape.head_width // 2
    frequency = shape.rope_base ** (-torch.arange(half, dtype=torch.float32) / half)
    angle = torch.arange(shape.context, dtype=torch.float32)[:, None] * frequency
    return angle.cos(), angle.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn [batch, heads, time, head_width] by its positions."""
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Return causal attention; short rows write the scores out, which is faster on a CPU than the fused kernel."""
    time = q.shape[2]
    if time > SHORT_ROW:
        return F.scaled_dot_product_attention(q, k, v, is_causal=True)
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
    ahead = torch.ones(time, time, dtype=torch.bool).triu(1)
    return scores.float().masked_fill_(ahead, -1e9).softmax(-1).to(v.dtype) @ v


class Drop(nn.Module):
    """Dropout whose masks are slices of one block of random bits: drawing fresh ones costs a seventh of a CPU step."""

    SIZE = 1 << 24

    def __init__(self, rate: float) -> None:
        super().__init__()
        kept = (torch.rand(self.SIZE if rate else 1) >= rate).to(torch.bfloat16) / (1 - rate)
        self.rate = rate
        self.register_buffer("mask", kept, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return x with a share of its elements set to zero, the rest scaled up; unchanged in evaluation."""
        if not self.training or not self.rate:
            return x
        start = int(torch.randint(self.SIZE - x.numel(), ()))
        return x * self.mask[start : start + x.numel()].view_as(x)


class Block(nn.Module):
    """Attention and feed-forward, each with its residual."""

    def __init__(self, shape: Shape, drop: Drop) -> None:
        super().__init__()
        self.shape = shape
        kv_width = shape.kv_heads * shape.head_width
        self.attn_norm = nn.RMSNorm(shape.width, eps=shape.norm_eps)
        self.ffn_norm = nn.RMSNorm(shape.width, eps=shape.norm_eps)
        self.q_norm = nn.RMSNorm(shape.head_width, eps=shape.norm_eps)
        self.k_norm = nn.RMSNorm(shape.head_width, eps=shape.norm_eps)
        self.q = nn.Linear(shape.width, shape.width, bias=False)
        self.k = nn.Linear(shape.width, kv_width, bias=False)
        self.v = nn.Linear(shape.width, kv_width, bias=False)
        self.o = nn.Linear(shape.width, shape.width, bias=False)
        self.gate = nn.Linear(shape.width, shape.feed_forward, bias=False)
        self.up = nn.Linear(shape.width, shape.feed_forward, bias=False)
        self.down = nn.Linear(shape.feed_forward, shape.width, bias=False)
        self.drop = drop

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Return [batch, time, width] for the same."""
        batch, time, width = x.shape
        shape = self.shape
        y = self.attn_norm(x)
        q = self.q(y).view(batch, time, shape.heads, shape.head_width)
        k = self.k(y).view(batch, time, shape.kv_heads, shape.head_width)
        v = self.v(y).view(batch, time, shape.kv_heads, shape.head_width).transpose(1, 2)
        q = rotate(self.q_norm(q).transpose(1, 2), cos, sin).to(v.dtype)
        k = rotate(self.k_norm(k).transpose(1, 2), cos, sin).to(v.dtype)
        repeat = shape.heads // shape.kv_heads
        k, v = k.repeat_interleave(repeat, dim=1), v.repeat_interleave(repeat, dim=1)
        y = attend(q, k, v)
        x = x + self.drop(self.o(y.transpose(1, 2).reshape(batch, time, width)))
        y = self.ffn_norm(x)
        return x + self.drop(self.down(F.silu(self.gate(y)) * self.up(y)))


class Demo(nn.Module):
    """The whole network."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.embedding = nn.Embedding(shape.vocab, shape.width)
        self.drop = Drop(shape.dropout)
        self.blocks = nn.ModuleList(Block(shape, self.drop) for _ in range(shape.layers))
        self.norm = nn.RMSNorm(shape.width, eps=shape.norm_eps)
        cos, sin = rotary(shape)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)
        for name, weight in self.named_parameters():
            if weight.dim() > 1:
                scale = INIT_STD / (2 * shape.layers) ** 0.5 if name.endswith(("o.weight", "down.weight")) else INIT_STD
                nn.init.normal_(weight, std=scale)

    def hidden(self, ids: Tensor) -> Tensor:
        """Return [batch, time, width], normalised, for token ids [batch, time]."""
        time = ids.shape[1]
        x = self.drop(self.embedding(ids))
        for block in self.blocks:
            x = block(x, self.cos[:time], self.sin[:time])
        return self.norm(x)

    def logits(self, hidden: Tensor) -> Tensor:
        """Return scores over the vocabulary for hidden states of any leading shape."""
        return F.linear(hidden, self.embedding.weight)
