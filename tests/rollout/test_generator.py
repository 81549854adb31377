"""The batched decoder against transformers' own, and what it must never do whatever else is in the batch."""

import asyncio
import json
import math
import re
import sys
from asyncio import Future

import jsonschema
import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, Gemma2Config, MistralConfig

from etude.core.errors import MissingExtra, PolicyError
from etude.protocols import Grammar, Sampling
from etude.rollout.collect import attach
from etude.rollout.generator import SPAN, Generator, _Request, sample
from etude.trajectory import Message, Trajectory

PROMPTS = ["the cat", "the cat sat on the mat, the cat sat on the mat", "a", "dog? dog! dog.", "the cat sat"]
SIZE = {
    "vocab_size": 32, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 1, "max_position_embeddings": 64,
}  # fmt: skip
GREEDY = Sampling(max_tokens=12, temperature=0)


def encoded(policy, texts=PROMPTS) -> list[np.ndarray]:
    return [policy.renderer.encode(text) for text in texts]


async def run(generator: Generator, prompts, sampling: Sampling, seeds=None):
    seeds = range(len(prompts)) if seeds is None else seeds
    return await asyncio.gather(*(generator.submit(p, sampling, s) for p, s in zip(prompts, seeds, strict=True)))


def fresh(policy, **settings) -> Generator:
    return Generator(policy.model, policy.renderer.stop_ids, **settings)


def fresh_with_grammars(policy) -> Generator:
    policy.generator = None
    attach(policy)
    return policy.generator


def never_stops(policy, **settings) -> Generator:
    return Generator(policy.model, frozenset(), **settings)


def same(a, b, atol=1e-5) -> None:
    np.testing.assert_array_equal(a.ids_T, b.ids_T)
    np.testing.assert_allclose(a.logprob_T, b.logprob_T, rtol=1e-5, atol=atol)


# -- the same numbers as the model itself --------------------------------------------------------------------------


@pytest.mark.filterwarnings("error:.* for `LlamaModel.forward`:FutureWarning")
@pytest.mark.parametrize("settings", [{}, {"slots": 2}, {"slots": 3, "active": 1}], ids=str)
async def test_greedy_is_what_transformers_generates(policy, settings):
    generator = never_stops(policy, **settings)
    for prompt, got in zip(encoded(policy), await run(generator, encoded(policy), GREEDY), strict=True):
        ids = torch.from_numpy(prompt).long()[None]
        theirs = policy.model.generate(ids, do_sample=False, max_new_tokens=12, eos_token_id=None, pad_token_id=0)
        np.testing.assert_array_equal(got.ids_T, theirs[0, len(prompt) :].numpy())
        assert got.truncated


async def test_recorded_logprobs_are_the_policy_s_own(policy):
    prompts = encoded(policy)
    got = await run(policy.generator, prompts, Sampling(max_tokens=20))
    whole = [np.concatenate([p, g.ids_T]) for p, g in zip(prompts, got, strict=True)]
    theirs = await policy.logprobs(whole, [len(p) for p in prompts])
    for mine, again in zip(got, theirs, strict=True):
        assert again.dtype == np.float32
        np.testing.assert_allclose(mine.logprob_T, again, atol=1e-5)


async def test_the_logprob_is_the_tempered_one_before_top_p(policy):
    prompt = encoded(policy)[0]
    got = (await run(policy.generator, [prompt], Sampling(max_tokens=8, temperature=0.5, top_p=0.6)))[0]
    ids = np.concatenate([prompt, got.ids_T])
    logits = policy.model(torch.from_numpy(ids).long()[None]).logits[0, len(prompt) - 1 : -1] / 0.5
    expected = logits.log_softmax(-1).gather(1, torch.from_numpy(got.ids_T).long()[:, None])[:, 0]
    np.testing.assert_allclose(got.logprob_T, expected.detach(), atol=1e-5)


async def test_logprobs_from_the_first_token_on_start_with_nan(policy):
    ids = encoded(policy)[0]
    whole, tail = await policy.logprobs([ids, ids], [0, 1])
    assert np.isnan(whole[0])
    np.testing.assert_array_equal(whole[1:], tail)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
