"""A small real tokenizer with a ChatML template, and dialogues rendered with it."""

import pytest

from etude.rendering.renderer import Renderer
from etude.trajectory import Episode, Message, ToolCall, Trajectory

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
WEATHER = {"name": "weather", "description": "Of a city.", "parameters": {"type": "object", "properties": {}}}


@pytest.fixture(scope="session")
def make_renderer():
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    def make(template: str = CHATML, pad: str = "<pad>", normalizer: object = None) -> Renderer:
        bpe = Tokenizer(models.BPE())
        bpe.pre_tokenizer, bpe.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=300,
            special_tokens=["<pad>", "<|im_start|>", "<|im_end|>"],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        bpe.train_from_iterator(["What is the weather in Oslo? The weather is fine, so take a walk."] * 3, trainer)
        if normalizer is not None:
            bpe.normalizer = normalizer
        tokenizer = PreTrainedTokenizerFast(
            tokenizer_object=bpe, eos_token="<|im_end|>", pad_token=pad, chat_template=template
        )
        return Renderer(tokenizer)

    return make


@pytest.fixture(scope="session")
def renderer(make_renderer) -> Renderer:
    return make_renderer()


@pytest.fixture
def dialogue(renderer):
    """Called with a name and, where they should differ, the last answer and fields of the episode."""

    def make(name: str = "a", answer: str = "Fine.", renderer: Renderer = renderer, fill: bool = True, **episode):
        call = Message("assistant", "Let me look.", (ToolCall("weather", {"city": "Oslo"}, "1"),))
        messages = [
            Message("system", "Be brief."),
            Message("user", "What is the weather in Oslo?"),
            call,
            Message("tool", "sunny", tool_call_id="1", name="weather"),
            Message("assistant", answer),
        ]
        trajectory = Trajectory(name, f"task-{name}", split="train", tools=[WEATHER])
        leaf = None
        for message in messages:
            leaf = trajectory.add(message, leaf)
        assert leaf is not None
        if fill:
            leaf = renderer.fill(trajectory, leaf)
        trajectory.episodes.append(Episode(leaf, **{"reward": 1.0, **episode}))
        return trajectory

    return make


@pytest.fixture
def group():
    """Called with rewards: one question, and one answer of its own for each; None is an episode that failed."""
    from etude.trajectory import Boundary, Failure

    def make(name: str, *rewards: float | None, answers: tuple[str, ...] = ()) -> Trajectory:
        trajectory = Trajectory(name, f"task-{name}")
        root = trajectory.add(Message("user", f"Question {name}"), None)
        for g, reward in enumerate(rewards):
            leaf = trajectory.add(Message("assistant", answers[g] if answers else f"Answer {g} to {name}"), root)
            failure = Failure(Boundary.TOOL, "timed out") if reward is None else None
            trajectory.episodes.append(Episode(leaf, seed=g, reward=reward, score=reward, failure=failure))
        return trajectory

    return make
