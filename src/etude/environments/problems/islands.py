"""A map of {rows} by {columns} fields: how many islands are there? Fields of land that share a side belong together."""

KIND = "graph"


def inputs(rng, size):
    rows, columns = 2, size
    return {
        "map": [[rng.choice(["land", "sea"]) for _ in range(columns)] for _ in range(rows)],
        "rows": rows,
        "columns": columns,
    }


def answer(map: list[list[str]], rows: int, columns: int) -> int:
    land = {(i, j) for i in range(rows) for j in range(columns) if map[i][j] == "land"}
    islands = 0
    while land:
        islands += 1
        shore = [land.pop()]
        while shore:
            i, j = shore.pop()
            near = {(i + 1, j), (i - 1, j), (i, j + 1), (i, j - 1)} & land
            land -= near
            shore += near
    return islands
