"""Two seats."""

import verifiers.v1 as vf

__all__ = ["Pair", "Words"]


class Say(vf.Task[vf.TaskData, vf.State, vf.TaskConfig]):
    pass


class Seats(vf.EnvConfig):
    first: vf.AgentConfig = vf.AgentConfig()
    second: vf.AgentConfig = vf.AgentConfig()


class Pair(vf.Env[Seats]):
    async def run(self, task, agents):
        await agents.first.run(task)
        await agents.second.run(task)


class Words(vf.Taskset[Say, vf.TasksetConfig]):
    def load(self):
        yield Say(vf.TaskData(prompt="Say a word."), self.config.task)
