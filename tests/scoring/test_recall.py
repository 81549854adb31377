"""scoring/recall, counted by hand."""

import pytest

from etude.scoring.recall import recall


@pytest.mark.parametrize(
    ("said", "gold", "free", "penalised"),
    [
        ("I looked. Answer: red, owl", "red, owl", 1.0, 1.0),
        ("Answer: red", "red, owl", 0.5, 0.5),
        ("Answer: red blue green owl", "red owl", 1.0, 0.5),  # twice as long as the gold
        ("red", ["blue", "red car"], 0.5, 0.5),
        ("Answer: red red", "red owl", 0.5, 0.5),  # a repeated word counts once
        ("", "red", 0.0, 0.0),
    ],
)
async def test_by_hand(told, said, gold, free, penalised):
    assert await told(recall(penalty=False), said, answer=gold) == pytest.approx(free)
    assert await told(recall(), said, answer=gold) == pytest.approx(penalised)


@pytest.mark.exact(13)
@pytest.mark.parametrize("gold", ["red", "red, owl"])
async def test_listing_candidates_scores_strictly_lower_with_the_penalty_than_without(told, gold):
    listed = "Answer: red blue green white owl crow swan"
    assert await told(recall(), listed, answer=gold) < await told(recall(penalty=False), listed, answer=gold)
    right = f"Answer: {gold}"
    assert await told(recall(), right, answer=gold) == await told(recall(penalty=False), right, answer=gold) == 1.0
