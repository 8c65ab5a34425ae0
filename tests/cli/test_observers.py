"""Sacred's observers beside our record: what they receive, and that none can harm a run."""

import gc
import json
import sqlite3
import sys
from pathlib import Path

import pytest
from sacred.observers import FileStorageObserver, RunObserver, SqlObserver, TinyDbReader

import experiment
from bbb import runs
from bbb.cli import session
from tests import servers
from tests.tasks import SMALL, command, interrupt_after, refused

RUN = ["with", "blundell", *SMALL, "num_epochs=2"]
OURS = Path("results/blundell/1")
ARTIFACTS = ["log.txt", "weights.safetensors", "training.png"]
METRICS = {"train.nll", "train.kl", "train.elbo", "train.accuracy", "train.seconds"}
METRICS |= {"validation.accuracy", "validation.nll"}
KEPT_OPEN = pytest.mark.filterwarnings(  # by Sacred's observer for TinyDB
    "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)


class Recording(RunObserver):
    """An observer of a user's own, which fails while it is told to."""

    def __init__(self, fails=lambda name, event: False):
        self.fails, self.events, self.steps = fails, [], []

    def __getattribute__(self, name):
        if not name.endswith("_event") and name not in ("log_metrics", "join"):
            return super().__getattribute__(name)

        def receive(**event):
            if self.fails(name, event):
                raise ConnectionError("the server is gone\nand more")
            if name == "log_metrics":
                self.steps += event["metrics_by_name"].get("train.nll", {"steps": []})["steps"]
            self.events.append((name, event))

        return receive

    def log_metrics(self, metrics_by_name, info):
        """It takes metrics."""

    def named(self, name):
        return [event for kind, event in self.events if kind == name]


@pytest.fixture
def observe(monkeypatch):
    """Add an observer in Python, as users do, until the test ends."""

    def add(observer):
        monkeypatch.setattr(experiment.ex, "observers", [*experiment.ex.observers, observer])
        return observer

    return add


def read(path):
    return json.loads(Path(path).read_text())


def sql_rows(path, query):
    with sqlite3.connect(path) as database:
        database.row_factory = sqlite3.Row
        rows = [dict(row) for row in database.execute(query)]
    database.close()
    return rows


def check_sql(run, artifacts):
    """What an SQL database must hold of a completed run, and in which form."""
    ours = read(OURS / "run.json")
    info = json.loads(run["info"])
    assert (run["status"], run["result"]) == ("COMPLETED", pytest.approx(ours["result"]["test_error"]))
    assert info["result"] == ours["result"]
    assert info["folder"] == str(OURS)
    assert {name: (m["steps"], m["values"]) for name, m in info["metrics"].items()} == {
        name: (m["steps"], m["values"]) for name, m in read(OURS / "metrics.json").items()
    }
    assert json.loads(run["config"]) == read(OURS / "config.json")
    assert run["captured_out"] == (OURS / "cout.txt").read_text()
    assert artifacts == {name: (OURS / name).read_bytes() for name in ARTIFACTS}


def test_observers_of_the_command_line_receive_all_that_ours_records(in_tmp, capsys, caplog):
    command("-F", "files", "-s", "sqlite:///runs.db", *RUN)
    assert (capsys.readouterr().err, caplog.records) == ("", [])
    ours = read(OURS / "run.json")
    assert ours["artifacts"] == ARTIFACTS
    assert {path.name for path in OURS.iterdir()} == {
        *("run.json", "config.json", "metrics.json", "cout.txt", "findings.json"),
        *ARTIFACTS,
    }
    theirs = read("files/1/run.json")
    assert {**theirs, "heartbeat": 0, "experiment": 0} == {**ours, "heartbeat": 0, "experiment": 0}
    assert read("files/1/config.json") == read(OURS / "config.json")
    assert read("files/1/metrics.json") == read(OURS / "metrics.json")
    assert all(Path("files/1", name).read_bytes() == (OURS / name).read_bytes() for name in ARTIFACTS)
    (run,) = sql_rows("runs.db", "select * from run")
    check_sql(run, {row["filename"]: row["content"] for row in sql_rows("runs.db", "select * from artifact")})


@pytest.mark.slow
@KEPT_OPEN
def test_tinydb_receives_all_that_ours_records(in_tmp, capsys, caplog):
    command("-t", "tiny", *RUN)
    assert (capsys.readouterr().err, caplog.records) == ("", [])
    reader = TinyDbReader("tiny")
    (entry,) = reader.fetch_metadata("bbb")
    assert (entry["status"], entry["result"]) == ("COMPLETED", read(OURS / "run.json")["result"])
    assert entry["config"] == read(OURS / "config.json")
    assert entry["info"]["metrics"].keys() == METRICS
    (files,) = reader.fetch_files("bbb")
    assert {name: file.read() for name, file in files["artifacts"].items()} == {
        name: (OURS / name).read_bytes() for name in ARTIFACTS
    }
    del reader, entry, files
    gc.collect()  # in this test, whose warnings are ignored


def test_an_observer_added_in_python_is_told_everything_in_order(in_tmp, observe):
    observer = observe(Recording())
    command(*RUN)
    names = [name for name, _ in observer.events if name not in ("heartbeat_event", "log_metrics")]
    assert names == ["started_event", *["artifact_event"] * 3, "completed_event", "join"]
    assert [event["name"] for event in observer.named("artifact_event")] == ARTIFACTS
    kinds = [event["content_type"] for event in observer.named("artifact_event")]
    assert kinds == ["text/plain", "application/octet-stream", "image/png"]
    assert observer.steps == [1, 2]
    assert observer.named("heartbeat_event")[-1]["info"] == {"folder": str(OURS)}
    assert observer.named("completed_event")[0]["result"] == read(OURS / "run.json")["result"]


def test_sacreds_own_sql_observer_added_in_python_takes_our_result(in_tmp, observe, capsys):
    observe(SqlObserver("sqlite:///runs.db"))
    command(*RUN)
    assert capsys.readouterr().err == ""
    (run,) = sql_rows("runs.db", "select * from run")
    check_sql(run, {row["filename"]: row["content"] for row in sql_rows("runs.db", "select * from artifact")})


def test_each_observer_numbers_its_own_runs(in_tmp, capsys):
    """With Sacred's way, the number that one gives is taken in the folder of another."""
    command("-F", "files", *RUN)
    command("-F", "files", "-s", "sqlite:///runs.db", *RUN)
    assert capsys.readouterr().err == ""
    assert read("files/2/run.json")["status"] == "COMPLETED"


def test_no_observer_changes_what_the_next_one_is_told(in_tmp, observe):
    """Sacred's observer of files replaces the checksums of the sources by paths, for all that come later."""
    observer = observe(Recording())
    command("-F", "files", *RUN)
    (start,) = observer.named("started_event")
    assert {len(checksum) for _, checksum in start["ex_info"]["sources"]} == {32}


def test_a_resumed_run_hands_over_its_files_once(in_tmp, monkeypatch, observe):
    observer = observe(Recording())
    with monkeypatch.context() as patch:
        interrupt_after(patch, 1)
        with pytest.raises(SystemExit):
            command(*RUN)
    assert observer.named("artifact_event") == []
    assert [event["status"] for event in observer.named("interrupted_event")] == ["INTERRUPTED"]
    command(*RUN, "resume=True")
    assert [event["name"] for event in observer.named("artifact_event")] == ARTIFACTS
    assert read(OURS / "run.json")["artifacts"] == ARTIFACTS
    assert observer.steps == [1, 1, 2], "the second record has all epochs"


def test_a_file_from_elsewhere_is_copied_into_our_record(in_tmp, monkeypatch):
    (in_tmp / "notes.txt").write_text("mine")
    publish = runs.publish
    monkeypatch.setattr(
        session.runs, "publish", lambda folder: (experiment.ex.add_artifact("notes.txt"), publish(folder))
    )
    command(*RUN)
    assert read(OURS / "run.json")["artifacts"] == [*ARTIFACTS, "notes.txt"]
    assert (OURS / "notes.txt").read_text() == "mine"


def test_an_observer_that_fails_in_mid_run_stops_nothing_and_is_named_in_one_line(in_tmp, observe, capsys):
    observe(Recording(fails=lambda name, event: name not in ("started_event", "join")))
    command(*RUN)
    assert capsys.readouterr().err == (
        "warning: Recording: failed during the run (the server is gone); its record misses the metrics from epoch 1 "
        f"on, log.txt, weights.safetensors, training.png, the result and how it ended; {OURS} has everything\n"
    )
    assert read(OURS / "run.json")["status"] == "COMPLETED"
    assert read(OURS / "metrics.json").keys() == METRICS


def test_what_an_observer_missed_it_gets_when_it_is_back(in_tmp, observe, capsys):
    fails = iter([True, True])
    observer = observe(Recording(fails=lambda name, event: name == "artifact_event" and next(fails, False)))
    command(*RUN)
    assert capsys.readouterr().err == ""
    assert [event["name"] for event in observer.named("artifact_event")] == ARTIFACTS
    assert observer.steps == [1, 2]
    assert len(observer.named("completed_event")) == 1


def test_an_interrupted_run_says_what_an_observer_misses(in_tmp, observe, capsys, monkeypatch):
    observe(Recording(fails=lambda name, event: name == "interrupted_event"))
    interrupt_after(monkeypatch, 1)
    with pytest.raises(SystemExit) as stop:
        command(*RUN)
    assert stop.value.code == 130
    warning, stopped = capsys.readouterr().err.splitlines()
    assert "its record misses the result and how it ended" in warning
    assert stopped.startswith("stopped; the same command")


def test_our_record_is_first(in_tmp, observe):
    """So a server that does not answer keeps nothing from it."""
    seen = []

    class Slow(Recording):
        priority = 10**6

    def look(name, event):
        seen.append((name, OURS.exists() and read(OURS / "run.json")["status"]))
        return False

    observe(Slow(fails=look))
    command(*RUN)
    assert ("completed_event", "COMPLETED") in seen


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["-s", "nonsense"], "--sql=nonsense: must be an address such as sqlite:///FILE or postgresql+psycopg://"),
        (["-s", "what://there"], "--sql=what://there: must be an address such as"),
        (
            ["-s", "sqlite:///no/such/folder/a.db"],
            "--sql=sqlite:///no/such/folder/a.db: cannot keep a ",
        ),
        (["-m", "a:b:c"], "--mongo_db=a:b:c: must be HOST:PORT:DATABASE, or DATABASE on this machine"),
        (["-S", "bucket"], "--s3=bucket: must be s3://BUCKET/FOLDER"),
        (["-F", "a-file/files"], "--file_storage=a-file/files: cannot keep a record of this run ("),
        (["-t", "a-file/tiny"], "--tiny_db=a-file/tiny: cannot keep a record of this run ("),
        (["-t", "tiny", "-F", "a-file/files"], "--file_storage=a-file/files: cannot keep a record of this run ("),
    ],
    ids=lambda part: " ".join(part) if isinstance(part, list) else "",
)
def test_an_observer_that_cannot_begin_is_refused_before_anything_is_written(in_tmp, capsys, words, line):
    (in_tmp / "a-file").write_text("")
    (printed,) = refused(capsys, *words, *RUN)
    assert printed.startswith(f"error: {line}")
    assert [path.name for path in in_tmp.iterdir()] == ["a-file"]


