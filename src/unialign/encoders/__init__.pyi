from unialign.encoders._create import create as create, load as load, resolve as resolve, save as save
from unialign.encoders._device import chosen_device as chosen_device
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
from unialign.encoders._names import EncoderName as EncoderName, parse_name as parse_name
from unialign.encoders._reference import (
    BATCH_SIZE as BATCH_SIZE,
    check_reference as check_reference,
    references_of as references_of,
)
from unialign.encoders._text_encoder import (
    TextEncoder as TextEncoder,
    quiet_loading as quiet_loading,
    text_encoder as text_encoder,
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
    "check_witness",
    "create",
    "default",
    "encode_media",
    "encode_prepared",
    "load",
    "names",
    "parse_name",
    "references_of",
    "resolve",
    "save",
    "text_encoder",
    "witness",
    "wrap",
]
