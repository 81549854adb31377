"""Preflight: each way of silently damaging the data is refused, with its own words."""

import dataclasses
import re

import numpy as np
import pytest

from etude.core.errors import PreflightError, RecipeError
from etude.curation.preflight import TEXTS, draw, preflight
from etude.rendering.renderer import TrainOnWhat
from etude.trajectory import Message, StopReason, Trajectory

STOP = "<|im_end|>"


def answers(trajectory: Trajectory) -> list:
    """Nodes of the assistant's messages."""
    return [n for n in trajectory.nodes if trajectory.messages[n.message].role == "assistant"]


def node(trajectory: Trajectory, role: str):
    return next(n for n in trajectory.nodes if trajectory.messages[n.message].role == role)


@pytest.fixture
def refuse(renderer):
    """Asserts that one code, and nothing else, is refused, and returns the error's text."""

    def check(code: str, trajectories: list[Trajectory], samples: tuple[int, ...] = (0,), **settings) -> str:
        settings.setdefault("renderer", renderer)
        findings = preflight(trajectories, **settings)
        assert [(f.code, f.samples, f.severity) for f in findings] == [(code, samples, "refuse")]
        with pytest.raises(PreflightError, match=re.escape(TEXTS[code][0])) as error:
            findings.raise_if_any()
        assert TEXTS[code][1] in str(error.value)
        return str(error.value)

    return check


def test_good_data_passes(renderer, dialogue):
    rows = [dialogue("a"), dialogue("b", "Sunny, so take a walk.")]
    findings = preflight(rows, renderer, serving_fingerprint=renderer.fingerprint, test_tasks={"other"}, max_tokens=999)
    assert len(findings) == 0
    assert str(findings) == "2 samples, nothing found"
    findings.raise_if_any()


def test_answers_that_spell_control_tokens_pass(renderer, dialogue):
    spelt = dialogue("a", f"A turn ends with {STOP}\n, the next begins with <|im_start|>.")
    assert len(preflight([spelt], renderer)) == 0
    record(answers(spelt)[-1])
    assert len(preflight([spelt], renderer)) == 0


def test_sampled_data_passes(renderer, dialogue):
    """Recorded at sampling: ids that re-tokenise differently are right, because they are what the model produced."""
    recorded = dialogue("a", "Fine.")
    last = answers(recorded)[-1]
    letters = [i for c in "Fine." for i in renderer.encode(c)] + [*renderer.encode(STOP)]
    replace_answer(last, letters)
    assert [f.code for f in preflight([recorded], renderer)] == ["drift"]
    record(last)
    assert len(preflight([recorded], renderer)) == 0


def record(node) -> None:
    """As a policy leaves it: with the log-probability of each sampled token."""
    node.version, node.logprob_T = 3, np.where(node.sampled_T, -1.0, np.nan).astype(np.float32)


def replace_answer(node, ids: list[int]) -> None:
    before_T = node.ids_T[~node.sampled_T]
    node.ids_T = np.array([*before_T, *ids], np.int32)
    node.sampled_T = np.arange(len(node.ids_T)) >= len(before_T)


def test_never_rendered(refuse, dialogue):
    text = refuse("no_tokens", [dialogue("a"), dialogue("b", fill=False)], (1,))
    assert "sample 1: message 0 (system) was never rendered" in text


def test_last_observation_needs_no_tokens(renderer, dialogue):
    """What the environment answered last was shown to no policy, so it was never rendered."""
    row = dialogue()
    row.episodes[0].leaf = row.add(Message("user", "Thanks."), row.episodes[0].leaf)
    assert len(preflight([row], renderer)) == 0


def test_all_masked(refuse, dialogue):
    rows = [dialogue(n) for n in "abcd"]
    for row in rows[1:3]:
        for n in row.nodes:
            n.sampled_T = np.zeros_like(n.sampled_T)
    text = refuse("all_masked", rows, (1, 2))
    assert text.startswith("refused, 2 of 4 samples would train nothing\n")
    assert "sample 1, 2: every token is masked" in text
    assert text.endswith("etude preflight --show 1   draws the mask")


def test_stop_untrained(refuse, dialogue):
    row = dialogue()
    answers(row)[0].sampled_T[-1] = False
    assert "'<|im_end|>' at the end of message 2 (assistant) is not in the mask" in refuse("stop_untrained", [row])


def test_stop_absent(refuse, dialogue):
    row = dialogue()
    last = answers(row)[-1]
    last.ids_T, last.sampled_T = last.ids_T[:-1], last.sampled_T[:-1]
    assert "message 4 (assistant) has no stop token" in refuse("stop_untrained", [row])