async def test_it_works_with_adapters_and_in_bfloat16(load_policy, dtype):
    from etude.core.parts import build

    policy = load_policy(dtype=dtype)
    policy.model = build("weights/lora", rank=2).prepare(policy.model)
    for parameter in policy.model.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.1)
    policy.changed()
    prompts = encoded(policy)
    got = await run(policy.generator, prompts, GREEDY)
    whole = [np.concatenate([p, g.ids_T]) for p, g in zip(prompts, got, strict=True)]
    for mine, again in zip(got, await policy.logprobs(whole, [len(p) for p in prompts]), strict=True):
        np.testing.assert_allclose(mine.logprob_T, again, atol=1e-5 if dtype == "float32" else 0.3)


# -- independent of company ----------------------------------------------------------------------------------------


async def test_seed_and_prompt_decide_whatever_else_is_in_the_batch(policy):
    prompts, sampling = encoded(policy), Sampling(max_tokens=24)
    together = await run(never_stops(policy), prompts, sampling)
    for i, prompt in enumerate(prompts):
        same((await run(never_stops(policy), [prompt], sampling, [i]))[0], together[i])
    few = await run(never_stops(policy, slots=2), prompts[::-1], sampling, range(len(prompts))[::-1])
    for a, b in zip(few[::-1], together, strict=True):
        same(a, b)
    other = await run(never_stops(policy), prompts[:1], sampling, [99])
    assert not np.array_equal(other[0].ids_T, together[0].ids_T)


async def test_many_more_conversations_than_slots(policy):
    generator = never_stops(policy, slots=3, active=8)
    assert generator.active == 3
    prompts = [policy.renderer.encode(f"{word} cat {i}") for i in range(5) for word in ("the", "a", "on", "mat")]
    sampling = Sampling(max_tokens=6)
    crowded = await run(generator, prompts, sampling)
    for i in (0, 7, 19):
        same(crowded[i], (await run(never_stops(policy), [prompts[i]], sampling, [i]))[0])


async def test_settings_may_differ_within_a_batch(policy):
    generator, prompts = never_stops(policy), encoded(policy)
    settings = [GREEDY, Sampling(max_tokens=5), Sampling(max_tokens=9, temperature=0.3), Sampling(7, top_p=0.5), GREEDY]
    got = await asyncio.gather(*(generator.submit(p, s, 1) for p, s in zip(prompts, settings, strict=True)))
    for prompt, setting, mine in zip(prompts, settings, got, strict=True):
        assert len(mine.ids_T) == setting.max_tokens
        same(mine, (await run(never_stops(policy), [prompt], setting, [1]))[0])


# -- what is computed twice, and what is not -----------------------------------------------------------------------


async def test_the_prompt_of_a_group_is_computed_once(policy):
    prompt = policy.renderer.encode("the cat sat on the mat. " * 4)
    generator = never_stops(policy)
    await run(generator, [prompt] * 8, Sampling(max_tokens=4))
    P = len(prompt)
    assert generator.counters.prefilled == P + 7  # the last token of a prompt is computed for each, to go on from it
    assert generator.counters.reused == 7 * (P - 1)
    assert generator.counters.sampled == 8 * 4


async def test_the_turns_of_a_dialogue_are_computed_once(policy):
    generator, more = never_stops(policy), policy.renderer.encode(" and the cat?")
    ids, computed = encoded(policy)[0], []
    for _ in range(6):
        before = generator.counters.prefilled
        got = (await run(generator, [ids], Sampling(max_tokens=5), [0]))[0]
        computed.append(generator.counters.prefilled - before)
        ids = np.concatenate([ids, got.ids_T, more])
    # each turn: its own words and the last sampled token, which nobody had to go on from until then
    assert computed == [len(encoded(policy)[0])] + [len(more) + 1] * 5


async def test_keys_and_values_grow_with_the_longest_conversation_and_keep_what_they_hold(policy):
    generator = fresh(policy, context=200)
    prompt = encoded(policy)[1]
    await run(generator, [prompt[:2]], Sampling(max_tokens=1))
    assert generator._memory()[0].shape[3] == SPAN  # or how many keys are looked at would depend on earlier play
    await run(generator, [prompt], Sampling(max_tokens=4))
    before = generator._memory()[0].shape[3]
    assert len(prompt) + 4 <= before < 2 * (len(prompt) + 4)
    reused = generator.counters.reused
    (long,) = await run(generator, [prompt], Sampling(max_tokens=200, temperature=0))
    assert generator._memory()[0].shape[3] == 200
    assert generator.counters.reused == reused + len(prompt) - 1
    (alone,) = await run(fresh(policy, context=200), [prompt], Sampling(max_tokens=200, temperature=0))
    same(long, alone)


