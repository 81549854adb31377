"""Rows of every format: `PLAIN` as its own exporter writes them, `ODD` with what real logs add to that."""

import json
from typing import Any

SEARCH = {
    "name": "search",
    "description": "Look something up.",
    "parameters": {"type": "object", "properties": {"query": {"type": "string"}}, "required": ["query"]},
}
OPENAI_TOOLS = [{"type": "function", "function": SEARCH}]
PIXEL = "data:image/png;base64,iVBORw0KGgo="


def normal(value: Any) -> str:
    """JSON text in which equal rows are equal: 1.0 is 1, but true is not."""
    numbers = json.loads(json.dumps(value), parse_float=lambda x: int(float(x)) if float(x).is_integer() else float(x))
    return json.dumps(numbers, sort_keys=True)


def openai_call(arguments: str | dict, **more: Any) -> dict[str, Any]:
    return {"id": "call_a", "type": "function", "function": {"name": "search", "arguments": arguments}} | more


def chat(arguments: str | dict, empty: str | None) -> dict[str, Any]:
    return {
        "id": "height",
        "messages": [
            {"role": "system", "content": "Use the tools."},
            {"role": "user", "content": "How high is the Zugspitze?"},
            {
                "role": "assistant",
                "content": empty,
                "reasoning_content": "I should look.",
                "tool_calls": [openai_call(arguments)],
            },
            {"role": "tool", "content": "2962 m", "tool_call_id": "call_a"},
            {"role": "assistant", "content": "2962 m"},
        ],
        "tools": OPENAI_TOOLS,
        "reward": 1.0,
    }


PLAIN: dict[str, list[dict[str, Any]]] = {
    "openai": [
        chat('{"query": "Zugspitze"}', None),
        {
            "id": "picture",
            "task": "pictures",
            "messages": [
                {
                    "role": "user",
                    "content": [{"type": "text", "text": "What?"}, {"type": "image_url", "image_url": {"url": PIXEL}}],
                },
                {"role": "assistant", "content": "A pixel."},
            ],
            "score": 0.5,
        },
    ],
    "messages": [chat({"query": "Zugspitze"}, "")],
    "sharegpt": [
        {
            "id": "height",
            "conversations": [
                {"from": "system", "value": "Use the tools."},
                {"from": "human", "value": "How high is the Zugspitze?"},
                {
                    "from": "function_call",
                    "value": "<think>\nI should look.\n</think>\n\n"
                    '{"name": "search", "arguments": {"query": "Zugspitze"}}',
                },
                {"from": "observation", "value": "2962 m"},
                {"from": "gpt", "value": "2962 m"},
            ],
            "tools": '[{"name": "search", "description": "d", "parameters": {"type": "object"}}]',
        },
        {
            "id": "two",
            "conversations": [
                {"from": "human", "value": "Both?"},
                {
                    "from": "gpt",
                    "value": 'Looking.\n<tool_call>\n{"name": "search", "arguments": {"query": "a"}}\n</tool_call>'
                    '\n<tool_call>\n{"name": "search", "arguments": {"query": "b"}}\n</tool_call>',
                },
                {"from": "observation", "value": "1"},
                {"from": "observation", "value": "2"},
                {"from": "gpt", "value": "1 and 2"},
            ],
        },
    ],
    "adp": [
        {
            "schema_version": "1.3.1",
            "id": "height",
            "content": [
                {"class_": "text_observation", "content": "How high is it?", "name": None, "source": "user"},
                {
                    "tool_call_id": "call_000001",
                    "class_": "api_action",
                    "function": "search",
                    "kwargs": {"query": "Zugspitze"},
                    "description": "I should look.",
                },
                {
                    "tool_call_id": "call_000001",
                    "class_": "text_observation",
                    "content": "2962 m",
                    "name": None,
                    "source": "environment",
                    "reward": 0.25,
                },
                {
                    "tool_call_id": "call_000002",
                    "class_": "code_action",
                    "language": "python",
                    "content": "print(2962 / 1000)",
                    "description": None,
                },
                {
                    "tool_call_id": "call_000002",
                    "class_": "text_observation",
                    "content": "2.962",
                    "name": None,
                    "source": "environment",
                },
                {"class_": "message_action", "content": "2.962 km", "description": "Done."},
            ],
            "details": {"dataset": "peaks", "reward": 1.0},
        }
    ],
    "actionstudio": [
        {
            "trajectory_id": "height",
            "task_instruction": "Use the tools.",
            "format": "Answer in JSON.",
            "few_shot": [],
            "tools": [SEARCH],
            "query": "How high is the Zugspitze?",
            "steps": [
                {
                    "step_id": 1,
                    "thought": "I should look.",
                    "tool_calls": [{"name": "search", "arguments": {"query": "Zugspitze"}}],
                    "next_observation": "2962 m",
                    "user_input": "",
                },
                {"step_id": 2, "thought": "2962 m", "tool_calls": [], "next_observation": "", "user_input": "And now?"},
                {"step_id": 3, "thought": "Still.", "tool_calls": [], "next_observation": "", "user_input": ""},
            ],
            "reward": 1.0,
        },
        {
            "trajectory_id": "short",
            "task": "peaks",
            "task_instruction": "",
            "format": "",
            "few_shot": [],
            "tools": [],
            "query": "Count.",
            "steps": [
                {
                    "step_id": 1,
                    "thought": "Both at once.",
                    "tool_calls": [{"name": "count", "arguments": {"upto": 2}}],
                    "next_observation": "1, 2",
                    "user_input": "",
                },
                {"step_id": 2, "thought": "2", "tool_calls": [], "next_observation": "", "user_input": ""},
            ],
        },
    ],
    "react": [
        {
            "id": "height",
            "instruction": "How high is the Zugspitze?",
            "input": "",
            "output": "Thought: I should look.\nAction: search[Zugspitze]\nObservation: 2962 m\n"
            "Thought: That is it.\nAction: finish[2962 m]\nObservation: Episode finished, reward = 1",
        },
        {
            "id": "cot",
            "instruction": "Two and two?",
            "input": "",
            "output": "Thought: Four.\nAction: finish[4]\nObservation: Episode finished, reward = 0",
        },
    ],
    "codeact": [
        {
            "id": "height",
            "conversations": [
                {"role": "system", "content": "Use the tools."},
                {"role": "user", "content": "How high is the Zugspitze?"},
                {"role": "assistant", "content": "I should look.\n<execute>\nsearch(query='Zugspitze')\n</execute>"},
                {"role": "user", "content": "Observation:\n2962 m"},
                {"role": "assistant", "content": "In km:\n<execute>\nh = 2962\nprint(h / 1000)\n</execute>"},
                {"role": "user", "content": "Observation:\n2.962"},
                {"role": "assistant", "content": "The answer is <solution> 2.962 </solution>."},
            ],
        }
    ],
}

