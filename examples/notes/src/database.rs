//! The database: a pool of connections, migrations at the start, and deadlines, so that no handler waits for it long.

use std::{env, fs, path::PathBuf, process, time::Duration};

use api::error;
use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use sqlx::{
    PgPool, Postgres,
    migrate::MigrateError,
    pool::PoolConnection,
    postgres::{PgConnectOptions, PgPoolOptions, PgSslMode},
};
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};
use tracing::{error, info, warn};

/// The variables, for `--help`.
pub const SETTINGS: &str = "\
  API_DATABASE_HOST=database     host name of the PostgreSQL server
  API_DATABASE_PASSWORD_FILE     required: a file with the password of its user `notes`
";

/// Connections of a replica. Ten replicas, twice as many during a roll-out, have 80 of the server's 100 (its default).
const CONNECTIONS: u32 = 4;

/// Time to get a connection, which is tested before it is used. An idle server takes 20 ms to open one, and a busy
/// machine some hundreds; longer than that, the server is down, and the client gets 503.
const CONNECT: Duration = Duration::from_millis(700);

/// Time for a query, after which the server ends it. With [`CONNECT`] less than two seconds, and much less than the
/// deadline of handlers (`API_REQUEST_TIMEOUT`).
const QUERY: Duration = Duration::from_millis(800);

/// Time for a query until the server is taken for dead. A bit longer, because what the server has ended was not carried
/// out, which is not known of what got no response.
const SILENCE: Duration = Duration::from_millis(900);

/// Time for a statement of a migration, which may rewrite a table, or wait until another replica has migrated.
const MIGRATION: Duration = Duration::from_secs(60);

/// Pause before migrations are tried again.
const PAUSE: Duration = Duration::from_millis(200);

/// The database. Clones share their connections.
#[derive(Clone)]
pub struct Database {
    pool: PgPool,
    migrated: watch::Receiver<bool>,
}

impl Database {
    /// The database in the environment. Does not wait for it: it may come later than this replica, and go.
    ///
    /// # Errors
    ///
    /// A line that names the variable, its value, and what was expected.
    pub fn from_env() -> Result<Self, String> {
        let host = env::var("API_DATABASE_HOST").unwrap_or_else(|_| "database".to_owned());
        let options = PgConnectOptions::new_without_pgpass()
            .host(&host)
            .username("notes")
            .database("notes")
            .password(&password()?)
            .ssl_mode(PgSslMode::Disable)
            .application_name("notes");
        let (done, migrated) = watch::channel(false);
        tokio::spawn(migrate(with_limit(&options, MIGRATION), done));
        let pool = PgPoolOptions::new()
            .max_connections(CONNECTIONS)
            .acquire_timeout(CONNECT)
            .connect_lazy_with(with_limit(&options, QUERY));
        Ok(Self { pool, migrated })
    }

    /// A connection that works.
    ///
    /// # Errors
    ///
    /// [`Error::Unavailable`].
    pub async fn connect(&self) -> Result<PoolConnection<Postgres>, Error> {
        let connection = async {
            // Requests to a replica that has just started wait for its migrations.
            let migrated = self.migrated.clone().wait_for(|done| *done).await.is_ok();
            match migrated {
                true => self.pool.acquire().await,
                false => Err(sqlx::Error::PoolClosed),
            }
        };
        let result = timeout(CONNECT, connection).await;
        let result = result.unwrap_or(Err(sqlx::Error::PoolTimedOut));
        result.map_err(|error| {
            warn!(%error, "no connection to the database");
            Error::Unavailable
        })
    }
}

/// The password, from the file that the environment names.
fn password() -> Result<String, String> {
    const NAME: &str = "API_DATABASE_PASSWORD_FILE";
    let Some(file) = env::var_os(NAME).map(PathBuf::from) else {
        return Err(format!("{NAME} is not set: expected the path of a file"));
    };
    let wrong = |reason: &str| {
        let file = file.display();
        format!("{NAME} is '{file}': expected a file with the password: {reason}")
    };
    let password = fs::read_to_string(&file).map_err(|error| wrong(&error.to_string()))?;
    match password.trim_end() {
        "" => Err(wrong("it is empty")),
        password => Ok(password.to_owned()),
    }
}

