"""In-memory retrieval tasks of mteb."""

from typing import Any

LETTERS = {"text": "t", "image": "i", "audio": "a", "video": "v"}


def retrieval_task(category: str, queries: Any, corpus: Any, relevant: dict[str, dict[str, int]]) -> Any:
    """Return a task between data sets with the columns `id` and one per modality; `category` is such as "it2a"."""
    from mteb.abstasks import AbsTaskRetrieval
    from mteb.abstasks.retrieval_dataset_loaders import RetrievalSplitData
    from mteb.abstasks.task_metadata import TaskMetadata

    class Task(AbsTaskRetrieval):
        metadata = TaskMetadata(
            name=f"Tiny{category}",
            description="A task in memory.",
            type="Any2AnyRetrieval",
            category=category,
            modalities=[name for name, letter in LETTERS.items() if letter in category],
            dataset={"path": "none/none", "revision": "1"},
            eval_splits=["test"],
            eval_langs=["eng-Latn"],
            main_score="ndcg_at_10",
        )

        def load_data(self, **_: Any) -> None:
            split = RetrievalSplitData(queries=queries, corpus=corpus, relevant_docs=relevant, top_ranked=None)
            self.dataset = {"default": {"test": split}}
            self.data_loaded = True

    return Task()
