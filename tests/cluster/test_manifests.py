"""The cluster files, checked offline: fields, options that exist, and GPUs that suffice for the settings they pass."""

from __future__ import annotations

import re
import runpy
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from rayalign.cli import parse, settings
from rayalign.config import PlacementConfig, RunConfig
from rayalign.errors import ConfigError
from rayalign.rewards.table import SCORERS

ROOT = Path(__file__).parents[2]
CLUSTER = ROOT / "cluster"
SDXL_DEFAULTS = runpy.run_path(str(ROOT / "jobs" / "tailorpo_sdxl.py"))["DEFAULTS"]
MANIFESTS = ("kuberay-rayjob.yaml", "kuberay-raycluster.yaml")
RAY_VERSION = "2.60.0"

# Fields of KubeRay 1.7's CRDs (ray.io/v1): name -> type. The API server drops what it does not know, silently.
JOB_FIELDS = {
    "activeDeadlineSeconds": int,
    "backoffLimit": int,
    "clusterSelector": dict,
    "deletionStrategy": dict,
    "entrypoint": str,
    "entrypointNumCpus": float,
    "entrypointNumGpus": float,
    "entrypointResources": str,
    "jobId": str,
    "managedBy": str,
    "metadata": dict,
    "preRunningDeadlineSeconds": int,
    "rayClusterSpec": dict,
    "runtimeEnvYAML": str,
    "shutdownAfterJobFinishes": bool,
    "submissionMode": str,
    "submitterConfig": dict,
    "submitterPodTemplate": dict,
    "suspend": bool,
    "ttlSecondsAfterFinished": int,
}
CLUSTER_FIELDS = {
    "authOptions": dict,
    "autoscalerOptions": dict,
    "enableInTreeAutoscaling": bool,
    "gcsFaultToleranceOptions": dict,
    "headGroupSpec": dict,
    "headServiceAnnotations": dict,
    "historyServerOptions": dict,
    "managedBy": str,
    "networkPolicy": dict,
    "rayVersion": str,
    "suspend": bool,
    "tlsOptions": dict,
    "upgradeStrategy": dict,
    "workerGroupSpecs": list,
}
AUTH_FIELDS = {"enableK8sTokenAuth": bool, "mode": str, "secretName": str}
AUTOSCALER_FIELDS = {
    "args": list,
    "command": list,
    "env": list,
    "envFrom": list,
    "idleTimeoutSeconds": int,
    "image": str,
    "imagePullPolicy": str,
    "resources": dict,
    "securityContext": dict,
    "upscalingMode": str,
    "version": str,
    "volumeMounts": list,
}
HEAD_FIELDS = {
    "enableIngress": bool,
    "headService": dict,
    "ingressOptions": dict,
    "labels": dict,
    "rayStartParams": dict,
    "resources": dict,
    "serviceType": str,
    "template": dict,
}
WORKER_FIELDS = {
    "groupName": str,
    "idleTimeoutSeconds": int,
    "labels": dict,
    "maxReplicas": int,
    "minReplicas": int,
    "numOfHosts": int,
    "priority": int,
    "rayStartParams": dict,
    "replicas": int,
    "resources": dict,
    "scaleStrategy": dict,
    "suspend": bool,
    "template": dict,
}
WORKER_REQUIRED = frozenset({"groupName", "maxReplicas", "minReplicas", "template"})
START_PARAMS = {"num-cpus", "num-gpus", "memory", "resources", "object-store-memory", "plasma-directory"}


def check_fields(
    value: dict[str, Any], known: dict[str, type], where: str, required: frozenset[str] = frozenset()
) -> None:
    assert not (unknown := set(value) - set(known)), f"{where}: KubeRay knows no {sorted(unknown)}"
    assert not (missing := required - set(value)), f"{where}: {sorted(missing)} is required"
    for name, content in value.items():
        assert type(content) is known[name], f"{where}.{name} is {content!r}, not {known[name].__name__}"


def load(name: str) -> dict[str, Any]:
    return yaml.safe_load((CLUSTER / name).read_text())


def cluster_spec(name: str) -> dict[str, Any]:
    spec = load(name)["spec"]
    return spec.get("rayClusterSpec", spec)


def groups(spec: dict[str, Any]) -> list[dict[str, Any]]:
    return [spec["headGroupSpec"], *spec["workerGroupSpecs"]]