/// The server ends statements that take longer: a client that stops waiting does not stop them.
fn with_limit(options: &PgConnectOptions, limit: Duration) -> PgConnectOptions {
    let limit = limit.as_millis().to_string();
    options.clone().options([("statement_timeout", limit)])
}

/// Migrates once the database is there. Only one replica at a time does, and the others wait for it.
async fn migrate(options: PgConnectOptions, done: watch::Sender<bool>) {
    let mut migrations = sqlx::migrate!();
    // A version that was rolled back finds migrations that it does not know.
    migrations.set_ignore_missing(true);
    let pool = PgPoolOptions::new()
        .max_connections(1)
        .acquire_timeout(CONNECT)
        .connect_lazy_with(options);
    loop {
        match timeout(2 * MIGRATION, migrations.run(&pool)).await {
            Ok(Ok(())) => break,
            // The database refuses it. A replica that ends stops a roll-out, and the old version serves.
            Ok(Err(error)) if is_refused(&error) => {
                error!(%error, "a migration failed");
                eprintln!("a migration failed: {error}");
                process::exit(1);
            }
            Ok(Err(error)) => warn!(%error, "waiting for the database"),
            Err(error) => warn!(%error, "waiting for the database"),
        }
        sleep(PAUSE).await;
    }
    pool.close().await;
    info!("the database is up to date");
    done.send_replace(true);
}

/// Whether a migration cannot succeed later either.
fn is_refused(error: &MigrateError) -> bool {
    match error {
        MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => {
            matches!(Error::of(error), Error::Failed)
        }
        _ => true,
    }
}

/// The result of a query, within [`SILENCE`].
///
/// # Errors
///
/// Why there is none.
pub async fn within<T>(query: impl Future<Output = sqlx::Result<T>>) -> Result<T, Error> {
    match timeout(SILENCE, query).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => {
            let of = Error::of(&error);
            error!(%error, "a query failed");
            Err(of)
        }
        Err(_) => {
            error!("a query timed out");
            Err(Error::Lost)
        }
    }
}

/// Why a query has no result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// It was not carried out: the database is down, or full, or ended it.
    Unavailable,
    /// The connection broke or is silent: it may have been carried out.
    Lost,
    /// The database refused it, which is a defect of this program.
    Failed,
}

impl Error {
    /// What an error of a query means, by its SQLSTATE if the database sent one:
    /// <https://www.postgresql.org/docs/18/errcodes-appendix.html>.
    fn of(error: &sqlx::Error) -> Self {
        let code = match error {
            sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed => return Self::Unavailable,
            sqlx::Error::Io(_) | sqlx::Error::Protocol(_) => return Self::Lost,
            sqlx::Error::Database(error) => error.code().unwrap_or_default(),
            _ => return Self::Failed,
        };
        match code.get(..2) {
            // No connection, authorization, rollback (deadlock), resources (disk, memory, connections), locks,
            // intervention (shutdown, time limit), a failure of the system.
            Some("08" | "28" | "40" | "53" | "55" | "57" | "58") => Self::Unavailable,
            // A standby.
            _ if code == "25006" => Self::Unavailable,
            _ => Self::Failed,
        }
    }

    /// The same for a request that a client must not repeat when it may have been carried out.
    pub fn once(self) -> Response {
        match self {
            Self::Lost => error(
                StatusCode::GATEWAY_TIMEOUT,
                "The database did not respond in time. The note may have been stored.",
            ),
            other => other.into_response(),
        }
    }
}

impl IntoResponse for Error {
    /// 503 when the request may be sent again, else 500.
    fn into_response(self) -> Response {
        match self {
            Self::Unavailable | Self::Lost => {
                let sentence = "The database is not available. Try again soon.";
                let mut response = error(StatusCode::SERVICE_UNAVAILABLE, sentence);
                let headers = response.headers_mut();
                headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
                response
            }
            Self::Failed => error(
                StatusCode::INTERNAL_SERVER_ERROR,
                "The database refused the query; the log says why, under the id in X-Request-ID.",
            ),
        }
    }
}
