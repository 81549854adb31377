"""From weights on tokens to moved parameters: exact where it can be, and never silently wrong."""

import math

import numpy as np
import pytest
import torch

from etude.core.errors import CheckpointError, PartError
from etude.core.parts import build
from etude.objectives import clipped, kto, likelihood, preference
from etude.objectives.preference import LOSSES
from etude.protocols import Batch
from etude.training.learner import Learner, load_weights, rows
from etude.trajectory import Episode, Message, Trajectory
from etude.trajectory.forest import forest

from .conftest import Gradients, flat, tree

BRANCHES = {0: (None, 6, False), 1: (0, 3, True), 2: (1, 2, False), 3: (2, 4, True), 4: (2, 5, True), 5: (1, 3, True)}


# -- rows ----------------------------------------------------------------------------------------------------------


def test_a_shared_token_is_in_one_row_with_the_sum_of_its_weights():
    trajectory = tree(BRANCHES, [3, 4, 5])
    trajectory.weigh([1.0, -0.5, 0.25])
    ids = [n.ids_T for n in trajectory.nodes]
    first, second, third = rows([trajectory])
    np.testing.assert_array_equal(first.ids_P, np.concatenate([ids[0], ids[1], ids[2], ids[3]]))
    np.testing.assert_array_equal(first.mask_P, [0] * 6 + [1] * 3 + [0] * 2 + [1] * 4)
    np.testing.assert_array_equal(first.weight_N, [0.75] * 3 + [1.0] * 4)
    np.testing.assert_array_equal(second.mask_P, [0] * 11 + [1] * 5)
    np.testing.assert_array_equal(second.weight_N, [-0.5] * 5)
    np.testing.assert_array_equal(third.ids_P, np.concatenate([ids[0], ids[1], ids[5]]))
    np.testing.assert_array_equal(third.weight_N, [0.25] * 3)


def test_unscored_episodes_make_no_rows_and_zero_is_not_unscored():
    trajectory = tree(BRANCHES, [3, 4, 5])
    trajectory.weigh([np.nan, 0.0, np.nan])
    np.testing.assert_array_equal(np.concatenate([r.weight_N for r in rows([trajectory])]), [0.0] * 8)
    trajectory.weigh([np.nan] * 3)
    assert rows([trajectory]) == []


def test_what_follows_the_last_weighted_token_is_not_computed():
    trajectory = tree(BRANCHES | {6: (3, 9, False)}, [6])
    trajectory.weigh([1.0])
    assert [len(r.ids_P) for r in rows([trajectory])] == [15]


def test_the_first_token_of_a_context_cannot_be_trained():
    trajectory = tree({0: (None, 4, True)}, [0])
    trajectory.weigh([1.0])
    (row,) = rows([trajectory])
    np.testing.assert_array_equal(row.mask_P, [0, 1, 1, 1])
    assert len(row.weight_N) == len(row.old_logprob_N) == 3


def test_nodes_without_tokens_are_passed_over():
    trajectory = tree(BRANCHES, [3])
    trajectory.episodes[0].leaf = trajectory.add(Message("user", "what the world said last"), 3)
    trajectory.weigh([1.0])
    assert [len(r.ids_P) for r in rows([trajectory])] == [15]


# -- gradients -----------------------------------------------------------------------------------------------------


def apart(trajectory: Trajectory, weights) -> list[Trajectory]:
    """Each episode of a tree as a trajectory of its own."""
    made = []
    for episode, weight in zip(trajectory.episodes, weights, strict=True):
        alone, leaf = Trajectory(f"{trajectory.id}/{episode.leaf}", "task"), None
        for n in trajectory.path(episode.leaf):
            node = trajectory.nodes[n]
            leaf = alone.add(
                trajectory.messages[node.message],
                leaf,
                ids_T=node.ids_T,
                sampled_T=node.sampled_T,
                logprob_T=node.logprob_T,
                version=node.version,
            )
        alone.episodes = [Episode(leaf)]
        alone.weigh([weight])
        made.append(alone)
    return made


