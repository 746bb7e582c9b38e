"""A run folder belongs to what decides its results; records are whole."""

import json
import math

import jax
import pytest

from prompt_subspace.training import job

IDENTITY = {
  'fingerprint': 'abc',
  'settings': {'steps': 10, 'shots': None, 'lengths': (1, 2)},
  'tasks': {'sst2': '11'},
}


def changed(**fields):
  return json.loads(json.dumps(IDENTITY)) | fields


def with_a_result(folder):
  job.write_json(folder / 'rows' / 'sst2.json', {'score': 1.0})
  return folder


def test_a_folder_is_tied_to_what_claimed_it(tmp_path):
  job.claim(with_a_result(tmp_path / 'new'), IDENTITY)
  before = (tmp_path / 'new' / 'identity.json').read_bytes()
  job.claim(tmp_path / 'new', IDENTITY)
  assert (tmp_path / 'new' / 'identity.json').read_bytes() == before
  with pytest.raises(ValueError) as error:
    job.claim(
      tmp_path / 'new',
      changed(fingerprint='xyz', settings={'steps': 20, 'shots': 4}),
    )
  message = str(error.value)
  assert "fingerprint: it was 'abc', asked for is 'xyz'" in message
  assert 'settings.steps: it was 10, asked for is 20' in message
  assert 'settings.shots: it was None, asked for is 4' in message
  assert 'Name another folder' in message
  assert (tmp_path / 'new' / 'identity.json').read_bytes() == before


def test_a_folder_of_another_recipe_or_a_file_is_refused(tmp_path):
  job.claim(with_a_result(tmp_path / 'new'), changed(recipe='tune'))
  with pytest.raises(ValueError, match="recipe: it was 'tune', asked for is"):
    job.check(tmp_path / 'new', {'recipe': 'learn'})
  with pytest.raises(ValueError, match="A task's mark is that of its files"):
    job.check(tmp_path / 'new', changed(tasks={'sst2': '12'}))
  (tmp_path / 'file').write_text('x')
  with pytest.raises(ValueError, match='out: expected a folder .*file'):
    job.check(tmp_path / 'file', IDENTITY)


@pytest.mark.parametrize('kept', ['rows/a.json', 'stacks/1/checkpoints/10'])
def test_what_to_do_depends_on_whether_there_are_results(tmp_path, kept):
  job.claim(tmp_path, IDENTITY)
  job.write_json(tmp_path / 'stacks' / '1' / 'events.json', {})
  with pytest.raises(ValueError, match='no results:\n(.*\n)+.*or remove it'):
    job.claim(tmp_path, changed(fingerprint='xyz'))
  job.write_json(tmp_path / kept, {})
  with pytest.raises(ValueError, match='holds results that were made diff'):
    job.claim(tmp_path, changed(fingerprint='xyz'))


def test_check_writes_nothing(tmp_path):
  job.check(tmp_path / 'new', IDENTITY)
  assert not list(tmp_path.iterdir())
  job.claim(with_a_result(tmp_path), IDENTITY)
  with pytest.raises(ValueError, match='fingerprint'):
    job.check(tmp_path, changed(fingerprint=''))


def test_what_is_added_later_is_held_to_as_well(tmp_path):
  job.claim(with_a_result(tmp_path), IDENTITY)
  job.claim(tmp_path, changed(tasks={'cola': '22'}))
  job.claim(tmp_path, IDENTITY)
  for tasks in ({'cola': '33'}, {'sst2': '12', 'cola': '22'}):
    with pytest.raises(ValueError, match='tasks.(cola|sst2): it was'):
      job.claim(tmp_path, changed(tasks=tasks))


def test_json_is_written_whole_or_not_at_all(tmp_path):
  path = tmp_path / 'new' / 'row.json'
  job.write_json(path, {'score': math.nan, 'name': 'ä'})
  with pytest.raises(TypeError):
    job.write_json(path, {'score': object()})
  assert [p.name for p in path.parent.iterdir()] == ['row.json']
  read = json.loads(path.read_text(encoding='utf-8'))
  assert math.isnan(read['score']) and read['name'] == 'ä'


def test_the_environment_names_versions_and_devices():
  found = job.environment()
  assert found['versions']['jax'] == jax.__version__
  assert set(found['versions']) == set(job.PACKAGES)
  assert found['devices'] == [str(d) for d in jax.devices()]
  json.dumps(found)
