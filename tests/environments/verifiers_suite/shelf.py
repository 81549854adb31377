"""Tools over a state that the tasks set up and judge: order what is missing from a shelf. And one that fails."""

import verifiers.v1 as vf

__all__ = ["Shelves"]


class Goods(vf.State):
    have: dict[str, int] = {}  # noqa: RUF012
    ordered: list[tuple[str, int]] = []  # noqa: RUF012


class Data(vf.TaskData):
    item: str
    have: int
    want: int


class Shelf(vf.Toolset[vf.SharedToolsetConfig, Goods]):
    TOOL_PREFIX = None

    @vf.tool
    async def stock(self, item: str) -> int:
        """How many of an item are on the shelf."""
        return self.state.have[item]

    @vf.tool
    async def order(self, item: str, count: int) -> str:
        """Order some of an item."""
        self.state.ordered.append((item, count))
        return f"{count} of {item} ordered"


class Fill(vf.Task[Data, Goods, vf.TaskConfig]):
    async def setup(self, trace, runtime) -> None:
        trace.state.have = {self.data.item: self.data.have}

    @vf.stop
    async def enough(self, trace: vf.Trace) -> bool:
        return len(trace.state.ordered) >= 3

    @vf.reward
    async def filled(self, trace) -> float:
        if trace.last_reply == "break":
            raise ValueError("the judge broke")
        return float(trace.state.ordered == [(self.data.item, self.data.want - self.data.have)])


class Shelves(vf.Taskset[Fill, vf.TasksetConfig]):
    def load(self):
        for n in range(30):
            data = {"item": ("mug", "lamp", "book")[n % 3], "have": n % 4, "want": 5 + n}
            yield Fill(Data(prompt=f"There should be {data['want']} of {data['item']}.", **data), self.config.task)

    @classmethod
    def toolsets(cls, config):
        return [Shelf(vf.SharedToolsetConfig())]


if __name__ == "__main__":
    Shelf.run()
