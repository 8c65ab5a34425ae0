"""The observers of a run: those of the command line and those added in Python, each guarded."""

import re
from collections.abc import Mapping
from functools import partial
from importlib.util import find_spec
from types import SimpleNamespace
from typing import Any

from sacred import Experiment
from sacred.observers import FileStorageObserver, MongoObserver, RunObserver, SqlObserver, TinyDbObserver
from sacred.observers.mongo import get_pattern, parse_mongo_db_arg
from sacred.observers.s3_observer import s3_option
from sacred.run import Run

from bbb.cli.guarded import Guarded, without_password
from bbb.cli.recorder import Recorder
from bbb.system import InputError, refusing_bad_input

# Sacred's options that need packages which are not among the requirements: the modules, and the packages they are in.
_NEEDS = {
    "mongo_db": {"pymongo": "pymongo"},
    "sql": {"sqlalchemy": "sqlalchemy"},
    "tiny_db": {"tinydb": "tinydb", "tinydb_serialization": "tinydb-serialization", "hashfs": "hashfs"},
    "s3": {"boto3": "boto3"},
}
_DRIVERS = {"psycopg": "'psycopg[binary]'", "psycopg2": "psycopg2-binary", "MySQLdb": "mysqlclient"}  # their packages
_PRIORITIES = {"sql": 40, "mongo_db": 30, "s3": 20, "file_storage": 20, "tiny_db": 0}  # as Sacred has them
_MONGO_MS = 5000  # how long to look for a server; the driver's own 30 s would hold up the end of a run


class MongoRecord(MongoObserver):
    """Sacred's record in MongoDB, whose connections are closed in the end."""

    def join(self) -> None:
        """Close the connections."""
        self.runs.database.client.close()


class ObservedExperiment(Experiment):
    """Sacred's experiment, whose observers are guarded: they begin when the run does, and cannot harm it."""

    def _create_run(
        self,
        command_name: str | None = None,
        config_updates: dict[str, Any] | None = None,
        named_configs: Any = (),
        info: dict[str, Any] | None = None,
        meta_info: dict[str, Any] | None = None,
        options: dict[str, Any] | None = None,
    ) -> Run:
        given = dict(options or {})
        asked = {option: given.pop(f"--{option}") for option in _PRIORITIES if given.get(f"--{option}")}
        with refusing_bad_input():
            check_observers(asked)
        run = super()._create_run(command_name, config_updates, named_configs, info, meta_info, given)
        run.meta_info["options"] |= {f"--{option}": without_password(str(value)) for option, value in asked.items()}
        run.observers = [_guarded(observer) for observer in run.observers]
        for option, value in asked.items():
            name = f"--{option}={without_password(value)}"
            run.observers.append(Guarded(name, partial(_make, option, value), _PRIORITIES[option]))
        return run


def check_observers(asked: Mapping[str, str]) -> None:
    """Refuse options that need what is not installed, or whose value is no address.

    Args:
        asked: Sacred's options for observers that were given, and their values.

    Raises:
        bbb.system.InputError: one of them will not do.
    """
    for option, value in asked.items():
        missing = [package for module, package in _NEEDS.get(option, {}).items() if find_spec(module) is None]
        if missing:
            raise InputError(f"--{option}: needs what is not installed; run: pip install {' '.join(missing)}")
        if option == "sql":
            _check_database(value)
        if option == "mongo_db" and not re.match(get_pattern(), value):
            raise InputError(f"--mongo_db={value}: must be HOST:PORT:DATABASE, or DATABASE on this machine")
        if option == "s3" and not re.fullmatch("s3://[^/]+/.+", value):
            raise InputError(f"--s3={value}: must be s3://BUCKET/FOLDER")


def _check_database(address: str) -> None:
    """Refuse the address of a database that SQLAlchemy does not know, or has no driver for.

    Raises:
        bbb.system.InputError: the message says what to do.
    """
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError, NoSuchModuleError

    forms = "sqlite:///FILE or postgresql+psycopg://USER:PASSWORD@HOST/DATABASE"
    try:
        make_url(address).get_dialect().import_dbapi()
    except ImportError as error:
        module = (error.name or "").partition(".")[0]
        other = "; or write postgresql+psycopg://" if module == "psycopg2" else ""
        package = _DRIVERS.get(module, module)
        raise InputError(f"--sql: needs what is not installed; run: pip install {package}{other}") from None
    except (ArgumentError, NoSuchModuleError):
        raise InputError(f"--sql={without_password(address)}: must be an address such as {forms}") from None


def _make(option: str, value: str) -> RunObserver:
    """Make the observer that an option asks for."""
    if option == "sql":
        from bbb.cli.sql import SqlRecord  # SQLAlchemy need not be installed

        return SqlRecord(value)
    if option == "mongo_db":
        return MongoRecord(**parse_mongo_db_arg(value), serverSelectionTimeoutMS=_MONGO_MS)
    if option == "tiny_db":
        return TinyDbObserver(value)
    if option == "file_storage":
        return FileStorageObserver(value)
    holder = SimpleNamespace(observers=[])
    s3_option(value, holder)
    return holder.observers[0]


def _guarded(observer: RunObserver) -> RunObserver:
    """Guard an observer that was added in Python."""
    if isinstance(observer, Recorder | Guarded):
        return observer
    return Guarded(type(observer).__name__, partial(_mended, observer), observer.priority)


def _mended(observer: RunObserver) -> RunObserver:
    """Replace Sacred's observer of SQL databases, which fails on results like ours."""
    if type(observer) is not SqlObserver:
        return observer
    from bbb.cli.sql import SqlRecord

    return SqlRecord.create_from(observer.engine, observer.session, observer.priority)
