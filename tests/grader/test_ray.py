"""The same work on a Ray cluster: two workers on this machine give the marks that one process gives."""

from __future__ import annotations

import pytest
from grading import DAY, gradebook_rows, hand_in, options, said_aloud

from grader.marks.record import read_records
from grader.pipeline.example_class import answers_of_class, submission
from grader.pipeline.grade import grade
from grader.pipeline.pool import Setup
from grader.pipeline.ray_pool import RayError, RayPool
from grader.sandbox.command import Level
from grader.sandbox.limits import Limits


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_cluster_of_two_workers_gives_the_same_marks(tmp_path):
    ray = pytest.importorskip("ray", reason="needs Ray: pip install 'tinyllm-course[ray]'")
    answers = dict(answers_of_class(DAY, mistakes=False))
    hand_in(tmp_path / "class", {name: submission(DAY, answer) for name, answer in answers.items()})
    said_aloud(grade(tmp_path / "class", tmp_path / "here", [DAY], options()))
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        grade(tmp_path / "class", tmp_path / "ray", [DAY], options(ray="auto", jobs=2))
    finally:
        ray.shutdown()
    assert (tmp_path / "ray" / "marks.csv").read_bytes() == (tmp_path / "here" / "marks.csv").read_bytes()
    assert gradebook_rows(tmp_path / "ray") == gradebook_rows(tmp_path / "here")
    assert read_records(tmp_path / "ray") == read_records(tmp_path / "here")


def test_without_ray_it_is_told_what_to_install(monkeypatch, tmp_path):
    import sys

    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(RayError, match=r"tinyllm-course\[ray\]"):
        RayPool(Setup(Level.NONE, tmp_path, Limits()), "auto", 2)
