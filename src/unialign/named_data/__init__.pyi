from unialign.named_data._named_data import NamedData as NamedData, find as find, names as names, prepare as prepare

__all__ = ["NamedData", "find", "names", "prepare"]
