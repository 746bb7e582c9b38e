"""Who may import whom, and what no import may bring in.

The layers are a promise: what is below knows nothing of what is above.
"""

import ast
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
PACKAGE = 'prompt_subspace'

# part of the package -> the other parts that it may import
BASE = {'trees', 'objectives', 'vocabulary', 'heap'}
FLOOR = {*BASE, 'deltas', 'reparams', 'backbone', 'data'}
ENGINE = {*FLOOR, 'training', 'evaluation', 'bank'}
ROOMS = ('spot', 'meta', 'unified', 'instance')
ALLOWED = {
  'trees': set(),
  'heap': set(),
  'vocabulary': set(),
  'objectives': {'trees'},
  'deltas': BASE,
  'reparams': {*BASE, 'deltas.base'},
  'backbone': {*BASE, 'deltas.base'},
  'data': BASE,
  **{name: ENGINE for name in ('training', 'evaluation', 'bank')},
  **{name: ENGINE for name in ROOMS},
  **dict.fromkeys(('report', 'run', 'check', 'predict'), None),
}
# single files with more or less: the metrics of a SeqIO task are ours
EXCEPTIONS = {
  'data/seqio_tasks.py': {'evaluation'},
}
# third-party module -> the only files that may import it at the top, and those
# that may do so inside of functions
HELD = {
  'flax': (
    ('backbone/', 'training/t5x_model.py', 'instance/'),
    (),
  ),
  't5x': (('training/t5x_model.py',), ()),
  'gin': (('run.py', 'check.py'), ()),
  'seqio': ((), ('vocabulary.py', 'data/', 'training/t5x_model.py')),
  'tensorflow': ((), ('data/',)),
  'tensorflow_datasets': ((), ('data/',)),
}
# part -> all that it may need at the top besides the standard library
ARRAYS = {'jax', 'numpy', 'jaxtyping'}
NEEDED = {
  **dict.fromkeys(
    ('trees', 'heap', 'objectives', 'deltas', 'reparams'), ARRAYS
  ),
  'vocabulary': {'sentencepiece'},
  'data': {'numpy', 'jaxtyping'},
}
FILES = sorted((ROOT / PACKAGE).rglob('*.py'))
NAMES = [str(f.relative_to(ROOT / PACKAGE)) for f in FILES]


def imports(path, top_only=False):
  """Yields the dotted names that a file imports."""
  tree = ast.parse(path.read_text(encoding='utf-8'))
  checking = [
    inner
    for node in ast.walk(tree)
    if isinstance(node, ast.If) and 'TYPE_CHECKING' in ast.dump(node.test)
    for inner in ast.walk(node)
  ]
  nodes = [n for n in ast.walk(tree) if n not in checking]
  if top_only:
    inside = {
      inner
      for node in nodes
      if isinstance(node, ast.FunctionDef)
      for inner in ast.walk(node)
    }
    nodes = [n for n in nodes if n not in inside]
  for node in nodes:
    if isinstance(node, ast.Import):
      yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
      assert node.level == 0, f'{path}: relative import'
      yield node.module
      yield from (f'{node.module}.{alias.name}' for alias in node.names)


def part_of(name):
  """The part of the package that a file belongs to."""
  return name.split('/')[0].removesuffix('.py')


@pytest.mark.parametrize('name', NAMES)
def test_imports_go_down(name):
  part = part_of(name)
  if part == '__init__':
    return
  allowed = ALLOWED[part]
  if allowed is None:
    return
  allowed = {*allowed, part, *EXCEPTIONS.get(name, ())}
  for found in imports(ROOT / PACKAGE / name):
    pieces = found.split('.')
    if pieces[0] == PACKAGE and len(pieces) > 1:
      ways = {pieces[1], '.'.join(pieces[1:3])}
      assert ways & allowed, f'{name} imports {found}'


@pytest.mark.parametrize('name', NAMES)
def test_methods_do_not_know_each_other(name):
  part = part_of(name)
  if part in ('deltas', 'reparams') and not name.endswith('__init__.py'):
    for found in imports(ROOT / PACKAGE / name):
      pieces = found.split('.')
      if pieces[:2] == [PACKAGE, part]:
        # what is inside of fastfood is no map of its own
        shared = ('base', 'trilinear')
        assert pieces[2] in shared, f'{name} imports {found}'


@pytest.mark.parametrize('name', NAMES)
def test_third_party_modules_stay_where_they_belong(name):
  path, part = ROOT / PACKAGE / name, part_of(name)
  at_top = {found.split('.')[0] for found in imports(path, top_only=True)}
  anywhere = {found.split('.')[0] for found in imports(path)}
  for module, (top, inside) in HELD.items():
    if module in at_top:
      assert name.startswith(top), f'{name} imports {module} at the top'
    elif module in anywhere:
      assert name.startswith((*top, *inside)), f'{name} imports {module}'
  if part in NEEDED:
    known = {*sys.stdlib_module_names, PACKAGE, *NEEDED[part]}
    assert not at_top - known, f'{name} imports {at_top - known}'


def test_the_walk_sees_imports(tmp_path):
  file = tmp_path / 'sample.py'
  file.write_text(
    'import a.b\nfrom c import d\n'
    'def f():\n  import seqio\n'
    'if TYPE_CHECKING:\n  import never\n'
  )
  assert set(imports(file)) == {'a.b', 'c', 'c.d', 'seqio'}
  assert set(imports(file, top_only=True)) == {'a.b', 'c', 'c.d'}


def test_tasks_import_only_the_file_source():
  for path in (ROOT / 'tasks').glob('*.py'):
    for found in imports(path):
      if found.startswith(PACKAGE):
        assert found.startswith(f'{PACKAGE}.data'), f'{path.name}: {found}'


def test_gin_is_not_a_package():
  # from the root of the repository it would hide the library of that name
  assert not (ROOT / 'gin' / '__init__.py').exists()


def test_importing_everything_brings_no_tensorflow():
  modules = [
    '.'.join([PACKAGE, *pathlib.PurePath(n).with_suffix('').parts])
    for n in NAMES
    if not n.endswith('__init__.py') and n != 'training/t5x_model.py'
  ]
  code = (
    'import importlib, sys\n'
    f'for name in {modules!r}: importlib.import_module(name)\n'
    'import tasks.english\n'
    "print([m for m in ('tensorflow', 'seqio', 't5x') if m in sys.modules])\n"
  )
  found = subprocess.run(
    [sys.executable, '-c', code],
    cwd=ROOT,
    capture_output=True,
    text=True,
    check=True,
  )
  assert found.stdout.strip() == '[]'
