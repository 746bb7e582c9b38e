"""The launchers: what they would run, what they refuse, how they restart."""

import os
import pathlib
import shutil
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
SCRIPTS = sorted((ROOT / 'launch').glob('*.sh'))
T5X = ['--gin', 'gin/spot_xxl.gin', '--out', 'gs://b/run', '--engine', 't5x']
TPU = ['--name', 'pod', '--zone', 'z']
GKE = ['--name', 'job', '--image', 'img', '--hosts', '4', '--chips', '4']


def call(script, *args, **env):
  return subprocess.run(
    ['bash', str(ROOT / 'launch' / f'{script}.sh'), *args],
    cwd=ROOT,
    env={**os.environ, **env},
    capture_output=True,
    text=True,
    check=False,
  )


def dry(script, *args):
  done = call(script, *args, '--dry-run')
  assert done.returncode == 0, done.stderr
  return [line.strip() for line in done.stdout.splitlines()]


def test_one_host_runs_one_command():
  (line,) = dry('single', '--gin', 'gin/spot.gin', '--out', 'runs/a b')
  assert line == (
    'python3 -m prompt_subspace.run --gin_file=gin/spot.gin '
    r'--gin.OUT=\"runs/a\ b\"'
  )
  done = call(
    'single', *T5X, '--dry-run', '--', '--gin.SEEDS=[0]', '--gin.X="a b"'
  )
  assert done.stdout.strip() == (
    'python3 -m t5x.train --gin_file=gin/spot_xxl.gin '
    r'--gin.MODEL_DIR=\"gs://b/run\" --gin.SEEDS=\[0\] --gin.X=\"a\ b\"'
  )


def test_every_gpu_has_a_process():
  lines = dry('gpus', *T5X, '--gpus', '3')
  assert len(lines) == 3
  for number, line in enumerate(lines):
    assert line.startswith(f'env CUDA_VISIBLE_DEVICES={number} python3 -m t5x')
    assert line.endswith(
      '--multiprocess_gpu --coordinator_address=localhost:12345 '
      f'--process_count=3 --process_index={number}'
    )


def test_processes_of_the_local_engine_know_each_other():
  local = T5X[:-2]
  lines = dry('gpus', *local, '--gpus', '2')
  for number, line in enumerate(lines):
    assert 'prompt_subspace.run --gin_file=gin/spot_xxl.gin' in line
    assert line.endswith(rf'--processes=localhost:12345\,2\,{number}')
  (line,) = dry('tpu', 'run', *TPU, *local)
  assert '--processes=auto' in line
  done = call('gke', *local, *GKE, '--accelerator', 'x', '--dry-run')
  assert '--processes=job-0.job:8476,4,$(JOB_COMPLETION_INDEX)' in done.stdout
  done = call(
    'gke', *local, *GKE, '--accelerator', 'x', '--tpu', '2x2', '--dry-run'
  )
  assert '--processes=auto' in done.stdout


def test_a_node_of_slurm_finds_out_who_it_is(tmp_path):
  fakes = {
    'sbatch': 'bash -c "${@: -1}"',
    'scontrol': 'echo node1; echo node2',
    'srun': 'shift; SLURM_NTASKS=2 SLURM_PROCID=1 "$@"',
    'python': 'echo "ran $*"',
  }
  for name, text in fakes.items():
    (tmp_path / name).write_text(f'#!/usr/bin/env bash\n{text}\n')
    (tmp_path / name).chmod(0o755)
  where = {
    'PATH': f'{tmp_path}:{os.environ["PATH"]}',
    'PYTHON': str(tmp_path / 'python'),
    'SLURM_NODELIST': 'node[1-2]',
  }
  done = call('slurm', *T5X[:-2], '--nodes', '2', '--gpus', '8', **where)
  (line,) = [x for x in done.stdout.splitlines() if x.startswith('ran ')]
  assert line.endswith('--gin.OUT="gs://b/run" --processes=node1:12345,2,1')
  done = call('slurm', *T5X, '--nodes', '2', '--gpus', '8', **where)
  (line,) = [x for x in done.stdout.splitlines() if x.startswith('ran ')]
  assert line.endswith(
    '--multiprocess_gpu --coordinator_address=node1:12345 --process_count=2 '
    '--process_index=1'
  )


def test_slurm_gets_one_job():
  (line,) = dry(
    'slurm', *T5X, '--nodes', '4', '--gpus', '8', '--partition', 'gpu'
  )
  for part in (
    'sbatch',
    '--nodes=4',
    '--gpus-per-node=8',
    '--requeue',
    '--partition=gpu',
    't5x.train',
    'SLURM_PROCID',
    'scontrol',
  ):
    assert part in line