ODD: dict[str, list[dict[str, Any]]] = {
    "openai": [
        {  # a refusal field, ids of other types, spaced arguments, a legacy call, a developer, extra keys everywhere
            "id": 17,
            "source": {"name": "toolbench", "license": None},
            "messages": [
                {"role": "developer", "content": "Be brief.", "name": "boss"},
                {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
                {
                    "role": "assistant",
                    "content": "",
                    "refusal": None,
                    "function_call": {"name": "search", "arguments": '{ "query" : "x" }'},
                },
                {"role": "function", "name": "search", "content": "1"},
                {"role": "assistant", "content": "1", "tool_calls": [], "weight": True},
            ],
            "functions": [SEARCH],
            "success": True,
        },
        {
            "messages": [
                {"role": "user", "content": "go"},
                {"role": "assistant", "tool_calls": [{"function": {"name": "search", "arguments": ""}}]},
            ],
            "tools": [{"type": "function", "function": SEARCH, "strict": True}],
            "score": "high",
        },
    ],
    "messages": [
        {
            "prompt_id": "p1",
            "messages": [
                {"role": "user", "content": "go", "thinking": None},
                {
                    "role": "assistant",
                    "content": None,
                    "thinking": "hm",
                    "tool_calls": [openai_call({"query": "x"}, index=0)],
                },
                {"role": "tool", "name": "search", "content": "1"},
            ],
        }
    ],
    "sharegpt": [
        {
            "system": "Use the tools.",
            "conversations": [
                {"from": "user", "value": "go", "weight": 0},
                {"from": "gpt", "value": '<tool_call>\n{"arguments": {"query": "x"}, "name": "search"}\n</tool_call>'},
                {"from": "tool", "value": "<tool_response>\n1\n</tool_response>"},
                {"from": "assistant", "value": "one", "loss": True},
            ],
            "tools": "",
        }
    ],
    "adp": [
        {  # the first released schema: no version, no call ids, a web page, two actions at once
            "id": "web",
            "content": [
                {"class_": "text_observation", "content": "Rules.", "source": "system"},
                {"class_": "text_observation", "content": "Book it.", "source": "user"},
                {
                    "class_": "api_action",
                    "function": "goto",
                    "kwargs": {"url": "https://a.example"},
                    "description": None,
                },
                {
                    "class_": "web_observation",
                    "html": "<p>hi</p>",
                    "axtree": "[1] hi",
                    "url": "https://a.example",
                    "image_observation": {
                        "class_": "image_observation",
                        "content": "shot.png",
                        "source": "environment",
                    },
                    "viewport_size": [1280, 720],
                },
                {"class_": "message_action", "content": "Clicking twice.", "description": None},
                {"class_": "api_action", "function": "click", "kwargs": {"id": 1}, "description": None},
                {"class_": "api_action", "function": "click", "kwargs": {"id": 2}, "description": None},
                {"class_": "text_observation", "content": "ok", "source": "environment"},
                {
                    "class_": "code_action",
                    "language": "bash",
                    "content": "ls",
                    "description": "Look.",
                    "reasoning_content": "Hm.",
                    "reward": None,
                },
            ],
            "details": {"site": {"name": "a"}, "tools": ["goto", "click"], "id": 4},
            "available_apis": ["goto", "click"],
        }
    ],
    "actionstudio": [
        {
            "unique_trajectory_id": "t-1",
            "task_instruction": "",
            "few_shot_examples": [],
            "query": "go",
            "tools": [],
            "steps": [
                {
                    "thought": "",
                    "tool_calls": [{"name": "a", "arguments": {}}, {"name": "b", "arguments": {"x": 1}}],
                    "step_id": 1,
                    "next_observation": [{"status": "ok"}, "plain"],
                    "user_input": "",
                }
            ],
        }
    ],
    "react": [
        {
            "instruction": "Which is higher?",
            "input": "A or B",
            "output": "Thought 1: Look.\nThought 1: Reflect.\nAction 1: search[A]\nObservation 1: line\nline\n"
            "Action 2: Finish[A]\nObservation 2: Answer is CORRECT",
        }
    ],
    "codeact": [
        {
            "id": "c",
            "conversations": [
                {"content": "Task:\nadd", "role": "user"},
                {"content": 'Hm.\n\n<execute> print("é") </execute>\n', "role": "assistant", "n": 1},
                {"content": "Observation:\né", "role": "user"},
                {"content": "So <execute> \nx = 1\n</execute>", "role": "assistant"},
                {"content": "Observation:\n", "role": "user"},
                {"content": "<execute>\nadd(a=1, b=(2, 3))\n</execute>", "role": "assistant"},
            ],
            "meta": None,
        }
    ],
}
