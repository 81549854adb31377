"""tools/problem: what becomes a tool, what solves it, what is refused."""

import pytest

from etude.tools.problem import Mistake, Problem, Unsuitable, contains, respond

SHELF = '''
"""Where, from 0, does the shelf hold {title}?"""

def inputs(rng, size):
    return {"shelf": (names := rng.names(size + 4)), "title": names[-1]}

def swap(shelf, i: int, j: int) -> str:
    """swap two books

    More of it.
    """
    shelf[i], shelf[j] = shelf[j], shelf[i]
    return "swapped"

def answer(shelf: list[str], title: str) -> int:
    swap(shelf, 0, j=1)
    for i in range(len(shelf)):
        if shelf[i] == title:
            return i
'''


def test_the_syntax_tree_becomes_tools_and_a_solution():
    one = Problem(SHELF)
    assert [(tool["name"], tool["description"]) for tool in one.tools] == [
        ("swap", "swap two books"),
        ("count_shelf", "how many shelf"),
        ("get_shelf", "shelf at a position, from 0"),
    ]
    properties = [tool["parameters"]["properties"] for tool in one.tools]
    assert properties == [{"i": {"type": "integer"}, "j": {"type": "integer"}}, {}, {"position": {"type": "integer"}}]
    drawn = one.draw("a", 1)
    reads = [("get_shelf", {"position": i}) for i in range(5)]
    assert drawn["calls"] == [("swap", {"i": 0, "j": 1}), ("count_shelf", {}), *reads]
    assert drawn["question"] == f"Where, from 0, does the shelf hold {drawn['inputs']['title']}?"
    assert drawn["answer"] == "4"
    assert one.draw("a", 1) == drawn != one.draw("b", 1)


def test_calls_change_a_state_that_begins_anew_and_mistakes_are_told():
    one, inputs = Problem(SHELF), {"shelf": ["A", "B"], "title": "B"}
    first, swap = ("get_shelf", {"position": 0}), ("swap", {"i": 0, "j": 1})
    assert one.run(inputs, [first]) == "A"
    assert one.run(inputs, [swap, first]) == "B"
    assert inputs["shelf"] == ["A", "B"]
    for call, told in [(("get_shelf", {"position": -1}), "no position -1"), (("swap", {"i": 0, "j": 7}), "IndexError")]:
        with pytest.raises(Mistake, match=told):
            one.run(inputs, [call])


def test_tables_maps_and_dictionaries():
    one = Problem('''
"""?"""
def inputs(rng, size):
    return {"board": [[1, 2], [3, 4]], "home": {"a": "b"}}
def answer(board: list[list[int]], home: dict[str, str]) -> list:
    return [board[1][board[0][0]], home["a"]]
''')
    assert one.draw("", 1)["calls"] == [
        ("get_board", {"row": 0, "column": 0}),
        ("get_board", {"row": 1, "column": 1}),
        ("get_home", {"key": "a"}),
    ]


BODIES = {
    "reads 'row' whole": "return sorted(row)[0]",
    "slice of 'row'": "return row[1:][0]",
    "writes to it": "row[0] = 1\n    return row[1]",
    "too deep into 'row'": "return row[0][1][2]",
    "must be given the input 'row' itself": "return pick(row=[3], i=0) + row[0]",
}


@pytest.mark.parametrize("why", BODIES)
def test_what_cannot_be_hidden_is_refused(why):
    source = '"""?"""\ndef inputs(rng, size):\n    return {"row": [5, 6]}\n'
    source += 'def pick(row, i: int):\n    """pick"""\n    return row[i]\n'
    with pytest.raises(Unsuitable, match=why):
        Problem(f"{source}def answer(row: list[int]) -> int:\n    {BODIES[why]}\n")


def drawn(body: str, more: str = "", answer: str = "answer") -> None:
    source = '"""?"""\ndef inputs(rng, size):\n    return {"row": rng.sample(range(10, 99), 3)}\n'
    Problem(f"{source}def {answer}(row: list[int]):\n    {body}\n{more}").draw("", 3)


def test_draws_that_make_no_environment_are_refused():
    drawn("return row[0] + row[1]")
    with pytest.raises(Unsuitable, match="1 calls are enough"):
        drawn("return row[0] + 100")
    with pytest.raises(Unsuitable, match="contains the answer"):
        drawn("return max(row[0], row[1])")
    with pytest.raises(Unsuitable, match="answer fails: ZeroDivisionError"):
        drawn("return row[0] / 0")
    with pytest.raises(Unsuitable, match="has no function 'answer'"):
        drawn("return 1", answer="reply")
    with pytest.raises(Unsuitable, match="shows 'town', which is no argument"):
        Problem(
            '"""{town}?"""\ndef inputs(rng, size):\n    return {}\ndef answer(row: list[int]):\n    return row[0]\n'
        )


def test_every_solution_must_reach_the_answer_with_the_tools_alone():
    ask = 'def solve(call):\n    return sum(call("get_row", position=i) for i in range({}))\n'
    drawn("return row[0] + row[1]", ask.format(2))
    with pytest.raises(Unsuitable, match="solution 1 comes to"):
        drawn("return row[0] + row[1]", ask.format(3))
    tool = 'def add(row, i: int, j: int):\n    """add two"""\n    return row[i] + row[j]\n'
    whole = tool + 'def solve(call):\n    return call("add", i=0, j=1) + call("add", i=2, j=2) // 2\n'
    drawn("return sum(row)", whole)
    with pytest.raises(Unsuitable, match="reads 'row' whole"):
        drawn("return sum(row)", tool)


def test_containing_is_of_whole_words():
    assert contains("Ana, Bo and 3.", "3")
    assert contains("x Bo, Ana", "bo ana")
    assert not contains("Bo, 3, Ana", "Bo, Ana")
    assert not contains("13", "3")


def test_a_request_is_answered_also_where_the_file_is_broken():
    assert "does not load: SyntaxError" in respond("def", "x", [("about", {})])[0]["unsuitable"]
    told = respond(SHELF, "x", [("run", {"inputs": {"shelf": ["A"], "title": "A"}, "calls": [["count_shelf", {}]]})])
    assert told == [{"value": "1"}]