async def test_a_fork_copies_what_it_shares_and_leaves_the_other_branch_alone(policy):
    generator, prompt = never_stops(policy), policy.renderer.encode("the cat sat on the mat. " * 2)
    trunk = (await run(generator, [prompt], Sampling(max_tokens=6), [0]))[0]
    path = np.concatenate([prompt, trunk.ids_T])
    forks = [np.concatenate([path, policy.renderer.encode(text)]) for text in (" dog", "? cat", "!")]
    before = generator.counters.prefilled
    got = await run(generator, forks, Sampling(max_tokens=6))
    assert generator.counters.prefilled - before == sum(len(f) - len(path) + 1 for f in forks)
    for i, fork in enumerate(forks):
        same(got[i], (await run(never_stops(policy), [fork], Sampling(max_tokens=6), [i]))[0])


async def test_an_early_fork_does_not_damage_the_conversation_it_left(policy):
    generator, prompt = never_stops(policy, slots=2), policy.renderer.encode("the cat sat on the mat")
    first = (await run(generator, [prompt], Sampling(max_tokens=8), [0]))[0]
    await run(generator, [prompt[:5]], Sampling(max_tokens=8), [1])
    longer = np.concatenate([prompt, first.ids_T, prompt[:2]])
    same(
        (await run(generator, [longer], Sampling(max_tokens=4), [2]))[0],
        (await run(never_stops(policy), [longer], Sampling(max_tokens=4), [2]))[0],
    )


async def test_nothing_cached_survives_a_change_of_the_weights(policy):
    prompt = policy.renderer.encode("the cat sat on the mat")
    old = (await run(policy.generator, [prompt], GREEDY))[0]
    with torch.no_grad():
        for parameter in policy.model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)) * 0.2)
    policy.changed()
    assert policy.version == 1
    new = (await run(policy.generator, [prompt], GREEDY))[0]
    assert policy.generator.counters.reused == 0
    same(new, (await run(fresh(policy), [prompt], GREEDY))[0])
    assert not np.array_equal(old.ids_T, new.ids_T)


async def test_a_running_request_goes_on_with_its_keys_when_the_weights_change_and_no_other_starts_from_them(policy):
    prompt, other, generator = encoded(policy)[0], encoded(policy)[3], never_stops(policy, slots=2)
    policy.generator = generator
    old = (await run(never_stops(policy), [prompt], Sampling(max_tokens=40)))[0]
    running = asyncio.create_task(generator.submit(prompt, Sampling(max_tokens=40), 0))
    while generator.counters.steps < 10:
        await asyncio.sleep(0)
    with torch.no_grad():
        for parameter in policy.model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)) * 0.2)
    policy.changed()
    second = asyncio.create_task(generator.submit(prompt, GREEDY, 0))  # beside the running one
    got = await running
    np.testing.assert_array_equal(got.ids_T[:10], old.ids_T[:10])
    assert not np.array_equal(got.logprob_T[10:], old.logprob_T[10:])
    third = (await run(generator, [np.concatenate([prompt, got.ids_T])], GREEDY))[0]  # its next turn
    same(await second, (await run(never_stops(policy), [prompt], GREEDY))[0])
    same(third, (await run(never_stops(policy), [np.concatenate([prompt, got.ids_T])], GREEDY))[0])
    assert generator.counters.prefilled == 2 * len(prompt) + len(got.ids_T)
    assert generator.counters.reused == len(prompt)  # the third's from the second
    for _ in range(2):  # the slot of the running one is used again
        await run(generator, [other], GREEDY)
    assert generator.counters.reused == len(prompt) + len(other) - 1


