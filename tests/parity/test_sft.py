"""etude's likelihood and DFT against transformers' own loss and TRL's own SFTTrainer, in float32 to 1e-5."""

import numpy as np
import pytest
import torch

from etude.core.parts import build


def labelled(padded):
    """Inputs as a supervised collator makes them: prompt and padding have no label."""
    ids = torch.cat([padded.prompt_BP, padded.completion_BT], dim=1)
    attention = torch.cat([torch.ones_like(padded.prompt_BP), padded.mask_BT], dim=1)
    labels = torch.cat([torch.full_like(padded.prompt_BP, -100), padded.completion_BT], dim=1)
    return {"input_ids": ids, "attention_mask": attention, "labels": labels.masked_fill(attention == 0, -100)}


def ours(path, model, padded):
    with torch.no_grad():
        old_BT = padded.logprob_BT(model)
    return build(path)(padded.flat(model, np.ones(len(padded.mask_BT)), old_BT))[0]


def test_likelihood_is_transformers_own_loss(model, padded, same):
    same(ours("objectives/likelihood", model, padded), model(**labelled(padded)).loss)


@pytest.mark.parametrize(("loss_type", "path"), [("nll", "objectives/likelihood"), ("dft", "objectives/dft")])
def test_against_trl(model, padded, tokenizer, same, tmp_path, loss_type, path):
    trl = pytest.importorskip("trl")
    from datasets import Dataset

    trainer = trl.SFTTrainer(
        model=model,
        args=trl.SFTConfig(output_dir=str(tmp_path), use_cpu=True, bf16=False, report_to=[], loss_type=loss_type),
        train_dataset=Dataset.from_list([{"input_ids": [3, 4, 5], "labels": [3, 4, 5]}] * 2),
        processing_class=tokenizer,
    )
    trainer.model.train()
    same(ours(path, model, padded), trainer.compute_loss(trainer.model, labelled(padded)))