def test_a_refused_run_leaves_nothing_with_any_observer(in_tmp, capsys, observe):
    observer = observe(Recording())
    words = ["-F", "files", "-s", "sqlite:///runs.db", "-t", "tiny", *RUN]
    for wrong in ("pretrained=nope", "lr=-1"):
        refused(capsys, *words, wrong)
    command("-t", "tiny", "print_config")
    assert [*in_tmp.iterdir()] == []
    assert observer.events == []


@pytest.mark.parametrize(
    ("module", "address", "line"),
    [
        ("psycopg", "postgresql+psycopg://a@b/c", "run: pip install 'psycopg[binary]'"),
        ("psycopg2", "postgresql+psycopg2://a@b/c", "run: pip install psycopg2-binary; or write postgresql+psycopg://"),
        ("MySQLdb", "mysql://a@b/c", "run: pip install mysqlclient"),
    ],
)
def test_a_database_without_its_driver_gets_one_line(in_tmp, capsys, monkeypatch, module, address, line):
    monkeypatch.setitem(sys.modules, module, None)
    assert refused(capsys, "-s", address, *RUN) == [f"error: --sql: needs what is not installed; {line}"]
    assert [*in_tmp.iterdir()] == []


def test_no_record_and_no_message_holds_a_password(in_tmp, capsys):
    address = "sqlite:///runs.db?password=secret&uri=true"
    command("-s", address, *RUN)
    assert "secret" not in (OURS / "run.json").read_text()
    assert read(OURS / "run.json")["meta"]["options"]["--sql"] == "sqlite:///runs.db?password=***&uri=true"
    (line,) = refused(capsys, "-s", "what://me:secret@there/db", *RUN)
    assert "what://me:***@there/db" in line


