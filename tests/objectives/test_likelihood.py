"""objectives/likelihood: weighted cross-entropy."""

import pytest
import torch

from etude.core.errors import PartError
from etude.core.parts import build
from etude.protocols import Batch

LOGPROB_N = torch.tensor([-1.0, -2.0, -3.0])  # episode 0 has two tokens, episode 1 has one


def batch(weight_N=(1.0, 1.0, 1.0), logprob_N=LOGPROB_N) -> Batch:
    return Batch(
        logprob_N,
        torch.tensor(weight_N),
        logprob_N.detach(),
        torch.tensor([0, 0, 1]),
        torch.tensor([2, 1]),
        3,
        2,
        4,
        torch.tensor([0, 1]),
        torch.tensor([0, 1]),
        2,
    )


@pytest.mark.parametrize(
    ("normalise", "expected"),
    [
        ("token", (1 + 2 + 3) / 3),
        ("sequence", ((1 + 2) / 2 + 3) / 2),
        ("constant", (1 + 2 + 3) / (2 * 4)),
    ],
)
def test_by_hand(normalise, expected):
    loss, metrics = build("objectives/likelihood", normalise=normalise)(batch())
    assert loss.item() == pytest.approx(expected)
    assert metrics["nll"] == pytest.approx(2.0)


def test_weights_multiply():
    assert build("objectives/likelihood")(batch((1.0, 0.0, -1.0)))[0].item() == pytest.approx((1 - 3) / 3)


def test_unknown_normaliser_names_the_closest():
    with pytest.raises(PartError, match=r"normalise='tokens'; did you mean 'token'"):
        build("objectives/likelihood", normalise="tokens")
