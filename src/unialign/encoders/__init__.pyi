from unialign.encoders._column_projection import Projection as Projection, find_projection as find_projection
from unialign.encoders._create import create as create, load as load, resolve as resolve, save as save
from unialign.encoders._encode import encode_media as encode_media, encode_prepared as encode_prepared
from unialign.encoders._encoder import (
    Encoder as Encoder,
    Prepare as Prepare,
    Prepared as Prepared,
    Reference as Reference,
)
from unialign.encoders._kinds import (
    EncoderFactory as EncoderFactory,
    EncoderInfo as EncoderInfo,
    EncoderKind as EncoderKind,
    default as default,
    names as names,
)
from unialign.encoders._lora import ADAPTER_FILE as ADAPTER_FILE
from unialign.encoders._module_settings import module_settings_restored as module_settings_restored
from unialign.encoders._names import EncoderName as EncoderName, parse_name as parse_name
from unialign.encoders._reference import (
    BATCH_SIZE as BATCH_SIZE,
    base as base,
    check_reference as check_reference,
    is_same_form as is_same_form,
    references_of as references_of,
)
from unialign.encoders._request import chosen_device as chosen_device
from unialign.encoders._text_encoder import (
    TextEncoder as TextEncoder,
    quiet_loading as quiet_loading,
    text_encoder as text_encoder,
)
from unialign.encoders._trained import (
    check_unchanged as check_unchanged,
    has_adapter as has_adapter,
    own_encoder as own_encoder,
    restored as restored,
    save_adapter as save_adapter,
    trained_encoder as trained_encoder,
)
from unialign.encoders._tuning import (
    changes_of as changes_of,
    load_tuned_tensors as load_tuned_tensors,
    set_training_mode as set_training_mode,
    tune_parameters as tune_parameters,
    tuned_tensors as tuned_tensors,
)
from unialign.encoders._witness import check_witness as check_witness, witness as witness
from unialign.encoders._wrap import wrap as wrap

__all__ = [
    "Encoder",
    "EncoderFactory",
    "EncoderInfo",
    "EncoderKind",
    "EncoderName",
    "TextEncoder",
    "check_unchanged",
    "check_witness",
    "create",
    "default",
    "encode_media",
    "encode_prepared",
    "load",
    "load_tuned_tensors",
    "names",
    "own_encoder",
    "parse_name",
    "references_of",
    "resolve",
    "save",
    "set_training_mode",
    "text_encoder",
    "trained_encoder",
    "tune_parameters",
    "tuned_tensors",
    "witness",
    "wrap",
]