def test_pad_is_eos_masks_the_stop_token_out(refuse, dialogue, make_renderer):
    shared = make_renderer(pad=STOP)
    assert len(preflight([dialogue(renderer=shared)], shared)) == 0  # sharing it does no harm by itself
    row = dialogue(renderer=shared)
    for n in answers(row):
        n.sampled_T &= n.ids_T != shared.pad_id  # what a mask made from padding does
    assert "'<|im_end|>' at the end of message 2" in refuse("pad_is_eos", [row], renderer=shared)


def test_pad_is_eos_takes_padding_into_the_loss(refuse, dialogue, make_renderer):
    shared = make_renderer(pad=STOP)
    row = dialogue(renderer=shared)
    last = answers(row)[-1]
    last.ids_T = np.append(last.ids_T, [shared.pad_id] * 2).astype(np.int32)
    last.sampled_T = np.append(last.sampled_T, [True, True])
    assert "padding '<|im_end|>' behind the end of message 4" in refuse("pad_is_eos", [row], renderer=shared)


def test_prompt_trained(refuse, dialogue, renderer):
    row = dialogue()
    node(row, "user").sampled_T[:] = True
    assert "of message 1 (user) are in the mask" in refuse("prompt_trained", [row])
    assert len(preflight([row], renderer, allow=["prompt_trained"])) == 0


def test_training_on_all_messages_must_be_meant(dialogue, renderer):
    row = dialogue(fill=False)
    row.episodes[0].leaf = renderer.fill(row, row.episodes[0].leaf, TrainOnWhat.ALL_MESSAGES)
    assert {f.code for f in preflight([row], renderer)} == {"prompt_trained", "tool_result_trained"}
    assert len(preflight([row], renderer, allow=["prompt_trained", "tool_result_trained"])) == 0


def test_weight_outside_the_mask_counts_as_trained(refuse, dialogue):
    row = dialogue()
    row.weigh([1.0])
    node(row, "system").weight_T = np.ones(len(node(row, "system").ids_T), np.float32)
    refuse("prompt_trained", [row])


def test_generation_prompt_trained(refuse, dialogue):
    row = dialogue()
    last = answers(row)[-1]
    last.sampled_T[last.sampled_T.argmax() - 2 :] = True
    text = refuse("prompt_trained", [row])
    assert re.search(r"the generation prompt's '\w+\\n' before message 4 \(assistant\) is in the mask", text)


def test_tool_result_trained(refuse, dialogue):
    row = dialogue()
    tool = node(row, "tool")
    tool.sampled_T[:] = True
    assert "of message 3 (tool) are in the mask" in refuse("tool_result_trained", [row])


def test_drift(refuse, dialogue, renderer):
    row = dialogue()
    letters = [int(i) for c in "Fine." for i in renderer.encode(c)]
    replace_answer(answers(row)[-1], [*letters, *renderer.encode(STOP)])
    assert "from token" in refuse("drift", [row])


def test_tokenizer_that_lowers_case_loses_content(refuse, dialogue, make_renderer):
    from tokenizers import normalizers

    lower = make_renderer(normalizer=normalizers.Lowercase())
    assert "the content 'Let me look.'" in refuse("content_lost", [dialogue(renderer=lower)], renderer=lower)


@pytest.mark.parametrize("content", ["Terrible.", "Fi"])
def test_recorded_ids_say_something_else(refuse, dialogue, content):
    row = dialogue()
    record(answers(row)[-1])
    row.messages[-1] = dataclasses.replace(row.messages[-1], content=content)
    assert f"message 4 (assistant) has {content!r}, its tokens 'Fine.'" in refuse("text_differs", [row])


def test_template_differs(refuse, dialogue, renderer, make_renderer):
    other = make_renderer(template=renderer.template.replace("assistant\n", "assistant: "))
    assert renderer.fingerprint != other.fingerprint
    text = refuse("template_differs", [dialogue()], serving_fingerprint=other.fingerprint)
    assert f"training has {renderer.fingerprint}, serving {other.fingerprint}" in text


def test_missing_generation_prompt(refuse, dialogue):
    row = dialogue()
    last = answers(row)[-1]
    last.ids_T, last.sampled_T = last.ids_T[last.sampled_T], last.sampled_T[last.sampled_T]
    assert r"instead of '<|im_start|>assistant\n'" in refuse("no_generation_prompt", [row])


