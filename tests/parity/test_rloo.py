"""etude's leave-one-out credit and clipped objective against TRL's own RLOOTrainer, in float32 to 1e-5."""

import numpy as np
import pytest
import torch

from etude.core.parts import build

trl = pytest.importorskip("trl")
REWARDS = [1.0, 0.0, 0.25, 0.5]


@pytest.fixture
def make_trainer(model, tokenizer, tmp_path):
    from datasets import Dataset

    def make(rewards=REWARDS):
        config = trl.RLOOConfig(
            output_dir=str(tmp_path),
            use_cpu=True,
            bf16=False,
            report_to=[],
            beta=0.0,
            num_generations=4,
            per_device_train_batch_size=4,
            max_completion_length=6,
        )
        return trl.RLOOTrainer(
            model=model,
            reward_funcs=lambda completions, **_: list(rewards),
            args=config,
            train_dataset=Dataset.from_list([{"prompt": "the cat"}] * 4),
            processing_class=tokenizer,
        )

    return make


@pytest.mark.parametrize("rewards", [REWARDS, [1.0, 0.0, None, 0.5], [0.1] * 4])
def test_advantages(make_trainer, rewards):
    trainer = make_trainer(rewards)
    trainer.model.train()
    theirs = trainer._generate_and_score_completions([{"prompt": "the cat"}] * 4)["advantages"].numpy()
    ours = build("credit/rloo")(np.array([np.nan if r is None else r for r in rewards]))
    np.testing.assert_allclose(np.nan_to_num(ours), theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("drift", [0.0, 0.1])
def test_loss_and_gradients(make_trainer, model, padded, same, drift):
    trainer = make_trainer()
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        now_BT = padded.logprob_BT(model)
    old_BT = now_BT + drift * torch.randn(now_BT.shape, generator=generator)
    weight_B = build("credit/rloo")(np.array(REWARDS))
    trainer.model.train()
    theirs = trainer._compute_loss(
        trainer.model,
        {
            "prompt_ids": padded.prompt_BP,
            "prompt_mask": torch.ones_like(padded.prompt_BP),
            "completion_ids": padded.completion_BT,
            "completion_mask": padded.mask_BT,
            "advantages": torch.tensor(weight_B, dtype=torch.float32),
            "old_logps": (old_BT * padded.mask_BT).sum(1),
        },
    )
    objective = build("objectives/clipped", importance="product", normalise="sequence")
    same(objective(padded.flat(model, weight_B, old_BT))[0], theirs)
