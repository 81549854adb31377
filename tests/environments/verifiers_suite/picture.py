"""A prompt of several messages, one with an image."""

import verifiers.v1 as vf

__all__ = ["Pictures"]

DOT = "data:image/gif;base64,R0lGODlhAQABAAAAACwAAAAAAQABAAA="


class Name(vf.Task[vf.TaskData, vf.State, vf.TaskConfig]):
    @vf.reward
    async def named(self, trace) -> float:
        return float("dot" in trace.last_reply)


class Pictures(vf.Taskset[Name, vf.TasksetConfig]):
    def load(self):
        parts = [{"type": "text", "text": "What is this?"}, {"type": "image_url", "image_url": {"url": DOT}}]
        prompt = [
            vf.UserMessage(content="Hello."),
            vf.AssistantMessage(content="Show me a picture."),
            vf.UserMessage(content=parts),
        ]
        yield Name(vf.TaskData(prompt=prompt), self.config.task)
