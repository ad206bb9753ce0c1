from unialign.ops._backend import (
    Backend as Backend,
    current_backend as current_backend,
    has_triton as has_triton,
    rowwise_backend as rowwise_backend,
    use_backend as use_backend,
)
from unialign.ops._block_formulas import (
    ContrastBlocks as ContrastBlocks,
    SigmoidBlocks as SigmoidBlocks,
    UniformityBlocks as UniformityBlocks,
)
from unialign.ops._blocks import (
    different_ids as different_ids,
    fits_blocks as fits_blocks,
    key_contrasts as key_contrasts,
    pair_losses as pair_losses,
    self_losses as self_losses,
)
from unialign.ops._contrast import mean_contrast as mean_contrast
from unialign.ops._density import log_row_sums_between as log_row_sums_between
from unialign.ops._directed_contrast import Negatives as Negatives, directed_contrast as directed_contrast
from unialign.ops._directed_losses import ContrastSettings as ContrastSettings, SameIds as SameIds
from unialign.ops._kernel_functions import (
    WANG_ISOLA_T as WANG_ISOLA_T,
    Kernel as Kernel,
    KernelFunction as KernelFunction,
    arccos_squared as arccos_squared,
)
from unialign.ops._logits import (
    CosineLogits as CosineLogits,
    KernelLogits as KernelLogits,
    TupleCosineLogits as TupleCosineLogits,
)
from unialign.ops._pair_sums import PairSums as PairSums
from unialign.ops._prepared import (
    Candidates as Candidates,
    product_error as product_error,
    rounded_queries as rounded_queries,
    row_products as row_products,
    score_tiles as score_tiles,
    trusted_rows as trusted_rows,
)
from unialign.ops._row_selection import (
    RowSelection as RowSelection,
    SelfPairs as SelfPairs,
    ShardLayouts as ShardLayouts,
    select_items as select_items,
    select_rows as select_rows,
    shard_layout as shard_layout,
)
from unialign.ops._row_sums import mean_excess as mean_excess
from unialign.ops._search import (
    count_above as count_above,
    pair_scores as pair_scores,
    product_dtype as product_dtype,
    top_k as top_k,
)
from unialign.ops._softplus import softplus_total as softplus_total
from unialign.ops._tiles import TILE as TILE, rectangle as rectangle, row_tiles as row_tiles
from unialign.ops._tuple_logits import (
    AreaLogits as AreaLogits,
    TriangleForm as TriangleForm,
    VolumeLogits as VolumeLogits,
    safe_sqrt as safe_sqrt,
)
from unialign.ops._uniformity import log_row_sums as log_row_sums, log_total as log_total
from unialign.ops._unit_vectors import (
    TIE_TOLERANCE as TIE_TOLERANCE,
    UnitRows as UnitRows,
    query_and_gallery as query_and_gallery,
    unit_rows as unit_rows,
)
from unialign.ops._weighted_log_sums import weighted_log_sums as weighted_log_sums

__all__ = ["Backend", "select_items", "select_rows", "use_backend"]
