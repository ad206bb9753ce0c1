from unialign.closed_form._gcca import gcca as gcca
from unialign.closed_form._ridge import ridge as ridge
from unialign.closed_form._ridge_onto import fit_ridge_head as fit_ridge_head

__all__ = ["gcca", "ridge"]
