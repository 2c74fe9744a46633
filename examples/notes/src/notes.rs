//! The routes of the notes and their handlers.

use api::error;
use axum::{
    Json, Router,
    extract::{DefaultBodyLimit, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use serde::Serialize;
use sqlx::FromRow;
use uuid::Uuid;

use crate::{
    database::{Database, Error, within},
    input::{Content, Id, Page},
};

/// Largest body, in bytes: the longest text, with each character escaped.
const BODY: usize = 128 * 1024;

/// The routes under `/api/notes`.
pub fn router(database: Database) -> Router {
    Router::new()
        .route("/api/notes", get(list).post(create))
        .route("/api/notes/{id}", get(read).put(store).delete(remove))
        .layer(DefaultBodyLimit::max(BODY))
        .with_state(database)
}

/// A note, as clients see it.
#[derive(FromRow, Serialize)]
struct Note {
    id: Uuid,
    title: String,
    text: String,
    /// RFC 3339, UTC, with milliseconds.
    created_at: String,
    /// Its place in the list.
    #[serde(skip)]
    number: i64,
    /// Whether this request has created it.
    #[serde(skip)]
    #[sqlx(default)]
    created: bool,
}

/// A part of the list.
#[derive(Serialize)]
struct List {
    /// The newest first.
    notes: Vec<Note>,
    /// The query for the next part, if there is one.
    next: Option<String>,
}

/// The columns of a [`Note`].
macro_rules! columns {
    () => {
        r#"id, title, text, number,
        to_char(created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"') AS created_at"#
    };
}

const LIST: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM notes WHERE number < $1 ORDER BY number DESC LIMIT $2"
);

const READ: &str = concat!("SELECT ", columns!(), " FROM notes WHERE id = $1");

const CREATE: &str = concat!(
    "INSERT INTO notes (title, text) VALUES ($1, $2) RETURNING true AS created, ",
    columns!()
);

// A row has no deleting transaction (xmax) when it was inserted.
const STORE: &str = concat!(
    "INSERT INTO notes (id, title, text) VALUES ($1, $2, $3) ",
    "ON CONFLICT (id) DO UPDATE SET title = excluded.title, text = excluded.text ",
    "RETURNING xmax = 0 AS created, ",
    columns!()
);

const REMOVE: &str = "DELETE FROM notes WHERE id = $1";

impl IntoResponse for Note {
    /// 201 with `Location` for a new note, else 200.
    fn into_response(self) -> Response {
        match self.created {
            true => {
                let location = [(header::LOCATION, format!("/api/notes/{}", self.id))];
                (StatusCode::CREATED, location, Json(self)).into_response()
            }
            false => Json(self).into_response(),
        }
    }
}

/// `GET /api/notes?before=NUMBER&limit=NUMBER`: the newest notes, and the query for the next page.
async fn list(State(database): State<Database>, page: Page) -> Result<Json<List>, Error> {
    let mut connection = database.connect().await?;
    let notes = sqlx::query_as(LIST)
        .bind(page.before)
        // One more, to see whether there is a next page.
        .bind(page.limit + 1)
        .fetch_all(&mut *connection);
    let mut notes: Vec<Note> = within(notes).await?;
    let more = notes.len() > page.limit as usize;
    notes.truncate(page.limit as usize);
    let last = notes.last().filter(|_| more);
    let next = last.map(|last| format!("?before={}&limit={}", last.number, page.limit));
    Ok(Json(List { notes, next }))
}

/// `GET /api/notes/{id}`.
async fn read(State(database): State<Database>, Id(id): Id) -> Result<Response, Error> {
    let mut connection = database.connect().await?;
    let note = sqlx::query_as::<_, Note>(READ)
        .bind(id)
        .fetch_optional(&mut *connection);
    Ok(match within(note).await? {
        Some(note) => note.into_response(),
        None => error(StatusCode::NOT_FOUND, "There is no note with this id."),
    })
}

/// `POST /api/notes`: a new note, with an id of the database. The proxy never repeats it.
async fn create(State(database): State<Database>, content: Content) -> Result<Note, Response> {
    let mut connection = database.connect().await.map_err(Error::once)?;
    let note = sqlx::query_as(CREATE)
        .bind(content.title)
        .bind(content.text)
        .fetch_one(&mut *connection);
    within(note).await.map_err(Error::once)
}

/// `PUT /api/notes/{id}`: the note with this id, new or replaced. May be repeated: the note is there once.
async fn store(
    State(database): State<Database>,
    Id(id): Id,
    content: Content,
) -> Result<Note, Error> {
    let mut connection = database.connect().await?;
    let note = sqlx::query_as(STORE)
        .bind(id)
        .bind(content.title)
        .bind(content.text)
        .fetch_one(&mut *connection);
    within(note).await
}

/// `DELETE /api/notes/{id}`. 204 even if there was no such note: the proxy may have repeated the request.
async fn remove(State(database): State<Database>, Id(id): Id) -> Result<StatusCode, Error> {
    let mut connection = database.connect().await?;
    within(sqlx::query(REMOVE).bind(id).execute(&mut *connection)).await?;
    Ok(StatusCode::NO_CONTENT)
}
