"""mem0 and agno through their bridges to LangChain's vector stores, and a module of DSPy."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

os.environ["MEM0_TELEMETRY"] = "False"
os.environ["OPENAI_API_KEY"] = "none"  # mem0 makes a client, which is asked nothing

from langchain_core.embeddings import Embeddings

from support.texts import DIM, embed
from vicinal import Collection
from vicinal.integrations.langchain import VicinalVectorStore


class Letters(Embeddings):
    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        made: list[list[float]] = embed(texts).tolist()
        return made

    def embed_query(self, text: str) -> list[float]:
        return self.embed_documents([text])[0]


class ForMem0:
    def embed(self, text: str, memory_action: Any = None) -> list[float]:
        return Letters().embed_query(text)

    def embed_batch(self, texts: list[str], memory_action: Any = None) -> list[list[float]]:
        return Letters().embed_documents(texts)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[VicinalVectorStore]:
    made = VicinalVectorStore.open(tmp_path / "c", Letters())
    yield made
    made.collection.close()


@pytest.fixture
def memory(
    store: VicinalVectorStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Any]:
    monkeypatch.setenv("MEM0_DIR", str(tmp_path / "mem0"))
    from mem0 import Memory

    made = Memory.from_config(
        {
            "vector_store": {"provider": "langchain", "config": {"client": store}},
            "history_db_path": str(tmp_path / "history.db"),
        }
    )
    made.embedding_model = ForMem0()
    yield made
    made.close()


def texts(found: dict[str, Any]) -> list[str]:
    return [each["memory"] for each in found["results"]]


def test_mem0(memory: Any, store: VicinalVectorStore) -> None:
    added = memory.add("I like apple pie", user_id="ann", infer=False)
    memory.add("My car is red", user_id="ann", infer=False)
    memory.add("I like apple pie very much", user_id="bob", infer=False)
    pie = added["results"][0]["id"]
    # nearest first, of this user only, and the score is the cosine
    found = memory.search("apple pie", filters={"user_id": "ann"}, threshold=0.0)
    assert texts(found) == ["I like apple pie", "My car is red"]
    one, other = embed(["apple pie", "I like apple pie"])
    assert found["results"][0]["score"] == pytest.approx(float(one @ other), abs=1e-5)
    assert texts(memory.search("a red car", filters={"user_id": "ann"}, top_k=1)) == [
        "My car is red"
    ]
    assert memory.get(pie)["memory"] == "I like apple pie"
    memory.update(pie, "I like pear pie")
    assert memory.get(pie)["memory"] == "I like pear pie"
    assert texts(memory.search("pear", filters={"user_id": "ann"}, top_k=1)) == ["I like pear pie"]
    memory.delete(pie)
    assert memory.get(pie) is None and len(store.collection) == 2
    memory.reset()
    assert len(store.collection) == 0


def test_memories_are_there_after_opening_again(memory: Any, store: VicinalVectorStore) -> None:
    memory.add("I like apple pie", user_id="ann", infer=False)
    with Collection(store.collection.path, read_only=True) as again:
        assert [each.text for each in again.get()] == ["I like apple pie"]
        assert again.count({"field": "user_id", "op": "eq", "value": "ann"}) == 1


def test_agno(store: VicinalVectorStore) -> None:
    from agno.knowledge.knowledge import Knowledge
    from agno.vectordb.langchaindb import LangChainVectorDb

    store.add_texts(
        ["Apples grow on trees.", "Cars drive on roads.", "Pears grow on trees."],
        [{"kind": "fruit"}, {"kind": "thing"}, {"kind": "fruit"}],
    )
    knowledge = Knowledge(vector_db=LangChainVectorDb(vectorstore=store, search_kwargs={"k": 2}))
    found = knowledge.search("Which apples are on trees?")
    assert [each.content for each in found] == ["Apples grow on trees.", "Pears grow on trees."]
    assert found[0].meta_data == {"kind": "fruit"}
    only = {"k": 3, "filter": {"kind": "thing"}}
    database = LangChainVectorDb(vectorstore=store, search_kwargs=only)
    assert [each.content for each in database.search("trees")] == ["Cars drive on roads."]


def test_dspy(tmp_path: Path) -> None:
    import dspy
    from dspy.utils import DummyLM

    notes = Collection(tmp_path / "c", dim=DIM, embed=dspy.Embedder(lambda texts: embed(texts)))
    notes.upsert(["1", "2"], texts=["Bananas are yellow.", "Melons are green."])

    def retrieve(query: str, k: int = 3) -> list[str]:
        return [hit.text for hit in notes.search(query, k) if hit.text]

    class Answer(dspy.Module):
        def __init__(self) -> None:
            super().__init__()
            self.respond = dspy.ChainOfThought("context, question -> response")

        def forward(self, question: str) -> Any:
            return self.respond(context=retrieve(question, 1), question=question)

    model = DummyLM([{"reasoning": "It says so.", "response": "yellow"}])
    with dspy.context(lm=model):
        assert Answer()(question="What colour is a banana?").response == "yellow"
    told = str(model.history[-1]["messages"])
    assert "Bananas are yellow." in told and "Melons" not in told
    notes.close()
