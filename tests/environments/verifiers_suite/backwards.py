"""One turn and a weighted rubric: say a word backwards."""

import random

import verifiers.v1 as vf

__all__ = ["Backwards"]


class Settings(vf.TasksetConfig):
    letters: int = 4


class Data(vf.TaskData):
    answer: str


class Backward(vf.Task[Data, vf.State, vf.TaskConfig]):
    @vf.reward(weight=0.75)
    async def exact(self, trace) -> float:
        return float(trace.last_reply == self.data.answer)

    @vf.reward(weight=0.25)
    async def length(self, trace) -> float:
        return float(len(trace.last_reply) == len(self.data.answer))

    @vf.metric
    async def letters(self, trace) -> float:
        return len(trace.last_reply)


class Backwards(vf.Taskset[Backward, Settings]):
    def load(self):
        for n in range(60):
            word = "".join(random.Random(n).sample("abcdefghijklm", self.config.letters))
            data = Data(prompt=f"Say {word} backwards.", system_prompt="Answer with a word.", answer=word[::-1])
            yield Backward(data, self.config.task)
