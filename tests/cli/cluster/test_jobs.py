"""What `submit` refuses before it reaches a cluster, and what `status` prints."""

from derain.cli.cluster import jobs
from derain.cli.cluster.jobs_output import listed
from derain.cli.printed.results import plain
from derain.pipelines.jobs.verb import Job
from tests.cli.conftest import Derainctl


def test_what_is_no_command_for_a_job_is_refused(derainctl: Derainctl) -> None:
    for words in (["trian"], ["submit"], ["ui"], ["derainctl"]):
        done = derainctl("submit", "--", *words)
        assert (done.returncode, done.stdout) == (2, "")
        assert "not a command for a job. Expected one of synthesize" in done.stderr


def test_a_cluster_that_does_not_answer_is_named_at_once(derainctl: Derainctl) -> None:
    done = derainctl("status", "--address", "http://127.0.0.1:1")
    assert done.returncode == 1
    assert "no job server of Ray can be reached at http://127.0.0.1:1" in done.stderr
    assert "ssh -L 8265:localhost:8265 HEAD" in done.stderr


def test_jobs_have_a_line_each_and_failures_their_reason() -> None:
    failed = Job(
        id="a", status="failed", command="train x.yaml", started=0.0, seconds=65.0, exit_code=2,
        message="x.yaml:3: unknown key",
    )  # fmt: skip
    lines = plain(listed([failed])).splitlines()
    assert lines[1].split() == ["a", "failed", "(2)", "65", "s", "train", "x.yaml"]
    assert lines[2] == "a: x.yaml:3: unknown key"
    assert failed.code == 2


def test_what_is_no_job_is_a_command_all_the_same(derainctl: Derainctl) -> None:
    for name in jobs.NOT_AS_JOBS:
        assert derainctl(name, "--help").returncode == 0
