"""The trainer: steps, schedules, optimizers, evaluation and callbacks. It knows no Hydra and no MLflow."""
