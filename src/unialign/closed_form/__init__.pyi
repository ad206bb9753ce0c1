from unialign.closed_form._gcca import gcca as gcca
from unialign.closed_form._ridge import ridge as ridge

__all__ = ["gcca", "ridge"]
