"""A compact Llama for training, its weights named as Hugging Face names them."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

IGNORED = -100


@dataclass(frozen=True)
class LlamaShape:
    """The sizes of the model, under their config.json names."""

    vocab_size: int
    hidden_size: int = 256
    intermediate_size: int = 704
    num_hidden_layers: int = 6
    num_attention_heads: int = 8
    num_key_value_heads: int = 4
    max_position_embeddings: int = 2048
    rope_theta: float = 10000.0
    rms_norm_eps: float = 1e-5

    @property
    def head_dim(self) -> int:
        return self.hidden_size // self.num_attention_heads


class Attention(nn.Module):
    """Causal attention with grouped keys and rotary positions."""

    def __init__(self, shape: LlamaShape) -> None:
        super().__init__()
        self.shape = shape
        key_size = shape.num_key_value_heads * shape.head_dim
        self.q_proj = nn.Linear(shape.hidden_size, shape.hidden_size, bias=False)
        self.k_proj = nn.Linear(shape.hidden_size, key_size, bias=False)
        self.v_proj = nn.Linear(shape.hidden_size, key_size, bias=False)
        self.o_proj = nn.Linear(shape.hidden_size, shape.hidden_size, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, mask: Tensor | None) -> Tensor:
        B, T, _ = x.shape
        q, k, v = (self._heads(proj(x), B, T) for proj in (self.q_proj, self.k_proj, self.v_proj))
        group = self.shape.num_attention_heads // self.shape.num_key_value_heads
        q, k = rotate(q, cos, sin).to(v.dtype), rotate(k, cos, sin).to(v.dtype)
        k, v = k.repeat_interleave(group, dim=1), v.repeat_interleave(group, dim=1)
        y = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=mask is None)
        output: Tensor = self.o_proj(y.transpose(1, 2).reshape(B, T, -1))
        return output

    def _heads(self, x: Tensor, B: int, T: int) -> Tensor:
        return x.view(B, T, -1, self.shape.head_dim).transpose(1, 2)  # [B, H, T, D]


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turns each head's first and second half by the angle of its position."""
    one, two = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-two, one), dim=-1) * sin


def apart(tokens: Tensor, begin_id: int) -> Tensor:
    """The mask `[B, 1, T, T]` that keeps each document of a packed row to itself."""
    document_ids = (tokens == begin_id).cumsum(dim=1)
    is_same = document_ids[:, :, None] == document_ids[:, None, :]
    return is_same.tril()[:, None]


class Mlp(nn.Module):
    """The gated feed-forward part of a layer."""

    def __init__(self, shape: LlamaShape) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(shape.hidden_size, shape.intermediate_size, bias=False)
        self.up_proj = nn.Linear(shape.hidden_size, shape.intermediate_size, bias=False)
        self.down_proj = nn.Linear(shape.intermediate_size, shape.hidden_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.down_proj(functional.silu(self.gate_proj(x)) * self.up_proj(x))
        return output


class Layer(nn.Module):
    """Attention and feed-forward, each behind its norm and beside the residual stream."""

    def __init__(self, shape: LlamaShape) -> None:
        super().__init__()
        self.self_attn = Attention(shape)
        self.mlp = Mlp(shape)
        self.input_layernorm = nn.RMSNorm(shape.hidden_size, eps=shape.rms_norm_eps)
        self.post_attention_layernorm = nn.RMSNorm(shape.hidden_size, eps=shape.rms_norm_eps)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, mask: Tensor | None) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), cos, sin, mask)
        output: Tensor = x + self.mlp(self.post_attention_layernorm(x))
        return output


class Llama(nn.Module):
    """Token ids to logits; the embedding is also the output layer."""

    cos: Tensor
    sin: Tensor

    def __init__(self, shape: LlamaShape) -> None:
        super().__init__()
        self.shape = shape
        self.embed_tokens = nn.Embedding(shape.vocab_size, shape.hidden_size)
        self.layers = nn.ModuleList(Layer(shape) for _ in range(shape.num_hidden_layers))
        self.norm = nn.RMSNorm(shape.hidden_size, eps=shape.rms_norm_eps)
        steps = torch.arange(0, shape.head_dim, 2).float() / shape.head_dim
        angles = torch.outer(
            torch.arange(shape.max_position_embeddings).float(), shape.rope_theta**-steps
        ).repeat(1, 2)
        self.register_buffer("cos", angles.cos(), persistent=False)  # [T, D]
        self.register_buffer("sin", angles.sin(), persistent=False)
        self.apply(self._initialize)

    def _initialize(self, module: nn.Module) -> None:
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=0.02)

    def forward(self, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        x = self.embed_tokens(tokens)  # [B, T, hidden]
        T = tokens.shape[1]
        for layer in self.layers:
            x = layer(x, self.cos[:T], self.sin[:T], mask)
        return functional.linear(self.norm(x), self.embed_tokens.weight)

    def loss(self, tokens: Tensor, targets: Tensor, mask: Tensor | None = None) -> Tensor:
        """Mean cross-entropy over the targets that are not ignored."""
        logits = self(tokens, mask)
        return functional.cross_entropy(
            logits.flatten(0, 1).float(), targets.flatten(), ignore_index=IGNORED
        )


def num_parameters(model: Llama) -> int:
    """All weights, the tied embedding counted once."""
    return sum(parameter.numel() for parameter in model.parameters())


def config_of(shape: LlamaShape, *, bos_id: int, eos_id: int, pad_id: int) -> dict[str, object]:
    """The config.json of a shape."""
    fixed: dict[str, object] = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_act": "silu",
        "head_dim": shape.head_dim,
        "attention_bias": False,
        "attention_dropout": 0.0,
        "mlp_bias": False,
        "tie_word_embeddings": True,
        "initializer_range": 0.02,
        "use_cache": True,
        "torch_dtype": "bfloat16",
    }
    return (
        fixed
        | asdict(shape)
        | {"bos_token_id": bos_id, "eos_token_id": eos_id, "pad_token_id": pad_id}
    )


def save_weights(model: Llama, path: Path) -> None:
    """Writes bf16 safetensors under Hugging Face names."""
    weights = {
        f"model.{name}": tensor.detach().to(torch.bfloat16).contiguous()
        for name, tensor in model.state_dict().items()
    }
    save_file(weights, str(path), metadata={"format": "pt"})
    path.chmod(0o644)


def load_model(directory: Path) -> Llama:
    """The model of an exported directory, in fp32."""
    config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    model = Llama(LlamaShape(**{key: config[key] for key in LlamaShape.__dataclass_fields__}))
    weights = load_file(str(directory / "model.safetensors"))
    model.load_state_dict(
        {name.removeprefix("model."): tensor.float() for name, tensor in weights.items()}
    )
    return model.eval()