def test_a_tree_trains_as_its_episodes_apart(policy):
    trajectory, weights = tree(BRANCHES, [3, 4, 5]), [1.0, -0.5, 0.25]
    trajectory.weigh(weights)
    gradients = Gradients(Learner(policy, likelihood(normalise="constant")))
    together, figures = gradients.of([trajectory])
    separate, others = gradients.of(apart(trajectory, weights))
    assert together.abs().max() > 1e-3
    torch.testing.assert_close(together, separate, rtol=0, atol=1e-6)
    assert figures["loss"] == pytest.approx(others["loss"], abs=1e-6)
    assert (figures["tokens"], others["tokens"]) == (15, 21)


def test_what_rows_share_is_computed_once_to_the_same_gradient(policy):
    """Two groups of three with prompts of 40 tokens: a third of the tokens, forward and backward."""
    shape = {0: (None, 40, False), **{n: (0, 3 + n, True) for n in (1, 2, 3)}}
    groups = [tree(shape, [1, 2, 3], seed=seed) for seed in range(2)]
    for group in groups:
        group.weigh([1.0, -0.5, 0.25])
    learner = Learner(policy, clipped(), micro_tokens=300)
    shared = Gradients(learner).of(groups)[0]
    computed, learner.tokens_computed, learner.micro_tokens = learner.tokens_computed, 0, 1
    alone = Gradients(learner).of(groups)[0]
    assert (computed, learner.tokens_computed) == (2 * (40 + 4 + 5 + 6), 2 * (3 * 40 + 4 + 5 + 6))
    assert (shared - alone).norm() < 1e-5 * alone.norm()


