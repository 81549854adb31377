"""etude's group credit and clipped objective against TRL's own GRPOTrainer, in float32 to 1e-5."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from etude.core.parts import build
from etude.training.learner import Row
from etude.training.mismatch import Mismatch

trl = pytest.importorskip("trl")
REWARDS = [1.0, 0.0, 0.25, 0.5]


@pytest.fixture
def make_trainer(model, tokenizer, tmp_path):
    from datasets import Dataset

    def make(rewards=REWARDS, **settings):
        scale = settings.pop("scale_rewards", "group")
        config = trl.GRPOConfig(
            output_dir=str(tmp_path),
            use_cpu=True,
            bf16=False,
            report_to=[],
            num_generations=4,
            per_device_train_batch_size=4,
            max_completion_length=6,
            scale_rewards=scale,
            **settings,
        )
        trainer = trl.GRPOTrainer(
            model=model,
            reward_funcs=lambda completions, **_: list(rewards),
            args=config,
            train_dataset=Dataset.from_list([{"prompt": "the cat"}] * 4),
            processing_class=tokenizer,
        )
        trainer.current_gradient_accumulation_steps = 1  # what Trainer.train sets before the first step
        return trainer

    return make


@pytest.mark.parametrize(("scale", "std"), [("group", True), ("none", False)])
@pytest.mark.parametrize("rewards", [REWARDS, [1.0, 0.0, None, 0.5], [0.1] * 4])
def test_advantages(make_trainer, rewards, scale, std):
    trainer = make_trainer(rewards, scale_rewards=scale)
    trainer.model.train()
    theirs = trainer._generate_and_score_completions([{"prompt": "the cat"}] * 4)["advantages"].numpy()
    score_G = np.array([np.nan if r is None else r for r in rewards])
    ours = build("credit/group", std=std)(score_G)
    np.testing.assert_allclose(np.nan_to_num(ours), theirs, rtol=1e-5, atol=1e-6)  # TRL gives the unscored weight 0


def losses(trainer, model, padded, **settings):
    """Ours and TRL's on the same samples, whose old and reference policies have drifted from the model."""
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        now_BT = padded.logprob_BT(model)
    old_BT = now_BT + 0.3 * torch.randn(now_BT.shape, generator=generator)
    reference_BT = now_BT + 0.3 * torch.randn(now_BT.shape, generator=generator)
    weight_B = build("credit/group")(np.array(REWARDS))
    trainer.model.train()
    theirs = trainer._compute_loss(
        trainer.model,
        {
            "prompt_ids": padded.prompt_BP,
            "prompt_mask": torch.ones_like(padded.prompt_BP),
            "completion_ids": padded.completion_BT,
            "completion_mask": padded.mask_BT,
            "advantages": torch.tensor(weight_B, dtype=torch.float32),
            "old_per_token_logps": old_BT,
            "ref_per_token_logps": reference_BT,
            "num_items_in_batch": padded.mask_BT.sum(),
        },
    )
    batch = padded.flat(model, weight_B, old_BT, reference_BT)
    ours, metrics = build("objectives/clipped", **settings)(batch)
    return ours, metrics, theirs


@pytest.mark.parametrize(
    ("loss_type", "normalise"), [("grpo", "sequence"), ("dapo", "token"), ("bnpo", "token"), ("dr_grpo", "constant")]
)
@pytest.mark.parametrize("importance", ["token", "sequence"])
def test_loss_and_gradients(make_trainer, model, padded, same, loss_type, normalise, importance):
    trainer = make_trainer(loss_type=loss_type, importance_sampling_level=importance, epsilon=0.2, epsilon_high=0.28)
    ours, metrics, theirs = losses(trainer, model, padded, high=0.28, normalise=normalise, importance=importance)
    assert metrics["clipped"] > 0 or importance == "sequence"
    same(ours, theirs)


