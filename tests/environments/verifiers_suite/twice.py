"""One seat that is asked twice, from the beginning."""

import verifiers.v1 as vf

__all__ = ["Twice", "Words"]


class Say(vf.Task[vf.TaskData, vf.State, vf.TaskConfig]):
    pass


class Twice(vf.Env[vf.SingleAgentEnvConfig]):
    async def run(self, task, agents):
        await agents.agent.run(task)
        await agents.agent.run(task)


class Words(vf.Taskset[Say, vf.TasksetConfig]):
    def load(self):
        yield Say(vf.TaskData(prompt="Say a word."), self.config.task)
