"""Text encoders, and the two towers on texts."""

from __future__ import annotations

import dataclasses
import importlib.util
import shutil
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.feature_extraction.text import TfidfTransformer
from sklearn.preprocessing import normalize

from baselines.base import BASELINES, Dataset, Recipe, Split
from baselines.data.events import Events
from baselines.data.views import retrieval_dataset
from baselines.errors import LeanRecError
from baselines.models import text_encoder, text_two_tower
from baselines.models.text_encoder import HashedTfidf, SentenceEncoder, encode, hashed_counts
from baselines.models.text_two_tower import (
    FrozenTexts,
    TextTwoTower,
    TextTwoTowerBaseline,
    TunedTexts,
)
from baselines.tasks.retrieval import Retrieval
from baselines.trainer import Trainer

TEXTS = ("the cat sat", "the dog sat on the cat", "a red car", "Red car, red cat!", "")
minilm = pytest.mark.skipif(
    importlib.util.find_spec(text_encoder.MINILM) is None
    or importlib.util.find_spec("sentence_transformers") is None,
    reason="needs the extra 'text'",
)


def test_words_and_neighbours_are_counted_by_hash() -> None:
    counts = hashed_counts(("Red car, red",), 2**20).toarray()[0]
    expected = np.zeros(2**20)
    for term, times in {"red": 2, "car": 1, "red car": 1, "car red": 1}.items():
        expected[zlib.crc32(term.encode()) % 2**20] += times
    assert np.array_equal(counts, expected)


@given(st.lists(st.text("abc ", max_size=30), min_size=2, max_size=12), st.data())
def test_weights_are_those_of_scikit_learn(texts: list[str], data: st.DataObject) -> None:
    known = np.array(data.draw(st.lists(st.sampled_from(range(len(texts))), min_size=1)))
    known = np.unique(known)
    counts = hashed_counts(texts, 64)
    reference = TfidfTransformer(sublinear_tf=True).fit(counts[known])
    found = HashedTfidf(64, components=0).encode(texts, known)
    np.testing.assert_allclose(found, reference.transform(counts).toarray(), atol=1e-6)


def test_the_projection_is_that_of_a_dense_decomposition() -> None:
    known = np.array([0, 1, 2])
    weights = HashedTfidf(4096, components=0).encode(TEXTS, known).astype(np.float64)
    axes = np.linalg.svd(weights[known], full_matrices=False)[2][:2]
    reference = normalize(weights @ axes.T)
    found = HashedTfidf(4096, components=2).encode(TEXTS, known)
    np.testing.assert_allclose(found @ found.T, reference @ reference.T, atol=1e-5)


def test_encoding_is_deterministic_and_leaves_the_default_device_alone() -> None:
    known = torch.tensor([2, 0, 1, 1])
    first = encode(HashedTfidf(), TEXTS, torch.tensor([0, 1, 2]))
    with torch.device("meta"):
        second = encode(HashedTfidf(), TEXTS, known)
    assert first.dtype == torch.float32
    assert torch.equal(first, second)


def test_too_few_texts_to_project_are_refused() -> None:
    with pytest.raises(LeanRecError, match="no main directions"):
        HashedTfidf().encode(TEXTS, np.array([0]))