def cut(row: Trajectory) -> Trajectory:
    last = answers(row)[-1]
    last.ids_T, last.sampled_T = last.ids_T[:-1], last.sampled_T[:-1]
    record(last)
    return row


def test_truncated(refuse, dialogue, renderer):
    text = refuse("truncated", [dialogue("a"), cut(dialogue("b"))], (1,))
    assert "message 4 (assistant) was cut before its stop token" in text
    refuse("truncated", [dialogue("a", stop=StopReason.TOKENS)])
    rows = [dialogue("a", score=1.0), cut(dialogue("b", score=0.0))]
    findings = preflight(rows, renderer, mode="reinforcement", allow=["no_gradient"])
    assert [(f.code, f.severity) for f in findings] == [("truncated", "warn")]
    findings.raise_if_any()  # a cut answer is part of practice


@pytest.mark.parametrize(
    ("stop", "cut_last", "found"),
    [
        (StopReason.ANSWERED, True, []),
        (StopReason.TURNS, True, []),
        (StopReason.DONE, False, []),
        (StopReason.DONE, True, ["truncated"]),  # the calls of an answer that was cut may end an episode
        (StopReason.FAILED, True, ["truncated"]),
        (None, False, ["truncated"]),
    ],
)
def test_an_answer_that_a_stop_text_ended_is_whole(dialogue, renderer, stop, cut_last, found):
    row = dialogue("a", stop=stop)
    first, last = answers(row)
    for n in (first, last):
        record(n)
    chosen = last if cut_last else first
    for name in ("ids_T", "sampled_T", "logprob_T"):
        setattr(chosen, name, getattr(chosen, name)[:-1])
    assert [f.code for f in preflight([row], renderer)] == found


def test_too_long(refuse, dialogue):
    row = dialogue()
    length = len(row.ids_P(row.episodes[0].leaf))
    text = refuse("too_long", [row], max_tokens=length - 1)
    assert f"{length} tokens, and max_tokens is {length - 1}" in text


LOSES_CONTENT = (  # what some templates did: with calls, the content is left out
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.tool_calls %}{% for c in m.tool_calls %}"
    "{{ c.function.name }}({{ c.function.arguments | tojson }}){% endfor %}{% else %}{{ m.content }}{% endif %}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}{% if tools %}{% endif %}"
)
LOSES_CALLS = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}{% if tools %}{% endif %}"
)


@pytest.mark.parametrize(
    ("template", "lost"), [(LOSES_CONTENT, "the content 'Let me look.'"), (LOSES_CALLS, "the call to 'weather'")]
)
def test_content_next_to_calls_is_lost(refuse, dialogue, make_renderer, template, lost):
    broken = make_renderer(template=template)
    text = refuse("content_lost", [dialogue(renderer=broken)], renderer=broken)
    assert f"{lost} of message 2 (assistant) is not in the rendered text" in text


def scored(renderer, row: Trajectory) -> Trajectory:
    for episode in row.episodes:
        episode.leaf = renderer.fill(row, episode.leaf)
    return row


def test_groups_without_gradient(refuse, renderer, group):
    silent = [scored(renderer, group("a", 1.0, 1.0)), scored(renderer, group("b", 0.0, None))]
    text = refuse("no_gradient", silent, (0, 1, 2, 3), mode="reinforcement")
    assert "sample 0, 1: the scores of its group are [1.0, 1.0]" in text
    useful = scored(renderer, group("c", 1.0, 0.0))
    findings = preflight([silent[0], useful], renderer, mode="reinforcement")
    assert [(f.code, f.samples, f.severity) for f in findings] == [("no_gradient", (0, 1), "warn")]
    findings.raise_if_any()
    assert len(preflight(silent, renderer, mode="supervised")) == 0


def test_weights_decide_over_scores_where_there_are_any(refuse, renderer, group):
    row = scored(renderer, group("a", 1.0, 1.0))
    row.weigh([1.0, 1.0])  # outcome credit: equal scores do train
    assert len(preflight([row], renderer, mode="reinforcement")) == 0
    row.weigh([0.0, 0.0])
    refuse("no_gradient", [row], (0, 1), mode="reinforcement")


def test_no_weight(refuse, renderer, group):
    row = scored(renderer, group("a", 1.0, 0.0, 0.5))
    row.weigh([1.0, -1.0, float("nan")])
    refuse("no_weight", [row], (2,), mode="reinforcement")
    refuse("no_weight", [row], (2,))


