"""A small Llama: RMSNorm, rotary positions, grouped-query attention, SwiGLU, tied embeddings."""
import math

import torch
from torch import nn
from torch.nn import functional as F

CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": 1024,
    "hidden_size": 96,
    "intermediate_size": 192,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 24,
    "max_position_embeddings": 256,
    "rms_norm_eps": 1e-05,
    "rope_theta": 10000.0,
    "rope_scaling": None,
    "hidden_act": "silu",
    "attention_bias": False,
    "attention_dropout": 0.0,
    "mlp_bias": False,
    "initializer_range": 0.02,
    "tie_word_embeddings": True,
    "use_cache": True,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "pad_token_id": 0,
    "torch_dtype": "float32",
}


class RMSNorm(nn.Module):
    def __init__(self, size, eps):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x):
        return x / torch.sqrt((x * x).mean(-1, keepdim=True) + self.eps) * self.weight


def rotate(x, cos, sin):
    """x [B,H,T,d] turned by its positions; cos and sin [T,d/2]; halves are pairs, as in Llama on the hub."""
    a, b = x.chunk(2, -1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)


class Layer(nn.Module):
    def __init__(self, c):
        super().__init__()
        size, head = c["hidden_size"], c["head_dim"]
        self.heads, self.kv_heads = c["num_attention_heads"], c["num_key_value_heads"]
        self.norm1 = RMSNorm(size, c["rms_norm_eps"])
        self.norm2 = RMSNorm(size, c["rms_norm_eps"])
        self.q = nn.Linear(size, self.heads * head, bias=False)
        self.k = nn.Linear(size, self.kv_heads * head, bias=False)
        self.v = nn.Linear(size, self.kv_heads * head, bias=False)
        self.o = nn.Linear(self.heads * head, size, bias=False)
        self.gate = nn.Linear(size, c["intermediate_size"], bias=False)
        self.up = nn.Linear(size, c["intermediate_size"], bias=False)
        self.down = nn.Linear(c["intermediate_size"], size, bias=False)

    def forward(self, x, cos, sin, mask):
        b, t, _ = x.shape
        h = self.norm1(x)
        q = rotate(self.q(h).view(b, t, self.heads, -1).transpose(1, 2), cos, sin)
        k = rotate(self.k(h).view(b, t, self.kv_heads, -1).transpose(1, 2), cos, sin)
        v = self.v(h).view(b, t, self.kv_heads, -1).transpose(1, 2)
        group = self.heads // self.kv_heads
        k, v = k.repeat_interleave(group, 1), v.repeat_interleave(group, 1)
        scores = q @ k.transpose(2, 3) / math.sqrt(q.shape[-1]) + mask
        x = x + self.o((scores.softmax(-1) @ v).transpose(1, 2).reshape(b, t, -1))
        h = self.norm2(x)
        return x + self.down(F.silu(self.gate(h)) * self.up(h))


class Llama(nn.Module):
    def __init__(self, c=CONFIG):
        super().__init__()
        self.config = c
        self.embed = nn.Embedding(c["vocab_size"], c["hidden_size"])
        self.layers = nn.ModuleList(Layer(c) for _ in range(c["num_hidden_layers"]))
        self.norm = RMSNorm(c["hidden_size"], c["rms_norm_eps"])
        half = c["head_dim"] // 2
        self.frequencies = c["rope_theta"] ** (-torch.arange(half, dtype=torch.float32) / half)
        self.apply(self.init)

    def init(self, m):
        if isinstance(m, (nn.Linear, nn.Embedding)):
            nn.init.normal_(m.weight, std=0.04)

    def hidden(self, ids):
        """ids [B,T], right-padded -> what the LM head reads [B,T,D]."""
        t = ids.shape[1]
        angles = torch.arange(t)[:, None] * self.frequencies
        cos, sin = angles.cos(), angles.sin()
        mask = torch.full((t, t), -1e9).triu(1)
        x = self.embed(ids)
        for layer in self.layers:
            x = layer(x, cos, sin, mask)
        return self.norm(x)

    def forward(self, ids):
        return self.hidden(ids) @ self.embed.weight.T