def test_by_the_mean_over_tokens_a_tree_differs_from_its_episodes_by_its_size_alone(policy):
    trajectory, weights = tree(BRANCHES, [3, 4, 5]), [1.0, -0.5, 0.25]
    trajectory.weigh(weights)
    gradients = Gradients(Learner(policy, likelihood()))
    together, separate = gradients.of([trajectory])[0], gradients.of(apart(trajectory, weights))[0]
    torch.testing.assert_close(together * 15, separate * 21, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("objective", [likelihood(), likelihood("sequence"), clipped(), clipped(normalise="constant")])
def test_the_size_of_micro_batches_changes_nothing(policy, dialogues, objective):
    learner = Learner(policy, objective, micro_tokens=10_000, max_length=10)
    whole, figures = Gradients(learner).of(dialogues)
    for tokens in (1, 30, 60):
        learner.micro_tokens = tokens
        cut, others = Gradients(learner).of(dialogues)
        torch.testing.assert_close(cut, whole, rtol=0, atol=1e-6)
        assert others == pytest.approx(figures, rel=1e-5)
    assert whole.abs().max() > 1e-3


@pytest.fixture
def groups() -> list[Trajectory]:
    """Three groups of three that begin alike: weights of both signs, of one sign, and a rewritten episode."""
    shape = {0: (None, 7, False), **{n: (0, 2 + 3 * n, True) for n in (1, 2, 3)}}
    made = [tree(shape, [1, 2, 3], seed=seed) for seed in range(2)]
    made.append(tree(shape | {4: (None, 6, False), 5: (4, 4, True)}, [1, 2, 5], seed=2))
    made[2].episodes[2].rewritten = [3]
    for trajectory, weight_G in zip(made, ([1.0, -0.5, -1.0], [1.0, 1.0, 0.5], [-1.0, np.nan, 1.0]), strict=True):
        trajectory.nodes[0].ids_T = made[0].nodes[0].ids_T
        trajectory.weigh(weight_G)
    return made


@pytest.mark.parametrize("objective", [*(preference(loss, beta=1.0) for loss in LOSSES), kto(beta=1.0)], ids=str)
def test_the_episodes_of_a_group_are_compared_however_small_micro_batches_are(load_policy, groups, objective):
    learner = Learner(load_policy(), objective, micro_tokens=10_000, lr=1e-3)
    learner.step(groups)  # away from the reference
    whole, figures = Gradients(learner).of(groups)
    for tokens in (1, 80):
        learner.micro_tokens = tokens
        cut, others = Gradients(learner).of(groups)
        torch.testing.assert_close(cut, whole, rtol=1e-5, atol=3e-6)
        assert others == pytest.approx(figures, rel=1e-4, abs=1e-6)
    assert whole.abs().max() > 1e-3
    assert figures["loss"] > 0


def test_a_micro_batch_has_whole_trajectories_where_their_episodes_are_compared(policy, groups):
    def paths(*needs: str, micro_tokens: int) -> list[list[list[int]]]:
        """Of each micro-batch, of each of its trajectories: paths of each episode."""
        seen = Seen(*needs)
        Gradients(Learner(policy, seen, micro_tokens=micro_tokens)).of(groups)
        assert {batch.groups for batch in seen.batches} == {3}
        made = []
        for batch in seen.batches:
            own = [batch.episode_S[batch.group_S == g] for g in range(int(batch.group_S.max()) + 1)]
            made.append(sorted(episode_S.unique(return_counts=True)[1].tolist() for episode_S in own))
        return sorted(made)

    assert paths("groups", micro_tokens=1) == [[[1, 1, 1]], [[1, 1, 1]], [[1, 2]]]
    assert paths("groups", micro_tokens=10_000) == [[[1, 1, 1], [1, 1, 1], [1, 2]]]
    assert paths(micro_tokens=1) == [[[1]]] * 9


REWRITTEN = {0: (None, 6, False), 1: (0, 3, True), 2: (None, 9, False), 3: (2, 5, True), 4: (3, 2, False)}
"""One episode whose history the template rewrote after node 1: it went on from node 2."""


def rewritten() -> Trajectory:
    trajectory = tree(REWRITTEN, [4], seed=7, logprob=-4.0)
    trajectory.episodes[0].rewritten = [1]
    trajectory.weigh([1.0])
    return trajectory


def test_each_row_knows_its_episode_and_that_one_s_length(dialogues):
    made = rows([dialogues[0], rewritten(), dialogues[1]])
    assert [(r.episode, r.length, len(r.weight_N)) for r in made] == [(0, 4, 4), (1, 8, 3), (1, 8, 5), (2, 2, 2)]
    branches = tree(BRANCHES, [3, 4, 5])
    branches.weigh([1.0, -0.5, 0.25])
    assert [(r.length, len(r.weight_N)) for r in rows([branches])] == [(7, 7), (8, 5), (6, 3)]


@pytest.mark.parametrize("micro_tokens", [1, 10_000])
def test_by_the_mean_over_sequences_an_episode_counts_once_in_however_many_rows(policy, dialogues, micro_tokens):
    batch = [rewritten(), dialogues[0]]
    row = rows(batch)
    with torch.no_grad():
        logprob_N = torch.cat([policy.logprob(forest([r.ids_P], 1), [r.mask_P])[0] for r in row])
    learner = Learner(policy, likelihood("sequence"), micro_tokens=micro_tokens)
    _, figures = Gradients(learner).of(batch)
    assert figures["loss"] == pytest.approx(-(logprob_N[:8].mean() + logprob_N[8:].mean()).item() / 2, rel=1e-5)
    learner.objective, learner.max_length = likelihood("constant"), 10
    assert Gradients(learner).of(batch)[1]["loss"] == pytest.approx(-logprob_N.sum().item() / 20, rel=1e-5)


def test_by_the_mean_over_sequences_branches_of_one_length_train_as_apart(policy):
    trajectory, weights = tree(BRANCHES | {4: (2, 4, True), 5: (1, 4, True)}, [3, 4, 5]), [1.0, -0.5, 0.25]
    trajectory.weigh(weights)
    gradients = Gradients(Learner(policy, likelihood("sequence")))
    together, separate = gradients.of([trajectory])[0], gradients.of(apart(trajectory, weights))[0]
    assert together.abs().max() > 1e-3
    torch.testing.assert_close(together, separate, rtol=0, atol=1e-6)


def test_sft_is_transformers_own_loss_and_gradient(policy):
    words = [("user", "the cat"), ("assistant", "sat"), ("user", "on"), ("assistant", "mat!")]
    made = []
    for length in (2, 4):
        trajectory, leaf = Trajectory(f"t{length}", "task"), None
        for role, content in words[:length]:
            leaf = trajectory.add(Message(role, content), leaf)
        trajectory.episodes = [Episode(policy.renderer.fill(trajectory, leaf))]
        trajectory.weigh([1.0])
        made.append(trajectory)
    paths = [t.path(t.episodes[0].leaf) for t in made]
    width = max(len(t.ids_P(t.episodes[0].leaf)) for t in made)
    ids, labels, attention = torch.zeros(2, width).long(), torch.full((2, width), -100), torch.zeros(2, width).long()
    for i, (t, path) in enumerate(zip(made, paths, strict=True)):
        ids_P = torch.from_numpy(t.ids_P(path[-1])).long()
        mask_P = torch.from_numpy(np.concatenate([t.nodes[n].sampled_T for n in path]))
        ids[i, : len(ids_P)], attention[i, : len(ids_P)] = ids_P, 1
        labels[i, : len(ids_P)] = torch.where(mask_P, ids_P, -100)
    gradient, figures = Gradients(Learner(policy, likelihood())).of(made)
    theirs = policy.model(input_ids=ids, attention_mask=attention, labels=labels)
    assert figures["loss"] == pytest.approx(theirs.loss.item(), abs=1e-5)
    expected = torch.autograd.grad(theirs.loss, list(policy.model.parameters()))
    torch.testing.assert_close(gradient, torch.cat([g.flatten() for g in expected]), rtol=1e-4, atol=1e-5)


class Seen:
    """Keeps the batches it was given."""

    def __init__(self, *needs: str):
        self.needs, self.batches = frozenset(needs), []

    def __call__(self, batch: Batch):
        self.batches.append(batch)
        return -(batch.logprob_N * batch.weight_N).sum() / batch.tokens, {}


def test_an_objective_is_given_what_it_needs(policy, dialogues):
    seen = Seen("entropy", "reference")
    Gradients(Learner(policy, seen, micro_tokens=60, max_length=99)).of(dialogues)
    assert len(seen.batches) > 1
    for batch in seen.batches:
        assert (batch.tokens, batch.sequences, batch.max_length) == (34, 6, 99)
        assert batch.sequence_N.bincount().tolist() == batch.length_S.tolist()
        assert batch.old_logprob_N.tolist() == [-4.0] * len(batch.logprob_N)
        torch.testing.assert_close(batch.reference_logprob_N, batch.logprob_N.detach())
        assert (batch.entropy_N > 0).all()
        assert (batch.entropy_N < math.log(policy.model.config.vocab_size)).all()
    seen = Seen()
    Gradients(Learner(policy, seen)).of(dialogues[:1])
    assert (seen.batches[0].entropy_N, seen.batches[0].reference_logprob_N) == (None, None)


def test_where_no_logprob_was_recorded_the_policy_s_own_stands_in(policy):
    trajectory = tree(BRANCHES, [3])
    trajectory.nodes[3].logprob_T = np.full(4, -2.0, np.float32)
    trajectory.weigh([1.0])
    seen = Seen()
    Gradients(Learner(policy, seen)).of([trajectory])
    (batch,) = seen.batches
    torch.testing.assert_close(batch.old_logprob_N[:3], batch.logprob_N.detach()[:3])
    assert batch.old_logprob_N[3:].tolist() == [-2.0] * 4
    assert not batch.old_logprob_N.requires_grad


@pytest.mark.parametrize("temperature", [1.0, 0.5])
async def test_the_logprobs_trained_are_those_that_were_sampled(policy, temperature):
    from etude.agents.loops import native
    from etude.protocols import Sampling
    from etude.rollout.collect import collect

    from ..engine_fixtures import Talk

    sampling = Sampling(max_tokens=30, temperature=temperature)
    played = await collect(policy, Talk(turns=3).tasks("train"), agent=native(), group=2, sampling=sampling)
    for trajectory in played:
        trajectory.weigh([1.0, 1.0])
    seen = Seen()
    Gradients(Learner(policy, seen, temperature=temperature)).of(played)
    for batch in seen.batches:
        torch.testing.assert_close(batch.logprob_N.detach(), batch.old_logprob_N, rtol=0, atol=2e-5)


# -- what moves ----------------------------------------------------------------------------------------------------


def test_a_step_lowers_the_loss(policy, dialogues):
    for trajectory in dialogues:
        trajectory.weigh([1.0])
    learner = Learner(policy, likelihood(), lr=3e-3)
    losses = [learner.step(dialogues)["loss"] for _ in range(8)]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < losses[0] - 0.5
    assert (learner.done, policy.version, learner.tokens_trained) == (8, 8, 8 * 34)


def test_without_any_weight_nothing_moves(policy, dialogues):
    learner, before = Learner(policy, likelihood(), weight_decay=0.1), flat(policy.model)
    for trajectory in dialogues:
        trajectory.weigh([np.nan])
    assert learner.step(dialogues) == {"rows": 0, "tokens": 0, "loss": 0.0, "gradient_norm": 0.0, "lr": 0.0}
    assert (learner.done, policy.version) == (0, 0)
    assert torch.equal(flat(policy.model), before)


def test_weights_of_zero_give_no_gradient(policy, dialogues):
    for trajectory in dialogues:
        trajectory.weigh([0.0])
    learner, before = Learner(policy, clipped()), flat(policy.model)
    figures = learner.step(dialogues)
    assert (figures["tokens"], figures["gradient_norm"]) == (34, 0.0)
    assert torch.equal(flat(policy.model), before)


def test_tiny_updates_of_a_bfloat16_model_are_not_lost(load_policy, dialogues):
    policy = load_policy(dtype="bfloat16")
    learner, start = Learner(policy, likelihood(), lr=1e-5), flat(policy.model)
    for trajectory in dialogues:
        trajectory.weigh([1.0])
    learner.step(dialogues)
    large = start.abs() > 0.1  # there bfloat16's steps are 50 times larger than an update, or more
    assert torch.equal(flat(policy.model)[large], start[large])
    for _ in range(120):
        learner.step(dialogues)
    moved = (flat(policy.model) != start)[large].float().mean()
    assert moved > 0.3
    for master, parameter in zip(learner.masters, learner.parameters, strict=True):
        assert master.dtype == torch.float32
        assert torch.equal(master.bfloat16(), parameter)


def test_only_adapters_move(load_policy, dialogues):
    policy = load_policy()
    base = {k: v.clone() for k, v in policy.model.state_dict().items()}
    learner = Learner(policy, clipped(), weights="lora", lr=1e-2)
    for _ in range(3):
        learner.step(dialogues)
    moved = [p for n, p in policy.model.named_parameters() if "lora" in n]
    assert {id(p) for p in learner.parameters} == {id(p) for p in moved}
    assert all(p.abs().sum() > 0 for p in moved)
    kept = {k: v for k, v in policy.model.state_dict().items() if "lora" not in k}
    assert len(kept) == len(base)
    for (_, mine), (_, original) in zip(sorted(kept.items(), key=key), sorted(base.items(), key=key), strict=True):
        assert torch.equal(mine, original)


def key(item):
    return item[0].removeprefix("base_model.model.").replace(".base_layer", "")


def test_a_second_learner_does_not_wrap_the_model_again(load_policy):
    policy = load_policy()
    first = Learner(policy, clipped(), weights="lora")
    second = Learner(policy, clipped(), weights="lora")
    assert {id(p) for p in first.parameters} == {id(p) for p in second.parameters}


@pytest.mark.parametrize("weights", ["full", "lora"])
def test_the_reference_stays_where_the_learner_began(load_policy, dialogues, weights):
    policy, seen = load_policy(), Seen("reference")
    learner = Learner(policy, seen, weights=weights, lr=1e-2)
    for _ in range(3):
        learner.step(dialogues)
    begun, now = seen.batches[0], seen.batches[-1]
    torch.testing.assert_close(begun.reference_logprob_N, begun.logprob_N.detach())
    assert torch.equal(now.reference_logprob_N, begun.reference_logprob_N)
    assert (now.logprob_N - begun.logprob_N).abs().max() > 0.1
    if weights == "lora":
        row = rows(dialogues)
        with policy.adapters_off(), torch.no_grad():
            base = policy.logprob(forest([r.ids_P for r in row], 2048), [r.mask_P for r in row])[0]
        torch.testing.assert_close(base.sort().values, now.reference_logprob_N.sort().values)
    # a later learner of the same policy begins where this one ended, adapters included
    later = Seen("reference")
    Learner(policy, later, weights=weights).step(dialogues)
    torch.testing.assert_close(later.batches[0].reference_logprob_N, later.batches[0].logprob_N.detach())


def test_computing_the_reference_leaves_the_gradient_alone(policy, dialogues):
    with_reference, without = Seen("reference"), Seen()
    learner = Learner(policy, with_reference, lr=1e-2)
    learner.step(dialogues)
    expected, _ = Gradients(learner).of(dialogues)
    learner.objective = without
    got, _ = Gradients(learner).of(dialogues)
    assert torch.equal(got, expected)


def test_a_divergence_from_the_reference_is_paid_for(load_policy, dialogues):
    def drift(kl: float) -> float:
        policy = load_policy()
        learner = Learner(policy, clipped(kl=kl, low=0.99, high=99.0), lr=3e-3)
        for _ in range(6):
            figures = learner.step(dialogues)
        probe = Seen("reference")
        learner.objective = probe
        Gradients(learner).of(dialogues)
        assert kl == 0 or figures["reference_kl"] > 0
        start = load_policy()
        row = rows(dialogues)
        with torch.no_grad():
            a, b = (
                p.logprob(forest([r.ids_P for r in row], 2048), [r.mask_P for r in row])[0] for p in (policy, start)
            )
        return float((a - b).abs().mean())

    assert drift(5.0) < 0.7 * drift(1e-6)


# -- the optimiser -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("constant", [0.5, 1, 1, 1, 1, 1]),
        ("linear", [0.5, 1, 1, 0.75, 0.5, 0.25]),
        ("cosine", [0.5, 1, 1, (1 + math.cos(math.pi / 4)) / 2, 0.5, (1 - math.cos(math.pi / 4)) / 2]),
    ],
)
def test_schedules(policy, dialogues, schedule, expected):
    learner = Learner(policy, likelihood(), lr=1e-3, schedule=schedule, warmup=2, steps=6)
    found = [learner.step(dialogues[:1])["lr"] for _ in range(6)]
    np.testing.assert_allclose(found, 1e-3 * np.array(expected), rtol=1e-9)