def test_a_pod_is_created_set_up_used_and_deleted():
  (line,) = dry('tpu', 'create', *TPU, '--type', 'v4-32', '--spot')
  assert line.startswith('gcloud compute tpus queued-resources create pod')
  assert '--accelerator-type=v4-32' in line and line.endswith('--spot')
  copy, install = dry('tpu', 'setup', *TPU)
  assert ' scp --recurse . pod:prompt_subspace ' in copy
  assert '--worker=all' in install and r'\[tpu\]' in install
  (line,) = dry('tpu', 'run', *TPU, *T5X)
  assert line.startswith('gcloud compute tpus tpu-vm ssh pod --zone=z --worker')
  assert 't5x.train' in line and 'gs://b/run' in line
  (line,) = dry('tpu', 'delete', *TPU)
  assert ' delete pod ' in line


def test_kubernetes_gets_a_pod_for_each_host():
  yaml = pytest.importorskip('yaml')
  kinds = {
    'google.com/tpu': ['--accelerator', 'tpu-v4-podslice', '--tpu', '2x2x4'],
    'nvidia.com/gpu': ['--accelerator', 'nvidia-h100-80gb'],
  }
  for resource, given in kinds.items():
    done = call('gke', *T5X, *GKE, *given, '--dry-run', '--', "--gin.X='a'")
    assert done.returncode == 0, done.stderr
    service, job = yaml.safe_load_all(done.stdout)
    assert service['spec']['selector'] == {'job-name': 'job'}
    assert job['spec']['completions'] == job['spec']['parallelism'] == 4
    pod = job['spec']['template']['spec']
    (worker,) = pod['containers']
    assert worker['resources']['limits'] == {resource: 4}
    assert worker['command'][:3] == ['python3', '-m', 't5x.train']
    assert "--gin.X='a'" in worker['command']
    gpu = resource == 'nvidia.com/gpu'
    index = '--process_index=$(JOB_COMPLETION_INDEX)'
    assert (index in worker['command']) == gpu


@pytest.mark.parametrize(
  'script, args, said',
  [
    ('single', ['--out', 'x'], '--gin: expected a gin file'),
    ('single', ['--gin', 'x'], '--out: expected a folder'),
    ('single', [*T5X, '--much'], 'unknown arguments: --much'),
    ('single', [*T5X[:-1], 'other'], '--engine: expected local or t5x'),
    ('single', [*T5X, '--retries', 'x'], '--retries: expected a whole number'),
    ('gpus', [*T5X], '--gpus: expected how many'),
    ('slurm', [*T5X, '--nodes', '2'], '--gpus: expected a number'),
    ('tpu', ['start'], 'expected create, setup, run or delete'),
    ('tpu', ['create', '--name', 'x'], '--zone: expected a zone'),
    (
      'tpu',
      ['run', *TPU, '--gin', 'g', '--out', 'here', '--engine', 't5x'],
      '--out: expected a bucket',
    ),
    ('gke', [*T5X, *GKE], '--accelerator: expected a value'),
  ],
)
def test_mistakes_are_named(script, args, said):
  done = call(script, *args, '--dry-run')
  assert done.returncode == 2
  assert said in done.stderr


def test_what_is_missing_is_said_before_anything_starts(tmp_path):
  given = ['--gin', 'gin/none.gin', '--out', str(tmp_path)]
  done = call('single', *given)
  assert done.returncode == 2 and 'gin/none.gin: expected a file' in done.stderr
  given[1] = 'gin/spot.gin'
  done = call('single', *given, PYTHON='no-such-python')
  assert done.returncode == 2 and 'no-such-python: expected' in done.stderr


@pytest.mark.parametrize('retries, code', [(3, 0), (1, 2)])
def test_a_failed_run_is_started_again(tmp_path, retries, code):
  """A stand-in for Python that fails twice, and then does it."""
  python = tmp_path / 'python'
  python.write_text(
    f'#!/bin/sh\necho "$@" >> {tmp_path}/calls\n'
    f'[ $(wc -l < {tmp_path}/calls) -ge 3 ]\n'
  )
  python.chmod(0o755)
  done = call(
    'single',
    *('--gin', 'gin/spot.gin', '--out', 'runs/x', '--retries', str(retries)),
    PYTHON=str(python),
    RETRY_SECONDS='0',
  )
  assert done.returncode == code, done.stderr
  lines = (tmp_path / 'calls').read_text().splitlines()
  assert len(lines) == min(3, retries + 1) and len(set(lines)) == 1


@pytest.mark.parametrize('script', [p.name for p in SCRIPTS])
def test_scripts_are_sound(script):
  path = ROOT / 'launch' / script
  subprocess.run(['bash', '-n', str(path)], check=True)
  if script != '_common.sh':
    assert os.access(path, os.X_OK)
  beside = pathlib.Path(sys.executable).with_name('shellcheck')
  found = shutil.which('shellcheck') or shutil.which(beside)
  assert found, 'a development dependency: pip install -e .[dev]'
  subprocess.run(
    [found, '--external-sources', '--exclude=SC1091,SC2034', script],
    cwd=ROOT / 'launch',
    check=True,
  )
