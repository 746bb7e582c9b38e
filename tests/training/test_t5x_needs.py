"""What gin files for T5X need is said exactly, and nothing is imported."""

import pathlib

import pytest

from prompt_subspace import check
from prompt_subspace.training import t5x_needs

ROOT = pathlib.Path(__file__).parents[2]
FILES = (
  'spot_xxl',
  'mpt_xxl',
  'ipt_xxl',
  'unified_xxl',
  'unified_space_xxl',
  'unified_inside_xxl',
  't5x_eval',
  't5x_infer',
  'tune',
)


def test_gin_files_say_which_program_runs_them(monkeypatch):
  monkeypatch.chdir(ROOT)
  found = {name: t5x_needs.command([f'gin/{name}.gin']) for name in FILES}
  assert found == {
    'spot_xxl': 't5x.train',
    'mpt_xxl': 't5x.train',
    'ipt_xxl': 't5x.train',
    'unified_xxl': 't5x.train',
    'unified_space_xxl': 't5x.train',
    'unified_inside_xxl': 't5x.train',
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


def depth(path):
  """How deep the includes of a gin file of ours go."""
  found = t5x_needs.INCLUDE.findall(path.read_text())
  return max([0, *(1 + depth(ROOT / x) for x in found if x.startswith('gin/'))])


@pytest.mark.parametrize(
  'path', sorted(ROOT.glob('gin/**/*.gin')), ids=lambda p: p.stem
)
def test_includes_are_at_most_two_deep(path):
  assert depth(path) <= 2