async def test_an_action_is_of_the_version_that_it_was_begun_with(policy):
    trajectory = Trajectory("t", "task")
    leaf = trajectory.add(Message("user", "the cat"), None)
    policy.generator = never_stops(policy)
    sampling = Sampling(max_tokens=20)
    act = asyncio.create_task(policy.act(trajectory, leaf, sampling=sampling, seed=0))
    generate = asyncio.create_task(policy.generate(encoded(policy)[:1], sampling=sampling, seeds=[0]))
    while policy.generator.counters.steps < 3:
        await asyncio.sleep(0)
    policy.changed()
    assert [(await act)[1].version, (await generate)[0].version, policy.version] == [0, 0, 1]


# -- where an answer ends ------------------------------------------------------------------------------------------


async def test_a_stop_id_ends_an_answer_and_belongs_to_it(policy):
    free = (await run(never_stops(policy), [encoded(policy)[0]], Sampling(max_tokens=30), [3]))[0]
    stop = int(free.ids_T[10])
    first = int(np.flatnonzero(free.ids_T == stop)[0])
    generator = Generator(policy.model, frozenset({stop}))
    got = (await run(generator, [encoded(policy)[0]], Sampling(max_tokens=30), [3]))[0]
    np.testing.assert_array_equal(got.ids_T, free.ids_T[: first + 1])
    assert not got.truncated


async def test_the_length_limit_cuts_and_says_so(policy):
    got = (await run(never_stops(policy), [encoded(policy)[0]], Sampling(max_tokens=3)))[0]
    assert (len(got.ids_T), got.truncated) == (3, True)


async def test_a_stop_string_ends_an_answer_even_inside_a_token(policy):
    generator = never_stops(policy)
    generator.decode = policy.renderer.decode
    prompt, free_sampling = encoded(policy)[0], Sampling(max_tokens=30)
    free = (await run(generator, [prompt], free_sampling, [5]))[0]
    texts = [policy.renderer.decode(free.ids_T[: n + 1]) for n in range(30)]
    n = next(n for n in range(5, 30) if len(texts[n]) - len(texts[n - 1]) > 1 and "\ufffd" not in texts[n][-3:])
    stop = texts[n][-3:-1]  # ends before the token's last letter
    end = next(i for i, text in enumerate(texts) if stop in text)
    got = (await run(generator, [prompt], Sampling(max_tokens=30, stop=(stop,)), [5]))[0]
    np.testing.assert_array_equal(got.ids_T, free.ids_T[: end + 1])
    assert not got.truncated


async def test_stop_strings_need_a_tokenizer(policy):
    with pytest.raises(PolicyError, match=r"set generator\.decode"):
        await run(never_stops(policy), encoded(policy)[:1], Sampling(max_tokens=3, stop=("x",)))


async def test_the_context_is_filled_to_its_last_token_and_no_further(policy):
    generator, prompt = never_stops(policy, context=32), policy.renderer.encode("the cat sat on the mat. ")[:10]
    got = (await run(generator, [prompt], Sampling(max_tokens=100)))[0]
    assert (len(prompt) + len(got.ids_T), got.truncated) == (32, True)
    same(got, (await run(never_stops(policy), [prompt], Sampling(max_tokens=32 - len(prompt))))[0])


@pytest.mark.parametrize("length", [0, 32, 40])
async def test_a_prompt_that_leaves_no_room_is_refused(policy, length):
    with pytest.raises(PolicyError, match=f"a prompt of {length} tokens; 1 to 31"):
        await never_stops(policy, context=32).submit(np.ones(length, np.int32), GREEDY, 0)


def test_a_context_is_no_longer_than_the_model_s(policy):
    assert never_stops(policy, context=9999).context == 512


# -- when things go wrong ------------------------------------------------------------------------------------------


async def test_a_cancelled_request_gives_its_slot_back(policy):
    generator, prompts = never_stops(policy, slots=2), encoded(policy)
    tasks = [asyncio.create_task(generator.submit(p, Sampling(max_tokens=400), i)) for i, p in enumerate(prompts[:3])]
    while generator.counters.steps < 3:
        await asyncio.sleep(0)
    for task in tasks:  # two are being decoded, one waits
        task.cancel()
    got = await run(generator, prompts[3:], GREEDY)
    assert all(task.cancelled() for task in tasks)
    for prompt, mine in zip(prompts[3:], got, strict=True):
        same(mine, (await run(never_stops(policy), [prompt], GREEDY))[0])
    assert generator.counters.sampled < 100


