from unialign.index._found import Found as Found, Hit as Hit
from unialign.index._index import Index as Index
from unialign.index._query import Query as Query, query as query

__all__ = ["Found", "Hit", "Index", "Query", "query"]
