from unialign.losses._bounded_parameter import BoundedParameter as BoundedParameter, Temperature as Temperature
from unialign.losses._call_inputs import CallArguments as CallArguments
from unialign.losses._create import (
    create as create,
    display_name as display_name,
    initialization as initialization,
    names as names,
    needs_anchor as needs_anchor,
    parameter_names as parameter_names,
)
from unialign.losses._fused_target import FusedTarget as FusedTarget
from unialign.losses._matryoshka import Matryoshka as Matryoshka
from unialign.losses._memory_queue import MemoryQueue as MemoryQueue
from unialign.losses._modality_temperature import ModalityTemperature as ModalityTemperature
from unialign.losses._objective import (
    LossOutput as LossOutput,
    LossTerm as LossTerm,
    Objective as Objective,
    weighted_sum as weighted_sum,
)
from unialign.losses._presets import PRESETS as PRESETS
from unialign.losses.align_uniform import AlignUniform as AlignUniform
from unialign.losses.cs_aligner import CSAligner as CSAligner
from unialign.losses.cua import CUA as CUA
from unialign.losses.gram import GRAM as GRAM
from unialign.losses.infonce import InfoNCE as InfoNCE
from unialign.losses.modgap import ModGap as ModGap
from unialign.losses.pmrl import PMRL as PMRL
from unialign.losses.sigmoid import Sigmoid as Sigmoid
from unialign.losses.symile import Symile as Symile
from unialign.losses.triangle import Triangle as Triangle
from unialign.losses.unialign import UniAlign as UniAlign

__all__ = [
    "CUA",
    "GRAM",
    "PMRL",
    "PRESETS",
    "AlignUniform",
    "CSAligner",
    "FusedTarget",
    "InfoNCE",
    "LossOutput",
    "LossTerm",
    "Matryoshka",
    "MemoryQueue",
    "ModGap",
    "Objective",
    "Sigmoid",
    "Symile",
    "Triangle",
    "UniAlign",
    "create",
    "display_name",
    "initialization",
    "names",
    "needs_anchor",
    "parameter_names",
    "weighted_sum",
]
