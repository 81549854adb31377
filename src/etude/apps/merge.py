"""Merging: several models of one kind become one, a tensor at a time.

A model is never in memory as a whole: each tensor is read from every model, merged in float32, and let go. What is held
is that one tensor per model, and the file that is being filled.
"""

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from etude.core import parts
from etude.core.errors import MergeError, missing_extra
from etude.core.progress import progress
from etude.core.recipe import check_settings, part_of
from etude.core.rundir import atomic_write
from etude.policies.local import resolve
from etude.protocols import Merge

if TYPE_CHECKING:
    import torch

KEPT = ("config.json", "generation_config.json", "chat_template*", "tokenizer*", "special_tokens_map.json")
KEPT += ("added_tokens.json", "vocab.*", "merges.txt", "*.model")
"""Files of the base that the merged model gets as they are."""


def merge(
    models: Sequence[str],
    *,
    method: str | Mapping[str, Any],
    out: str,
    base: str | None = None,
    shard_gb: float = 5.0,
) -> dict[str, Any]:
    """Merge models into the directory `out`, which is complete or not there; returns what `out/merge.json` says.

    models: directories, run directories (their `model/`), GGUF files or short names, as `policies/local` takes them.
    method: a part of the shelf `weights/merge`, by its name or, with settings, as `{"ties": {"density": 0.3}}`.
    base: the model that all were tuned from. It gives the configuration, the tokenizer with its chat template, and the
        type of each tensor; without it the first model does.
    shard_gb: gigabytes that a file of weights holds at most, unless one tensor alone is larger.

    Raises MergeError when the models do not fit each other, a tensor is not finite, or `out` is there already;
    PartError for an unknown method or setting; PolicyError for a model that cannot be found; MissingExtra when torch
    is absent.
    """
    name, settings = part_of(method)
    path = f"weights/merge/{name.removeprefix('weights/merge/')}"
    combine: Merge = parts.build(path, **settings)
    check_settings(path, settings)
    if not models:
        raise MergeError("there are no models to merge; name one or more")
    target = Path(out)
    if target.exists():
        raise MergeError(f"{out!r} is there already; choose another directory with --out")
    merged = [Tensors(model) for model in models]
    first = Tensors(base) if base is not None else merged[0]
    _check_tensors(first, merged)
    notes = _check_tokenizers([first, *merged])

    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        with progress(len(first.names), "merge", "tensors") as advance:
            tensors = _combined(combine, first if base is not None else None, merged, advance)
            counted = _write(tensors, temporary, shard_gb * 1e9)
        for file in (file for pattern in KEPT for file in first.directory.glob(pattern) if file.is_file()):
            shutil.copyfile(file, temporary / file.name)
        what = {"method": path, "settings": settings, "base": base, "models": list(models)}
        record = {"out": out, **what, **counted, "notes": notes}
        atomic_write(temporary / "merge.json", json.dumps(record, indent=1, ensure_ascii=False) + "\n")
        os.replace(temporary, target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return record


class Tensors:
    """The weights of one model directory, each read when asked for."""

    def __init__(self, model: str) -> None:
        """Raises PolicyError or MergeError where no directory with safetensors is meant."""
        try:
            import torch  # noqa: F401 (safe_open and the methods need it)
            from safetensors import SafetensorError, safe_open
        except ImportError as error:
            raise missing_extra("local", error.name or "safetensors") from error
        run = (Path(model) / "run.yaml").is_file()
        self.model, self.directory = model, Path(resolve(f"{model}/model" if run else model))
        if not self.directory.is_dir():
            raise MergeError(f"no model at {str(self.directory)!r}; give the directory of one, downloaded before")
        index = self.directory / "model.safetensors.index.json"
        listed = json.loads(index.read_text(encoding="utf-8"))["weight_map"].values() if index.exists() else ()
        try:
            files = [safe_open(self.directory / name, "pt") for name in sorted({*listed}) or ["model.safetensors"]]
        except (OSError, SafetensorError) as error:
            raise MergeError(f"cannot read the weights of {model!r}: {error}") from None
        self._file = {name: file for file in files for name in file.keys()}  # noqa: SIM118 (not a mapping)
        self.names = list(self._file)

    def shape(self, name: str) -> list[int]:
        """Of one tensor, from the file's head."""
        return self._file[name].get_slice(name).get_shape()

    def read(self, name: str) -> "torch.Tensor":
        """One tensor, as it was saved."""
        return self._file[name].get_tensor(name)


def _check_tensors(first: Tensors, others: Sequence[Tensors]) -> None:
    for other in others:
        for one, two in ((first, other), (other, first)):
            alone = sorted({*one.names} - {*two.names})
            if alone:
                more = f" and {len(alone) - 1} more" if len(alone) > 1 else ""
                problem = f"{one.model!r} holds tensor {alone[0]!r}{more}, which {two.model!r} does not"
                raise MergeError(f"{problem}\nonly models of one architecture, saved alike, can be merged")
        for name in first.names:
            if first.shape(name) != other.shape(name):
                shapes = f"{first.shape(name)} in {first.model!r} and {other.shape(name)} in {other.model!r}"
                raise MergeError(f"tensor {name!r} is {shapes}\nonly models of one architecture and size can be merged")


def _check_tokenizers(models: Sequence[Tensors]) -> list[str]:
    """What a person should know of the tokenizers; a model saved without one is taken to have that of the others.

    Raises MergeError for vocabularies that differ.
    """
    from transformers import AutoTokenizer

    brought = [model for model in models if any(model.directory.glob("tokenizer*"))]
    tokenizers = [AutoTokenizer.from_pretrained(model.directory) for model in brought]
    notes = []
    for model, tokenizer in zip(brought[1:], tokenizers[1:], strict=True):
        mine, other = tokenizers[0].get_vocab(), tokenizer.get_vocab()
        differing = [token for token in {**mine, **other} if mine.get(token) != other.get(token)]
        if differing:
            token = differing[0]
            ids = f"{mine.get(token)} in {brought[0].model!r} and {other.get(token)} in {model.model!r}"
            problem = f"{len(differing)} tokens differ: {token!r} has id {ids}"
            raise MergeError(f"{problem}\nmodels with different tokenizers cannot be merged")
        if tokenizer.chat_template != tokenizers[0].chat_template:
            notes.append(f"{model.model!r} has another chat template than {brought[0].model!r}, whose template is kept")
    return list(dict.fromkeys(notes))


def _combined(
    combine: Merge, base: Tensors | None, models: Sequence[Tensors], advance: Callable[[], None]
) -> "Iterator[tuple[str, torch.Tensor]]":
    """Every merged tensor by name, in the order of the first model's files."""
    for name in (base or models[0]).names:
        yield name, _one(combine, base, models, name)
        advance()


def _one(combine: Merge, base: Tensors | None, models: Sequence[Tensors], name: str) -> "torch.Tensor":
    """A function of its own, so that what was read is let go before the next tensor."""
    import torch

    read = [(model.model, model.read(name)) for model in ([base, *models] if base else models)]
    like = read[0][1]
    if like.dtype not in (torch.float64, torch.float32, torch.float16, torch.bfloat16):  # buffers, or quantised weights
        for model, tensor in read:
            if not torch.equal(tensor, like):
                problem = f"tensor {name!r} is {like.dtype} and differs in {model!r}"
                raise MergeError(f"{problem}\nonly floating-point weights can be merged; undo the quantisation first")
        return like.clone()
    tensors = [_finite(tensor.float(), name, f"of {model!r}") for model, tensor in read]
    merged = combine(tensors[0], tensors[1:], name) if base else combine(None, tensors, name)
    return _finite(merged.to(like.dtype, copy=True), name, f"of the merged model, as {like.dtype},")


def _finite(tensor: "torch.Tensor", name: str, whose: str) -> "torch.Tensor":
    if not tensor.isfinite().all():
        raise MergeError(
            f"tensor {name!r} {whose} holds NaN or an infinity; leave the model out, or merge with less weight"
        )
    return tensor


def _write(tensors: "Iterator[tuple[str, torch.Tensor]]", folder: Path, limit: float) -> dict[str, int]:
    """Fill files of at most `limit` bytes, name them as transformers does, and count what they hold."""
    from safetensors.torch import save_file

    held: dict[str, torch.Tensor] = {}
    shards: list[list[str]] = []
    parameters = size = total = 0

    def flush() -> None:
        nonlocal size
        shards.append(list(held))
        save_file(held, folder / f"{len(shards)}.tmp", metadata={"format": "pt"})
        held.clear()
        size = 0

    for name, tensor in tensors:
        if held and size + tensor.nbytes > limit:
            flush()
        held[name] = tensor
        size, total, parameters = size + tensor.nbytes, total + tensor.nbytes, parameters + tensor.numel()
    flush()
    files = [f"model-{i + 1:05d}-of-{len(shards):05d}.safetensors" for i in range(len(shards))]
    if len(shards) == 1:
        files = ["model.safetensors"]
    else:
        weight_map = {name: file for file, names in zip(files, shards, strict=True) for name in names}
        index = {"metadata": {"total_size": total}, "weight_map": weight_map}
        atomic_write(folder / "model.safetensors.index.json", json.dumps(index, indent=1) + "\n")
    for i, file in enumerate(files):
        os.replace(folder / f"{i + 1}.tmp", folder / file)
    return {"tensors": sum(map(len, shards)), "parameters": parameters, "files": len(files)}
