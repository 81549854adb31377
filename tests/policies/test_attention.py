"""Packed trees read exactly as each sequence by itself, whatever kind of attention the model has."""

from copy import deepcopy

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, Gemma2Config, LlamaConfig, MistralConfig

from etude.core.errors import PolicyError
from etude.policies.attention import ATTENTION, lay_out
from etude.trajectory.forest import forest

SIZE = {
    "vocab_size": 32, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "head_dim": 4,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64,
}  # fmt: skip
CONFIGS = {"full": LlamaConfig(**SIZE), "window": MistralConfig(**SIZE, sliding_window=5)}
SEQUENCES = [[1, 2, 3, 4, 5, 6, 7, 8], [1, 2, 3, 4, 5, 9, 9], [1, 2, 3, 4, 5, 9, 8, 7, 6, 5, 4, 3], [4, 4], [1, 2, 3]]


def model_of(config, attention: str):
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(deepcopy(config), attn_implementation=attention).eval()


def hidden(model, ids, **how) -> torch.Tensor:
    return model.get_decoder()(input_ids=ids, use_cache=False, **how).last_hidden_state[0]


@pytest.mark.parametrize("name", CONFIGS)
def test_hidden_states_and_gradients_are_those_of_the_sequences_alone(name):
    ours, theirs = model_of(CONFIGS[name], ATTENTION), model_of(CONFIGS[name], "sdpa")
    sequences = [np.array(s) for s in SEQUENCES]
    trees = forest(sequences, 100)
    assert sum(len(tree.ids_L) for tree in trees) < sum(map(len, sequences))
    ids, how = lay_out(trees, "cpu")
    packed, at, loss = hidden(ours, ids, **how), 0, 0.0
    for tree in trees:
        for r, index_P in zip(tree.rows, tree.index, strict=True):
            alone = hidden(theirs, torch.from_numpy(sequences[r])[None])
            torch.testing.assert_close(packed[at + index_P], alone, rtol=1e-5, atol=1e-5)
            loss = loss + (packed[at + index_P] ** 3).sum() - (alone**3).sum()
        at += len(tree.ids_L)
    loss.backward()
    for mine, other in zip(ours.get_decoder().parameters(), theirs.get_decoder().parameters(), strict=True):
        torch.testing.assert_close(mine.grad, -other.grad, rtol=1e-4, atol=1e-4)


def test_without_trees_it_is_the_attention_of_transformers():
    ids = torch.tensor([[0, 0, 1, 2, 3], [4, 5, 6, 7, 8]])
    mask = (ids > 0).long()
    ours, theirs = (model_of(CONFIGS["window"], name)(ids, attention_mask=mask) for name in (ATTENTION, "sdpa"))
    torch.testing.assert_close(ours.logits, theirs.logits)


def test_attention_that_it_cannot_compute_is_refused():
    model = model_of(Gemma2Config(**SIZE), ATTENTION)
    ids, how = lay_out(forest([np.array([1, 2])], 10), "cpu")
    with pytest.raises(PolicyError, match=r"softcap=50\.0"):
        hidden(model, ids, **how)