def test_failed_episode_without_weight_is_only_a_warning(renderer, group):
    row = scored(renderer, group("a", 1.0, 0.0, None))
    row.weigh([1.0, -1.0, float("nan")])
    findings = preflight([row], renderer, mode="reinforcement")
    assert [(f.code, f.samples, f.severity) for f in findings] == [("no_weight", (2,), "warn")]
    assert "its episode failed: timed out" in str(findings)


def test_episode_that_failed_before_its_first_answer(refuse, renderer, group):
    row = scored(renderer, group("a", 1.0, 0.0, None))
    row.episodes[2].leaf = row.add(Message("user", "Question a, again"), None)
    assert len(preflight([row], renderer, mode="reinforcement")) == 0
    refuse("all_masked", [row], (2,))


def test_earlier_renderings_are_looked_at_too(refuse, renderer, dialogue):
    """Where the template rewrote history, an episode has several paths, and the trainer takes all of them."""
    row = dialogue()
    again = row.add(Message("assistant", "Sunny."), row.add(Message("user", "And now?"), None))
    row.episodes[0].rewritten = [row.episodes[0].leaf]
    row.episodes[0].leaf = renderer.fill(row, again)
    assert len(preflight([row], renderer)) == 0
    answers(row)[0].sampled_T[-1] = False  # of the first rendering
    assert "at the end of message 2" in refuse("stop_untrained", [row])


@pytest.mark.parametrize("reward", [float("nan"), 1.5, -0.1, float("inf")])
def test_reward_out_of_range(refuse, dialogue, reward):
    assert f"reward {reward} is not within [0, 1]" in refuse("bad_reward", [dialogue("a", reward=reward)])


def test_reward_range_is_the_environments(renderer, dialogue):
    assert len(preflight([dialogue("a", reward=-3.0)], renderer, reward_range=(-5, 5))) == 0


def test_score_is_nan(refuse, dialogue):
    assert "score nan is not finite" in refuse("bad_reward", [dialogue("a", score=float("nan"))])


def test_duplicate_id(refuse, dialogue):
    assert "id 'a'" in refuse("duplicate_id", [dialogue("a"), dialogue("b"), dialogue("a")], (2,))


def test_train_task_in_the_test_split(refuse, dialogue):
    text = refuse("test_leak", [dialogue("a"), dialogue("b")], (1,), test_tasks={"task-b"})
    assert "task 'task-b' of trajectory 'b'" in text
    marked = dialogue("c")
    marked.split = "test"
    refuse("test_leak", [marked])


def test_several_findings_are_all_said(renderer, dialogue):
    row = dialogue("a", reward=2.0)
    answers(row)[0].sampled_T[-1] = False
    text = str(preflight([row], renderer))
    assert text.count("refused, 1 of 1 samples") == 2


def test_unknown_code_is_refused(renderer):
    with pytest.raises(RecipeError, match="did you mean 'drift'"):
        preflight([], renderer, allow=["drit"])


def test_draw_with_brackets(renderer):
    row = Trajectory("a", "a")
    leaf = row.add(Message("assistant", "ab"), row.add(Message("user", "q"), None))
    leaf = renderer.fill(row, leaf)
    legend, *lines = draw(row, leaf, renderer, colour=False).split("\n")
    assert "[trained] {stop token, trained} <negative weight> (sampled, no weight)" in legend
    assert lines[:2] == ["<|im_start|>user⏎", "q<|im_end|>⏎"]
    assert lines[-1] == "[a][b]{<|im_end|>}"
    row.nodes[leaf].weight_T = np.where(row.nodes[leaf].sampled_T, -1.0, np.nan).astype(np.float32)
    row.nodes[leaf].weight_T[-2] = 0.0
    assert draw(row, leaf, renderer, colour=False).endswith("<a>(b)<<|im_end|>>")


def test_draw_in_colour(renderer):
    row = Trajectory("a", "a")
    leaf = row.add(Message("assistant", "ab"), row.add(Message("user", "q"), None))
    leaf = renderer.fill(row, leaf)
    drawn = draw(row, leaf, renderer)
    assert drawn.endswith("\x1b[32ma\x1b[0m\x1b[32mb\x1b[0m\x1b[1;33m<|im_end|>\x1b[0m")
    plain = draw(row, leaf, renderer, colour=False).split("\n", 1)[1].translate(str.maketrans("", "", "[]{}"))
    assert re.sub(r"\x1b\[[\d;]+m", "", drawn).split("\n", 1)[1] == plain


def test_draw_of_what_was_never_rendered(renderer, dialogue):
    row = dialogue(fill=False)
    assert "(message 4, assistant: no tokens)" in draw(row, row.episodes[0].leaf, renderer)