def test_an_unknown_schedule_is_refused(policy):
    with pytest.raises(PartError, match="schedule='step' is not one of constant, linear, cosine"):
        Learner(policy, likelihood(), schedule="step")


def test_a_policy_without_weights_cannot_be_trained():
    with pytest.raises(PartError, match="policy 'scripted' has no weights to train"):
        Learner(build("policies/scripted", messages=[]), likelihood())


@pytest.mark.parametrize(("clip", "expected"), [(0.0, None), (1e9, None), (0.01, 0.01)])
def test_the_gradient_is_clipped_to_its_norm(policy, dialogues, clip, expected):
    learner, norms = Learner(policy, likelihood(), clip=clip), []
    move = learner.optimiser.step

    def step() -> None:
        norms.append(torch.nn.utils.get_total_norm([m.grad for m in learner.masters]).item())
        move()

    learner.optimiser.step = step
    figures = learner.step(dialogues)
    assert figures["gradient_norm"] > 0.1
    assert norms == pytest.approx([expected or figures["gradient_norm"]], rel=1e-3)


def test_a_gradient_that_is_not_finite_is_an_error_and_moves_nothing(policy, dialogues):
    learner, before = Learner(policy, likelihood(), lr=1e-3), flat(policy.model)
    dialogues[0].nodes[1].weight_T[0] = np.inf
    with pytest.raises(PartError, match=r"the gradient at step 1 is (nan|inf); lower lr \(now 0\.001\)"):
        learner.step(dialogues)
    assert torch.equal(flat(policy.model), before)
    assert (learner.done, policy.version) == (0, 0)
    healthy, _ = Gradients(learner).of(dialogues[1:])
    expected, _ = Gradients(Learner(policy, likelihood())).of(dialogues[1:])
    assert torch.equal(healthy, expected), "nothing of the broken gradient is left"


