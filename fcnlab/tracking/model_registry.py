"""The model registry: which of the models registered under one name is the best."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from mlflow import MlflowClient
from mlflow.entities import LoggedModel
from mlflow.exceptions import MlflowException
from mlflow.utils.mlflow_tags import MLFLOW_MODEL_VERSIONS


@dataclass(frozen=True)
class Registration:
    """What became of a registration.

    Attributes:
        version: Of the registered model.
        is_best: Whether the alias is at this version.
        reason: Where the alias is and why, in words.
    """

    version: str
    is_best: bool
    reason: str


def register(
    client: MlflowClient,
    *,
    name: str,
    alias: str,
    source: str,
    run_id: str,
    model_id: str | None,
    monitor: str,
    value: float,
    validation_digest: str,
    higher_is_better: bool,
) -> Registration:
    """Make a model a version of a registered one, and move the alias to it if it is the first or strictly better.

    Only values of the same metric on the same validation data are compared; between others, the alias stays where it
    is. Another call for the same run and source makes no second version.

    Args:
        client: Of the registry.
        name: Of the registered model, made when missing.
        alias: What its best version is called.
        source: Where the model's files are, as MLflow takes it; a logged model's own place is used instead.
        run_id: Of the run that made the model.
        model_id: Of the logged model, if it is one.
        monitor: The metric, such as ``val/mean_iou``.
        value: Of the metric.
        validation_digest: Of the data that the value is from.
        higher_is_better: Of the metric.

    Raises:
        MlflowException: If the registry cannot be reached, or refuses the name or the alias.
    """
    tags = {"monitor": monitor, "value": repr(float(value)), "validation_digest": validation_digest}
    _make_registered_model(client, name)
    model = client.get_logged_model(model_id) if model_id else None
    # Not `models:/<id>`: a registry in a database would look for that in whatever store the process has as its default.
    source = model.artifact_location if model else source
    version = _find_version(client, name, source, run_id)
    if version is None:
        # Not waited for: MLflow would tell that it does, and a version is complete at once where files are in place.
        created = client.create_model_version(name, source, run_id, tags, await_creation_for=0, model_id=model_id)
        version = str(created.version)
    if model:
        _link(client, model, name, version)
    try:
        return _settle_alias(client, name, alias, version, tags, higher_is_better)
    except MlflowException:  # another process gave the alias away meanwhile: compare with what has it now
        return _settle_alias(client, name, alias, version, tags, higher_is_better)


def _settle_alias(
    client: MlflowClient, name: str, alias: str, version: str, tags: Mapping[str, str], higher_is_better: bool
) -> Registration:
    """Give a version the alias if it is to have it."""
    holder = client.get_registered_model(name).aliases.get(alias)
    if holder is None:
        reason = f"version {version}, the first"
    elif str(holder) == version:
        return Registration(version, True, f"version {version} already")
    else:
        held = client.get_model_version(name, holder).tags
        obstacle = _obstacle(held, tags, higher_is_better)
        if obstacle is not None:
            return Registration(version, False, f"stays at version {holder} and is not version {version}: {obstacle}")
        new, old = float(tags["value"]), float(held["value"])
        reason = f"version {version}: {tags['monitor']} {new:.6g} is better than {old:.6g} of version {holder}"
    client.set_registered_model_alias(name, alias, version)
    return Registration(version, True, reason)


def _make_registered_model(client: MlflowClient, name: str) -> None:
    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def _find_version(client: MlflowClient, name: str, source: str, run_id: str) -> str | None:
    for version in client.search_model_versions(f"run_id = '{run_id}'"):
        if (version.name, version.source) == (name, source):
            return str(version.version)
    return None


def _link(client: MlflowClient, model: LoggedModel, name: str, version: str) -> None:
    """Let the logged model's page show the version, as `mlflow.register_model` does."""
    links = json.loads(model.tags.get(MLFLOW_MODEL_VERSIONS, "[]"))
    if (name, version) not in {(link["name"], str(link["version"])) for link in links}:
        links.append({"name": name, "version": version})
        client.set_logged_model_tags(model.model_id, {MLFLOW_MODEL_VERSIONS: json.dumps(links)})


def _obstacle(held: Mapping[str, str], tags: Mapping[str, str], higher_is_better: bool) -> str | None:
    """Why a version with these tags does not take the alias from the one that holds it; None if it does."""
    monitor = tags["monitor"]
    if held.get("monitor") != monitor:
        return f"that was chosen by {held.get('monitor', 'something unknown')}, this by {monitor}"
    if held.get("validation_digest") != tags["validation_digest"]:
        return f"their {monitor} are of different validation data"
    try:
        new, old = float(tags["value"]), float(held["value"])
    except (KeyError, ValueError):
        return f"its {monitor} is not known"
    if new > old if higher_is_better else new < old:
        return None
    return f"{monitor} {new:.6g} is not better than {old:.6g}"
