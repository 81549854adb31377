"""Word F1, counted by hand."""

import pytest

from etude.scoring.f1 import f1


@pytest.mark.parametrize(
    ("said", "gold", "score"),
    [
        ("the cat sat on the mat", "a cat on a mat", 6 / 7),  # cat sat on mat / cat on mat: P 3/4, R 1
        ("dog dog dog", "dog", 0.5),  # a repeated word counts once: P 1/3, R 1
        ("Rome", "Paris", 0.0),
        ("Barack H. Obama", ["Obama", "Barack Obama"], 0.8),  # the better of 1/2 and 4/5
        ("the", "a", 1.0),  # both empty once normalised
        ("", "Paris", 0.0),
    ],
)
async def test_by_hand(told, said, gold, score):
    assert await told(f1(), said, answer=gold) == pytest.approx(score)


@pytest.mark.exact(35)
@pytest.mark.parametrize("said", ["red car", "old red car", "no"])
async def test_of_several_truths_the_best_counts_and_one_is_single_gold(told, said):
    golds = ["red car", "old bus", "the car"]
    single = [await told(f1(), said, answer=gold) for gold in golds]
    assert await told(f1(), said, answer=golds) == max(single)
    assert await told(f1(), said, answer=golds[:1]) == single[0]
