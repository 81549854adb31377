"""The native loop against a scripted policy: calls side by side, malformed calls, and when it stops."""

from etude.agents.loops import native
from etude.policies import scripted
from etude.protocols import Action, Observation, Step
from etude.rollout.collect import collect
from etude.trajectory import Message, StopReason, ToolCall

from ..engine_fixtures import GET, Talk, TalkSession

BOTH = Message("assistant", "I look.", (ToolCall("get", {"id": "x"}, "1"), ToolCall("get", {"id": "y"}, "2")))
ANSWER = Message("assistant", "the mat")


async def play(policy, world=None, **settings):
    world = world or Talk(turns=2, score=lambda text: float(text == "the mat"), tools=(GET,))
    (trajectory,) = await collect(policy, world.tasks("train", 1), agent=native(), **settings)
    (episode,) = trajectory.episodes
    assert episode.failure is None
    return trajectory, episode, trajectory.dialogue(episode.leaf)


class Acts:
    """Plays given actions, problems among them."""

    name, version = "acts", 0

    def __init__(self, *actions: Action):
        self.actions = iter(actions)

    async def act(self, trajectory, leaf, *, sampling, seed):
        return leaf, next(self.actions)


async def test_calls_side_by_side_each_get_their_result():
    trajectory, episode, dialogue = await play(scripted([BOTH, ANSWER]))
    assert [m.role for m in dialogue] == ["system", "user", "assistant", "tool", "tool", "assistant"]
    assert dialogue[2] == BOTH, "content and calls stay together"
    assert [m.content for m in dialogue[3:5]] == ["{'id': 'x'}", "{'id': 'y'}"]
    assert (episode.stop, episode.reward, episode.turns) == (StopReason.ANSWERED, 1.0, 2)
    assert trajectory.tools == [GET]


async def test_a_malformed_call_is_answered_and_the_episode_goes_on():
    broken = Action(Message("assistant", "<tool_call>{"), problem="tool call 1 is not valid JSON (...); write ...")
    trajectory, episode, dialogue = await play(Acts(broken, Action(BOTH), Action(ANSWER)))
    assert dialogue[3] == Message("tool", "error: tool call 1 is not valid JSON (...); write ...")
    assert [m.role for m in dialogue[4:]] == ["assistant", "tool", "tool", "assistant"]
    assert (episode.stop, episode.reward) == (StopReason.ANSWERED, 1.0), "the broken turn was not taken as an answer"
    assert [n.scores for n in trajectory.nodes if n.sampled] == [{"malformed": 1.0}, {}, {}]


async def test_good_calls_beside_a_malformed_one_are_run():
    mixed = Action(Message("assistant", "<tool_call>{", BOTH.tool_calls[:1]), problem="tool call 2 is not valid JSON")
    _, _, dialogue = await play(Acts(mixed, Action(ANSWER)))
    assert [m.content for m in dialogue[3:5]] == ["error: tool call 2 is not valid JSON", "{'id': 'x'}"]


async def test_a_malformed_call_in_the_last_turn_is_no_answer():
    broken = Action(Message("assistant", "the mat"), problem="bad")
    _, episode, dialogue = await play(Acts(broken), max_turns=1)
    assert (episode.stop, episode.turns, episode.reward) == (StopReason.TURNS, 1, 0.0)
    assert dialogue[-1] == Message("tool", "error: bad")


async def test_it_stops_when_the_world_is_done_though_calls_were_made():
    class Finishing(TalkSession):
        async def step(self, action):
            return Step(Observation((Message("tool", "sold out"),)), done=True, reward=0.5)

    world = Talk(tools=(GET,))
    world.open = lambda: Finishing(world)
    _, episode, dialogue = await play(scripted([BOTH]), world)
    assert (episode.stop, episode.reward, episode.turns) == (StopReason.DONE, 0.5, 1)
    assert dialogue[-1].content == "sold out"


async def test_a_local_model_plays_with_tools_in_and_out_of_its_template(load_policy):
    from etude.protocols import Sampling

    from ..engine_fixtures import CHATML, NATIVE

    world = Talk(turns=3, tools=(GET,))
    for template in (CHATML, NATIVE):
        policy = load_policy(template)
        trajectory, episode, dialogue = await play(policy, world, sampling=Sampling(max_tokens=60), seed=1)
        trajectory.check()
        assert episode.turns == 3
        shown = policy.renderer.decode(trajectory.ids_P(episode.leaf))
        assert shown.startswith(policy.renderer.text(dialogue[:2], [GET]))
        assert "get" in shown.split("user\n")[0]