def test_texts_are_cut_to_the_width_of_their_columns(in_tmp, monkeypatch):
    """PostgreSQL refuses longer ones."""
    monkeypatch.setattr(experiment.ex, "path", "b" * 100)
    command("-s", "sqlite:///runs.db", *RUN)
    assert sql_rows("runs.db", "select name from experiment") == [{"name": "b" * 32}]


@pytest.fixture(scope="module")
def postgres():
    with servers.postgres() as server:
        yield server


def postgres_rows(server, query):
    import sqlalchemy

    engine = sqlalchemy.create_engine(server.url)
    with engine.connect() as connection:
        rows = [dict(row._mapping) for row in connection.execute(sqlalchemy.text(query))]
    engine.dispose()
    return rows


def stop_after_the_first_epoch(monkeypatch, server):
    """Stop a server once the first epoch has been recorded there."""
    write = session.log

    def log_and_stop(run, epoch):
        if epoch.number == 2:
            run._emit_heartbeat()
            server.stop()
        write(run, epoch)

    monkeypatch.setattr(session, "log", log_and_stop)


@pytest.mark.slow
def test_postgresql_receives_all_that_ours_records(in_tmp, capsys, postgres):
    command("-s", postgres.url, *RUN)
    assert capsys.readouterr().err == ""
    (run,) = postgres_rows(postgres, "select * from run")
    artifacts = postgres_rows(postgres, "select filename, content from artifact")
    check_sql(run, {row["filename"]: bytes(row["content"]) for row in artifacts})


