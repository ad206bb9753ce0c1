from unialign.config import HyperparameterSearchConfig as HyperparameterSearchConfig
from unialign.tuning._results import settings_of as settings_of
from unialign.tuning._scores import hypervolume as hypervolume, pareto_front as pareto_front
from unialign.tuning._trial import Trial as Trial
from unialign.tuning._tune import TuneResult as TuneResult, choose_settings as choose_settings, tune as tune

__all__ = [
    "HyperparameterSearchConfig",
    "Trial",
    "TuneResult",
    "hypervolume",
    "pareto_front",
    "tune",
]
