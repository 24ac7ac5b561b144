"""What a model and an SAE cost in bytes and floating-point operations (FLOPs), as formulas."""

from __future__ import annotations

from sae_lens.util import extract_stop_at_layer_from_tlens_hook_name

from sae_lens_contrastive.models import ModelShape
from sae_lens_contrastive.models.bridge import unknown_hook

FLOAT = 4
"""Bytes of a float32 number: SAEs, their optimisers and activation buffers are in float32."""
BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
STEP_COPIES = {"standard": 6.0, "topk": 7.0, "batchtopk": 8.0, "jumprelu": 7.5, "matryoshka_batchtopk": 9.5}
"""Tensors of batch x d_sae that a training step holds at its peak, without loss terms; counted with a profiler."""
KEPT_COPIES = 2.0
"""Of these, what stays until the other SAEs of the stream had their step: activations and pre-activations."""
STATE_COPIES = 3
"""Tensors of the SAE's size between steps: weights and two moments of Adam."""
STEP_STATE_COPIES = 2.5
"""More of them in a step: gradients and what Adam needs to update."""


def model_flops_per_token(shape: ModelShape, n_blocks: int, context_size: int) -> float:
    """FLOPs of a forward pass through the lowest `n_blocks` blocks, per token.

    2 n_block_parameters n_blocks + 4 context_size n_heads d_head n_blocks (scores and their use, not halved by
    causality), and 2 d_model d_vocab for the logits if no block is left out.
    """
    attention = 4 * context_size * shape.n_heads * shape.d_head
    logits = 2 * shape.d_model * shape.d_vocab if n_blocks == shape.n_layers else 0
    return n_blocks * (2 * shape.n_block_parameters + attention) + logits


def sae_flops_per_token(d_in: int, d_sae: int, architecture: str = "topk") -> float:
    """FLOPs of a training step per token: 12 d_in d_sae, a third forward and two backward, of encoder and decoder.

    A Matryoshka SAE decodes its inner levels again, half of the features: 15 d_in d_sae. The auxiliary loss of dead
    features is not counted.
    """
    return (15 if architecture == "matryoshka_batchtopk" else 12) * d_in * d_sae


def n_sae_parameters(d_in: int, d_sae: int, architecture: str) -> int:
    """2 d_in d_sae + d_sae + d_in: encoder, decoder and their biases; d_sae more for the thresholds of jumprelu."""
    return 2 * d_in * d_sae + d_in + d_sae * (2 if architecture == "jumprelu" else 1)


def n_blocks_run(hook_name: str, shape: ModelShape) -> int:
    """Blocks that run for activations at a hook; `ConfigError` if the model does not have the hook's layer."""
    stop = extract_stop_at_layer_from_tlens_hook_name(hook_name)
    if stop is not None and stop > shape.n_layers:
        raise unknown_hook(hook_name, shape.n_layers)
    return shape.n_layers if stop is None else stop


def forward_bytes(shape: ModelShape, n_sequences: int, context_size: int, n_blocks: int, bytes_per: int) -> float:
    """Bytes that a forward pass without gradients holds at its peak, in one block, beside the weights.

    tokens (4 d_mlp + 3 d_model) bytes_per + 8 n_sequences n_heads context_size² (attention scores and their softmax in
    float32), and tokens d_vocab (bytes_per + 4) for the logits if no block is left out.
    """
    tokens = n_sequences * context_size
    block = tokens * (4 * shape.d_mlp + 3 * shape.d_model) * bytes_per
    scores = 2 * FLOAT * n_sequences * shape.n_heads * context_size**2
    logits = tokens * shape.d_vocab * (bytes_per + FLOAT) if n_blocks == shape.n_layers else 0
    return block + scores + logits


def output_space_bytes(
    shape: ModelShape, n_above: int, n_texts: int, n_tokens: int, bytes_per: int, retain_per_forget: int = 1
) -> float:
    """Bytes that an output-space term holds at its peak, at most, for both sides, forget and retain, together.

    Forget text has tokens = n_texts n_tokens, and holds 5 float32 tensors of tokens x d_vocab and, for the backward
    pass through each of the `n_above` blocks above the hook, tokens (5 d_mlp + 8 d_model) numbers and the scores;
    retain text `retain_per_forget` times as much.
    """
    tokens = n_texts * n_tokens
    scores = n_texts * shape.n_heads * n_tokens**2 * (FLOAT + 2 * bytes_per)
    per_block = tokens * (5 * shape.d_mlp + 8 * shape.d_model) * bytes_per + scores
    return (1.0 + retain_per_forget) * (5 * FLOAT * tokens * shape.d_vocab + n_above * per_block)


def output_space_flops(
    shape: ModelShape, n_above: int, n_texts: int, n_tokens: int, retain_per_forget: int = 1
) -> float:
    """FLOPs of one evaluation of an output-space term, at most.

    The blocks above the hook and the logits run forward as they are on retain text, forward with the edit on both
    sides, and backward on both at the cost of a forward pass (weights get no gradient): 2 passes over forget text and
    3 over retain text, of which only what an edit reaches runs.
    """
    blocks = n_above * (2 * shape.n_block_parameters + 4 * n_tokens * shape.n_heads * shape.d_head)
    passes = 2.0 + 3.0 * retain_per_forget
    return passes * n_texts * n_tokens * (blocks + 2 * shape.d_model * shape.d_vocab)