@pytest.mark.slow
def test_a_wrong_password_of_postgresql_is_one_line(in_tmp, capsys, postgres):
    (line,) = refused(capsys, "-s", postgres.url.replace(servers.PASSWORD, "wrong"), *RUN)
    assert line.startswith("error: --sql=postgresql+psycopg://bbb:***@/postgres?host=")
    assert "password authentication failed" in line
    assert [*in_tmp.iterdir()] == []


@pytest.mark.slow
def test_a_wrong_address_of_postgresql_is_one_line(in_tmp, capsys):
    (line,) = refused(capsys, "-s", f"postgresql+psycopg://me:secret@127.0.0.1:{servers.free_port()}/db", *RUN)
    assert "Connection refused" in line
    assert "secret" not in line
    assert [*in_tmp.iterdir()] == []


def check_stopped(capsys, name):
    """Our record is whole, and one line says what the other misses."""
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"warning: {name}")
    assert "its record misses the metrics from epoch 2 on, log.txt, weights.safetensors, training.png, the res" in line
    assert line.endswith(f"; {OURS} has everything")
    record = read(OURS / "run.json")
    assert (record["status"], record["artifacts"]) == ("COMPLETED", ARTIFACTS)
    assert read(OURS / "metrics.json")["train.nll"]["steps"] == [1, 2]


@pytest.mark.slow
def test_postgresql_that_stops_in_mid_run_harms_nothing(in_tmp, capsys, monkeypatch):
    with servers.postgres() as server:
        stop_after_the_first_epoch(monkeypatch, server)
        command("-s", server.url, *RUN)
        check_stopped(capsys, "--sql=postgresql+psycopg://bbb:***@")
        server.start()
        (run,) = postgres_rows(server, "select * from run")
    assert run["status"] == "RUNNING"
    assert json.loads(run["info"])["metrics"]["train.nll"]["steps"] == [1], "a heartbeat is written when it comes"


@pytest.mark.slow
def test_postgresql_that_is_away_for_a_while_gets_everything(in_tmp, capsys, monkeypatch):
    with servers.postgres() as server:
        stop_after_the_first_epoch(monkeypatch, server)
        publish = runs.publish
        evaluate = session.Shown.test
        started = []

        def start_again(shown, *args):
            if not started:
                shown.run._emit_heartbeat()  # which fails
                server.start()
                started.append(True)
            evaluate(shown, *args)

        monkeypatch.setattr(session.Shown, "test", start_again)
        monkeypatch.setattr(session.runs, "publish", publish)
        command("-s", server.url, *RUN)
        assert capsys.readouterr().err == ""
        (run,) = postgres_rows(server, "select * from run")
        artifacts = postgres_rows(server, "select filename, content from artifact")
        check_sql(run, {row["filename"]: bytes(row["content"]) for row in artifacts})


