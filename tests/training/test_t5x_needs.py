"""What gin files for T5X need is said exactly, and nothing is imported."""

import pathlib

import pytest

from prompt_subspace import check
from prompt_subspace.training import t5x_needs

ROOT = pathlib.Path(__file__).parents[2]


def test_gin_files_say_which_program_runs_them(monkeypatch):
  monkeypatch.chdir(ROOT)
  found = {
    name: t5x_needs.command([f'gin/{name}.gin'])
    for name in ('spot_xxl', 'mpt_xxl', 't5x_eval', 't5x_infer', 'tune')
  }
  assert found == {
    'spot_xxl': 't5x.train',
    'mpt_xxl': 't5x.train',
    't5x_eval': 't5x.eval',
    't5x_infer': 't5x.infer',
    'tune': None,
  }


def test_check_lists_what_is_not_installed(monkeypatch, capsys):
  monkeypatch.chdir(ROOT)
  monkeypatch.setitem(t5x_needs.NEEDS, 'no_such.module', 'nothing==1.2')
  monkeypatch.setitem(t5x_needs.NEEDS, 'numpy', 'numpy of all things')
  assert check.main(['--gin_file=gin/spot_xxl.gin']) == 2
  error = capsys.readouterr().err
  assert '\n  nothing==1.2\n' in error
  assert 'numpy of all things' not in error


def test_check_says_how_to_run_where_all_is_there(monkeypatch, capsys):
  monkeypatch.chdir(ROOT)
  monkeypatch.setattr(t5x_needs, 'NEEDS', {'numpy': 'numpy'})
  assert check.main(['--gin_file=gin/spot_xxl.gin']) == 0
  out = capsys.readouterr().out
  assert 'python -m t5x.train --gin_file=gin/spot_xxl.gin' in out


@pytest.mark.parametrize(
  'path', sorted(ROOT.glob('gin/sizes/*.gin')), ids=lambda p: p.stem
)
def test_includes_are_at_most_two_deep(path):
  """spot_xxl.gin includes these; what they include, includes no more."""
  deeper = [
    line for line in path.read_text().splitlines() if line.startswith('include')
  ]
  if path.stem == 'frozen':
    assert not deeper
  else:
    assert deeper == ["include 'gin/sizes/frozen.gin'"]
