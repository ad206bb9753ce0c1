from unialign.index._approximate import ApproximateInfo as ApproximateInfo
from unialign.index._backends import (
    BackEnd as BackEnd,
    ConnectedIndex as ConnectedIndex,
    Row as Row,
    connect as connect,
)
from unialign.index._encoders import QueryEncoder as QueryEncoder
from unialign.index._found import Found as Found, Hit as Hit
from unialign.index._index import Index as Index
from unialign.index._query import Query as Query, query as query

__all__ = [
    "ApproximateInfo",
    "BackEnd",
    "ConnectedIndex",
    "Found",
    "Hit",
    "Index",
    "Query",
    "QueryEncoder",
    "Row",
    "connect",
    "query",
]
