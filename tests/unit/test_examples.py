"""The examples for clusters, as far as one machine can tell."""

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SBATCH = ROOT / "examples" / "slurm" / "train.sbatch"
DOCKERFILE = ROOT / "examples" / "docker" / "Dockerfile"
ARGUMENTS = ["as-run-2012", "/data/imagenet", "/runs/as-run", "train.epochs=1"]


def test_the_slurm_script_is_clean():
    shellcheck = shutil.which("shellcheck")
    if shellcheck is None:
        pytest.skip("shellcheck is not installed (apt-get install shellcheck)")
    done = subprocess.run([shellcheck, str(SBATCH)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.fixture
def cluster(tmp_path):
    """Slurm's commands as stand-ins that write down how they were called; srun runs for a while, or not."""
    commands = {
        "scontrol": '[ "$1" = show ] && printf "node1\\nnode2\\n"; exit 0',
        "srun": 'trap "exit 143" TERM; for _ in $(seq "$RUN_TENTHS"); do sleep 0.1; done',
        "scancel": 'kill -TERM "$(cat "$CALLS.srun")"',
    }
    for name, body in commands.items():
        stand_in = tmp_path / name
        stand_in.write_text(f'#!/bin/bash\necho {name} "$@" >> "$CALLS"\necho $$ > "$CALLS.{name}"\n{body}\n')
        stand_in.chmod(0o755)
    slurm = {
        "SLURM_JOB_ID": "41",
        "SLURM_JOB_NUM_NODES": "2",
        "SLURM_JOB_NODELIST": "node[1-2]",
        "SLURM_GPUS_ON_NODE": "8",
    }
    calls = tmp_path / "calls"
    environment = {**os.environ, **slurm, "PATH": f"{tmp_path}:{os.environ['PATH']}", "CALLS": str(calls)}
    return calls, environment


def test_the_slurm_script_starts_torchrun_on_every_machine(cluster):
    from torch.distributed.run import get_args_parser

    calls, environment = cluster
    done = subprocess.run(["bash", SBATCH, *ARGUMENTS], env={**environment, "RUN_TENTHS": "0"}, capture_output=True)
    assert done.returncode == 0, done.stderr
    call = next(line for line in calls.read_text().splitlines() if line.startswith("srun")).split()
    arguments = get_args_parser().parse_args(call[call.index("torchrun") + 1 :])
    assert (arguments.nnodes, arguments.nproc_per_node, arguments.max_restarts) == ("2", "8", 3)
    assert arguments.rdzv_endpoint == "node1:20041" and arguments.module
    assert [arguments.training_script, *arguments.training_script_args] == [
        *("alexnet", "train", "as-run-2012", "--data", "/data/imagenet", "--output", "/runs/as-run", "--quiet"),
        "train.epochs=1",
    ]


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGTERM])
def test_the_slurm_script_saves_and_goes_back_into_the_queue(cluster, number):
    calls, environment = cluster
    running = subprocess.Popen(["bash", SBATCH, *ARGUMENTS], env={**environment, "RUN_TENTHS": "300"})
    deadline = time.monotonic() + 20
    while not (calls.is_file() and "srun" in calls.read_text()) and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.2)
    running.send_signal(number)
    assert running.wait(20) == 0
    names = [line.split()[0] + " " + line.split()[1] for line in calls.read_text().splitlines()]
    assert names[-2:] == ["scancel --signal=TERM", "scontrol requeue"]


def test_the_slurm_script_says_how_it_is_used():
    done = subprocess.run(["bash", SBATCH, "as-run-2012"], capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.startswith("usage: sbatch train.sbatch RECIPE DATA OUTPUT")


def test_the_trainjob_is_one_by_kubeflows_schema():
    models = pytest.importorskip("kubeflow_trainer_api.models", reason="pip install kubeflow-trainer-api")
    yaml = pytest.importorskip("yaml")
    written = yaml.safe_load((ROOT / "examples" / "kubernetes" / "trainjob.yaml").read_text())
    # What the schema does not know is left out on the way.
    assert models.TrainerV1alpha1TrainJob.from_dict(written).to_dict() == written
    arguments = written["spec"]["trainer"]["args"]
    from torch.distributed.run import get_args_parser

    parsed = get_args_parser().parse_args(arguments)
    assert parsed.module and parsed.training_script == "alexnet"
    assert parsed.training_script_args[:2] == ["train", "as-run-2012"]


def test_the_container_copies_all_that_the_package_is_built_from(tmp_path):
    lines = [line.split() for line in DOCKERFILE.read_text().splitlines()]
    copied = [source for line in lines if line[:1] == ["COPY"] for source in line[1:-1]]
    for source in copied:
        assert (ROOT / source).exists(), source
    project = (ROOT / "pyproject.toml").read_text()
    for file in ("README.md", "LICENSE"):
        assert (file in project) <= (file in copied), file
    assert {"pyproject.toml", "setup.py", "alexnet", "constraints.txt"} <= set(copied)
    assert ["ENTRYPOINT", '["alexnet"]'] in lines
