"""Registers models and gives an alias to the best of those with one name."""

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
    """The outcome of a registration.

    Attributes:
        version: The version of the registered model.
        is_best: Whether this version has the alias.
        reason: A sentence that says which version has the alias, and why.
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
    """Register a model as a new version, and move the alias to that version if it is the first or strictly better.

    Only values of the same metric on the same validation data are compared; otherwise, the alias stays where it is.
    Another call for the same run and source makes no second version.

    Args:
        client: A client of the registry.
        name: The name of the registered model, which is created if it is missing.
        alias: The alias of the best version.
        source: The address of the model's files; for a logged model, its artifact location is used instead.
        run_id: The id of the run that made the model.
        model_id: The id of the logged model; None if the model was not logged.
        monitor: The metric by which versions are compared, such as ``val/mean_iou``.
        value: The value of that metric.
        validation_digest: The digest of the images on which the value was measured.
        higher_is_better: Whether a larger value of the metric is better.

    Raises:
        MlflowException: If the registry cannot be reached, or refuses the name or the alias.
    """
    tags = {"monitor": monitor, "value": repr(float(value)), "validation_digest": validation_digest}
    _make_registered_model(client, name)
    model = client.get_logged_model(model_id) if model_id else None
    # Not `models:/<id>`, which a registry in a database would look up in the default store of the process.
    source = model.artifact_location if model else source
    version = _find_version(client, name, source, run_id)
    if version is None:
        # Do not wait for the version, about which MLflow logs: its files are in place, so that it is complete at once.
        created = client.create_model_version(name, source, run_id, tags, await_creation_for=0, model_id=model_id)
        version = str(created.version)
    if model:
        _link(client, model, name, version)
    try:
        return _settle_alias(client, name, alias, version, tags, higher_is_better)
    except MlflowException:  # another process moved the alias meanwhile: compare with the version that has it now
        return _settle_alias(client, name, alias, version, tags, higher_is_better)


def _settle_alias(
    client: MlflowClient, name: str, alias: str, version: str, tags: Mapping[str, str], higher_is_better: bool
) -> Registration:
    """Give the alias to a version if no other one has it, or if this one is better."""
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
    """Link the logged model to the version on MLflow's pages, as `mlflow.register_model` does."""
    links = json.loads(model.tags.get(MLFLOW_MODEL_VERSIONS, "[]"))
    if (name, version) not in {(link["name"], str(link["version"])) for link in links}:
        links.append({"name": name, "version": version})
        client.set_logged_model_tags(model.model_id, {MLFLOW_MODEL_VERSIONS: json.dumps(links)})


def _obstacle(held: Mapping[str, str], tags: Mapping[str, str], higher_is_better: bool) -> str | None:
    """Return why a version with these tags does not take the alias from the version that has it; None if it does."""
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
