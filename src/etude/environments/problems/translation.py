"""Translate word by word: {sentence}."""

KIND = "lookup"


def inputs(rng, size):
    meaning = rng.table(rng.names(size + 1))
    return {"meaning": meaning, "sentence": rng.sample(list(meaning), size)}


def answer(meaning: dict[str, str], sentence: list[str]) -> list[str]:
    return [meaning[word] for word in sentence]
