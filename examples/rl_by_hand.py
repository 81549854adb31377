"""Reinforcement learning with the loop written out: `python examples/rl_by_hand.py [steps] [policy]`."""

import sys

import etude

steps = int(sys.argv[1]) if len(sys.argv) > 1 else 20
policy = etude.policy(sys.argv[2] if len(sys.argv) > 2 else "tiny")
world = etude.world("desk", difficulty=1)
learner = etude.Learner(policy, objective=etude.objectives.clipped(high=0.28), lr=1e-4)


def success() -> float:
    """Share of 40 held-out tasks that the policy solves, decoding greedily."""
    greedy = etude.Sampling(max_tokens=64, temperature=0.0)
    played = etude.rollout(policy, world.tasks("test")[:40], sampling=greedy)
    return sum(episode.reward == 1.0 for trajectory in played for episode in trajectory.episodes) / 40


print(f"before  {success():.0%}")
for step in range(steps):
    groups = etude.rollout(policy, world.sample(4), group=4, sampling=etude.Sampling(max_tokens=64), seed=step)
    for trajectory in groups:
        trajectory.weigh(etude.credit.rloo(trajectory.score_G))
    figures = learner.step(groups)
    rewards = [episode.reward for trajectory in groups for episode in trajectory.episodes if episode.reward is not None]
    print(f"step {step:2}  reward {sum(rewards) / max(len(rewards), 1):.2f}  loss {figures['loss']:+.4f}")
print(f"after   {success():.0%}")
