"""A batch of random tokens whose log-probabilities come from logits, so that gradients can be looked at."""

import dataclasses

import pytest
import torch

from etude.protocols import Batch

LENGTHS = (3, 1, 4)
SIGN = (1, 1, -1)  # of each sequence's weights
GROUP = torch.tensor([0, 1, 0])
SCORE = torch.tensor([0.5, 1.0, 0.2], dtype=torch.float64)
VOCABULARY = 5


@pytest.fixture
def logits_NV() -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(sum(LENGTHS), VOCABULARY, generator=generator, dtype=torch.float64).requires_grad_()


@pytest.fixture
def make_batch(logits_NV):
    """Called with fields of Batch to replace; keep selects sequences for a micro-batch of the same optimiser batch."""
    generator = torch.Generator().manual_seed(1)
    N = sum(LENGTHS)
    label_N = torch.randint(VOCABULARY, (N,), generator=generator)
    weight_N = torch.randn(N, generator=generator, dtype=torch.float64).abs()
    weight_N *= torch.repeat_interleave(torch.tensor(SIGN), torch.tensor(LENGTHS))
    drift_N = 0.6 * torch.randn(N, generator=generator, dtype=torch.float64)
    reference_N = torch.randn(N, generator=generator, dtype=torch.float64)

    def make(keep: tuple[int, ...] = (0, 1, 2), **changes: object) -> Batch:
        logprob_N = logits_NV.log_softmax(-1).gather(-1, label_N[:, None])[:, 0]
        batch = Batch(
            logprob_N=logprob_N,
            weight_N=weight_N,
            old_logprob_N=logprob_N.detach() + drift_N,
            sequence_N=torch.repeat_interleave(torch.arange(len(LENGTHS)), torch.tensor(LENGTHS)),
            length_S=torch.tensor(LENGTHS),
            tokens=N,
            sequences=len(LENGTHS),
            max_length=10,
            episode_S=torch.arange(len(LENGTHS)),
            group_S=GROUP,
            groups=2,
            score_S=SCORE,
            reference_logprob_N=logprob_N.detach() + 0.5 * reference_N,
        )
        batch = dataclasses.replace(batch, **changes)
        chosen_N = torch.isin(batch.sequence_N, torch.tensor(keep))
        per_token = {
            name: value[chosen_N]
            for name, value in vars(batch).items()
            if name.endswith("_N") and value is not None and name != "sequence_N"
        }
        length_S = batch.length_S[list(keep)]
        sequence_N = torch.repeat_interleave(torch.arange(len(keep)), length_S)
        return dataclasses.replace(
            batch,
            **per_token,
            sequence_N=sequence_N,
            length_S=length_S,
            episode_S=torch.arange(len(keep)),
            group_S=GROUP[list(keep)],
            score_S=SCORE[list(keep)],
        )

    return make