async def test_a_failing_model_fails_its_requests_and_the_decoder_lives_on(policy, monkeypatch):
    generator, forward, calls = never_stops(policy, slots=3), Generator._forward, []

    def failing(self, *arguments):
        calls.append(1)
        if len(calls) == 3:
            raise RuntimeError("out of memory")
        return forward(self, *arguments)

    monkeypatch.setattr(Generator, "_forward", failing)
    prompts = encoded(policy)
    results = await asyncio.gather(*(generator.submit(p, GREEDY, 0) for p in prompts), return_exceptions=True)
    assert all(isinstance(r, PolicyError) and "out of memory" in str(r) for r in results)
    for prompt, mine in zip(prompts, await run(generator, prompts, GREEDY), strict=True):
        same(mine, (await run(never_stops(policy), [prompt], GREEDY))[0])


@pytest.mark.parametrize(
    ("config", "problem"),
    [
        (MistralConfig(**SIZE, sliding_window=8), "9 tokens, and the model looks back 8"),
        (Gemma2Config(**SIZE, head_dim=8), "softcap"),
    ],
    ids=["window", "softcap"],
)
async def test_attention_that_it_cannot_compute_is_refused(config, problem):
    model = AutoModelForCausalLM.from_config(config).eval()
    with pytest.raises(PolicyError, match=problem):
        await run(Generator(model, frozenset()), [np.arange(6, dtype=np.int32)], GREEDY)


async def test_a_model_that_gives_nan_is_an_error_not_an_answer(policy):
    with torch.no_grad():
        policy.model.get_input_embeddings().weight[5:9] = torch.nan
    for sampling in (GREEDY, Sampling(), Sampling(top_p=0.5)):
        with pytest.raises(PolicyError, match="logits are NaN"):
            await policy.generator.submit(np.array([5, 6], np.int32), sampling, 0)


def test_it_serves_one_event_loop_after_another(policy):
    generator, prompt = never_stops(policy), encoded(policy)[0]

    async def abandon() -> None:  # leaves while its request is being decoded
        task = asyncio.ensure_future(generator.submit(prompt, Sampling(max_tokens=400), 0))
        while generator.counters.steps < 3:
            await asyncio.sleep(0)
        assert not task.done()

    asyncio.run(abandon())
    again = asyncio.run(generator.submit(prompt, GREEDY, 0))
    same(again, asyncio.run(never_stops(policy).submit(prompt, GREEDY, 0)))


# -- drawing -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (0.7, 1.0), (1.0, 0.8)])
def test_draws_follow_the_distribution(temperature, top_p):
    V, draws = 600, 20_000  # three blocks of the two-level search
    rng = np.random.default_rng(0)
    logits = torch.from_numpy(rng.normal(0, 2, V)).float()
    logits[torch.from_numpy(rng.permutation(V)[:300])] = -torch.inf
    p = (logits.double() / temperature).softmax(0)
    if top_p < 1:
        order = p.argsort(descending=True)
        cut = int((p[order].cumsum(0) < top_p).sum()) + 1
        kept = torch.zeros(V, dtype=torch.bool)
        kept[order[:cut]] = True
        p = torch.where(kept, p, 0) / p[kept].sum()
    uniform_M = torch.from_numpy(rng.random(draws))
    ids_M, logprob_M = sample(logits.expand(draws, V), uniform_M, Sampling(temperature=temperature, top_p=top_p))
    counts = np.bincount(ids_M.numpy(), minlength=V)
    assert counts[p.numpy() == 0].sum() == 0
    wanted = p.numpy() * draws
    often = wanted > 5
    chi_square = ((counts - wanted)[often] ** 2 / wanted[often]).sum()
    freedom = torch.tensor(often.sum() - 1, dtype=torch.float64)
    p_value = torch.special.gammaincc(freedom / 2, torch.tensor(chi_square / 2))
    assert 0.001 < p_value < 0.999
    expected = (logits / temperature).log_softmax(0)[ids_M]
    torch.testing.assert_close(logprob_M, expected, atol=1e-5, rtol=0)


