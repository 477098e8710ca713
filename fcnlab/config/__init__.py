"""The configuration: typed keys, their ranges, and how they are composed.

What leaves this package is a plain `Config`, no OmegaConf node.
"""

from fcnlab.config.composition import (
    RECORD_FILE,
    RECORDED,
    compose,
    config_folder,
    from_node,
    recorded_base,
    refuse_interpolations,
    register_schemas,
    to_yaml,
    value_of,
    wrong_words,
)
from fcnlab.config.messages import one_line
from fcnlab.config.schema import (
    COMMANDS,
    MEDIAN_FREQUENCY,
    CompareConfig,
    Config,
    DatasetConfig,
    EvaluateConfig,
    ExportConfig,
    PredictConfig,
    PrepareConfig,
    TrackingConfig,
    flatten,
    options,
)
from fcnlab.config.validation import check_tracking, validate

__all__ = [
    "COMMANDS",
    "MEDIAN_FREQUENCY",
    "RECORDED",
    "RECORD_FILE",
    "CompareConfig",
    "Config",
    "DatasetConfig",
    "EvaluateConfig",
    "ExportConfig",
    "PredictConfig",
    "PrepareConfig",
    "TrackingConfig",
    "check_tracking",
    "compose",
    "config_folder",
    "flatten",
    "from_node",
    "one_line",
    "options",
    "recorded_base",
    "refuse_interpolations",
    "register_schemas",
    "to_yaml",
    "validate",
    "value_of",
    "wrong_words",
]
