"""etude's preference and kto objectives against TRL's own DPO, CPO, ORPO and KTO trainers, in float32 to 1e-5."""

import copy

import numpy as np
import pytest
import torch

from etude.core.parts import build

trl = pytest.importorskip("trl")
PAIRS = torch.tensor([0, 1, 0, 1])  # TRL's halves: samples 0 and 1 are chosen, 2 and 3 their rejected ones
SIGNS = np.array([1.0, 1.0, -1.0, -1.0])


@pytest.fixture
def reference(model):
    """The model with other weights."""
    other = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
    return other


@pytest.fixture
def settings(tmp_path, tokenizer):
    """Called with a row of data and a trainer's config class: what every trainer takes."""
    from datasets import Dataset

    def make(config, row, **changes):
        args = config(output_dir=str(tmp_path), use_cpu=True, bf16=False, report_to=[], **changes)
        return {"args": args, "train_dataset": Dataset.from_list([row] * 4), "processing_class": tokenizer}

    return make


@pytest.fixture
def flat(model, reference, padded):
    """Called with groups and weights: etude's batch."""

    def make(group_B=PAIRS, weight_B=SIGNS):
        with torch.no_grad():
            now_BT, reference_BT = padded.logprob_BT(model), padded.logprob_BT(reference)
        return padded.flat(model, weight_B, now_BT, reference_BT, group_B)

    return make


def inputs(padded) -> dict[str, torch.Tensor]:
    ids = torch.cat([padded.prompt_BP, padded.completion_BT], dim=1)
    blank = torch.zeros_like(padded.prompt_BP)
    return {
        "input_ids": ids,
        "attention_mask": torch.cat([blank + 1, padded.mask_BT], dim=1),
        "completion_mask": torch.cat([blank, padded.mask_BT], dim=1),
    }


PAIR = {"prompt": "the", "chosen": " cat", "rejected": " mat"}


@pytest.mark.parametrize("loss", ["sigmoid", "ipo", "hinge"])
def test_dpo(model, reference, padded, flat, settings, same, loss):
    trainer = trl.DPOTrainer(
        model=model, ref_model=reference, **settings(trl.DPOConfig, PAIR, loss_type=[loss], beta=0.3)
    )
    trainer.model.train()
    theirs = trainer._compute_loss(trainer.model, inputs(padded), False)
    ours, metrics = build("objectives/preference", loss=loss, beta=0.3)(flat())
    same(ours, theirs)
    assert metrics["accuracy"] == trainer._metrics["train"]["rewards/accuracies"][-1]
    if loss != "ipo":  # TRL logs sums, whatever the loss
        assert metrics["margin"] == pytest.approx(trainer._metrics["train"]["rewards/margins"][-1], rel=1e-4)


def per_token(padded, model) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean log-probability of the chosen and of the rejected."""
    logprob_B = (padded.logprob_BT(model) * padded.mask_BT).sum(1) / padded.mask_BT.sum(1)
    return logprob_B[:2], logprob_B[2:]


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_simpo(model, padded, flat, settings, same, smoothing):
    cpo = pytest.importorskip("trl.experimental.cpo")
    changes = {"loss_type": "simpo", "beta": 2.0, "simpo_gamma": 0.7, "cpo_alpha": 0.0, "label_smoothing": smoothing}
    trainer = cpo.CPOTrainer(model=model, **settings(cpo.CPOConfig, PAIR, **changes))
    theirs = trainer.cpo_loss(*per_token(padded, model))[0].mean()
    same(build("objectives/preference", loss="simpo", beta=2.0, margin=0.7, smoothing=smoothing)(flat())[0], theirs)


def test_cdpo(model, reference, padded, flat, settings, same):
    """TRL's CPO smooths labels as cDPO does: it is given log-ratios in the place of log-probabilities."""
    cpo = pytest.importorskip("trl.experimental.cpo")
    changes = {"loss_type": "sigmoid", "beta": 0.3, "label_smoothing": 0.1}
    trainer = cpo.CPOTrainer(model=model, **settings(cpo.CPOConfig, PAIR, **changes))
    ratio_B = ((padded.logprob_BT(model) - padded.logprob_BT(reference).detach()) * padded.mask_BT).sum(1)
    theirs = trainer.cpo_loss(ratio_B[:2], ratio_B[2:])[0].mean()
    same(build("objectives/preference", beta=0.3, smoothing=0.1)(flat())[0], theirs)


def test_orpo(model, padded, flat, settings, same):
    """The odds ratio is TRL's; its likelihood term is over prompts too, ours and the paper's over answers."""
    orpo = pytest.importorskip("trl.experimental.orpo")
    trainer = orpo.ORPOTrainer(model=model, **settings(orpo.ORPOConfig, PAIR, beta=0.4))
    chosen_B, rejected_B = per_token(padded, model)
    theirs = -chosen_B.mean() - trainer.odds_ratio_loss(chosen_B, rejected_B)[0].mean()
    same(build("objectives/preference", loss="orpo", beta=0.4)(flat())[0], theirs)


KTO_ROW = {"prompt": "the", "completion": " cat", "label": True}


@pytest.mark.parametrize("alone", [True, False])
def test_kto(model, reference, padded, flat, settings, same, alone):
    """One episode at a time, as each has a reference point of its own: from the others of its group, or zero."""
    changes = {"beta": 0.3, "desirable_weight": 1.5, "undesirable_weight": 0.5}
    trainer = trl.KTOTrainer(model=model, ref_model=reference, **settings(trl.KTOConfig, KTO_ROW, **changes))
    trainer.model.train()
    everything = inputs(padded)
    theirs, points = [], []
    for i, sign in enumerate(SIGNS):
        others = [i] if alone else [j for j in range(4) if j != i]
        trainer.calculate_KL = not alone
        batch = {k: v[i : i + 1] for k, v in everything.items()} | {"label": torch.tensor([bool(sign > 0)])}
        batch |= {f"KL_{k}": v[others] for k, v in everything.items()}
        theirs.append(trainer._compute_loss(trainer.model, batch, False))
        points.append(trainer._metrics["train"]["kl"][-1])
    group_B = torch.arange(4) if alone else torch.zeros(4, dtype=torch.long)
    ours, metrics = build("objectives/kto", beta=0.3, desirable=1.5, undesirable=0.5)(flat(group_B))
    same(ours, torch.stack(theirs).mean())
    assert metrics["kl"] == pytest.approx(np.mean(points), rel=1e-4)
    assert (max(points) > 0.01) == (not alone)