def test_a_token_of_no_probability_is_never_drawn_not_even_at_the_ends():
    V = 1000
    for kept in ([0], [255], [256], [999], [300, 700], [511, 512]):
        logits = torch.full((1, V), -torch.inf)
        logits[0, kept] = torch.rand(len(kept), generator=torch.Generator().manual_seed(0))
        uniform_M = torch.tensor([0.0, 1e-300, 0.5, 1 - 2**-53, np.nextafter(1, 0)], dtype=torch.float64)
        for top_p in (1.0, 0.9999):
            ids_M, _ = sample(logits.expand(5, V), uniform_M, Sampling(top_p=top_p))
            assert set(ids_M.tolist()) <= set(kept)
            assert ids_M[0] == kept[0]
            assert ids_M[-1] == kept[-1]


def test_top_p_keeps_the_token_that_crosses_the_line():
    logits = torch.tensor([[0.5, 0.3, 0.2]]).log()
    uniform_M = torch.linspace(0, 0.999, 50, dtype=torch.float64)
    drawn = lambda p: set(sample(logits.expand(50, 3), uniform_M, Sampling(top_p=p))[0].tolist())  # noqa: E731
    assert drawn(0.4) == {0}
    assert drawn(0.6) == {0, 1}
    assert drawn(0.9) == {0, 1, 2}


def test_min_p_keeps_exactly_what_reaches_its_share_of_the_likeliest():
    logits = torch.tensor([[0.5, 0.25, 0.2, 0.05]]).log()
    uniform_M = torch.linspace(0, 0.999, 200, dtype=torch.float64)
    drawn = lambda **s: set(sample(logits.expand(200, 4), uniform_M, Sampling(**s))[0].tolist())  # noqa: E731
    assert drawn(min_p=0.05) == {0, 1, 2, 3}
    assert drawn(min_p=0.3) == {0, 1, 2}
    assert drawn(min_p=0.499) == {0, 1}, "a token right at the line stays, but for rounding"
    assert drawn(min_p=0.41) == {0, 1}
    assert drawn(min_p=0.39) == {0, 1, 2}
    assert drawn(min_p=1.0) == {0}
    assert drawn(min_p=0.05, temperature=0.5) == {0, 1, 2}, "the shares are those of the tempered distribution"
    assert drawn(min_p=0.3, top_p=0.6) == {0, 1}
    _, logprob_M = sample(logits.expand(200, 4), uniform_M, Sampling(min_p=1.0))
    torch.testing.assert_close(logprob_M, logits[0, :1].expand(200), msg="recorded before the cut")
    with pytest.raises(PolicyError, match=r"min_p=1\.5"):
        Sampling(min_p=1.5)


def test_temperature_0_takes_the_likeliest():
    logits = torch.tensor([[0.0, 3.0, 1.0], [2.0, 0.0, 1.0]])
    ids_M, logprob_M = sample(logits, torch.tensor([0.999, 0.0], dtype=torch.float64), Sampling(temperature=0))
    assert ids_M.tolist() == [1, 0]
    torch.testing.assert_close(logprob_M, logits.log_softmax(-1).amax(-1))


# -- bias and grammar ----------------------------------------------------------------------------------------------

SCHEMA = {
    "type": "object",
    "properties": {"id": {"type": "string", "maxLength": 5}, "n": {"enum": [1, 2, True]}, "ok": {"type": "boolean"}},
    "required": ["id", "n"],
    "additionalProperties": False,
}
JSON = Grammar("json", json.dumps(SCHEMA))


async def test_a_bias_moves_what_is_drawn_and_the_policy_s_own_logprob_is_recorded(policy):
    prompt = encoded(policy)[0]
    free = (await run(never_stops(policy), [prompt] * 8, Sampling(max_tokens=8)))[0]
    assert free.own_T.all()
    never = {int(i): -math.inf for i in free.ids_T}
    got = await run(never_stops(policy), [prompt] * 8, Sampling(max_tokens=8, logit_bias=never))
    assert not set(np.concatenate([g.ids_T for g in got]).tolist()) & set(never)
    always = (await run(never_stops(policy), [prompt], Sampling(max_tokens=4, logit_bias={7: 1000.0})))[0]
    assert always.ids_T.tolist() == [7] * 4
    assert not always.own_T.any(), "the bias chose them"
    for g in (*got, always):
        (theirs,) = await policy.logprobs([np.concatenate([prompt, g.ids_T])], [len(prompt)])
        np.testing.assert_allclose(g.logprob_T, theirs, atol=1e-5)
    assert hash(Sampling(logit_bias={3: 1.0, 1: 2.0})) == hash(Sampling(logit_bias=((1, 2.0), (3, 1.0))))
    with pytest.raises(PolicyError, match="logit_bias names token 99999"):
        await run(policy.generator, [prompt], Sampling(logit_bias={99999: 1.0}))