def quantity(text: str) -> float:
    """Of Kubernetes, as far as used here: "500m" is 0.5, "2Gi" is 2 x 1024^3."""
    match = re.fullmatch(r"(\d+)(m|Mi|Gi|)", text)
    assert match, text
    number, suffix = match.groups()
    return int(number) * {"": 1.0, "m": 1e-3, "Mi": 2.0**20, "Gi": 2.0**30}[suffix]


# ---------------------------------------------------------------- what an entry point asks for


def run_config(command: str) -> RunConfig:
    """Through the job's own command line, with the job's defaults: unknown options and bad values are refused."""
    words = [word for word in shlex.split(command.replace("\\\n", " ")) if word != "$@"]
    arguments = words[next(i for i, word in enumerate(words) if word.startswith("--")) :]
    return parse("", SDXL_DEFAULTS, arguments)


def actors(config: RunConfig) -> list[tuple[float, float]]:
    """(CPUs, GPUs) of every actor at full size. Each scorer, held-out ones too, has its own replicas."""
    placement: PlacementConfig = config.placement
    scorers = [reward.pool(placement.scorer) for reward in config.all_rewards]
    counts = (
        (placement.train, placement.train.num),
        (placement.rollout, placement.rollout.max),
        *((pool, pool.max) for pool in scorers),
    )
    return [(group.cpus, group.gpus) for group, number in counts for _ in range(number)]