# -- checkpoints ---------------------------------------------------------------------------------------------------


def steps(learner: Learner, dialogues, count: int) -> list[dict[str, float]]:
    return [learner.step(dialogues[i % 3 :]) for i in range(count)]


@pytest.mark.parametrize(("weights", "dtype"), [("full", "float32"), ("lora", "float32"), ("full", "bfloat16")])
def test_going_on_from_a_checkpoint_is_bit_identical(load_policy, dialogues, tmp_path, weights, dtype):
    def fresh():
        policy = load_policy(dtype=dtype)
        weight = policy.model.get_decoder().layers[0].mlp.up_proj.weight
        weight.data = weight.data.t().contiguous().t()  # a parameter may lie in memory by columns
        settings = {"weights": weights, "lr": 1e-2, "schedule": "cosine", "warmup": 2, "steps": 8, "weight_decay": 0.1}
        return policy, Learner(policy, clipped(kl=0.1), **settings)

    policy, learner = fresh()
    steps(learner, dialogues, 4)
    learner.save(tmp_path)
    trained = learner.tokens_trained
    expected, end = steps(learner, dialogues, 3), flat(policy.model)

    other, again = fresh()
    steps(again, dialogues, 1)  # a learner with a past of its own
    again.load(tmp_path)
    assert (again.done, other.version, again.tokens_trained) == (4, 4, trained)
    assert steps(again, dialogues, 3) == expected
    assert torch.equal(flat(other.model), end)


