"""The stages on a world of one's own that has three tasks: ids, preflight, timings."""

import json
import shutil
from pathlib import Path

import pytest

import etude
from etude.apps.work import Work
from etude.core.errors import PreflightError, RecipeError
from etude.training.evolution import Evolution
from etude.trajectory.store import Store

from ..engine_fixtures import tiny_model_directory  # noqa: F401

HEAD = """
policy: {{local: {{model: {model}, context: 500}}}}
evaluate: {{tasks: 0}}
stages:
"""


@etude.tool
def put(state: dict, on: str) -> str:
    """Put it there."""
    state["on"] = on
    return "done"


def small_world(reward: float = 0.0):
    """reward: of an episode that was not solved."""
    rows = [{"id": on, "prompt": f"Put it on the {on}.", "split": "train", "on": on} for on in ("mat", "cat", "hat")]
    return etude.world(
        name="small",
        tools=[put],
        tasks=rows,
        setup=lambda row: {"on": ""},
        score=lambda state, answer, row: 1.0 if state["on"] == row["on"] else reward,
        solve=lambda row: [etude.ToolCall("put", {"on": row["on"]}), "Done."],
    )


@pytest.fixture
def run(tmp_path: Path, tiny_model_directory, monkeypatch):  # noqa: F811
    """Called with stages and a world: the run's directory."""
    monkeypatch.setenv("ETUDE_QUIET", "1")

    def start(*stages: str, world=None) -> Path:
        recipe = tmp_path / "small.yaml"
        recipe.write_text(HEAD.format(model=tiny_model_directory) + "".join(f"  - {stage}\n" for stage in stages))
        return etude.run(str(recipe), out=str(tmp_path / "run"), environment=world or small_world()).path

    return start


def lines(path: Path, name: str) -> list[dict]:
    return [json.loads(line) for line in (path / name).read_text().splitlines()]


def test_more_episodes_than_tasks_train(run):
    path = run(
        "collect: {by: expert, episodes: 8}",
        "collect: {by: expert, episodes: 4, group: 2}",
        "collect: {by: policy, episodes: 8, max_tokens: 4, max_turns: 1, keep: false}",
        "train: {batch: 4}",
        "practise: {steps: 1, tasks: 5, group: 2, scoring: [{length: {budget: 4}}], max_tokens: 8, max_turns: 1}",
    )
    store, made = Store(path / "trajectories"), {}
    for key in store.keys():  # noqa: SIM118 (a store is no mapping)
        made[key] = list(store.read([key]))
        assert len({t.id for t in made[key]}) == len(made[key])
    solved, paired, played, practised = made.values()
    assert [len(t.episodes) for t in (*solved, *played)] == [1] * 16
    assert all(e.reward == 1.0 for t in (*solved, *paired) for e in t.episodes)
    assert [len(t.episodes) for t in (*paired, *practised)] == [2] * 7
    assert sum(t.id.endswith("~2") for t in solved) == len({t.task for t in solved}) == 3
    assert [row["rows"] for row in lines(path, "metrics.jsonl") if row["stage"] == "03-train"] == [4, 4, 4]


