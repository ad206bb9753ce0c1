from unialign.serve._app import app as app
from unialign.serve._map_points import corrected as corrected
from unialign.serve._mcp import mcp_server as mcp_server
from unialign.serve._run import Address as Address, new_token as new_token, read_tokens as read_tokens, run as run

__all__ = ["app", "mcp_server", "run"]
