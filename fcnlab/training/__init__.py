"""Training: loop, step, optimizers, schedules, evaluation, checkpoints, callbacks. It knows no Hydra and no MLflow."""