def place(asked: list[tuple[float, float]], nodes: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Actors left over when each goes to the first node with room, largest first."""
    free, left = [list(node) for node in nodes], []
    for cpus, gpus in sorted(asked, key=lambda a: (a[1], a[0]), reverse=True):
        for node in free:
            if node[0] >= cpus - 1e-9 and node[1] >= gpus - 1e-9:
                node[0] -= cpus
                node[1] -= gpus
                break
        else:
            left.append((cpus, gpus))
    return left


def slurm_text() -> str:
    return (CLUSTER / "slurm.sbatch").read_text()


def commands() -> dict[str, str]:
    """Every command line of the folder that starts a job, by where it stands (README: in its order)."""
    found = {"rayjob": load("kuberay-rayjob.yaml")["spec"]["entrypoint"]}
    (found["slurm"],) = re.findall(r"^python jobs/(?:[^\\\n]|\\\n)*", slurm_text(), re.M)
    readme = (CLUSTER / "README.md").read_text().replace("\\\n", " ")
    for number, command in enumerate(re.findall(r"^.*python jobs/.*$", readme, re.M)):
        found[f"readme-{number}"] = command.split("python jobs/")[1].split("`")[0]
    return found


def readme_table() -> list[tuple[int, str, str]]:
    """Rows of the table of sizes: GPUs, options, and the sum as written."""
    rows = []
    for line in (CLUSTER / "README.md").read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("|") and cells[0].isdigit() and len(cells) == 3:
            rows.append((int(cells[0]), cells[1].strip("`"), cells[2]))
    return rows


# ---------------------------------------------------------------- KubeRay


@pytest.mark.parametrize("name", MANIFESTS)
def test_kuberay_fields(name: str) -> None:
    manifest = load(name)
    assert manifest["apiVersion"] == "ray.io/v1"
    # KubeRay's limit on a cluster's name, less what a RayJob appends to its own.
    assert re.fullmatch(r"[a-z]([-a-z0-9]{0,45}[a-z0-9])?", manifest["metadata"]["name"])
    if manifest["kind"] == "RayJob":
        check_fields(manifest["spec"], JOB_FIELDS, "spec", frozenset({"rayClusterSpec"}))
        assert manifest["spec"]["submissionMode"] in ("K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode")
        assert manifest["spec"]["shutdownAfterJobFinishes"]
    else:
        assert manifest["kind"] == "RayCluster"
    spec = cluster_spec(name)
    check_fields(spec, CLUSTER_FIELDS, "cluster", frozenset({"headGroupSpec"}))
    check_fields(spec["authOptions"], AUTH_FIELDS, "authOptions")
    check_fields(spec["autoscalerOptions"], AUTOSCALER_FIELDS, "autoscalerOptions")
    check_fields(spec["headGroupSpec"], HEAD_FIELDS, "headGroupSpec", frozenset({"template"}))
    for group in spec["workerGroupSpecs"]:
        check_fields(group, WORKER_FIELDS, group["groupName"], WORKER_REQUIRED)
        assert 0 <= group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
    assert spec["enableInTreeAutoscaling"]
    assert spec["autoscalerOptions"]["version"] == "v2"
    assert spec["autoscalerOptions"]["upscalingMode"] in ("Default", "Aggressive", "Conservative")
    assert spec["authOptions"]["mode"] in ("disabled", "token")
    assert spec["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    assert spec["rayVersion"] == RAY_VERSION


@pytest.mark.parametrize("name", MANIFESTS)
def test_kuberay_pods(name: str) -> None:
    """Every pod: the image, the shared folder, the token by secret, and a /dev/shm that holds the object store."""
    for group in groups(cluster_spec(name)):
        assert set(group["rayStartParams"]) <= START_PARAMS
        assert all(isinstance(value, str) for value in group["rayStartParams"].values()), "the CRD wants strings"
        pod = group["template"]["spec"]
        assert "restartPolicy" not in pod, "autoscaler v2 refuses any but Never"
        (container,) = pod["containers"]
        assert container["image"] == "your-registry/rayalign:0.1.0"
        env = {entry["name"]: entry for entry in container["env"]}
        assert "secretKeyRef" in env["HF_TOKEN"]["valueFrom"]
        assert "value" not in env["HF_TOKEN"]
        assert all(isinstance(entry.get("value", ""), str) for entry in env.values()), "numbers must be quoted"
        limits = container["resources"]["limits"]
        # Ray counts the limits; without equal requests Kubernetes would pack what does not fit.
        assert container["resources"]["requests"] == limits
        mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        claim = volumes[mounts["/shared"]]["persistentVolumeClaim"]["claimName"]
        assert claim == load("kuberay-storage.yaml")["metadata"]["name"]
        assert env["HF_HOME"]["value"].startswith("/shared/")
        shm = quantity(volumes[mounts["/dev/shm"]]["emptyDir"]["sizeLimit"])
        assert int(group["rayStartParams"]["object-store-memory"]) < shm < quantity(limits["memory"]) / 2
        if "nvidia.com/gpu" in limits:
            assert {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"} in pod["tolerations"]


def test_storage_is_shared() -> None:
    assert load("kuberay-storage.yaml")["spec"]["accessModes"] == ["ReadWriteMany"]


def test_job_and_cluster_have_the_same_pods() -> None:
    job, standing = (cluster_spec(name) for name in MANIFESTS)
    for group in job["workerGroupSpecs"] + standing["workerGroupSpecs"]:
        group["replicas"] = group["minReplicas"] = 0  # the standing one shrinks to nothing
    assert job == standing


# ---------------------------------------------------------------- ray up


def test_ray_up_passes_rays_own_validation() -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    prepared = prepare_config(load("ray-up.yaml"))
    validate_config(prepared)
    types = prepared["available_node_types"]
    assert prepared["max_workers"] == sum(kind["max_workers"] for kind in types.values())
    assert types[prepared["head_node_type"]]["resources"] == {"CPU": 0}
    assert not any("pip install" in command for command in prepared["head_setup_commands"])
    options = " ".join(prepared["docker"]["run_options"])
    assert "-v /shared:/shared" in options
    assert "HF_TOKEN" not in options
    mounting = next(i for i, c in enumerate(prepared["initialization_commands"]) if "mount -t nfs4" in c)
    assert "/shared/runs" in prepared["initialization_commands"][mounting + 1]


# ---------------------------------------------------------------- settings


def test_options_exist_and_values_are_accepted() -> None:
    found = commands()
    assert set(found) == {"rayjob", "slurm", "readme-0", "readme-1", "readme-2"}
    for where, command in found.items():
        assert "hf_" not in command.lower(), f"{where}: a token in the arguments is in every log"
        config = run_config(command)
        assert set(config.scorer_names) <= set(SCORERS), where
        if where.startswith("readme") and config.output == "runs":
            continue  # the example for one machine
        assert config.output in ("/shared/runs", "$OUTPUT"), f"{where}: not a folder that every node sees"


def test_readme_names_only_settings_that_exist() -> None:
    known = {f"--{name}" for name, _ in settings(RunConfig)}
    named = set(re.findall(r"--[a-z_]+(?:\.[a-z_]+)+", (CLUSTER / "README.md").read_text()))
    assert not named - known


@pytest.mark.parametrize("option", ["--placement.rollout.gpu", "--placement.rollouts.max", "--train.gpus"])
def test_a_typo_would_be_seen(option: str) -> None:
    with pytest.raises(ConfigError, match="no such setting"):
        run_config(f"python jobs/tailorpo_sdxl.py {option} 1")


def kuberay_nodes(name: str) -> list[tuple[float, float]]:
    nodes = []
    for group in cluster_spec(name)["workerGroupSpecs"]:
        limits = group["template"]["spec"]["containers"][0]["resources"]["limits"]
        nodes += [(quantity(limits["cpu"]), quantity(limits.get("nvidia.com/gpu", "0")))] * group["maxReplicas"]
    return nodes


def ray_up_nodes() -> list[tuple[float, float]]:
    types = load("ray-up.yaml")["available_node_types"].values()
    return [
        (kind["resources"]["CPU"], kind["resources"].get("GPU", 0))
        for kind in types
        for _ in range(kind.get("max_workers", 0))
    ]


def slurm_nodes() -> list[tuple[float, float]]:
    set_to = dict(re.findall(r"^#SBATCH --([a-z-]+)=(\d+)", slurm_text(), re.M))
    return [(int(set_to["cpus-per-task"]), int(set_to["gpus-per-node"]))] * int(set_to["nodes"])


def test_placement_fits_the_nodes() -> None:
    """At full size: in sum, and actor by actor (a sum that fits may still leave halves on two GPUs)."""
    found = commands()
    cases = {
        "kuberay-rayjob.yaml": (found["rayjob"], kuberay_nodes("kuberay-rayjob.yaml")),
        "kuberay-raycluster.yaml": (found["rayjob"], kuberay_nodes("kuberay-raycluster.yaml")),
        "ray-up.yaml": (found["rayjob"], ray_up_nodes()),  # README submits the same size there
        "slurm.sbatch": (found["slurm"], slurm_nodes()),
    }
    for name, (command, nodes) in cases.items():
        asked = actors(run_config(command))
        assert sum(gpus for _, gpus in asked) == pytest.approx(8.0), "what the comments and the README say"
        for resource in (0, 1):
            assert sum(node[resource] for node in nodes) >= sum(actor[resource] for actor in asked), name
        assert place(asked, nodes) == [], name


def test_place_sees_fragmentation() -> None:
    # 1.5 GPUs asked of 2: 0.75 + 0.75 leaves a quarter on each, and the half does not fit.
    assert place([(0, 0.75), (0, 0.75), (0, 0.5)], [(8, 1), (8, 1)]) == [(0, 0.5)]
    assert place([(1, 0.5), (1, 0.3), (0.5, 0.2)], [(8, 1)]) == []


def test_readme_table_adds_up() -> None:
    rows = readme_table()
    assert [num_gpus for num_gpus, _, _ in rows] == [1, 4, 8, 64]
    for num_gpus, options, written in rows:
        config = run_config(f"--reward clip {options}")
        p = config.placement
        shares = [(p.train.num, p.train.gpus), (p.rollout.max, p.rollout.gpus), (p.scorer.max, p.scorer.gpus)]
        assert sum(number * gpus for number, gpus in shares) == pytest.approx(num_gpus)
        numbers = [float(n) for n in re.findall(r"[\d.]+", written)]
        assert numbers == pytest.approx([x for share in shares for x in share] + [num_gpus]), written
        # Fewer tickets than this leave rollout actors without work.
        assert config.rollout.tickets_per_iteration >= config.rollout.tickets_in_flight * p.rollout.max


# ---------------------------------------------------------------- the rest of the folder


def test_slurm_script_parses() -> None:
    subprocess.run(["bash", "-n", str(CLUSTER / "slurm.sbatch")], check=True)


def test_image_matches_everywhere() -> None:
    dockerfile = (CLUSTER / "Dockerfile").read_text()
    assert f"ARG BASE_IMAGE=rayproject/ray:{RAY_VERSION}-py311-" in dockerfile
    assert "USER root" not in dockerfile
    assert load("ray-up.yaml")["docker"]["image"] == "your-registry/rayalign:0.1.0"
    kept = re.findall(r"^!(.+)$", (CLUSTER / "Dockerfile.dockerignore").read_text(), re.M)
    copied = {word for line in re.findall(r"^COPY (?:--\S+ )*(.+) \S+$", dockerfile, re.M) for word in line.split()}
    assert copied == set(kept), "what COPY wants must reach the build, and nothing else"
    entry = load("kuberay-rayjob.yaml")["spec"]["entrypoint"]
    (workdir,) = re.findall(r"^WORKDIR (\S+)$", dockerfile, re.M)
    assert entry.startswith(f"python {workdir}/jobs/"), "the job is where the image has it"
