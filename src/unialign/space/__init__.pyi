from unialign.space._eigenvectors import leading_eigenvectors as leading_eigenvectors
from unialign.space._encoders import (
    check_encoders as check_encoders,
    described as described,
    folder_of as folder_of,
    set_encoders as set_encoders,
)
from unialign.space._evaluating import evaluating as evaluating
from unialign.space._extension import with_new_modalities as with_new_modalities
from unialign.space._fingerprint import fingerprint_of as fingerprint_of, space_fingerprint as space_fingerprint
from unialign.space._kernel_basis import (
    Blocks as Blocks,
    KernelBasis as KernelBasis,
    kernel_basis as kernel_basis,
)
from unialign.space._normalizer import Standardize as Standardize, make_input_norm as make_input_norm
from unialign.space._prepare import (
    fit_stages as fit_stages,
    normalization_of as normalization_of,
    normalize_rows as normalize_rows,
    normalized_blocks as normalized_blocks,
    set_kernel_basis as set_kernel_basis,
    set_linear_head as set_linear_head,
)
from unialign.space._raw import BrokenInput as BrokenInput
from unialign.space._space import Space as Space
from unialign.space._validation import check_landmarks as check_landmarks
from unialign.space._whitening import Whitening as Whitening, check_frozen as check_frozen

__all__ = ["BrokenInput", "Space", "Whitening"]