def test_each_step_says_how_long_it_took(run):
    path = run(
        "collect: {by: policy, episodes: 3, max_tokens: 4, max_turns: 1, keep: false}",
        "collect: {by: expert, episodes: 3}",
        "train: {batch: 2, epochs: 2}",
        "practise: {steps: 2, tasks: 2, group: 2, max_tokens: 4, max_turns: 1}",
        "iterate: {rounds: 2, tasks: 2, group: 1, keep: [], max_tokens: 4, max_turns: 1, allow: [truncated]}",
    )
    timings, metrics = lines(path, "timings.jsonl"), lines(path, "metrics.jsonl")
    steps = [(row["stage"], row["step"]) for row in metrics]
    assert [(row["stage"], row["step"]) for row in timings] == [("00-collect", 1), ("01-collect", 1), *steps]
    assert steps == [(f"{n:02d}-{stage}", i) for n, stage, count in STEPS for i in range(1, count + 1)]
    tokens = {f"tokens_{of}" for of in ("prefilled", "reused", "sampled", "trained", "computed")}
    spans = {f"seconds_{on}" for on in ("decoding", "waiting", "computing", "moving", "saving")}
    counted = {"decoding_steps", "optimiser_steps", *tokens, *spans}
    assert all(row.keys() == {"stage", "step", "seconds", *counted} for row in timings)
    assert all(sum(row[span] for span in spans) <= row["seconds"] for row in timings)
    assert [row["optimiser_steps"] for row in timings] == [0, 0, *[1] * 6, 1, 1]
    assert all(row["tokens_trained"] <= row["tokens_computed"] for row in timings)
    assert [row["decoding_steps"] > 0 for row in timings] == [True, False, *[False] * 4, *[True] * 4]
    assert [row["seconds_decoding"] > 0 for row in timings] == [True, False, *[False] * 4, *[True] * 4]
    assert [row["tokens_sampled"] > 0 for row in timings] == [True, False, *[False] * 4, *[True] * 4]
    assert [row["tokens_trained"] for row in timings[2:6]] == [row["tokens"] for row in metrics[:4]]
    assert not any("seconds" in row for row in metrics)
    cost = json.loads((path / "state.json").read_text())["cost"]
    trained = sum(row["tokens_trained"] for row in timings if row["stage"] == "02-train")
    assert cost["02-train"]["tokens_trained"] == trained


STEPS = [(2, "train", 4), (3, "practise", 2), (4, "iterate", 2)]
CUT = "iterate: {{rounds: 2, tasks: 3, group: 2, max_tokens: 1, max_turns: 1{}}}"


def test_what_is_kept_of_the_first_round_is_checked_before_it_is_trained_on(run):
    with pytest.raises(PreflightError, match="are cut off"):
        run(CUT.format(""), world=small_world(reward=1.0))


def test_findings_in_what_is_kept_may_be_allowed(run):
    path = run(CUT.format(", allow: [truncated]"), world=small_world(reward=1.0))
    assert (path / "log.txt").read_text().count("samples pass") == 1
    assert [row["kept"] for row in lines(path, "metrics.jsonl")] == [3, 3]


def test_a_round_that_keeps_nothing_is_nothing_to_check(run):
    log = (run(CUT.format("")) / "log.txt").read_text()
    assert "samples pass" not in log


@pytest.mark.parametrize(
    ("credit", "told"),
    [
        ("group", "6 of 6 samples are in groups that carry no gradient\nsample 0, 1, 2, 3, 4, …: every weight of its"),
        ("outcome: {baseline: .nan}", "practise: no token of the first step has a weight"),
    ],
)
def test_practice_without_gradient_is_told_and_goes_on(run, credit, told):
    path = run(f"practise: {{steps: 2, tasks: 3, group: 2, credit: {{{credit}}}, max_tokens: 4, max_turns: 1}}")
    log = (path / "log.txt").read_text()
    assert log.count(told) == 1
    assert "refused" not in log
    assert [row["gradient_norm"] for row in lines(path, "metrics.jsonl")] == [0.0, 0.0]


def test_practice_tells_how_far_sampler_and_learner_are_apart(run):
    rows = lines(run("practise: {steps: 2, tasks: 2, group: 2, max_tokens: 4, max_turns: 1}"), "metrics.jsonl")
    assert all(0 <= row["sampler_kl"] < 1e-6 and 0 < row["sampler_gap_max"] < 1e-3 for row in rows)
    assert not any({"staleness", "sampler_truncated"} & row.keys() for row in rows)


def test_practice_may_play_ahead_of_training(run):
    settings = "steps: 4, tasks: 2, group: 2, scoring: [{length: {budget: 4}}], max_tokens: 8, max_turns: 1"
    path = run(f"practise: {{{settings}, lr: 0.01, ahead: 2, correction: truncate}}")
    rows = lines(path, "metrics.jsonl")
    assert [row["step"] for row in rows] == [1, 2, 3, 4]
    assert [row["staleness"] for row in rows[:3]] == [0, 1, 2]
    assert all(row["staleness"] <= 2 and "sampler_truncated" in row for row in rows)
    assert len(Store(path / "trajectories").keys()) == 4


@pytest.mark.parametrize("setting", ["ahead: 1", "ahead: 1, correction: recompute", "ahead: -1, correction: truncate"])
def test_practice_ahead_needs_the_correction(run, setting):
    with pytest.raises(RecipeError, match=r"practise\.ahead is -?1 with correction: .* correction: truncate"):
        run(f"practise: {{{setting}}}")


