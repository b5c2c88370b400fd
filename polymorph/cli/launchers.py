"""Launchers of sweeps, checked before anything starts.

Hydra finds out late that a launcher is not installed or has no queue to put jobs into, and Ray waits without a word
for a processor that no machine has.
"""

import os
import shutil
import signal
import socket
from collections.abc import Mapping, Sequence
from numbers import Real
from types import FrameType
from typing import Any

from omegaconf import DictConfig, OmegaConf

from polymorph.cli.extras import install_line, is_installed
from polymorph.errors import RequestError

EXTRAS = {
    "ray": ("ray", "ray_aws", "ray_local", "ray_cluster"),
    "slurm": ("submitit_local", "submitit_slurm", "local", "slurm"),
}
"""The launchers, the plug-in's own and those in conf/hydra/launcher, that an extra of the package brings."""
MODULES = {"ray": "hydra_plugins.hydra_ray_launcher", "slurm": "hydra_plugins.hydra_submitit_launcher"}
CHOICE = "hydra/launcher="
PATIENCE = 5.0
"""Seconds for an address to answer; Ray itself was still trying after nine minutes."""


def check_choice(overrides: Sequence[str], multirun: bool) -> None:
    """Refuse a launcher that is not installed, and one that Hydra would pass over in silence."""
    for override in overrides:
        name = override.removeprefix(CHOICE)
        if name in (override, "basic"):
            continue
        extra = next((extra for extra, names in EXTRAS.items() if name in names), None)
        if extra is not None and not is_installed(MODULES[extra]):
            raise RequestError(f"{override}: it is not installed; {install_line(extra)}")
        if not multirun:
            raise RequestError(f"{override}: launchers are for sweeps, and a single job runs here; add -m")


def check(config: DictConfig) -> list[int]:
    """Refuse what the launcher of this whole config (with its node `hydra`) cannot carry out.

    A launcher of Ray is left connected to its cluster, and Hydra goes on with that connection. The list that is
    returned gets the signal that ends this process while it waits for the jobs of a sweep.
    """
    launcher = config.hydra.launcher
    target = str(launcher._target_).rpartition(".")[2]
    if target == "SlurmLauncher" and not (shutil.which("sbatch") and shutil.which("srun")):
        raise RequestError(
            "hydra/launcher: Slurm is not here (no sbatch); hydra/launcher=local runs the same jobs here"
        )
    if target == "RayLauncher":
        settings = OmegaConf.to_container(launcher.ray, resolve=True)
        assert isinstance(settings, dict)
        accelerator = OmegaConf.select(config, "trainer.accelerator")
        return _check_ray(settings["init"] or {}, settings["remote"] or {}, accelerator)
    return []


def _check_ray(init: Mapping[str, Any], remote: Mapping[str, Any], accelerator: str | None) -> list[int]:
    asked = _asked(remote)
    import ray

    try:
        nodes = _nodes(init)
        _check_room(asked, nodes)
    except RequestError:
        ray.shutdown()
        raise
    signals = _end_on_sigterm()
    if not asked["GPU"] and accelerator in ("auto", "gpu") and any(node.get("GPU", 0) > 1 for node in nodes):
        print(
            "Ray hides no GPU from a job that asks for none, so every job will take the first: give num_gpus"
        )
    return signals


def _end_on_sigterm() -> list[int]:
    """Ray's own handler aborts the process; its workers end with it, and members go on from their last state."""
    signals: list[int] = []

    def end(signum: int, frame: FrameType | None) -> None:
        signals.append(signum)
        raise SystemExit  # on its way through Ray it would lose an exit status

    signal.signal(signal.SIGTERM, end)
    return signals


def _asked(remote: Mapping[str, Any]) -> dict[str, float]:
    """What one job takes of a machine, under Ray's names."""
    values = {"CPU": remote.get("num_cpus"), "GPU": remote.get("num_gpus"), **(remote.get("resources") or {})}
    for name, value in values.items():
        if value is not None and (not isinstance(value, Real) or value < 0):
            raise RequestError(f"{_key(name)}={value!r}: a number from 0")
    defaults = {"CPU": 1.0}  # as Ray's own
    return {name: defaults.get(name, 0.0) if value is None else value for name, value in values.items()}


def _key(resource: str) -> str:
    own = {"CPU": "num_cpus", "GPU": "num_gpus"}
    return f"hydra.launcher.ray.remote.{own.get(resource, f'resources.{resource}')}"


def _nodes(init: Mapping[str, Any]) -> list[dict[str, float]]:
    """What every machine of the cluster has, once this process belongs to it."""
    import ray

    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # a Ray that is started here reports to nobody
    address = init.get("address")
    if address != "local":
        _reach(os.environ.get("RAY_ADDRESS") if address in (None, "auto") else address)
        init = {**init, "runtime_env": _here(init.get("runtime_env") or {})}
    try:
        ray.init(**init)
    except (ConnectionError, RuntimeError, TypeError, ValueError) as error:
        raise RequestError(
            f"hydra.launcher.ray.init.address={address}: {str(error).splitlines()[0]}"
        ) from error
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def _reach(address: str | None) -> None:
    if address in (None, "", "auto", "local"):
        return
    host, _, port = str(address).removeprefix("ray://").rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=PATIENCE).close()
    except (OSError, ValueError) as error:
        raise RequestError(
            f"hydra.launcher.ray.init.address={address}: no cluster answers ({error})"
        ) from error


def _here(environment: Mapping[str, Any]) -> dict[str, Any]:
    """A worker of a running cluster starts where `ray start` was called; our paths are relative to this folder."""
    folder = os.getcwd()  # noqa: PTH109 (it travels as a text)

    def enter() -> None:
        os.chdir(folder)

    return {"worker_process_setup_hook": enter, **environment}


def _check_room(asked: Mapping[str, float], nodes: Sequence[Mapping[str, float]]) -> None:
    if any(all(node.get(name, 0) >= value for name, value in asked.items()) for node in nodes):
        return
    for name, value in asked.items():
        largest = max((node.get(name, 0) for node in nodes), default=0)
        if value > largest:
            raise RequestError(
                f"{_key(name)}={value:g}: the largest machine of the cluster has {largest:g}, and Ray would wait"
            )
    wanted = ", ".join(f"{_key(name)}={value:g}" for name, value in asked.items() if value)
    raise RequestError(f"{wanted}: no machine of the cluster has all of it, and Ray would wait")
