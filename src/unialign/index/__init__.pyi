from unialign.index._approximate import ApproximateInfo as ApproximateInfo
from unialign.index._backends import (
    BackEnd as BackEnd,
    ConnectedIndex as ConnectedIndex,
    Row as Row,
    connect as connect,
)
from unialign.index._calibration import Calibration as Calibration
from unialign.index._duplicates import DuplicateGroup as DuplicateGroup
from unialign.index._encoders import QueryEncoder as QueryEncoder, modality_of_kind as modality_of_kind
from unialign.index._found import Found as Found, Hit as Hit
from unialign.index._index import Index as Index
from unialign.index._query import Query as Query, query as query
from unialign.index._rerank import Reranker as Reranker, cross_encoder as cross_encoder, gram_volume as gram_volume

__all__ = [
    "ApproximateInfo",
    "BackEnd",
    "Calibration",
    "ConnectedIndex",
    "DuplicateGroup",
    "Found",
    "Hit",
    "Index",
    "Query",
    "QueryEncoder",
    "Reranker",
    "Row",
    "connect",
    "cross_encoder",
    "gram_volume",
    "query",
]