# -- preferences -----------------------------------------------------------------------------------------------------


def spoken_world():
    """Any answer is judged, by its first letter."""
    return etude.world(
        name="spoken",
        tools=[],
        tasks=[{"id": on, "prompt": f"Speak of the {on}.", "split": "train"} for on in ("mat", "cat", "hat")],
        score=lambda state, answer, row: ord(answer[0]) % 16 / 16 if answer else 0.0,
    )


PLAY = "collect: {by: policy, episodes: 24, group: 8, max_tokens: 30, max_turns: 1}"
TRAIN = "train: {{objective: {}, batch: 3, epochs: 8, lr: 3e-3, schedule: constant, warmup: 0{}}}"


@pytest.mark.parametrize("objective", ["preference", "{preference: {loss: simpo, beta: 2.0}}", "kto"])
def test_what_scored_better_in_its_group_becomes_likelier(run, objective):
    path = run(PLAY, TRAIN.format(objective, ", credit: preference"), world=spoken_world())
    steps = lines(path, "metrics.jsonl")
    assert [row["epoch"] for row in steps] == list(range(1, 9)), "a batch is three groups"
    assert len({row["rows"] for row in steps}) == 1
    assert 6 <= steps[0]["rows"] < 24, "neither best nor worst is left out"
    first, last = steps[0], steps[-1]
    assert last["loss"] < 0.9 * first["loss"]
    assert last["accuracy"] > 0.7 > first["accuracy"]
    if objective == "preference":
        assert first["margin"] == 0.0
        assert last["margin"] > 0.3


def test_an_objective_of_preferences_wants_weights(run):
    with pytest.raises(RecipeError, match=r"train.objective 'preference'.* set train.credit"):
        run(PLAY, TRAIN.format("preference", ""), world=spoken_world())


def test_groups_whose_scores_are_equal_are_refused(run):
    with pytest.raises(PreflightError, match="carry no gradient"):
        run(PLAY, TRAIN.format("preference", ", credit: preference"))


def test_credit_weighs_what_has_scores_and_the_rest_has_weight_one(run, tmp_path):
    chat = [{"role": "user", "content": "the mat"}, {"role": "assistant", "content": "the cat"}]
    (tmp_path / "chat.jsonl").write_text(json.dumps({"messages": chat}))
    path = run(
        f"import: {{files: [{tmp_path / 'chat.jsonl'}], format: openai}}",
        PLAY,
        TRAIN.format("likelihood", ", credit: {outcome: {baseline: .nan}}"),
        world=spoken_world(),
    )
    assert [row["rows"] for row in lines(path, "metrics.jsonl")] == [1] * 8


# -- which tasks are practised, and what counts ---------------------------------------------------------------------


def graded_world():
    """Six tasks in two domains; whatever is said earns by its first letter, but in domain `flat` always the same."""
    rows = [
        {"id": f"{domain}{i}", "prompt": f"Speak of {domain} {i}.", "split": "train", "domain": domain, "difficulty": i}
        for domain in ("flat", "steep")
        for i in range(3)
    ]
    return etude.world(
        name="graded",
        tools=[],
        tasks=rows,
        score=lambda state, answer, row: ord(answer[0]) % 16 / 16 if answer and row["domain"] == "steep" else 0.0,
    )


PRACTISE = "practise: {{steps: 2, tasks: 2, group: 4, max_tokens: 30, max_turns: 1{}}}"


def practised(path: Path) -> list[list[str]]:
    return [[t.task for t in Store(path / "trajectories").read([f"00-practise-{step:06d}"])] for step in (1, 2)]


def test_tasks_are_chosen_by_their_fields(run):
    path = run(PRACTISE.format(", where: {domain: [steep], difficulty: [0, 2]}"), world=graded_world())
    assert [sorted(step) for step in practised(path)] == [["steep0", "steep2"]] * 2
    shutil.rmtree(path)
    with pytest.raises(RecipeError, match="no field 'domian' to choose tasks by; did you mean 'domain'"):
        run(PRACTISE.format(", where: {domian: [steep]}"), world=graded_world())


