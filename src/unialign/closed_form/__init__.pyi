from unialign.closed_form._gcca import gcca as gcca

__all__ = ["gcca"]