async def test_a_token_is_the_policy_s_own_while_its_probability_stays_within_a_factor_of_two(policy):
    """Of 0.6, 0.3 and 0.1: without the last, the first is 0.67; without the first, the second is 0.75."""
    generator, logits = never_stops(policy), torch.tensor([[0.6, 0.3, 0.1]]).log()

    def own(bias):
        request = _Request(np.zeros(1), Sampling(2, 0, logit_bias=bias), np.random.default_rng(0), Future())
        generator._slots[0].request = request
        generator._sample([0], logits)
        return request.ids, request.own

    assert own({2: -math.inf}) == ([0], [True])
    assert own({0: -math.inf}) == ([1], [False])


@pytest.mark.parametrize("temperature", [0.0, 1.0, 3.0])
async def test_every_answer_under_a_schema_is_valid(policy, temperature):
    pytest.importorskip("llguidance")
    got = await run(policy.generator, encoded(policy) * 4, Sampling(200, temperature, grammar=JSON))
    whole = [policy.renderer.decode(g.ids_T[:-1]) for g in got if not g.truncated]
    assert len(whole) >= 15
    for text in whole:
        jsonschema.validate(json.loads(text), SCHEMA)
    assert all(g.ids_T[-1] in policy.renderer.stop_ids for g in got if not g.truncated)
    assert not all(g.own_T.all() for g in got), "an untrained model would have said something else"


async def test_a_grammar_decides_where_an_answer_may_stop(policy):
    pytest.importorskip("llguidance")
    sampling = Sampling(60, 1.0, grammar=Grammar("regex", "(the|a) cat{3}"), logit_bias={2: 50.0})
    for got in await run(policy.generator, encoded(policy), sampling):  # the bias would stop it at once
        assert policy.renderer.decode(got.ids_T) in ("the cattt<|im_end|>", "a cattt<|im_end|>")
    lark = Sampling(60, 1.0, grammar=Grammar("lark", 'start: "a" b+\nb: "b" | "c"'))
    text = policy.renderer.decode((await run(policy.generator, encoded(policy)[:1], lark))[0].ids_T)
    assert re.fullmatch(r"a[bc]+(<\|im_end\|>)?", text)


async def test_a_grammar_draws_the_same_whatever_else_is_in_the_batch(policy):
    pytest.importorskip("llguidance")
    prompts, seeds, sampling = encoded(policy), range(5), Sampling(40, grammar=JSON)
    together = await asyncio.gather(
        run(policy.generator, prompts, sampling, seeds), run(policy.generator, prompts, Sampling(30, min_p=0.1))
    )
    for prompt, seed, got in zip(prompts, seeds, together[0], strict=True):
        same(got, (await run(fresh_with_grammars(policy), [prompt], sampling, [seed]))[0])


@pytest.mark.parametrize(
    ("kind", "text"), [("json", "{nope"), ("json", '{"type": "objec"}'), ("regex", "(a"), ("lark", "start: x")]
)
async def test_a_grammar_that_cannot_be_read_is_refused_and_harms_no_other(policy, kind, text):
    pytest.importorskip("llguidance")
    other = asyncio.create_task(policy.generator.submit(encoded(policy)[0], Sampling(5), 0))
    await asyncio.sleep(0)
    with pytest.raises(PolicyError, match=f"the {kind} grammar cannot be read: "):
        await run(policy.generator, encoded(policy)[1:2], Sampling(grammar=Grammar(kind, text)))
    assert len((await other).ids_T)


async def test_a_grammar_without_its_package_says_what_to_install(policy, monkeypatch):
    monkeypatch.setitem(sys.modules, "llguidance", None)
    with pytest.raises(MissingExtra, match=r"pip install 'etude\[grammar\]'"):
        await run(policy.generator, encoded(policy)[:1], Sampling(grammar=JSON))
    with pytest.raises(PolicyError, match="did you mean 'json'"):
        Grammar("jsn")