def test_collecting_chooses_tasks_by_a_range_of_difficulty(run):
    stage = "collect: {{by: policy, episodes: 8, max_tokens: 4, max_turns: 1, where: {}}}"
    path = run(stage.format("{domain: [flat], difficulty: {least: 1}}"), world=graded_world())
    store = Store(path / "trajectories")
    played = {trajectory.task for key in store.keys() for trajectory in store.read([key])}  # noqa: SIM118
    assert played == {"flat1", "flat2"}
    shutil.rmtree(path)
    with pytest.raises(RecipeError, match=r"where.domain is .*only difficulty may be given"):
        run(stage.format("{domain: {least: 1}}"), world=graded_world())


def test_tasks_of_the_data_alone(run):
    path = run(
        "collect: {by: policy, episodes: 24, group: 4, max_tokens: 30, max_turns: 1}",
        "curate: {keep: [{pass_rate: {at_least: 0.5}}]}",
        PRACTISE.format(", from_data: true"),
        world=graded_world(),
    )
    store = Store(path / "trajectories")
    steps = [[t.task for t in store.read([key])] for key in store.keys() if "practise" in key]  # noqa: SIM118
    assert len(steps) == 2
    assert all(task.startswith("steep") for step in steps for task in step), "a flat task is never solved"


@pytest.mark.exact(124)
def test_groups_without_signal_are_drawn_again_within_a_bound(run):
    path = run(PRACTISE.format(""), world=graded_world())
    assert any(task.startswith("flat") for step in practised(path) for task in step)
    shutil.rmtree(path)
    path = run(PRACTISE.format(", redraw: 9"), world=graded_world())
    assert all(len(step) == 2 and all(task.startswith("steep") for task in step) for step in practised(path))
    assert [row["groups_with_gradient"] for row in lines(path, "metrics.jsonl")] == [2, 2]
    shutil.rmtree(path)
    path = run(PRACTISE.format(", redraw: 2, where: {domain: [flat]}"), world=graded_world())
    assert [row["groups_with_gradient"] for row in lines(path, "metrics.jsonl")] == [0, 0]


def test_what_was_cut_may_be_left_unscored(run):
    path = run(PRACTISE.format(", cut: unscored").replace("30", "1"), world=graded_world())
    rows = lines(path, "metrics.jsonl")
    assert [row["tokens"] for row in rows] == [0, 0]
    assert all("score" not in row for row in rows)


@pytest.mark.exact(119)
def test_a_temperature_is_found_for_an_entropy_and_kept(run):
    path = run(PRACTISE.format(", entropy: 1.0"), world=graded_world())
    found = json.loads((path / "00-practise-temperature.json").read_text())
    assert f"temperature {found:.3f} for an entropy of 1 nats" in (path / "log.txt").read_text()
    assert 0.05 < found < 1.0, "an untrained model is far more random than that at temperature 1"


@pytest.mark.exact(104)
def test_evolution_is_a_stage_that_goes_on_where_it_was_killed(run, monkeypatch):
    options = "steps: 3, population: 3, tasks: 2, sigma: 0.1, lr: 0.1, max_tokens: 8, max_turns: 1"
    stage = f"evolve_weights: {{{options}, checkpoint_seconds: 0}}"
    whole = run(stage, world=graded_world())
    rows, model = lines(whole, "metrics.jsonl"), (whole / "model" / "model.safetensors").read_bytes()
    assert [row["episodes"] for row in rows] == [6, 6, 6]
    update, calls = Evolution.update, []

    def killed(self, seeds, scores):
        calls.append(seeds)
        if len(calls) == 3:
            raise KeyboardInterrupt
        update(self, seeds, scores)

    monkeypatch.setattr(Evolution, "update", killed)
    shutil.rmtree(whole)
    with pytest.raises(KeyboardInterrupt):
        run(stage, world=graded_world())
    monkeypatch.setattr(Evolution, "update", update)
    again = run(stage, world=graded_world())
    assert lines(again, "metrics.jsonl") == rows
    assert (again / "model" / "model.safetensors").read_bytes() == model


