"""Carries journals to MLflow and packages trained networks for it. This is the only room that talks to a store."""
