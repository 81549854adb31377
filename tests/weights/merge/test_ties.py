import torch

from etude.weights.merge import ties

BASE = torch.tensor([10.0, 10.0, 10.0, 10.0])
A, B = torch.tensor([14.0, 7.0, 11.0, 10.5]), torch.tensor([12.0, 15.0, 10.0, 6.0])


def test_by_hand():
    # task vectors [4, -3, 1, .5] and [2, 5, 0, -4]; the two largest of each: [4, -3, 0, 0] and [0, 5, 0, -4]
    # sums [4, 2, 0, -4]; those that agree: {A}, {B}, none, {B}
    assert ties(BASE, [A, B], "w", density=0.5).tolist() == [14.0, 15.0, 10.0, 6.0]
    assert ties(BASE, [A, B], "w", density=0.5, scale=0.5).tolist() == [12.0, 12.5, 10.0, 8.0]
    # with weights 2 and 1 the second sum is -6 + 5, and A wins it
    assert ties(BASE, [A, B], "w", density=0.5, weights=[2.0, 1.0]).tolist() == [14.0, 7.0, 10.0, 6.0]


def test_untrimmed_with_agreeing_signs_it_is_the_mean():
    generator = torch.Generator().manual_seed(0)
    base, sign = torch.randn(60, generator=generator), torch.randn(60, generator=generator).sign()
    tensors = [base + sign * torch.rand(60, generator=generator) for _ in range(3)]
    torch.testing.assert_close(ties(base, tensors, "w", density=1.0), torch.stack(tensors).mean(0))


def test_only_the_ratios_of_weights_count():
    base, a, b = torch.randn(3, 60, generator=torch.Generator().manual_seed(0))
    one, ten = (ties(base, [a, b], "w", weights=[0.1 * k, 0.3 * k]) for k in (1, 10))
    torch.testing.assert_close(one, ten)


def test_one_entry_at_least_is_kept():
    assert ties(BASE, [A], "w", density=0.0).tolist() == [14.0, 10.0, 10.0, 10.0]