def test_a_run_that_loads_weights_first_has_the_same_reference(load_policy, dialogues, tmp_path):
    learner = Learner(load_policy(), clipped(kl=0.5), lr=1e-2)
    steps(learner, dialogues, 3)
    learner.save(tmp_path)
    expected = steps(learner, dialogues, 2)
    policy = load_policy()
    load_weights(policy, build("weights/full"), tmp_path)  # so that the learner is made of weights that have moved
    again = Learner(policy, clipped(kl=0.5), lr=1e-2)
    again.load(tmp_path)
    assert steps(again, dialogues, 2) == expected


def test_a_checkpoint_from_before_the_first_step(load_policy, dialogues, tmp_path):
    policy = load_policy()
    learner = Learner(policy, likelihood())
    learner.save(tmp_path)
    first = steps(learner, dialogues, 2)
    learner.load(tmp_path)
    assert steps(learner, dialogues, 2) == first, "moments of the steps taken back are forgotten"


@pytest.mark.parametrize("weights", ["full", "lora"])
def test_a_policy_can_take_the_weights_alone(load_policy, dialogues, tmp_path, weights):
    learner = Learner(load_policy(), likelihood(), weights=weights, lr=1e-2)
    steps(learner, dialogues, 2)
    learner.save(tmp_path)
    policy = load_policy()
    load_weights(policy, build(f"weights/{weights}"), tmp_path)
    assert policy.version == 2
    assert torch.equal(flat(policy.model), flat(learner.policy.model))


