"""curation/steps: one sample per answer, and the gradient stays what it was."""

import contextlib

import numpy as np
import pytest
import torch

from etude import curation
from etude.core.errors import TrajectoryError
from etude.core.parts import build
from etude.training.learner import Learner, rows
from etude.training.offline import offline
from etude.trajectory import Episode, Message, ToolCall, Trajectory

from ..engine_fixtures import load_policy, policy, tiny_model_directory  # noqa: F401


def talk(name: str, answers: int = 2, fill=None) -> Trajectory:
    t = Trajectory(name, f"task-{name}")
    leaf = t.add(Message("system", "be a cat"), None)
    for k in range(answers):
        leaf = t.add(Message("user", f"the cat sat {k}"), leaf)
        leaf = t.add(Message("assistant", f"the mat {name} {k}" + " cat" * k), leaf)
    t.episodes = [Episode(fill(t, leaf) if fill else leaf, reward=1.0)]
    return t


def weighted(trajectories: list[Trajectory]) -> list[Trajectory]:
    for t in trajectories:
        t.weigh([1.0] * len(t.episodes))
    return trajectories


def test_every_answer_is_a_sample_with_its_prefix(policy):  # noqa: F811
    whole = talk("a", 3, policy.renderer.fill)
    samples = curation.steps([whole])
    assert [t.id for t in samples] == ["a:1", "a:2", "a:3"]
    for k, sample in enumerate(samples):
        sample.check()
        leaf = sample.episodes[0].leaf
        assert sample.dialogue(leaf) == whole.dialogue(2 * k + 2)
        assert sample.ids_P(leaf).tolist() == whole.ids_P(2 * k + 2).tolist()
        assert [n.sampled_T is not None and n.sampled_T.any() for n in sample.nodes] == [False] * (2 * k + 2) + [True]
    assert whole.nodes[2].sampled_T is not None
    assert whole.nodes[2].sampled_T.any()  # the original is as it was


def gradient(policy, trajectories, normalise: str, micro_tokens: int = 2048) -> np.ndarray:  # noqa: F811
    """What one optimiser step would follow."""
    learner = Learner(policy, build("objectives/likelihood", normalise=normalise), lr=0.0, micro_tokens=micro_tokens)
    learner.clip, kept = 0.0, []
    learner._move = lambda gradients: kept.extend(g.clone() for g in gradients) or 0.0  # type: ignore[method-assign]
    learner.step(weighted(trajectories))
    return torch.cat([g.flatten() for g in kept]).numpy()


@pytest.mark.exact(46)
def test_expansion_and_whole_trajectories_have_one_gradient_up_to_the_normaliser(policy):  # noqa: F811
    def data():
        return [talk("a", 2, policy.renderer.fill), talk("b", 3, policy.renderer.fill)]

    whole, expanded = gradient(policy, data(), "token"), gradient(policy, curation.steps(data()), "token")
    assert np.abs(whole).max() > 1e-3
    np.testing.assert_allclose(expanded, whole, atol=1e-6)
    # `constant` divides by the number of sequences: 2 trajectories against 5 steps
    whole, expanded = gradient(policy, data(), "constant"), gradient(policy, curation.steps(data()), "constant")
    np.testing.assert_allclose(expanded * 5 / 2, whole, atol=1e-6)
    # `sequence` lets every step count the same, which is another gradient
    whole, expanded = gradient(policy, data(), "sequence"), gradient(policy, curation.steps(data()), "sequence")
    assert np.abs(whole - expanded).max() > 1e-4


@pytest.mark.exact(46)
def test_packing_leaves_the_loss_and_the_gradient_as_they_are(policy):  # noqa: F811
    data = [talk(f"t{n}", 1 + n % 3, policy.renderer.fill) for n in range(5)]
    packed, alone = (gradient(policy, data, "token", micro_tokens=size) for size in (4096, 1))
    np.testing.assert_allclose(packed, alone, atol=1e-6)


@pytest.mark.exact(46)
def test_one_seed_gives_identical_batches_and_a_resumed_run_the_same_weights(load_policy, tmp_path):  # noqa: F811
    def run(start: int = 0, resume=None, stop: int = 99, seed: int = 3):
        policy = load_policy()  # noqa: F811
        data = weighted(curation.steps([talk(f"t{n}", 2, policy.renderer.fill) for n in range(4)]))
        learner, figures = Learner(policy, build("objectives/likelihood"), lr=1e-3), []
        if resume:
            learner.load(resume)
        seen: list[list[int]] = []
        inner = learner.step_rows
        learner.step_rows = lambda batch: seen.append([len(r.ids_P) for r in batch]) or inner(batch)  # type: ignore[method-assign]

        def on_step(step, values):
            figures.append(values["loss"])
            if step == stop:
                (tmp_path / "half").mkdir()
                learner.save(tmp_path / "half")
                raise KeyboardInterrupt

        with contextlib.suppress(KeyboardInterrupt):
            offline(learner, data, epochs=2, batch=3, seed=seed, start=start, on_step=on_step)
        return seen, figures, torch.cat([p.detach().flatten() for p in learner.parameters])

    seen, figures, weights = run()
    assert len(seen) == 6
    again = run()
    assert again[0] == seen
    assert again[1] == figures
    torch.testing.assert_close(again[2], weights, rtol=0, atol=0)
    assert run(seed=4)[1] != figures
    run(stop=3)
    rest = run(start=3, resume=tmp_path / "half")
    assert rest[0] == seen[3:]
    assert rest[1] == figures[3:]
    torch.testing.assert_close(rest[2], weights, rtol=0, atol=0)


@pytest.mark.exact(46)
def test_rendered_calls_are_read_back_as_they_were(policy):  # noqa: F811
    calls = (ToolCall("get", {"id": "A-1", "note": 'a "b"\n</tool_call> é'}, "call_1"), ToolCall("list", {}, "call_2"))
    t = Trajectory("t", "t")
    leaf = t.add(Message("user", "go"), None)
    leaf = policy.renderer.fill(t, t.add(Message("assistant", "I look.", calls), leaf))
    node = t.nodes[leaf]
    assert node.ids_T is not None
    assert policy.renderer.parse(node.ids_T[node.sampled_T]) == (Message("assistant", "I look.", calls), "")


def test_an_answer_without_tokens_is_refused():
    with pytest.raises(TrajectoryError, match=r"trajectory a node 2 has no tokens; Renderer.fill gives them"):
        curation.steps([talk("a")])


def test_only_the_last_answer_of_a_sample_is_trained(policy):  # noqa: F811
    samples = weighted(curation.steps([talk("a", 3, policy.renderer.fill)]))
    whole = rows(weighted([talk("a", 3, policy.renderer.fill)]))[0]
    assert sum(int(r.mask_P.sum()) for r in rows(samples)) == int(whole.mask_P.sum())
