from unialign.config._base import REQUIRED as REQUIRED, Config as Config, Setting as Setting, setting as setting
from unialign.config._bridge import BridgeConfig as BridgeConfig
from unialign.config._choices import (
    ExportFormat as ExportFormat,
    Head as Head,
    Init as Init,
    InputNorm as InputNorm,
    Inside as Inside,
    Mix as Mix,
    MixtureMode as MixtureMode,
    OnError as OnError,
    ProgressMode as ProgressMode,
    Resume as Resume,
    SpaceFormat as SpaceFormat,
    Split as Split,
    WhiteningMode as WhiteningMode,
)
from unialign.config._closed_form_names import CLOSED_FORMS as CLOSED_FORMS, ClosedForm as ClosedForm
from unialign.config._closed_forms import (
    closed_form_config as closed_form_config,
    closed_form_of as closed_form_of,
    closed_form_settings as closed_form_settings,
    stated_settings as stated_settings,
)
from unialign.config._compare import (
    CompareConfig as CompareConfig,
    ComparisonEntry as ComparisonEntry,
    EvaluateConfig as EvaluateConfig,
)
from unialign.config._decoder import DecoderConfig as DecoderConfig
from unialign.config._diagnose import DiagnoseConfig as DiagnoseConfig
from unialign.config._differences import differing_settings as differing_settings
from unialign.config._embed import EmbedConfig as EmbedConfig
from unialign.config._generate import GenerateConfig as GenerateConfig
from unialign.config._gram import Captions as Captions, GramConfig as GramConfig, GramSubset as GramSubset
from unialign.config._hyperparameter_search import (
    FIXABLE as FIXABLE,
    HyperparameterSearchConfig as HyperparameterSearchConfig,
)
from unialign.config._omni import OmniConfig as OmniConfig, OmniPool as OmniPool
from unialign.config._probe import ProbeConfig as ProbeConfig, ProbeTask as ProbeTask
from unialign.config._rank import RankConfig as RankConfig
from unialign.config._repair import RepairConfig as RepairConfig
from unialign.config._serve import ServeConfig as ServeConfig
from unialign.config._train import TrainConfig as TrainConfig
from unialign.config._tune import TuneConfig as TuneConfig, TuneMode as TuneMode
from unialign.config._yaml import parse_yaml as parse_yaml, read_yaml as read_yaml

__all__ = [
    "BridgeConfig",
    "CompareConfig",
    "ComparisonEntry",
    "Config",
    "DecoderConfig",
    "DiagnoseConfig",
    "EmbedConfig",
    "EvaluateConfig",
    "GenerateConfig",
    "GramConfig",
    "HyperparameterSearchConfig",
    "OmniConfig",
    "OmniPool",
    "ProbeConfig",
    "ProbeTask",
    "RankConfig",
    "RepairConfig",
    "ServeConfig",
    "TrainConfig",
    "TuneConfig",
]