@pytest.mark.slow
def test_a_server_of_mongodbs_protocol_receives_all_that_ours_records(in_tmp, tmp_path_factory, capsys):
    """By the real driver, but not by MongoDB itself, which no package registry has."""
    gridfs, pymongo = pytest.importorskip("gridfs"), pytest.importorskip("pymongo")
    with servers.mongo(tmp_path_factory.mktemp("mongo")) as server:
        for _ in range(2):
            command("-m", server.address, *RUN)
        assert capsys.readouterr().err == ""
        with pymongo.MongoClient("127.0.0.1", server.port) as client:
            first, second = client.sacred.runs.find().sort("_id")
            metrics = {m["name"]: (m["steps"], m["values"]) for m in client.sacred.metrics.find({"run_id": 1})}
            store = gridfs.GridFS(client.sacred)
            files = {file["name"]: store.get(file["file_id"]).read() for file in first["artifacts"]}
    ours = read(OURS / "run.json")
    assert (first["_id"], second["_id"]) == (1, 2)
    assert (first["status"], first["result"]) == ("COMPLETED", ours["result"])
    assert first["config"] == read(OURS / "config.json")
    assert first["captured_out"] == (OURS / "cout.txt").read_text()
    assert first["info"]["folder"] == str(OURS)
    assert {metric["name"] for metric in first["info"]["metrics"]} == METRICS
    assert metrics == {name: (m["steps"], m["values"]) for name, m in read(OURS / "metrics.json").items()}
    assert files == {name: (OURS / name).read_bytes() for name in ARTIFACTS}


@pytest.mark.slow
def test_a_server_of_mongodbs_protocol_that_stops_in_mid_run_harms_nothing(
    in_tmp, tmp_path_factory, capsys, monkeypatch
):
    with servers.mongo(tmp_path_factory.mktemp("mongo")) as server:
        stop_after_the_first_epoch(monkeypatch, server)
        command("-m", server.address, *RUN)
        check_stopped(capsys, f"--mongo_db={server.address}")


@pytest.mark.slow
def test_mongodb_that_is_not_there_is_one_line(in_tmp, capsys):
    pytest.importorskip("pymongo")
    (line,) = refused(capsys, "-m", f"127.0.0.1:{servers.free_port()}:sacred", *RUN)
    assert "Connection refused" in line
    assert [*in_tmp.iterdir()] == []


S3_PLACE = {"AWS_ACCESS_KEY_ID": "me", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_DEFAULT_REGION": "eu-north-1"}
S3_PLACE |= {"AWS_REQUEST_CHECKSUM_CALCULATION": "when_required", "AWS_EC2_METADATA_DISABLED": "true"}


@pytest.mark.slow
@pytest.mark.filterwarnings(
    "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)  # Sacred leaves the files open that it sends
def test_s3_receives_all_that_ours_records(in_tmp, capsys, monkeypatch):
    """By the real driver, from a server that keeps the little of S3 that Sacred uses."""
    pytest.importorskip("boto3")
    with servers.s3() as (address, kept):
        for name, value in {**S3_PLACE, "AWS_ENDPOINT_URL": address}.items():
            monkeypatch.setenv(name, value)
        command("-b", "0.2", "-S", "s3://a-bucket/runs", *RUN)
        gc.collect()
    assert capsys.readouterr().err == ""
    files = {path.removeprefix("/a-bucket/runs/1/"): content for path, content in kept.items()}
    theirs, ours = json.loads(files["run.json"]), read(OURS / "run.json")
    assert {**theirs, "heartbeat": 0, "experiment": 0} == {**ours, "heartbeat": 0, "experiment": 0}
    assert json.loads(files["config.json"]) == read(OURS / "config.json")
    assert json.loads(files["metrics.json"]) == read(OURS / "metrics.json")
    assert {name: files[name] for name in ARTIFACTS} == {name: (OURS / name).read_bytes() for name in ARTIFACTS}
    assert files["cout.txt"] == (OURS / "cout.txt").read_bytes(), "all of it, not the last part"


@pytest.mark.slow
def test_s3_without_a_region_is_one_line(in_tmp, capsys, monkeypatch):
    pytest.importorskip("boto3")
    for name in (*S3_PLACE, "AWS_REGION", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(in_tmp / "none"))
    (line,) = refused(capsys, "-S", "s3://a-bucket/runs", *RUN)
    assert "region" in line
    assert [*in_tmp.iterdir()] == []


def test_files_of_two_folders_are_kept_apart(in_tmp, observe):
    """An observer of Sacred's for files, added in Python, is none of ours."""
    observe(FileStorageObserver("files"))
    command(*RUN)
    assert read("files/1/run.json")["artifacts"] == read(OURS / "run.json")["artifacts"] == ARTIFACTS
