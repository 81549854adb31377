"""A tiny random Llama with a tokenizer trained here, chat templates of several kinds, and a world that only talks."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from etude.protocols import Observation, Step, Task
from etude.rendering import Renderer
from etude.trajectory import Message

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

# like Qwen 2.5's: tools in the system message, calls as JSON, consecutive tool results joined into one user message
NATIVE = """{%- if tools %}{{ '<|im_start|>system\n' }}
{%- if messages[0].role == 'system' %}{{ messages[0].content + '\n' }}{% endif %}
{%- for tool in tools %}{{ tool | tojson + '\n' }}{% endfor %}{{ '<|im_end|>\n' }}{% endif %}
{%- for m in messages %}
{%- if m.role == 'tool' %}
{%- if loop.first or messages[loop.index0 - 1].role != 'tool' %}{{ '<|im_start|>user' }}{% endif %}
{{- '\n<tool_response>\n' + m.content + '\n</tool_response>' }}
{%- if loop.last or messages[loop.index0 + 1].role != 'tool' %}{{ '<|im_end|>\n' }}{% endif %}
{%- elif not (m.role == 'system' and tools) %}{{ '<|im_start|>' + m.role + '\n' + m.content }}
{%- for call in m.tool_calls or [] %}{{ '\n<tool_call>\n{"name": "' + call.function.name + '", "arguments": ' }}
{{- call.function.arguments | tojson + '}\n</tool_call>' }}{% endfor %}{{ '<|im_end|>\n' }}
{%- endif %}{% endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"""

# like Qwen 3's: what was thought before the last user message is dropped
FORGETFUL = """{%- set ns = namespace(last=0) %}
{%- for m in messages %}{% if m.role == 'user' %}{% set ns.last = loop.index0 %}{% endif %}{% endfor %}
{%- for m in messages %}<|im_start|>{{ m.role }}
{% if m.role == 'assistant' and loop.index0 < ns.last %}{{ m.content.split('</think>')[-1] }}
{%- else %}{{ m.content }}{% endif %}<|im_end|>
{% endfor %}
{%- if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""

# the same, but marking whatever was said, so that any answer of an untrained model is rewritten
MARKING = FORGETFUL.replace("m.content.split('</think>')[-1]", "'~' + m.content")

# wants a user message, as Qwen 3.5's does, and trims what it is given
STRICT = """{%- if not messages | selectattr('role', 'equalto', 'user') | list %}
{{- raise_exception('no user message') }}{% endif %}
{%- for m in messages %}<|im_start|>{{ m.role }}
{{ m.content | trim }}<|im_end|>
{% endfor %}
{%- if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""

GET = {
    "name": "get",
    "description": "Look a thing up.",
    "parameters": {"type": "object", "properties": {"id": {"type": "string"}}, "required": ["id"]},
}


def make_tokenizer(template: str = CHATML):
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer, bpe.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=["<pad>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(["system user assistant tool the cat sat on the mat\n\n"] * 9, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe, eos_token="<|im_end|>", pad_token="<pad>", chat_template=template
    )


@pytest.fixture(scope="session")
def tiny_model_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """2 layers, 4 query heads on 2 key-value heads, float32, untrained but for ending an answer once in ten tokens."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer, directory = make_tokenizer(), tmp_path_factory.mktemp("tiny")
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        initializer_range=0.3,
        pad_token_id=0,
        eos_token_id=2,
        bos_token_id=None,
    )
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        model = LlamaForCausalLM(config)
        # channel 0 stays constant through the layers, and gives the stop token its probability
        model.get_input_embeddings().weight[:, 0] = 8.0
        for layer in model.get_decoder().layers:
            layer.self_attn.o_proj.weight[0] = 0.0
            layer.mlp.down_proj.weight[0] = 0.0
        model.get_output_embeddings().weight[2, 0] = 5.0
        model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory


@pytest.fixture
def load_policy(tiny_model_directory: Path) -> Iterator[Callable]:
    """Called with a template and the settings of policies/local: a fresh policy with a decoder."""
    import torch

    def load(template: str = CHATML, **settings):
        from etude.core.parts import build
        from etude.rollout.collect import attach

        policy = build("policies/local", model=str(tiny_model_directory), **settings)
        policy.renderer = Renderer(make_tokenizer(template))
        attach(policy)
        return policy

    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # tensors this small lose more to threads than they gain
    yield load
    torch.set_num_threads(threads)


@pytest.fixture
def policy(load_policy):
    return load_policy()


class Talk:
    """A world that lets the agent speak `turns` times and judges the last thing said; its sessions offer no tools."""

    name, reward_range = "talk", (0.0, 1.0)

    def __init__(self, turns: int = 1, score: Callable[[str], float] = lambda text: 0.0, tools: tuple = ()):
        self.turns, self.score, self.offered = turns, score, list(tools)
        self.closed = 0

    def tasks(self, split: str, count: int = 4) -> list[Task]:
        return [Task(f"talk-{i}", self, split, {"prompt": f"the cat {i}"}) for i in range(count)]

    def open(self) -> "TalkSession":
        return TalkSession(self)


class TalkSession:
    """One episode of `Talk`."""

    def __init__(self, world: Talk):
        self.world, self.tools, self.said = world, [], []

    async def reset(self, task: Task, seed: int) -> Observation:
        self.tools, self.said = self.world.offered, []
        return Observation((Message("system", "be a cat"), Message("user", task.data["prompt"])))

    async def step(self, action: Message | np.ndarray) -> Step:
        assert isinstance(action, Message)
        self.said.append(action)
        if action.tool_calls:
            return Step(Observation(tuple(Message("tool", f"{c.arguments}", name=c.name) for c in action.tool_calls)))
        done = len(self.said) >= self.world.turns
        reward = float(self.world.score(action.content)) if done else None
        return Step(Observation(() if done else (Message("user", f"and {len(self.said)}?"),)), done, reward)

    async def snapshot(self) -> list[Message]:
        return list(self.said)

    async def restore(self, snapshot: list[Message]) -> None:
        self.said = list(snapshot)

    async def close(self) -> None:
        self.world.closed += 1
