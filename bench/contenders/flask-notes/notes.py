"""The API of examples/notes, as it is written in Flask with psycopg: new notes, and the list."""

from flask import Flask, abort, request
from psycopg.rows import dict_row
from psycopg_pool import ConnectionPool
from werkzeug.exceptions import HTTPException

TABLE = """
    CREATE TABLE IF NOT EXISTS notes (
        number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        id uuid NOT NULL UNIQUE DEFAULT uuidv7(),
        title text NOT NULL,
        text text NOT NULL,
        created_at timestamptz NOT NULL DEFAULT now()
    )
"""
COLUMNS = """
    id, title, text, number,
    to_char(created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"') AS created_at
"""
CREATE = f"INSERT INTO notes (title, text) VALUES (%s, %s) RETURNING {COLUMNS}"
LIST = f"SELECT {COLUMNS} FROM notes WHERE number < %s ORDER BY number DESC LIMIT %s"

# Fewest and most characters.
LENGTHS = {"title": (1, 100), "text": (0, 10_000)}

app = Flask(__name__)
app.config["MAX_CONTENT_LENGTH"] = 128 * 1024

# gunicorn's workers import this module after the fork, so each has its own pool. One connection at first, and no more
# with these workers, which handle one request at a time; default 4.
# Each statement commits, as in Rust: a transaction for one is two messages more.
pool = ConnectionPool(min_size=1, max_size=4, kwargs={"row_factory": dict_row, "autocommit": True}, open=True)

with pool.connection() as connection, connection.transaction():
    # Two workers that create the table at the same time: one would fail.
    connection.execute("SELECT pg_advisory_xact_lock(1)")
    connection.execute(TABLE)


@app.errorhandler(HTTPException)
def error(exception):
    return {"status": exception.code, "error": exception.description}, exception.code


def is_text(value, least, most):
    # PostgreSQL's text has no U+0000.
    return isinstance(value, str) and least <= len(value) <= most and "\0" not in value


def number(name, most, default):
    """A number from 1 to `most` in the query."""
    text = request.args.get(name, str(default))
    try:
        value = int(text)
    except ValueError:
        value = 0
    if not 1 <= value <= most:
        abort(400, f"{name} is '{text}': expected a number from 1 to {most}")
    return value


@app.post("/api/notes")
def create():
    body = request.get_json()
    if not isinstance(body, dict):
        abort(422, "expected an object")
    wrong = {
        name: f"expected {least} to {most} characters"
        for name, (least, most) in LENGTHS.items()
        if not is_text(body.get(name), least, most)
    }
    if wrong:
        return {"status": 422, "error": "The note is not valid.", "fields": wrong}, 422
    with pool.connection() as connection:
        note = connection.execute(CREATE, (body["title"], body["text"])).fetchone()
    del note["number"]
    return note, 201, {"Location": f"/api/notes/{note['id']}"}


@app.get("/api/notes")
def newest():
    before = number("before", 2**63 - 1, 2**63 - 1)
    limit = number("limit", 100, 20)
    with pool.connection() as connection:
        # One more, to see whether there is a next page.
        notes = connection.execute(LIST, (before, limit + 1)).fetchall()
    more = len(notes) > limit
    notes = notes[:limit]
    following = f"?before={notes[-1]['number']}&limit={limit}" if more else None
    for note in notes:
        del note["number"]
    return {"notes": notes, "next": following}
