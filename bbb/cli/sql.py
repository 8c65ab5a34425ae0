"""Sacred's record of a run in an SQL database, where a result may be more than a number."""

import json
from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa
from sacred.observers import SqlObserver
from sacred.serializer import flatten
from sqlalchemy import event
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session, object_session


class SqlRecord(SqlObserver):
    """Sacred's SQL observer, mended in four places.

    The column for the result takes one number: that is the test error, or the RMSE, and ``info`` has the whole result.
    Heartbeats, which come from another thread, are written when they come. A failure is rolled back, so that the next
    event can be written. Texts are cut to the width of their columns, which PostgreSQL insists on.
    """

    def heartbeat_event(self, info: Mapping[str, Any], captured_out: str, beat_time: Any, result: Any) -> None:
        """Write what has been measured and printed."""
        super().heartbeat_event(_with_result(info, result), captured_out, beat_time, _score(result))

    def completed_event(self, stop_time: Any, result: Any) -> None:
        """Write the result."""
        run: Any = self.run  # Sacred declares None
        run.info = json.dumps(flatten(_with_result(json.loads(run.info or "{}"), result)))
        super().completed_event(stop_time, _score(result))

    def save(self) -> None:
        """Write what has changed, in the session that holds the run, whichever thread this is."""
        session = object_session(self.run) or self.session()
        try:
            session.commit()
        except SQLAlchemyError:
            session.rollback()
            raise

    def join(self) -> None:
        """Close the connections."""
        self.session.remove()
        self.engine.dispose()

    def _add_event(self, *args: Any, **kwargs: Any) -> Any:
        session = self.session()
        if not event.contains(session, "before_flush", _cut_texts):
            event.listen(session, "before_flush", _cut_texts)
        with session.no_autoflush:  # Sacred's classes are linked before they are added, which would warn
            return super()._add_event(*args, **kwargs)


def _with_result(info: Mapping[str, Any], result: Any) -> dict[str, Any]:
    return {**info, "result": result} if result is not None else {**info}


def _score(result: Any) -> Any:
    """Choose the number that stands for a result."""
    return result.get("test_error", result.get("test_rmse")) if isinstance(result, Mapping) else result


def _cut_texts(session: Session, *_: object) -> None:
    for instance in session.new:
        for name, column in sa.inspect(type(instance)).columns.items():
            value, width = getattr(instance, name), getattr(column.type, "length", None)
            if isinstance(value, str) and width is not None:
                setattr(instance, name, value[:width])