def test_a_checkpoint_of_other_weights_is_refused(load_policy, tmp_path):
    Learner(load_policy(), likelihood(), weights="lora").save(tmp_path)
    with pytest.raises(CheckpointError, match="holds other weights than the 21 trained here"):
        Learner(load_policy(), likelihood()).load(tmp_path)
    with pytest.raises(CheckpointError, match="the checkpoint is incomplete, delete"):
        Learner(load_policy(), likelihood()).load(tmp_path / "absent")


# -- saving a model ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("weights", "dtype"), [("full", "float32"), ("lora", "float32"), ("lora", "bfloat16")])
async def test_a_saved_model_loads_as_it_was_and_training_goes_on(load_policy, dialogues, tmp_path, weights, dtype):
    policy = load_policy(dtype=dtype)
    learner = Learner(policy, likelihood(), weights=weights, lr=1e-2)
    steps(learner, dialogues, 2)
    before = flat(policy.model)
    policy.save(tmp_path / "model")
    assert torch.equal(flat(policy.model), before), "saving must not change what is saved"
    assert hasattr(policy.model, "disable_adapter") == (weights == "lora")
    again = build("policies/local", model=str(tmp_path / "model"), dtype="float32")
    ids = [r.ids_P for r in rows(dialogues)]
    for mine, saved in zip(await policy.logprobs(ids, [1] * 6), await again.logprobs(ids, [1] * 6), strict=True):
        np.testing.assert_allclose(mine, saved, atol=1e-4 if dtype == "float32" else 0.5)
    assert steps(learner, dialogues, 1)[0]["gradient_norm"] > 0
    assert not torch.equal(flat(policy.model), before)
