"""Encode texts, images and sounds with a SentenceTransformer folder, in an environment without unialign."""

import sys
from pathlib import Path

import numpy as np
from haystack import Document
from haystack.utils import ComponentDevice
from haystack_integrations.components.embedders.sentence_transformers import (
    SentenceTransformersDocumentEmbedder,
    SentenceTransformersDocumentImageEmbedder,
    SentenceTransformersTextEmbedder,
)
from langchain_huggingface import HuggingFaceEmbeddings
from sentence_transformers import SentenceTransformer


def main(folder: str, inputs: Path, out: str) -> None:
    texts = (inputs / "texts.txt").read_text().splitlines()
    images = [str(path) for path in sorted(inputs.glob("*.png"))]
    sounds = [{"audio": {"array": array, "sampling_rate": 16000}} for array in np.load(inputs / "sounds.npy")]
    found = {}

    model = SentenceTransformer(folder, device="cpu")
    found["sentence-transformers/text"] = model.encode(texts)
    found["sentence-transformers/image"] = model.encode(images)
    found["sentence-transformers/audio"] = model.encode(sounds)

    options = {"model": folder, "device": ComponentDevice.from_str("cpu"), "token": None, "progress_bar": False}
    text_embedder = SentenceTransformersTextEmbedder(**options)
    text_embedder.warm_up()
    found["haystack/text"] = np.array([text_embedder.run(text)["embedding"] for text in texts])
    document_embedder = SentenceTransformersDocumentEmbedder(**options)
    document_embedder.warm_up()
    documents = document_embedder.run([Document(content=text) for text in texts])["documents"]
    found["haystack/text documents"] = np.array([document.embedding for document in documents])
    image_embedder = SentenceTransformersDocumentImageEmbedder(**options)
    image_embedder.warm_up()
    documents = image_embedder.run([Document(meta={"file_path": path}) for path in images])["documents"]
    found["haystack/image"] = np.array([document.embedding for document in documents])

    embeddings = HuggingFaceEmbeddings(model=folder, model_kwargs={"device": "cpu"})
    found["langchain/text"] = np.array(embeddings.embed_documents(texts))
    found["langchain/text query"] = np.array([embeddings.embed_query(text) for text in texts])

    np.savez(out, **found)


if __name__ == "__main__":
    try:
        import unialign  # noqa: F401
    except ImportError:
        main(sys.argv[1], Path(sys.argv[2]), sys.argv[3])
    else:
        sys.exit("this environment contains unialign")