@minilm
@pytest.mark.slow
def test_sentences_are_pooled_as_the_model_card_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mean of the last layer over the tokens that are no padding, to length 1."""
    from transformers import AutoModel, AutoTokenizer

    monkeypatch.setenv("LEANREC_CACHE", str(tmp_path))
    encoder = SentenceEncoder()
    texts = TEXTS[:4]
    tokens = AutoTokenizer.from_pretrained(encoder.folder())(
        list(texts), padding=True, return_tensors="pt"
    )
    model = AutoModel.from_pretrained(encoder.folder(), use_safetensors=True).eval()
    with torch.no_grad():
        last = model(**tokens).last_hidden_state
    mask = tokens["attention_mask"][:, :, None]
    reference = torch.nn.functional.normalize((last * mask).sum(1) / mask.sum(1)).numpy()
    found = encoder.encode(texts, np.arange(4))
    np.testing.assert_allclose(found, reference, atol=1e-5)
    again = SentenceEncoder(str(encoder.folder())).encode(texts, np.arange(4))
    assert np.array_equal(found, again)


@minilm
def test_a_folder_that_asks_for_code_of_its_own_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LEANREC_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "model"
    shutil.copytree(SentenceEncoder().folder(), folder)
    (folder / "modules.json").write_text('[{"idx": 0, "name": "0", "path": "", "type": "os.Evil"}]')
    with pytest.raises(LeanRecError, match="cannot be loaded"):
        SentenceEncoder(str(folder)).encode(TEXTS, np.arange(4))


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LeanRecError, match=r"model\.safetensors"):
        SentenceEncoder(str(tmp_path)).encode(TEXTS, np.arange(4))


def test_a_missing_package_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_encoder, "MINILM", "leanrec_no_such_package")
    with pytest.raises(LeanRecError, match=r"leanrec\[text\]"):
        SentenceEncoder().encode(TEXTS, np.arange(4))


def test_the_score_is_the_users_vector_on_the_texts() -> None:
    torch.manual_seed(0)
    texts = torch.randn(5, 7)
    model = TextTwoTower(3, FrozenTexts(texts), (4,), 6).eval()
    user, item = model(torch.tensor([2, 0]), torch.tensor([4, 4, 1]))
    assert torch.equal(user, model.user.weight[[2, 0]])
    tower = model.item
    hidden = (texts @ tower.hidden[0].weight.T + tower.hidden[0].bias).clamp(min=0)
    reference = texts @ tower.flat.weight.T + tower.flat.bias + hidden @ tower.deep.weight.T
    torch.testing.assert_close(item, reference[[4, 4, 1]])


@pytest.fixture
def small_encoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """MiniLM's folder with one layer of random weights."""
    from transformers import BertConfig, BertModel

    monkeypatch.setenv("LEANREC_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "model"
    shutil.copytree(SentenceEncoder().folder(), folder)
    config = BertConfig.from_pretrained(folder, num_hidden_layers=1, intermediate_size=32)
    torch.manual_seed(0)
    BertModel(config).save_pretrained(folder)
    return folder


@minilm
def test_texts_to_be_tuned_start_as_those_that_are_frozen(
    small_encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text_two_tower, "ENCODED", 2)
    encoder = SentenceEncoder(str(small_encoder))
    items = torch.tensor([3, 0, 3, 1])
    with torch.no_grad():
        tuned = TunedTexts(encoder.model(), TEXTS).eval()(items)
    frozen = encode(encoder, TEXTS, items)[items]
    torch.testing.assert_close(tuned, frozen, atol=1e-5, rtol=1e-4)


@minilm
def test_fine_tuning_trains_the_encoder_at_its_own_rate(small_encoder: Path) -> None:
    made = TextTwoTowerBaseline(
        "planted(rows=3000, ids=40, users=60)", "minilm", str(small_encoder), fine_tune=True
    )
    data = made.data()
    torch.manual_seed(0)
    model = made.build(data)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    trainer = Trainer(model, made.task, made.recipe, torch.device("cpu"), 0)
    trainer.step(next(iter(trainer.batches(data))))
    moved = {name: (p - before[name]).abs().max().item() for name, p in model.named_parameters()}
    head, query = "item.flat.weight", "item.texts.encoder.0.model.encoder.layer.0.attention"
    largest = max(change for name, change in moved.items() if name.startswith(query))
    assert moved[head] == pytest.approx(3e-3, rel=0.05)  # Adam's first step is the rate
    assert largest == pytest.approx(3e-5, rel=0.05)
    unread = before["item.texts.encoder.0.model.embeddings.word_embeddings.weight"][-1]
    table = dict(model.named_parameters())[
        "item.texts.encoder.0.model.embeddings.word_embeddings.weight"
    ]
    assert torch.equal(table[-1], unread)  # no penalty


def test_tuning_an_encoder_without_weights_is_refused() -> None:
    with pytest.raises(LeanRecError, match="nothing to train"):
        BASELINES.make('text-two-tower(dataset="planted", fine_tune=true)').data()


@pytest.mark.slow
def test_items_never_trained_on_are_told_apart_by_their_texts() -> None:
    """Planted texts tell of the items' tastes, so texts alone rank new items above chance."""
    made = BASELINES.make('text-two-tower(dataset="planted(rows=60000, ids=400, users=500)")')
    assert isinstance(made, TextTwoTowerBaseline)
    data = made.data()
    cold = torch.arange(data.fields["item"]) % 10 == 0
    warm = ~cold[data.train.items]
    users, items = data.train.users[warm], data.train.items[warm]
    train = type(data.train)((users, items), data.train.labels[warm], users, items)
    data = type(data)(
        data.name, train, data.valid, data.test, data.fields, data.protocol, texts=data.texts
    )
    torch.manual_seed(0)
    model = made.build(data)
    trainer = Trainer(model, made.task, Recipe(lr=5e-3), torch.device("cpu"), 0)
    for _ in range(12):
        for batch in trainer.batches(data):
            trainer.step(batch)
    model.eval()
    with torch.no_grad():
        everyone = torch.arange(data.fields["user"])
        user, item = model(everyone, cold.nonzero()[:, 0])
    assert torch.isfinite(item).all()
    assert len(item.unique(dim=0)) == len(item)
    score = (user @ item.T).numpy()
    test = cold[data.test.items]
    of_item = score[:, data.test.items[test] // 10]  # each item over all users: popularity is out
    own = of_item[data.test.users[test], np.arange(of_item.shape[1])]
    assert np.mean(own > of_item) > 0.6


def test_items_without_texts_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from baselines.data import planted

    monkeypatch.setattr(planted, "_descriptions", lambda items, seed: ())
    with pytest.raises(LeanRecError, match="have no texts"):
        BASELINES.make('text-two-tower(dataset="planted(rows=2000, ids=300)")').data()


def test_cold_items_are_ranked_among_themselves() -> None:
    """Items 0 and 1 were trained on and outscore the rest; the worse of two cold ones is second."""
    pairs = [torch.tensor([[0, 0], [1, 1]]), torch.tensor([[0, 2]]), torch.tensor([[0, 3], [1, 4]])]
    splits = [
        Split((p[:, 0], p[:, 1]), torch.ones(len(p)), p[:, 0].clone(), p[:, 1].clone())
        for p in pairs
    ]
    data = Dataset("toy", *splits, fields={"user": 2, "item": 5}, protocol="", cold=True)
    table = torch.tensor([9.0, 8.0, 7.0, 1.0, 2.0]).repeat(2, 1)
    model = torch.nn.Embedding.from_pretrained(table)
    device = torch.device("cpu")
    scored = Retrieval().score(model, data, data.test, device)
    assert scored.columns["rank"].tolist() == [2, 1]
    warm = dataclasses.replace(data, cold=False)
    assert Retrieval().score(model, warm, warm.test, device).columns["rank"].tolist() == [3, 3]


def test_a_cold_split_numbers_the_items_trained_on_first_with_their_texts() -> None:
    users, items = (grid.ravel() for grid in np.indices((6, 40)))
    events = Events("toy", "Toy.", users, items, texts=tuple(f"film {i}" for i in range(40)))
    cold = retrieval_dataset(events, "cold-items 8:1:1")
    assert cold.cold
    assert "own items" in cold.protocol
    parts = [set(s.items.tolist()) for s in (cold.train, cold.valid, cold.test)]
    assert parts == [set(range(32)), set(range(32, 36)), set(range(36, 40))]
    assert sorted(cold.texts) == sorted(events.texts)
    assert not retrieval_dataset(events, "random").cold
