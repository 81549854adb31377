"""Who wrote the book {title}, and who printed it?"""

KIND = "lookup"


def inputs(rng, size):
    titles = rng.names(size)
    return {"author": rng.table(titles), "printer": rng.table(titles), "title": rng.choice(titles)}


def answer(author: dict[str, str], printer: dict[str, str], title: str) -> list[str]:
    return [author[title], printer[title]]