def test_dual_clip(make_trainer, model, padded, same):
    trainer = make_trainer(loss_type="dapo", delta=1.3, epsilon=0.2, epsilon_high=0.2)
    ours, _, theirs = losses(trainer, model, padded, dual=1.3)
    plain, _, _ = losses(trainer, model, padded)
    assert ours.item() != pytest.approx(plain.item(), rel=1e-4)
    same(ours, theirs)


def test_divergence_from_the_reference(make_trainer, model, padded, same):
    trainer = make_trainer(loss_type="grpo", use_bias_correction_kl=False)  # as the GRPO paper has it
    trainer.beta = 0.1  # set afterwards: the constructor would look for a reference model to download
    ours, metrics, theirs = losses(trainer, model, padded, kl=0.1, normalise="sequence")
    same(ours, theirs)
    assert metrics["reference_kl"] == pytest.approx(trainer._metrics["train"]["kl"][-1], rel=1e-5)
    assert metrics["clipped"] == pytest.approx(trainer._metrics["train"]["clip_ratio/region_mean"][-1], rel=1e-5)


@pytest.mark.parametrize("loss_type", ["dapo", "grpo"])
def test_truncated_importance_sampling(make_trainer, model, padded, same, loss_type):
    """Their correction for vLLM, on what a sampler of other log-probabilities gave, with weights that moved since."""
    trainer = make_trainer(loss_type=loss_type, vllm_importance_sampling_mode="token_truncate")
    trainer.use_vllm, trainer.vllm_importance_sampling_clip_max = True, 1.5
    keep_BT, generator = padded.mask_BT.bool(), torch.Generator().manual_seed(5)
    with torch.no_grad():
        learner_BT = padded.logprob_BT(model)
    sampler_BT = learner_BT + 0.6 * torch.randn(learner_BT.shape, generator=generator)
    sampler_BT[0, 1] = torch.nan  # one that the sampler did not tell

    def generated(prompts):  # in the place of vLLM
        completions = [[{"role": "assistant", "content": "x"}]] * 4
        logprobs = [sampler[keep].tolist() for sampler, keep in zip(sampler_BT, keep_BT, strict=True)]
        ids = [ids[keep].tolist() for ids, keep in zip(padded.completion_BT, keep_BT, strict=True)]
        return padded.prompt_BP.tolist(), ids, None, completions, logprobs, {}, None, None

    trainer._generate = generated
    trainer.model.train()
    inputs = trainer._generate_and_score_completions([{"prompt": "the cat"}] * 4)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=generator))
    theirs = trainer._compute_loss(trainer.model, inputs)

    mismatch, weight_B = Mismatch("truncate", 1.5), build("credit/group")(np.array(REWARDS))
    rows = []
    for n, keep in enumerate(keep_BT):
        sampler_N, learner_N = (x_BT[n][keep].numpy() for x_BT in (sampler_BT, learner_BT))
        weight_N = np.full(len(sampler_N), weight_B[n], np.float32)
        row = Row(padded.completion_BT[n].numpy(), keep.numpy(), weight_N, sampler_N, n, len(sampler_N), 0)
        rows.append(mismatch.correct(row, learner_N))
    batch = replace(
        padded.flat(model, weight_B, learner_BT),
        weight_N=torch.from_numpy(np.concatenate([r.weight_N for r in rows])),
        old_logprob_N=torch.from_numpy(np.concatenate([r.old_logprob_N for r in rows])),
    )
    ours, metrics = build("objectives/clipped", normalise="sequence" if loss_type == "grpo" else "token")(batch)
    assert 0 < mismatch.figures()["sampler_truncated"] < 1
    assert metrics["old_kl"] > 1e-4  # the ratio is not 1
    same(ours, theirs)
    theirs_max = trainer._metrics["train"]["sampling/sampling_logp_difference/max"][-1]
    assert mismatch.figures()["sampler_gap_max"] == pytest.approx(theirs_max, rel=1e-4)
