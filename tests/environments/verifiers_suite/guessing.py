"""Many turns, whose user is the environment's own code, and tasks without end: guess a number."""

import itertools
import random

import verifiers.v1 as vf

__all__ = ["Guessing", "Numbers"]


class Data(vf.TaskData):
    least: int


class Guess(vf.Task[Data, vf.State, vf.TaskConfig]):
    pass


class Seats(vf.EnvConfig):
    guesser: vf.AgentConfig = vf.AgentConfig()


class Guessing(vf.Env[Seats]):
    async def run(self, task, agents):
        number, tries = random.randint(task.data.least, task.data.least + 8), 0
        async with agents.guesser.interaction(task) as talk:
            said = await talk.turn()
            while not said.terminated:
                tries += 1
                if said.last_reply == str(number):
                    break
                less = said.last_reply.isdigit() and int(said.last_reply) > number
                said = await talk.turn("less" if less else "more")
        won = not said.terminated
        talk.trace.record_reward("won", 1 / tries if won else -0.5)


class Numbers(vf.Taskset[Guess, vf.TasksetConfig]):
    INFINITE = True

    def load(self):
        for n in itertools.count():
            yield Guess(Data(prompt=f"Guess a number from {n} to {n + 8}.", least=n), self.config.task)
