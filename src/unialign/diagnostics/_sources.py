"""Sources of a diagnosis; see `unialign.data.open_collection`."""

from unialign.data import Source, open_collection as gather
from unialign.readers import Collection as Material, Modality

__all__ = ["Material", "Modality", "Source", "gather"]