def test_branches_are_added_to_the_data_and_branched_no_further(run):
    path = run(
        "collect: {by: expert, episodes: 3}",
        "branch: {by: expert}",
        "branch: {by: policy, turns: 1, group: 2, max_tokens: 4}",
    )
    store = Store(path / "trajectories")
    solved, without, after = (list(store.read([key])) for key in store.keys())  # noqa: SIM118 (a store is no mapping)
    assert [t.meta["without"] for t in without] == [0] * 3 + [1] * 3
    assert [t.episodes[0].reward for t in without] == [0.0] * 3 + [1.0] * 3
    assert [t.meta["start"] for t in after] == [0] * 3 + [1] * 3
    assert all(len(t.episodes) == 2 for t in after)
    assert {t.meta["origin"] for t in (*without, *after)} == {t.id for t in solved}


def test_a_branch_from_another_split_is_refused(run):
    with pytest.raises(RecipeError, match=r"is not in split 'test'; set branch\.split"):
        run("collect: {by: expert, episodes: 2}", "branch: {by: expert, split: test}")


def test_an_expert_may_slip_and_mend(run):
    path = run(
        "collect: {by: expert, episodes: 3, slips: 1.0}", "collect: {by: expert, episodes: 3, slips: 1.0, mend: true}"
    )
    store = Store(path / "trajectories")
    failed, mended = (list(store.read([key])) for key in store.keys())  # noqa: SIM118 (a store is no mapping)
    assert [t.episodes[0].reward for t in failed] == [0.0] * 3
    assert [(t.episodes[0].reward, t.episodes[0].turns) for t in mended] == [(1.0, 3)] * 3


JUDGE = '{verdict: {policy: {local: {model: "aside:judge", context: 500}}, ask: Good, accepted: cat, rejected: mat}}'
SCORED = (
    "collect: {by: expert, episodes: 3}",
    "train: {batch: 3, lr: 1e-2}",
    "set_aside: {name: judge}",
    "collect: {by: expert, episodes: 3}",
    f"score: {{scoring: [environment, {JUDGE}]}}",
    "curate: {keep: [{success: {score: verdict, at_least: 0.0}}]}",
)


def weights_of(path: Path):
    return (path / "model.safetensors").read_bytes()


def test_a_judge_is_taught_set_aside_and_asked_in_one_run(run, tiny_model_directory):  # noqa: F811
    path = run(*SCORED)
    state = json.loads((path / "state.json").read_text())
    assert state["checkpoint"] == ""  # the base again
    assert weights_of(path / "aside" / "judge") != weights_of(tiny_model_directory)
    assert not (path / "model").exists()  # nothing was trained since
    store = Store(path / "trajectories")
    _, given, scored, kept = (list(store.read([key])) for key in store.keys())  # noqa: SIM118 (a store is no mapping)
    assert [e.scores for t in given for e in t.episodes] == [{}] * 3
    assert [t.id for t in scored] == [t.id for t in given] == [t.id for t in kept]
    for episode in (e for t in scored for e in t.episodes):
        assert episode.scores.keys() == {"environment", "verdict"}
        assert episode.score == pytest.approx(1.0 + episode.scores["verdict"])
        assert episode.scores["verdict"] not in (0.0, 0.5, 1.0)
    assert state["data"] == ["05-curate"]


def test_a_run_that_is_killed_after_a_model_was_set_aside_goes_on_with_the_base(run, monkeypatch):
    stages = (*SCORED[:3], "collect: {by: policy, episodes: 4, max_tokens: 6, max_turns: 1}")
    whole = run(*stages)
    key = "03-collect"
    said = [t.messages[-1].content for t in Store(whole / "trajectories").read([key])]
    shutil.rmtree(whole)

    play, calls = Work.play, []

    async def killed(self, *args, **how):
        calls.append(self.name)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return await play(self, *args, **how)

    monkeypatch.setattr(Work, "play", killed)
    with pytest.raises(KeyboardInterrupt):
        run(*stages)
    monkeypatch.setattr(Work, "play", play)
    path = run(*stages)
    assert "going on" in (path / "log.txt").read_text()
    assert [t.messages[-1].content for t in Store(path / "trajectories").read([key])] == said


def test_a_judge_that_nobody_set_aside_is_named(run):
    with pytest.raises(RecipeError, match=r"model 'aside:judge' was not kept.*set_aside: \{name: judge\}"):
        run(SCORED[0], SCORED[4])
